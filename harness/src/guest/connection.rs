//! One SSH session over one TCP connection, asked one command at a time. Keeping several of them is the job of `pool`.
//!
//! libssh2 is used without blocking from the first byte on: every call is repeated until it is done, and between two calls
//! the thread waits in `poll` for the socket, the deadline, or the signal to give up. A session belongs to whoever holds
//! the [`Connection`]; commands take it by `&mut`, so the compiler keeps a second thread out (libssh2 would not survive it).

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, MethodType, Session};

use super::captured::{Captured, Exit, Unfinished};
use super::error::{AskError, OpenError};
use super::identity::{Identity, PublicKey, fingerprint};
use super::stop::{Stop, StopReason};
use crate::wait::{self, Probe};

/// The most bytes of both streams together that are kept of one command. A command that writes more is stopped, and has no
/// result: half an output would let a check pass that must not (`not_contains`). It keeps the harness small, too. What is
/// bigger goes into a file in the guest.
pub const MOST_OUTPUT: usize = 24 << 20;

/// Bytes taken from libssh2 in one read.
const READ_SIZE: usize = 64 << 10;
/// How long past its deadline a command may take to be killed in the guest, at most.
const KILL_GRACE: Duration = Duration::from_secs(3);
/// How long a finished command may take to have its channel closed before the connection is given up instead.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long a server may take to notice that the channel of the last command is gone, where it allows only one.
const REUSE_GRACE: Duration = Duration::from_millis(500);
/// A channel may be closed by the server for being silent, as OpenSSH's `ChannelTimeout` does, which counts whole seconds.
const SUSPICIOUS_SILENCE: Duration = Duration::from_millis(900);
/// The most bytes of a foreign greeting that are shown.
const MOST_SAID: usize = 120;

/// Where to go, as whom, and whom to expect.
#[derive(Debug, Clone)]
pub struct Target {
    /// The address of the SSH server.
    pub addr: SocketAddr,
    /// The account.
    pub user: String,
    /// The key to enter with.
    pub identity: Arc<Identity>,
    /// The key the server must show.
    pub host_key: PublicKey,
}

/// An authenticated SSH session. Dropping it says goodbye, if the session is in order, and closes the TCP connection.
pub struct Connection {
    session: Session,
    wire: Wire,
    buffer: Box<[u8]>,
    commands: u64,
    broken: bool,
}

impl Connection {
    /// Connects, checks the server's key and authenticates, all by `deadline`; the server must have introduced itself by
    /// `greeting_by`.
    ///
    /// # Errors
    /// Every way in which this can fail is an [`OpenError`] of its own.
    pub fn open(target: &Target, stop: &Arc<Stop>, greeting_by: Instant, deadline: Instant) -> Result<Self, OpenError> {
        let started = Instant::now();
        let stream = connect(target.addr, greeting_by.min(deadline))?;
        let wire = Wire { stream, stop: Arc::clone(stop) };
        let mut session = new_session(target, &wire).map_err(|error| OpenError::BrokenOff {
            addr: target.addr,
            during: "key exchange",
            cause: error.to_string(),
        })?;
        shake_hands(&mut session, &wire, target, started, greeting_by, deadline)?;
        check_host_key(&session, target)?;
        authenticate(&session, &wire, target, started, deadline)?;
        let buffer = vec![0; READ_SIZE].into_boxed_slice();
        Ok(Self { session, wire, buffer, commands: 0, broken: false })
    }

    /// Gives `command` to the user's login shell, sends it `stdin`, and collects both streams until it has ended and has
    /// closed its output. Without `stdin` the command reads an empty input.
    ///
    /// After an error other than a refused channel the connection is of no more use ([`Self::usable`]). A command that is
    /// given up because of the deadline or of its output is killed in the guest, with everything in its session, over a
    /// second channel; where the server allows none, or the guest is too slow for it, it only loses its streams: it ends
    /// when it next reads or writes them, and else goes on.
    ///
    /// # Errors
    /// Every way in which this can fail is an [`AskError`] of its own. A command that ran and failed is no error.
    pub fn run(&mut self, command: &str, stdin: Option<&[u8]>, deadline: Instant) -> Result<Captured, AskError> {
        if command.contains('\0') {
            return Err(AskError::NulByte);
        }
        let mut so_far = Box::new(Unfinished::default());
        let patience = if self.commands == 0 { Duration::ZERO } else { REUSE_GRACE };
        let outcome = self.begin(patience, deadline).and_then(|mut channel| {
            let started = Instant::now();
            so_far.sent = true;
            let ended = self.converse(&mut channel, command, stdin.unwrap_or_default(), &mut so_far, deadline);
            so_far.took = started.elapsed();
            match ended {
                Ok((Exit::Status(0), silence)) if silence >= SUSPICIOUS_SILENCE => {
                    drop(channel);
                    self.confirm_end(deadline).map(|()| Exit::Status(0))
                }
                Ok((exit, _)) => Ok(exit),
                Err(halt) => Err(self.abandon(channel, halt)),
            }
        });
        match outcome {
            Ok(exit) => {
                self.commands += 1;
                let Unfinished { sent: _, stdout, stderr, took } = *so_far;
                Ok(Captured { exit, stdout, stderr, took })
            }
            Err(halt) => Err(self.why(halt, so_far)),
        }
    }

    /// Tells whether another command may be sent. Of an idle connection it also asks whether the peer has closed it.
    pub fn usable(&self) -> bool {
        !self.broken && !self.wire.ended()
    }

    /// Opens a channel. A server that allows one channel only may need a moment to forget the last one.
    fn begin(&self, patience: Duration, deadline: Instant) -> Result<Channel, Halt> {
        let mut last = None;
        let opened = wait::until(deadline.min(Instant::now() + patience), || {
            match self.wire.repeat(&self.session, deadline, || self.session.channel_session()) {
                Err(Halt::Failed(failure)) if failure.is_one_of(&Failure::REFUSALS) => {
                    last = Some(failure);
                    Ok(Probe::NotYet(String::new()))
                }
                other => other.map(Probe::Ready),
            }
        });
        opened.map_err(|error| match error {
            wait::WaitError::Never(halt) => halt,
            wait::WaitError::Deadline { .. } => Halt::Failed(last.expect("only a refusal is tried again")),
        })
    }

    /// Sends the command, feeds it, listens to it, and closes the channel in good order. Returns how the command ended, and
    /// how long the channel had been silent before.
    fn converse(
        &mut self,
        channel: &mut Channel,
        command: &str,
        mut stdin: &[u8],
        so_far: &mut Unfinished,
        deadline: Instant,
    ) -> Result<(Exit, Duration), Halt> {
        self.wire.repeat(&self.session, deadline, || channel.exec(command))?;
        let mut feeding = true;
        let mut heard = Instant::now();
        let mut silence;
        loop {
            let mut moved = feeding && feed(channel, &mut stdin, &mut feeding)?;
            moved |= drain(&mut channel.stream(0), &mut self.buffer, &mut so_far.stdout)?;
            moved |= drain(&mut channel.stderr(), &mut self.buffer, &mut so_far.stderr)?;
            silence = heard.elapsed();
            if moved {
                heard = Instant::now();
            }
            if so_far.stdout.len() + so_far.stderr.len() > MOST_OUTPUT {
                return Err(Halt::TooMuch);
            }
            if channel.eof() {
                break;
            }
            // Reading one stream may have queued bytes of the other, which the socket will not announce again.
            if moved || channel.read_window().available > 0 {
                self.wire.look(deadline)?;
            } else {
                self.wire.wait(&self.session, deadline)?;
            }
        }
        self.wire.repeat(&self.session, deadline, || channel.wait_close())?;
        let exit = exit_of(channel)?;
        // Dropping a channel that is not closed would leave it to the session, and the server with one channel too many.
        let closed = self.wire.repeat(&self.session, Instant::now() + CLOSE_GRACE, || channel.close());
        self.broken = closed.is_err();
        Ok((exit, silence))
    }

    /// Ends the session because of `halt`, and the command before it if the guest can still be told.
    fn abandon(&mut self, channel: Channel, halt: Halt) -> Halt {
        let halt = match halt {
            Halt::Deadline => Halt::Unended { too_much: false, killed: self.kill() },
            Halt::TooMuch => Halt::Unended { too_much: true, killed: self.kill() },
            other => other,
        };
        // With the stream shut down first, dropping the channel cannot wait for the peer.
        self.give_up();
        drop(channel);
        halt
    }

    /// Makes sure that a command with status 0 has ended. A server that closes a channel without a status leaves the same
    /// zero behind, and libssh2's answer to "was there a status?" is out of reach. So the guest is asked whether the
    /// command still runs, and kills it if so. One that ends in the moment in which it is cut off escapes this.
    fn confirm_end(&mut self, deadline: Instant) -> Result<(), Halt> {
        // A guest that is slow is not one that cuts off: it may take the command's own time to answer.
        let deadline = deadline.max(Instant::now() + KILL_GRACE);
        let mut ignored = Unfinished::default();
        let asked = self
            .begin(KILL_GRACE, deadline)
            .and_then(|mut channel| self.converse(&mut channel, KILL_SCRIPT, &[], &mut ignored, deadline));
        let killed = match asked {
            Ok((NOTHING_TO_KILL, _)) => return Ok(()),
            Err(Halt::Stopped(reason)) => return Err(Halt::Stopped(reason)),
            Ok((exit, _)) => exit == KILLED,
            Err(_) => false,
        };
        self.give_up();
        Err(Halt::CutOff { killed })
    }

    /// Kills what the last command left running, over a second channel. Tells whether the guest has confirmed it.
    fn kill(&mut self) -> bool {
        if matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both) {
            return false; // A packet is stuck half sent; nothing else can be sent before it.
        }
        let deadline = Instant::now() + KILL_GRACE;
        let Ok(mut channel) = self.wire.repeat(&self.session, deadline, || self.session.channel_session()) else {
            return false;
        };
        let mut ignored = Unfinished::default();
        let exit = self.converse(&mut channel, KILL_SCRIPT, &[], &mut ignored, deadline);
        let killed = matches!(exit, Ok((KILLED, _)));
        if !killed {
            self.give_up();
        }
        killed
    }

    fn why(&mut self, halt: Halt, so_far: Box<Unfinished>) -> AskError {
        match halt {
            Halt::Failed(failure) if failure.is_one_of(&Failure::REFUSALS) => {
                AskError::ChannelRefused { cause: failure.text }
            }
            Halt::Failed(failure) => {
                let what = if self.wire.ended() { "the guest closed the connection" } else { "the session broke" };
                self.give_up();
                AskError::ConnectionLost { so_far, cause: format!("{what} ({})", failure.text) }
            }
            Halt::Stopped(StopReason::Cancelled) => AskError::Cancelled { so_far },
            Halt::Stopped(StopReason::Lost(cause)) => AskError::ConnectionLost { so_far, cause },
            Halt::Unended { too_much: true, killed } => AskError::TooMuchOutput { limit: MOST_OUTPUT, so_far, killed },
            Halt::Unended { too_much: false, killed } => AskError::TimedOut { so_far, killed },
            Halt::CutOff { killed } => AskError::CutOff { so_far, killed },
            Halt::Deadline | Halt::TooMuch => {
                self.give_up();
                AskError::TimedOut { so_far, killed: false }
            }
        }
    }

    fn give_up(&mut self) {
        self.broken = true;
        self.wire.shut_down();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("commands", &self.commands)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.broken {
            // Without it the guest's journal would show a connection reset. Best effort: one small packet.
            let _ = self.session.disconnect(None, "done", None);
        }
        self.wire.shut_down();
    }
}

/// Run by the login shell beside the command that is to end. Both are children of the server's process for this connection
/// (`$PPID`), each in a session of its own. Everything in the sessions of the other children is killed. Built-ins only: the
/// guest may have few tools, and starting them costs time. Ends with [`KILLED`] or [`NOTHING_TO_KILL`].
const KILL_SCRIPT: &str = r#"exec /bin/sh -c '
sessions=" " end=11
look() {
  for stat in /proc/[0-9]*/stat; do
    line=
    { read -r line <"$stat"; } 2>/dev/null
    pid=${line%% *}
    set -- ${line##*) }
    [ "$1" = Z ] || [ -z "$4" ] || "$look" "$pid" "$2" "$4"
  done
}
note() { [ "$2" != "$PPID" ] || [ "$3" = "$own" ] || sessions="$sessions$3 "; }
end() { case $sessions in *" $3 "*) kill -KILL "$1" 2>/dev/null && end=10 ;; esac; }
read -r line </proc/$$/stat
set -- ${line##*) }
own=$4
look=note; look
look=end; look
exit $end
'"#;

/// How [`KILL_SCRIPT`] ends if it has killed something. Not with 0, which a server that cuts it off would leave, too.
const KILLED: Exit = Exit::Status(10);
/// How [`KILL_SCRIPT`] ends if nothing was left.
const NOTHING_TO_KILL: Exit = Exit::Status(11);

/// A failure of the protocol library: libssh2's code, where there is one, and its text.
struct Failure {
    code: Option<i32>,
    text: String,
}

impl Failure {
    const EAGAIN: i32 = -37;
    const REJECTIONS: [i32; 2] = [-18, -19]; // authentication failed, public key unverified
    const REFUSALS: [i32; 2] = [-21, -22]; // channel failure, request denied

    fn is_one_of(&self, codes: &[i32]) -> bool {
        self.code.is_some_and(|code| codes.contains(&code))
    }
}

impl From<ssh2::Error> for Failure {
    fn from(error: ssh2::Error) -> Self {
        let code = match error.code() {
            ErrorCode::Session(code) => Some(code),
            ErrorCode::SFTP(_) => None,
        };
        Self { code, text: error.message().to_owned() }
    }
}

impl From<ssh2::Error> for Halt {
    fn from(error: ssh2::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Failed(Failure { code: None, text: error.to_string() })
    }
}

fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(Failure::EAGAIN)
}

/// Why a conversation ended early.
enum Halt {
    /// The protocol library failed.
    Failed(Failure),
    /// The deadline passed.
    Deadline,
    /// More output than is kept.
    TooMuch,
    /// The signal to give up was given.
    Stopped(StopReason),
    /// The deadline passed or there was too much output, and the command was dealt with.
    Unended { too_much: bool, killed: bool },
    /// The server closed the channel before the command had ended.
    CutOff { killed: bool },
}

/// The TCP connection below a session: waiting for it, and ending it.
struct Wire {
    stream: TcpStream,
    stop: Arc<Stop>,
}

impl Wire {
    /// Repeats a call until libssh2 no longer says that it would block.
    fn repeat<T>(
        &self,
        session: &Session,
        deadline: Instant,
        mut call: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<T, Halt> {
        loop {
            match call() {
                Ok(value) => return Ok(value),
                Err(error) if would_block(&error) => self.wait(session, deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the socket is ready for what the session wants to do next.
    fn wait(&self, session: &Session, deadline: Instant) -> Result<(), Halt> {
        self.look(deadline)?;
        let wanted = match session.block_directions() {
            BlockDirections::Outbound | BlockDirections::Both => PollFlags::IN | PollFlags::OUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::IN,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut fds = [
            PollFd::from_borrowed_fd(self.stream.as_fd(), wanted),
            PollFd::from_borrowed_fd(self.stop.wake(), PollFlags::IN),
        ];
        // An interrupted or failed poll is a turn in vain; the caller looks at clock and signal again.
        let _ = poll(&mut fds, Some(&timeout));
        self.look(deadline)
    }

    /// Tells whether it is time to end.
    fn look(&self, deadline: Instant) -> Result<(), Halt> {
        if let Some(reason) = self.stop.reason() {
            return Err(Halt::Stopped(reason.clone()));
        }
        if Instant::now() >= deadline { Err(Halt::Deadline) } else { Ok(()) }
    }

    /// Returns the first bytes that nobody has read yet.
    fn peek(&self) -> Vec<u8> {
        let mut bytes = vec![0; MOST_SAID];
        let count = self.stream.peek(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Tells whether the peer has closed the connection and nothing is left to read.
    fn ended(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn shut_down(&self) {
        // It fails only if the peer was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream, OpenError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&addr, left).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    stream.map_err(|source| match source.kind() {
        io::ErrorKind::ConnectionRefused => OpenError::Refused { addr },
        _ => OpenError::Unreachable { addr, source },
    })
}

fn new_session(target: &Target, wire: &Wire) -> io::Result<Session> {
    let mut session = Session::new()?;
    session.set_blocking(false);
    session.set_tcp_stream(wire.stream.try_clone()?);
    // A server has several host keys. Ask for the kind we know; the others follow, so that a server without it can be
    // refused with both fingerprints.
    let known = target.host_key.algorithm();
    let others = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "rsa-sha2-512", "rsa-sha2-256"];
    let all: Vec<&str> =
        std::iter::once(known.as_str()).chain(others.into_iter().filter(|name| *name != known)).collect();
    session.method_pref(MethodType::HostKey, &all.join(","))?;
    Ok(session)
}

/// Exchanges greetings and keys.
fn shake_hands(
    session: &mut Session,
    wire: &Wire,
    target: &Target,
    started: Instant,
    greeting_by: Instant,
    deadline: Instant,
) -> Result<(), OpenError> {
    let addr = target.addr;
    let during = "key exchange";
    let greeting_by = greeting_by.min(deadline);
    let mut said = Vec::new();
    loop {
        let error = match session.handshake() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let greeted = session.banner_bytes().is_some_and(|banner| banner.starts_with(b"SSH-"));
        let halt = if would_block(&error) {
            match wire.wait(session, if greeted { deadline } else { greeting_by }) {
                Ok(()) => {
                    if !greeted && said.is_empty() {
                        said = wire.peek();
                    }
                    continue;
                }
                Err(halt) => halt,
            }
        } else {
            error.into()
        };
        let after = started.elapsed();
        return Err(match halt {
            Halt::Stopped(reason) => OpenError::Stopped(reason),
            Halt::Failed(failure) if greeted => OpenError::BrokenOff { addr, during, cause: failure.text },
            Halt::Failed(_) => not_ssh(addr, session, &said),
            _ if greeted => OpenError::TooSlow { addr, during, after },
            _ if said.is_empty() && session.banner_bytes().is_none() => OpenError::Mute { addr, after },
            _ => not_ssh(addr, session, &said),
        });
    }
}

/// Returns the error for a peer that went, or went on, without an SSH greeting.
fn not_ssh(addr: SocketAddr, session: &Session, said: &[u8]) -> OpenError {
    let said = if said.is_empty() { session.banner_bytes().unwrap_or_default() } else { said };
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let said: String =
        String::from_utf8_lossy(line).trim_end().chars().take(MOST_SAID).flat_map(char::escape_debug).collect();
    // What OpenSSH says to a connection too many, and to an address it is cross with for a while (9.8 and later).
    let refusals = ["Exceeded MaxStartups", "Not allowed at this time"];
    if said.is_empty() || refusals.iter().any(|refusal| said.starts_with(refusal)) {
        OpenError::Dropped { addr, said }
    } else {
        OpenError::NotSsh { addr, said }
    }
}

fn check_host_key(session: &Session, target: &Target) -> Result<(), OpenError> {
    let found = session.host_key().map(|(blob, _)| blob).unwrap_or_default();
    if found == target.host_key.blob() {
        return Ok(());
    }
    Err(OpenError::HostKey { addr: target.addr, expected: target.host_key.fingerprint(), found: fingerprint(found) })
}

fn authenticate(
    session: &Session,
    wire: &Wire,
    target: &Target,
    started: Instant,
    deadline: Instant,
) -> Result<(), OpenError> {
    let addr = target.addr;
    let during = "authentication";
    let pem = target.identity.private_pem();
    let entered =
        wire.repeat(session, deadline, || session.userauth_pubkey_memory(&target.user, None, pem.as_str(), None));
    entered.map_err(|halt| match halt {
        Halt::Failed(failure) if failure.is_one_of(&Failure::REJECTIONS) => {
            OpenError::Rejected { addr, user: target.user.clone(), fingerprint: target.identity.fingerprint() }
        }
        Halt::Failed(failure) => OpenError::BrokenOff { addr, during, cause: failure.text },
        Halt::Stopped(reason) => OpenError::Stopped(reason),
        Halt::Deadline | Halt::TooMuch | Halt::Unended { .. } | Halt::CutOff { .. } => {
            OpenError::TooSlow { addr, during, after: started.elapsed() }
        }
    })
}

/// Sends the next piece of `stdin`, or its end. Tells whether anything moved; clears `feeding` when there is nothing to do.
fn feed(channel: &mut Channel, stdin: &mut &[u8], feeding: &mut bool) -> Result<bool, Halt> {
    if stdin.is_empty() {
        return match channel.send_eof() {
            Err(error) if would_block(&error) => Ok(false),
            // A command that has ended already needs no end of its input. If it was the connection, reading will tell.
            Ok(()) | Err(_) => {
                *feeding = false;
                Ok(true)
            }
        };
    }
    match channel.write(stdin) {
        Ok(count) => {
            *stdin = &stdin[count..];
            Ok(count > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // The command closed its input, or has ended. If it was the connection, reading will tell.
        Err(_) => {
            *feeding = false;
            Ok(true)
        }
    }
}

/// Moves what is there of one stream to `kept`. Tells whether anything was.
fn drain(stream: &mut ssh2::Stream, buffer: &mut [u8], kept: &mut Vec<u8>) -> Result<bool, Halt> {
    match stream.read(buffer) {
        // No bytes is not the end of the stream: libssh2 also says so when other packets came.
        Ok(count) => {
            kept.extend_from_slice(&buffer[..count]);
            Ok(count > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn exit_of(channel: &Channel) -> Result<Exit, ssh2::Error> {
    // The status is 0 for a command that was killed, so the signal is asked for first.
    match channel.exit_signal()?.exit_signal {
        Some(name) => Ok(Exit::Signal(name)),
        None => Ok(Exit::Status(channel.exit_status()?)),
    }
}
