//! A child process that cannot outlive the harness, whatever ends the harness, and that is always reaped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

/// A running child, owned by a thread that started it and waits for it.
///
/// The kernel kills the child when the thread that started it ends (`PR_SET_PDEATHSIG`), so that thread lives exactly as long as the
/// child. The child has a process group of its own: a ^C at the terminal is the harness's to handle. Dropping kills and reaps.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    // A handle that stays with this process: a signal can never hit another one that got the same number later.
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
    owner: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a command line, program first, with both output streams going to `output`.
    ///
    /// # Errors
    /// What the system said if it could not be started.
    pub fn spawn(command_line: &[OsString], output: File) -> io::Result<Self> {
        let (program, arguments) = command_line.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        die_with_harness(&mut command);

        let (started, start) = mpsc::channel();
        let (ended, exit) = watch::channel(None);
        let owner =
            std::thread::Builder::new().name("owns-child".into()).spawn(move || own(command, &started, &ended))?;
        let (pid, pidfd) = match start.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
            Ok(child) => child,
            Err(error) => {
                let _ = owner.join();
                return Err(error);
            }
        };
        Ok(Self { pid, pidfd, exit, owner: Some(owner) })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Becomes `Some` when the child has ended and has been reaped.
    #[must_use]
    pub fn exit(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exit.clone()
    }

    /// Kills the child if it still runs.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal to the child if it still runs.
    pub fn signal(&self, signal: Signal) {
        // Fails only when the child is gone already.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

/// The exit status in words: `exit status 1` or `killed by signal 9`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}

/// Runs `script` in a shell that belongs to no terminal and no group of the harness, and ignores what usually ends a process. Its standard
/// input is a pipe from the harness, so that it sees the harness's end, whatever the reason, as end of file. It is on guard when this returns.
///
/// # Errors
/// What the system said if it could not be started.
pub(super) fn spawn_guardian(script: &str, arguments: &[OsString]) -> io::Result<std::process::Child> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("trap '' INT TERM HUP QUIT; echo; exec >/dev/null; {script}"));
    command.arg("guardian").args(arguments).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    before_exec(&mut command, || rustix::process::setsid().map(drop).map_err(io::Error::from));
    let mut guardian = command.spawn()?;
    // Until it has said so, a signal could still end it.
    let said = guardian.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut [0]))?;
    if said == 1 { Ok(guardian) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What the owning thread does: starts the child, says so, waits, and tells everybody how it ended.
fn own(
    mut command: Command,
    started: &mpsc::Sender<io::Result<(Pid, OwnedFd)>>,
    ended: &watch::Sender<Option<ExitStatus>>,
) {
    let child = command.spawn().and_then(|child| {
        let pid = Pid::from_child(&child);
        Ok((child, pid, pidfd_open(pid, PidfdFlags::empty())?))
    });
    // The command holds our ends of the child's output.
    drop(command);
    match child {
        Err(error) => drop(started.send(Err(error))),
        Ok((mut child, pid, pidfd)) => {
            let _ = started.send(Ok((pid, pidfd)));
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
            ended.send_replace(Some(status));
        }
    }
}

/// Makes the child be killed when the thread that starts it ends, and so when the harness does, whatever ends it.
pub(crate) fn die_with_harness(command: &mut Command) {
    let harness = getpid();
    before_exec(command, move || die_with(harness));
}

fn die_with(harness: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The harness may have ended before the line above took effect.
    if getppid() == Some(harness) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

#[expect(
    unsafe_code,
    reason = "the only way to set what a child inherits; the hooks are single system calls, safe after a fork"
)]
fn before_exec(command: &mut Command, hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the hooks above only make system calls: no allocation, no lock.
    unsafe {
        command.pre_exec(hook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn spawn(words: &[&str]) -> io::Result<(Process, tempfile::NamedTempFile)> {
        let output = tempfile::NamedTempFile::new()?;
        let line: Vec<_> = words.iter().map(OsString::from).collect();
        Ok((Process::spawn(&line, output.reopen()?)?, output))
    }

    fn wait(process: &Process) -> ExitStatus {
        let mut exit = process.exit();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { exit.wait_for(Option::is_some).await.unwrap().unwrap() })
    }

    #[test]
    fn keeps_both_streams_and_the_status() {
        let (process, output) = spawn(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]).unwrap();
        assert_eq!(describe(wait(&process)), "exit status 3");
        assert_eq!(std::fs::read_to_string(output.path()).unwrap(), "out\nerr\n");
    }

    #[test]
    fn says_why_it_could_not_start() {
        assert_eq!(spawn(&["/nonexistent"]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let started = Instant::now();
        let (process, _output) = spawn(&["/bin/sleep", "1000"]).unwrap();
        let exit = process.exit();
        let folder = format!("/proc/{}", process.pid().as_raw_nonzero());
        assert!(std::path::Path::new(&folder).exists());
        drop(process);
        assert_eq!(exit.borrow().map(describe).unwrap(), "killed by signal 9");
        assert!(!std::path::Path::new(&folder).exists());
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
