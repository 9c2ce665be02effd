//! The connections kept for one guest. Whoever asks gets one to himself; the session itself is the job of `connection`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::captured::Captured;
use super::connection::{Connection, Target};
use super::error::{AskError, OpenError};
use super::identity::{Identity, PublicKey};
use super::stop::{Stop, StopReason};
use crate::wait::{self, Probe, WaitError};

/// The most connections kept open for one guest, of all users together.
pub const MOST_CONNECTIONS: usize = 8;

/// How long the first attempt listens for the server's greeting; every further one listens twice as long. A guest that is
/// still booting loses packets, so a new attempt may be answered sooner than an old one; a busy one is only slow.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// The longest that any attempt listens.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How often a command is given to another connection when the first turns out to be gone before it was sent.
const MOST_ATTEMPTS: u32 = 3;

/// A guest that can be asked, by any number of threads. Dropping it closes its idle connections.
#[derive(Debug)]
pub struct Guest {
    addr: SocketAddr,
    identity: Arc<Identity>,
    host_key: PublicKey,
    most: usize,
    stop: Arc<Stop>,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// Who holds what.
#[derive(Debug, Default)]
struct Desk {
    /// Connections that nobody uses, with their users; the last one was used last.
    idle: Vec<(String, Connection)>,
    /// All connections: idle, in use, and the one being opened.
    open: usize,
    /// Somebody is opening one. Only one at a time: a server drops newcomers while others are still logging in.
    opening: bool,
    /// Why the last attempt to open one did not succeed.
    refused: String,
}

impl Guest {
    /// Makes a guest out of its address, the key to enter with and the host key it must show. Nothing is opened yet.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new(addr: SocketAddr, identity: Arc<Identity>, host_key: PublicKey) -> io::Result<Self> {
        Self::with_at_most(MOST_CONNECTIONS, addr, identity, host_key)
    }

    /// Like [`Guest::new`], with another limit than [`MOST_CONNECTIONS`]; at least one.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn with_at_most(
        most: usize,
        addr: SocketAddr,
        identity: Arc<Identity>,
        host_key: PublicKey,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let (desk, changed) = Default::default();
        Ok(Self { addr, identity, host_key, most: most.max(1), stop, desk, changed })
    }

    /// Runs a command as `user` and returns what it left. Blocks until then, or until `deadline`; a command that has to be
    /// killed may take a few seconds more.
    ///
    /// An idle connection is taken if there is one, else a new one is opened, else the next one is waited for. A command
    /// that was not sent because its connection was gone is given to another one; one that was sent is never sent twice.
    ///
    /// # Errors
    /// See [`AskError`]. A command that ran and failed is no error.
    pub fn run(
        &self,
        user: &str,
        command: &str,
        stdin: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Captured, AskError> {
        let mut attempts = 1;
        loop {
            let mut lease = self.lease(user, deadline, Insist::OnAnswer)?;
            let used_before = lease.used_before;
            let answer = lease.connection().run(command, stdin, deadline);
            let again = match &answer {
                Err(AskError::ConnectionLost { so_far, .. }) => !so_far.sent,
                Err(AskError::ChannelRefused { .. }) => {
                    lease.discard();
                    used_before
                }
                _ => false,
            };
            if !again || attempts == MOST_ATTEMPTS || self.stop.reason().is_some() {
                return answer;
            }
            attempts += 1;
        }
    }

    /// Opens a connection for `user` in advance, unless there is an idle one, so that the next question need not wait for
    /// it. Keeps trying until `deadline` while nothing answers yet, so it may be called before the guest is up.
    ///
    /// # Errors
    /// [`AskError::NoConnection`] if none came about, [`AskError::Busy`] if there is no room for one.
    pub fn warm(&self, user: &str, deadline: Instant) -> Result<(), AskError> {
        self.lease(user, deadline, Insist::OnPort).map(drop)
    }

    /// Closes the connections that nobody uses. The next question opens one again.
    pub fn close_idle(&self) {
        let mut desk = self.desk();
        let idle = std::mem::take(&mut desk.idle);
        desk.open -= idle.len();
        drop(desk);
        drop(idle);
        self.changed.notify_all();
    }

    /// Ends all waiting for this guest, now and in future, because it is gone. The cause becomes that of the errors.
    pub fn lost(&self, cause: impl Into<String>) {
        self.stop(StopReason::Lost(cause.into()));
    }

    /// Ends all waiting for this guest, now and in future, because nobody wants its answers any more.
    pub fn cancel(&self) {
        self.stop(StopReason::Cancelled);
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.addr
    }

    /// Whether nobody wants its answers any more.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.stop.reason(), Some(StopReason::Cancelled))
    }

    fn stop(&self, reason: StopReason) {
        self.stop.give(reason);
        // With the desk held, nobody can be between looking at the signal and going to sleep.
        let _desk = self.desk();
        self.changed.notify_all();
    }

    /// Takes an idle connection of `user`, or opens one.
    fn lease(&self, user: &str, deadline: Instant, insist: Insist) -> Result<Lease<'_>, AskError> {
        let mut desk = self.desk();
        loop {
            if let Some(reason) = self.stop.reason() {
                return Err(stopped(reason.clone()));
            }
            while let Some(at) = desk.idle.iter().rposition(|(of, _)| of == user) {
                let (user, connection) = desk.idle.remove(at);
                if connection.usable() {
                    return Ok(Lease { guest: self, user, connection: Some(connection), used_before: true });
                }
                desk.open -= 1;
                drop(connection);
            }
            if !desk.opening && self.has_room(&mut desk) {
                desk.open += 1;
                desk.opening = true;
                drop(desk);
                return self.open(user, deadline, insist);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let refused = std::mem::take(&mut desk.refused);
                return Err(if desk.opening {
                    AskError::Opening { refused }
                } else {
                    AskError::Busy { most: self.most }
                });
            }
            desk = self.changed.wait_timeout(desk, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Tells whether one more may be opened; an idle connection of another user makes room.
    fn has_room(&self, desk: &mut Desk) -> bool {
        if desk.open >= self.most && !desk.idle.is_empty() {
            desk.idle.remove(0);
            desk.open -= 1;
        }
        desk.open < self.most
    }

    /// Opens a connection; the place for it is taken already, and given back by the lease.
    fn open(&self, user: &str, deadline: Instant, insist: Insist) -> Result<Lease<'_>, AskError> {
        let opening = Opening(self);
        let mut lease = Lease { guest: self, user: user.to_owned(), connection: None, used_before: false };
        let target = Target {
            addr: self.addr,
            user: user.to_owned(),
            identity: Arc::clone(&self.identity),
            host_key: self.host_key.clone(),
        };
        let mut patience = FIRST_PATIENCE;
        let mut tries = 0;
        let mut last = None;
        let opened = wait::until(deadline, || {
            tries += 1;
            let greeting_by = Instant::now() + patience;
            // A server that drops every connection at once is asked very often.
            patience = (patience * 2).min(LONGEST_PATIENCE);
            match Connection::open(&target, &self.stop, greeting_by, deadline) {
                Err(error) if insist.may_change(&error) => {
                    self.desk().refused = error.to_string();
                    // An attempt cut short by the deadline says less than the one before it.
                    if last.is_none() || Instant::now() < deadline {
                        last = Some(error);
                    }
                    Ok(Probe::NotYet(String::new()))
                }
                other => other.map(Probe::Ready),
            }
        });
        drop(opening);
        match opened {
            Ok(connection) => {
                lease.connection = Some(connection);
                Ok(lease)
            }
            Err(WaitError::Never(OpenError::Stopped(reason))) => Err(stopped(reason)),
            Err(WaitError::Never(source)) => Err(AskError::NoConnection { tries, source }),
            Err(WaitError::Deadline { .. }) => {
                Err(AskError::NoConnection { tries, source: last.expect("a try that may change was kept") })
            }
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // The desk is in order between any two of its lines, so a panic elsewhere does not spoil it.
        self.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What an attempt to connect insists on.
#[derive(Debug, Clone, Copy)]
enum Insist {
    /// The port is there; the server behind it may be busy.
    OnAnswer,
    /// Not even the port need be there yet.
    OnPort,
}

impl Insist {
    /// Tells whether another attempt may end otherwise.
    fn may_change(self, error: &OpenError) -> bool {
        match error {
            OpenError::Mute { .. }
            | OpenError::Dropped { .. }
            | OpenError::BrokenOff { .. }
            | OpenError::TooSlow { .. } => true,
            OpenError::Refused { .. } | OpenError::Unreachable { .. } => matches!(self, Self::OnPort),
            OpenError::NotSsh { .. }
            | OpenError::HostKey { .. }
            | OpenError::Rejected { .. }
            | OpenError::Stopped(_) => false,
        }
    }
}

fn stopped(reason: StopReason) -> AskError {
    let so_far = Box::default();
    match reason {
        StopReason::Cancelled => AskError::Cancelled { so_far },
        StopReason::Lost(cause) => AskError::ConnectionLost { so_far, cause },
    }
}

/// The right to open a connection, held by one at a time.
struct Opening<'a>(&'a Guest);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.desk().opening = false;
        self.0.changed.notify_all();
    }
}

/// A connection in somebody's hands. Dropping it gives it back, or its place if it is of no more use.
struct Lease<'a> {
    guest: &'a Guest,
    user: String,
    connection: Option<Connection>,
    used_before: bool,
}

impl Lease<'_> {
    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a lease that was handed out has a connection")
    }

    /// Closes the connection.
    fn discard(&mut self) {
        self.connection = None;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // A panic may have left the session between two calls.
        let kept = self.connection.take().filter(|connection| connection.usable() && !std::thread::panicking());
        let mut desk = self.guest.desk();
        match kept {
            Some(connection) => desk.idle.push((std::mem::take(&mut self.user), connection)),
            None => desk.open -= 1,
        }
        drop(desk);
        self.guest.changed.notify_all();
    }
}
