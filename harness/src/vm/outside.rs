//! What can be seen of a machine from outside while its guest may be dead: its screen, what QEMU says about it, its process. Nothing here
//! waits longer than it is told, and nothing changes what is known of the machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Handle;

use super::boot::{Loss, Vm};
use super::qmp::{Qmp, QmpError, monitor_line};

/// Lines for QEMU's monitor whose answers say how a machine stands: does it run, where is each processor, what went through its disk and network.
const MONITOR_LINES: [&str; 7] =
    ["info status", "info cpus", "info registers -a", "info block", "info blockstats", "info network", "info usernet"];
/// What the kernel knows of QEMU's process (proc(5)).
const PROCESS_FILES: [&str; 4] = ["status", "limits", "io", "wchan"];

/// A machine as it is seen from outside. It holds no part of the machine, which may end at any time.
pub struct Outside {
    handle: Handle,
    qmp: Qmp,
    pid: rustix::process::Pid,
    evidence: PathBuf,
    console_log: PathBuf,
    journal_log: PathBuf,
    loss: Option<Loss>,
}

impl Vm {
    /// The machine as it is seen from outside at this moment.
    #[must_use]
    pub fn outside(&self) -> Outside {
        Outside {
            handle: self.handle().clone(),
            qmp: self.qmp().clone(),
            pid: self.pid(),
            evidence: self.evidence().to_owned(),
            console_log: self.machine().console_log.clone(),
            journal_log: self.machine().journal_log.clone(),
            loss: self.alive().err(),
        }
    }
}

impl Outside {
    /// The folder with the machine's logs.
    #[must_use]
    pub fn evidence(&self) -> &Path {
        &self.evidence
    }

    /// The serial console's log.
    #[must_use]
    pub fn console_log(&self) -> &Path {
        &self.console_log
    }

    /// The journal's.
    #[must_use]
    pub fn journal_log(&self) -> &Path {
        &self.journal_log
    }

    /// Writes a PNG of the screen.
    ///
    /// # Errors
    /// A QEMU that has ended, does not answer within this time, or cannot write there.
    pub fn screenshot(&self, path: &Path, within: Duration) -> Result<(), QmpError> {
        self.handle.block_on(self.qmp.screenshot(path, within))
    }

    /// What QEMU says about the machine, as text. One that does not answer is not asked any further; each answer may take `within`.
    ///
    /// # Errors
    /// If it says nothing at all.
    pub fn monitor(&self, within: Duration) -> Result<String, QmpError> {
        let mut text = String::new();
        for line in MONITOR_LINES {
            match self.handle.block_on(self.qmp.execute(monitor_line(line.to_owned()), within)) {
                Ok(said) => {
                    let _ = writeln!(text, "(qemu) {line}\n{}\n", said.replace('\r', "").trim_end());
                }
                Err(error) if text.is_empty() => return Err(error),
                Err(error) => {
                    let _ = writeln!(text, "(qemu) {line}\n{error}");
                    break;
                }
            }
        }
        Ok(text)
    }

    /// QEMU's process: how the machine was lost if it was, and what the kernel knows of the process if it is there.
    #[must_use]
    pub fn process(&self) -> String {
        let pid = self.pid.as_raw_nonzero();
        let mut text = match &self.loss {
            Some(Loss::QemuEnded { status, stderr_tail }) => format!("QEMU ended with {status}\n{stderr_tail}\n"),
            Some(loss) => format!("{loss}\n"),
            None => "the machine runs\n".to_owned(),
        };
        let mut known = String::new();
        for file in PROCESS_FILES {
            if let Ok(content) = std::fs::read_to_string(format!("/proc/{pid}/{file}")) {
                let _ = writeln!(known, "\n== /proc/{pid}/{file}\n{}", content.trim_end());
            }
        }
        text.push_str(if known.is_empty() { "there is no such process any more\n" } else { &known });
        text
    }
}
