//! Waiting: ask again until it holds, it never can, or the deadline has passed. The only loop of the crate that sleeps.

use std::fmt;
use std::time::{Duration, Instant};

/// The pause after the first unanswered question; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What one question brought.
#[derive(Debug)]
pub enum Probe<T> {
    /// It holds.
    Ready(T),
    /// Not yet; the text says why and is shown if the deadline passes.
    NotYet(String),
}

/// Why waiting ended without an answer.
#[derive(Debug)]
pub enum WaitError<E> {
    /// The deadline passed; `last` is the reason of the last question.
    Deadline {
        /// How often it was asked.
        asked: u64,
        /// The reason given by the last question.
        last: String,
    },
    /// Waiting is hopeless.
    Never(E),
}

impl<E: fmt::Display> fmt::Display for WaitError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { asked, last } => write!(f, "the deadline passed after {asked} tries; last: {last}"),
            Self::Never(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for WaitError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Deadline { .. } => None,
            Self::Never(error) => error.source(),
        }
    }
}

/// Asks `probe` at least once and then again until it is ready, fails for good, or `deadline` has passed.
///
/// # Errors
/// [`WaitError::Never`] with the probe's own error, or [`WaitError::Deadline`] with the last reason.
pub fn until<T, E>(deadline: Instant, probe: impl FnMut() -> Result<Probe<T>, E>) -> Result<T, WaitError<E>> {
    until_woken(deadline, std::thread::sleep, probe)
}

/// The same with pauses that `rest` may end early, when there is something new to see.
///
/// # Errors
/// As [`until`].
pub fn until_woken<T, E>(
    deadline: Instant,
    rest: impl Fn(Duration),
    mut probe: impl FnMut() -> Result<Probe<T>, E>,
) -> Result<T, WaitError<E>> {
    let mut pause = FIRST_PAUSE;
    let mut asked = 0;
    loop {
        asked += 1;
        let last = match probe().map_err(WaitError::Never)? {
            Probe::Ready(value) => return Ok(value),
            Probe::NotYet(reason) => reason,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(WaitError::Deadline { asked, last });
        }
        rest(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(60)
    }

    #[test]
    fn asks_again_until_ready() {
        let mut left = 3;
        let answer = until(Instant::now() + Duration::from_secs(60), || {
            left -= 1;
            Ok::<_, Infallible>(if left == 0 { Probe::Ready("done") } else { Probe::NotYet("busy".into()) })
        });
        assert_eq!(answer.unwrap(), "done");
    }

    #[test]
    fn reports_the_last_reason_at_the_deadline() {
        let mut count = 0;
        let error = until(soon(), || {
            count += 1;
            Ok::<Probe<()>, Infallible>(Probe::NotYet(format!("reason {count}")))
        })
        .unwrap_err();
        let WaitError::Deadline { asked, last } = error;
        assert!(asked >= 2);
        assert_eq!(last, format!("reason {asked}"));
    }

    #[test]
    fn asks_once_even_after_the_deadline() {
        assert_eq!(until(Instant::now(), || Ok::<_, Infallible>(Probe::Ready(1))).unwrap(), 1);
    }

    #[test]
    fn ends_at_once_when_hopeless() {
        let started = Instant::now();
        let far = started + Duration::from_secs(3600);
        let error = until(far, || Err::<Probe<()>, _>("QEMU has ended")).unwrap_err();
        assert!(matches!(error, WaitError::Never("QEMU has ended")));
    }
}
