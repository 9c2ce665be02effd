//! Waiting: the only place that sleeps.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);

/// Pauses between tries, each twice as long as the one before, up to a longest.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    longest: Duration,
    deadline: Option<Instant>,
}

impl Pauses {
    /// Pauses for as long as it takes.
    pub fn without_end(longest: Duration) -> Self {
        Self { next: FIRST, longest, deadline: None }
    }

    /// Pauses until so much time has passed.
    pub fn within(time: Duration, longest: Duration) -> Self {
        Self { next: FIRST, longest, deadline: Some(Instant::now() + time) }
    }

    /// Waits for the next try; false: there is no time for one.
    pub async fn next(&mut self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
        true
    }
}
