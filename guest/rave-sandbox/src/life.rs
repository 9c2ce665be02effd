//! The life of a sandbox as a function: what it is, what was seen of it, what follows. No clock, no system.

use std::time::Duration;

use jiff::Timestamp;

use crate::sandbox::{Sandbox, State};

/// What was seen of a sandbox whose unit was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Its unit runs; whether its SSH server answers.
    Running {
        /// A banner came.
        banner: bool,
    },
    /// Its unit is gone; what systemd called the end, if that is known.
    Gone {
        /// `success`, `timeout`, `signal`, `exit-code`, `oom-kill` …
        result: Option<String>,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing has changed.
    Wait,
    /// It is ready.
    Ready,
    /// Its time is over: end it.
    Expire,
    /// It never became ready: end it, and say why.
    GiveUp(String),
    /// It has ended as it should. Nothing is left of it.
    Ended,
    /// It has ended as it should not. What is left is the reason.
    Failed(String),
}

/// What follows from what was seen of a sandbox.
#[must_use]
pub fn next(sandbox: &Sandbox, seen: &Seen, now: Timestamp, start_timeout: Duration) -> Next {
    let age = now.duration_since(sandbox.created_at).unsigned_abs();
    match (sandbox.state, seen) {
        (State::Failed, _) | (State::Stopping, Seen::Running { .. }) => Next::Wait,
        (State::Stopping, Seen::Gone { .. }) => Next::Ended,
        (State::Starting | State::Ready, Seen::Gone { result }) => ended(sandbox, result.as_deref(), now),
        (State::Starting | State::Ready, Seen::Running { .. }) if now >= sandbox.expires_at => Next::Expire,
        (State::Starting, Seen::Running { banner: true }) => Next::Ready,
        (State::Starting, Seen::Running { banner: false }) if age >= start_timeout => {
            Next::GiveUp(format!("its SSH server did not answer within {} s", start_timeout.as_secs()))
        }
        (State::Starting | State::Ready, Seen::Running { .. }) => Next::Wait,
    }
}

/// A unit that systemd ended for its time, or that somebody stopped, ended well; a machine that went away by itself did not.
fn ended(sandbox: &Sandbox, result: Option<&str>, now: Timestamp) -> Next {
    match result {
        Some("success" | "timeout") => Next::Ended,
        _ if now >= sandbox.expires_at => Next::Ended,
        Some("oom-kill") => Next::Failed("it used more memory than it may".to_owned()),
        Some(result) => Next::Failed(format!("its machine ended by itself ({result})")),
        None => Next::Failed("its machine is gone, and nobody saw why".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::tests::sandbox;

    fn check(state: State, seen: Seen, after: i64, expected: Next) {
        let mut sandbox = sandbox();
        sandbox.state = state;
        let now = sandbox.created_at + Duration::from_secs(after.unsigned_abs());
        assert_eq!(
            next(&sandbox, &seen, now, Duration::from_secs(300)),
            expected,
            "{state:?} {seen:?} after {after} s"
        );
    }

    fn gone(result: &str) -> Seen {
        Seen::Gone { result: (!result.is_empty()).then(|| result.to_owned()) }
    }

    #[test]
    fn a_life() {
        let (silent, answers) = (Seen::Running { banner: false }, Seen::Running { banner: true });
        let failed = |why: &str| Next::Failed(why.to_owned());
        check(State::Starting, silent.clone(), 1, Next::Wait);
        check(State::Starting, answers.clone(), 1, Next::Ready);
        check(State::Starting, silent.clone(), 300, Next::GiveUp("its SSH server did not answer within 300 s".into()));
        check(State::Ready, silent.clone(), 301, Next::Wait);
        check(State::Ready, answers.clone(), 600, Next::Expire);
        check(State::Starting, silent.clone(), 600, Next::Expire);
        check(State::Stopping, silent.clone(), 700, Next::Wait);
        for result in ["", "success", "timeout", "exit-code", "signal"] {
            check(State::Stopping, gone(result), 5, Next::Ended);
            check(State::Ready, gone(result), 600, Next::Ended);
            check(State::Failed, gone(result), 5, Next::Wait);
        }
        check(State::Ready, gone("success"), 5, Next::Ended);
        check(State::Ready, gone("timeout"), 5, Next::Ended);
        check(State::Starting, gone("exit-code"), 5, failed("its machine ended by itself (exit-code)"));
        check(State::Ready, gone("signal"), 5, failed("its machine ended by itself (signal)"));
        check(State::Ready, gone("oom-kill"), 5, failed("it used more memory than it may"));
        check(State::Ready, gone(""), 5, failed("its machine is gone, and nobody saw why"));
    }
}
