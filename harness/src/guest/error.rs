//! Why a guest could not be asked. None of this is an answer of the guest: a step that ends here is errored, not failed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::captured::Unfinished;
use super::stop::StopReason;

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing listens there.
    #[error("{addr} refuses connections")]
    Refused {
        /// Where it was tried.
        addr: SocketAddr,
    },
    /// The address cannot be reached.
    #[error("could not connect to {addr}")]
    Unreachable {
        /// Where it was tried.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The peer took the connection and says nothing.
    #[error("{addr} accepts connections but said nothing within {:.1} s", after.as_secs_f64())]
    Mute {
        /// Where it was tried.
        addr: SocketAddr,
        /// How long we listened.
        after: Duration,
    },
    /// The peer took the connection and closed it before it introduced itself, as `sshd` does when too many connections
    /// are waiting to log in, and as a port forward does when nothing listens behind it.
    #[error("{addr} closed the connection before introducing itself{}", what_it_said(said))]
    Dropped {
        /// Where it was tried.
        addr: SocketAddr,
        /// What it said instead; may be empty.
        said: String,
    },
    /// The peer speaks something else.
    #[error("{addr} is not an SSH server; it said `{said}`")]
    NotSsh {
        /// Where it was tried.
        addr: SocketAddr,
        /// Its first line, or a later one if it was quicker than we.
        said: String,
    },
    /// The peer is not the guest we know.
    #[error("{addr} shows host key {found}, expected {expected}")]
    HostKey {
        /// Where it was tried.
        addr: SocketAddr,
        /// Fingerprint of the pinned key.
        expected: String,
        /// Fingerprint of the key that was shown.
        found: String,
    },
    /// The guest does not let us in.
    #[error("{addr} does not accept key {fingerprint} for user `{user}`")]
    Rejected {
        /// Where it was tried.
        addr: SocketAddr,
        /// The account.
        user: String,
        /// Fingerprint of the key that was offered.
        fingerprint: String,
    },
    /// The SSH session broke off on the way.
    #[error("{addr} broke off during {during}: {cause}")]
    BrokenOff {
        /// Where it was tried.
        addr: SocketAddr,
        /// `key exchange` or `authentication`.
        during: &'static str,
        /// What the protocol library said.
        cause: String,
    },
    /// The SSH session was not ready by the deadline.
    #[error("{addr} did not finish {during} within {:.1} s", after.as_secs_f64())]
    TooSlow {
        /// Where it was tried.
        addr: SocketAddr,
        /// `key exchange` or `authentication`.
        during: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It is no use to wait any more.
    #[error("stopped: {0}")]
    Stopped(StopReason),
}

fn what_it_said(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said `{said}`") }
}

fn so_far(refused: &str) -> String {
    if refused.is_empty() { String::new() } else { format!("; so far: {refused}") }
}

fn too_late(so_far: &Unfinished, killed: bool) -> String {
    if so_far.sent {
        format!("the command did not end within {:.1} s{}", so_far.took.as_secs_f64(), fate(killed))
    } else {
        "the guest gave no channel for the command until the deadline".to_owned()
    }
}

fn fate(killed: bool) -> &'static str {
    if killed { "; it was killed" } else { "; it, or what it has started, may still be running in the guest" }
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no connection to send it over.
    #[error("no connection to the guest after {tries} {}", if *tries == 1 { "try" } else { "tries" })]
    NoConnection {
        /// How often it was tried.
        tries: u64,
        /// What happened the last time.
        source: OpenError,
    },
    /// All connections were in use until the deadline.
    #[error("all {most} connections to the guest were busy until the deadline")]
    Busy {
        /// The most that may be open.
        most: usize,
    },
    /// Somebody else was still opening one at the deadline, and only one may be opened at a time.
    #[error("another connection to the guest was still being opened at the deadline{}", so_far(refused))]
    Opening {
        /// Why it did not come about so far; may be empty.
        refused: String,
    },
    /// The deadline passed. A command counts as unfinished while anything it started holds its output open.
    #[error("{}", too_late(so_far, *killed))]
    TimedOut {
        /// What there was.
        so_far: Box<Unfinished>,
        /// The guest said that it killed the command; if not, it may still be running there.
        killed: bool,
    },
    /// The command wrote more than is kept. It was stopped like one that timed out.
    #[error("the command wrote more than {limit} bytes{}", fate(*killed))]
    TooMuchOutput {
        /// The most that is kept of both streams together.
        limit: usize,
        /// The beginning.
        so_far: Box<Unfinished>,
        /// The guest said that it killed the command; if not, it may still be running there.
        killed: bool,
    },
    /// The guest closed the command's channel while the command still ran, or could not say that it had ended.
    #[error("the guest closed the channel before the command had ended{}", fate(*killed))]
    CutOff {
        /// What there was.
        so_far: Box<Unfinished>,
        /// The guest said that it killed the command; if not, it may still be running there.
        killed: bool,
    },
    /// The connection ended first.
    #[error("the connection was lost {}: {cause}", if so_far.sent { "while the command ran" } else { "before the command was sent" })]
    ConnectionLost {
        /// What there was.
        so_far: Box<Unfinished>,
        /// What happened.
        cause: String,
    },
    /// The guest is connected and authenticated, but runs no command.
    #[error("the guest refuses to run commands: {cause}")]
    ChannelRefused {
        /// What the protocol library said.
        cause: String,
    },
    /// Nobody wants the answer any more.
    #[error("cancelled")]
    Cancelled {
        /// What there was.
        so_far: Box<Unfinished>,
    },
    /// No shell can be given such a command.
    #[error("the command has a NUL byte in it")]
    NulByte,
}

impl AskError {
    /// Returns what there was of the command.
    pub fn so_far(&self) -> Option<&Unfinished> {
        match self {
            Self::TimedOut { so_far, .. }
            | Self::TooMuchOutput { so_far, .. }
            | Self::CutOff { so_far, .. }
            | Self::ConnectionLost { so_far, .. }
            | Self::Cancelled { so_far } => Some(so_far),
            Self::NoConnection { .. }
            | Self::Busy { .. }
            | Self::Opening { .. }
            | Self::ChannelRefused { .. }
            | Self::NulByte => None,
        }
    }
}
