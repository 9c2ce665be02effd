//! A program and everything it starts: one process group, ended together, and never outliving the harness.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::vm::process::die_with_harness;
use crate::wait::Probe;

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

    /// Whether its first process has ended.
    ///
    /// # Errors
    /// What the system said.
    pub fn ended(&mut self) -> io::Result<Probe<ExitStatus>> {
        Ok(self.child.try_wait()?.map_or(Probe::NotYet("it is still running".into()), Probe::Ready))
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
