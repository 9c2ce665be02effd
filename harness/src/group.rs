//! A program and everything it starts: one process group, ended together, and never outliving the harness.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::vm::process::die_with_harness;
use crate::wait::{self, Probe, WaitError};

/// Why nobody waits for a program any more.
#[derive(Debug)]
pub enum Unwaited {
    /// The run is to end.
    Interrupted,
    /// The system does not tell.
    Failed(io::Error),
}

/// A running program. Dropping it kills its whole group and reaps it: the group may outlive its first process.
pub struct Group {
    /// The group's first process.
    pub child: Child,
}

impl Group {
    /// Starts a program. It is killed when the thread that calls this ends, so that thread has to wait for it.
    ///
    /// # Errors
    /// What the system said.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        die_with_harness(command.process_group(0));
        Ok(Self { child: command.spawn()? })
    }

    /// Waits for the end of its first process. That wakes the caller at once; whether it is interrupted is looked at once a second.
    ///
    /// # Errors
    /// The deadline, or why there is no more waiting.
    pub fn wait(&mut self, deadline: Instant, interrupted: &AtomicBool) -> Result<ExitStatus, WaitError<Unwaited>> {
        let end = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let end = end.map_err(|error| WaitError::Never(Unwaited::Failed(error.into())))?;
        // Readable when the process has ended (pidfd_open(2)). A signal ends the pause early, and no harm is done.
        let rest = |pause: Duration| {
            let pause = Timespec::try_from(pause).ok();
            let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], pause.as_ref());
        };
        wait::until_woken(deadline, rest, || {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Unwaited::Interrupted);
            }
            let status = self.child.try_wait().map_err(Unwaited::Failed)?;
            Ok(status.map_or(Probe::NotYet("it is still running".into()), Probe::Ready))
        })
    }

    /// Asks all of it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only when there is nobody left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}
