//! What came back from a command.

use std::fmt;
use std::time::Duration;

/// Everything a command left: both streams, how it ended, how long it took.
#[derive(Debug, Clone)]
pub struct Captured {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, whole.
    pub stdout: Vec<u8>,
    /// Standard error, whole.
    pub stderr: Vec<u8>,
    /// From sending the command to its end.
    pub took: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With an exit status.
    Status(i32),
    /// By a signal; its name without `SIG`.
    Signal(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// What there was of a command that did not end while we listened. No expectation may be held against it.
#[derive(Debug, Clone, Default)]
pub struct Unfinished {
    /// The guest may have begun with the command: it was sent, at least in part.
    pub sent: bool,
    /// Standard output so far.
    pub stdout: Vec<u8>,
    /// Standard error so far.
    pub stderr: Vec<u8>,
    /// From sending the command to giving up; zero if it was not sent.
    pub took: Duration,
}
