//! The signal that makes everybody who waits for a guest give up at once.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};

/// A signal given once and never taken back. Those who wait in `poll` are woken by it, through an eventfd that nobody reads.
#[derive(Debug)]
pub struct Stop {
    reason: OnceLock<StopReason>,
    wake: OwnedFd,
}

/// Why it is no use to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// Nobody wants the answers any more.
    Cancelled,
    /// The guest is gone; the text says what happened to it.
    Lost(String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Lost(cause) => f.write_str(cause),
        }
    }
}

impl Stop {
    /// Makes a signal that has not been given.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { reason: OnceLock::new(), wake })
    }

    /// Gives the signal. Only the first reason counts.
    pub fn give(&self, reason: StopReason) {
        if self.reason.set(reason).is_ok() {
            // The counter of a fresh eventfd has room for a one; it cannot fail.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Returns the reason if the signal was given.
    pub fn reason(&self) -> Option<&StopReason> {
        self.reason.get()
    }

    /// Becomes readable, for good, when the signal is given.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
