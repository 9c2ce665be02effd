//! How much one may ask: a bucket of commands for each sender and each room, and a while of silence for who is denied too often. Pure:
//! the time is handed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::settings;

/// For how long whoever was told to slow down is not told again.
const WINDOW: Duration = Duration::from_secs(60);
/// In how much time denials add up.
const DENIALS_WITHIN: Duration = Duration::from_secs(300);
/// With so many senders and rooms in memory, those that are at rest are forgotten.
const MANY: usize = 4096;

/// What is to be done with a command that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be looked at.
    Pass,
    /// It may not, and the sender is to be told when it may.
    Slow {
        /// When a command is taken again.
        retry_after: Duration,
    },
    /// It may not, and nothing is said.
    Silence(&'static str),
}

/// The state of all senders and rooms.
#[derive(Debug)]
pub struct Limits {
    settings: settings::Limits,
    senders: HashMap<String, Sender>,
    rooms: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Sender {
    bucket: Bucket,
    told: Option<Instant>,
    denials: Vec<Instant>,
    ignored_until: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limits {
    /// Nobody has asked for anything yet.
    #[must_use]
    pub fn new(settings: settings::Limits) -> Self {
        Self { settings, senders: HashMap::new(), rooms: HashMap::new() }
    }

    /// Judges a command. What a sender asks in vain does not count against the room.
    pub fn take(&mut self, sender: &str, room: &str, now: Instant) -> Verdict {
        self.tidy(now);
        let settings = &self.settings;
        let (rate, burst) = (f64::from(settings.sender_per_minute) / 60.0, f64::from(settings.sender_burst));
        let state = self.senders.entry(sender.to_owned()).or_insert_with(|| Sender {
            bucket: Bucket { tokens: burst, at: now },
            told: None,
            denials: vec![],
            ignored_until: None,
        });
        if state.ignored_until.is_some_and(|until| now < until) {
            return Verdict::Silence("denied too often");
        }
        let asked_too_much = match state.bucket.take(rate, burst, now) {
            Some(wait) => Some(wait),
            None => {
                let (rate, burst) = (f64::from(settings.room_per_minute) / 60.0, f64::from(settings.room_per_minute));
                self.rooms.entry(room.to_owned()).or_insert(Bucket { tokens: burst, at: now }).take(rate, burst, now)
            }
        };
        match asked_too_much {
            None => Verdict::Pass,
            Some(_) if state.told.is_some_and(|told| now.duration_since(told) < WINDOW) => {
                Verdict::Silence("told to slow down")
            }
            Some(retry_after) => {
                state.told = Some(now);
                Verdict::Slow { retry_after }
            }
        }
    }

    /// Counts a denial; the last of too many begins the silence.
    pub fn denied(&mut self, sender: &str, now: Instant) {
        if let Some(state) = self.senders.get_mut(sender) {
            state.denials.retain(|at| now.duration_since(*at) < DENIALS_WITHIN);
            state.denials.push(now);
            if state.denials.len() >= self.settings.denials as usize {
                state.denials.clear();
                state.ignored_until = Some(now + Duration::from_secs(self.settings.ignore_seconds));
            }
        }
    }

    fn tidy(&mut self, now: Instant) {
        if self.senders.len() >= MANY {
            self.senders.retain(|_, state| {
                let recent = |at: Instant| now.saturating_duration_since(at) < DENIALS_WITHIN;
                recent(state.bucket.at) || state.ignored_until.is_some_and(|until| now < until)
            });
        }
        if self.rooms.len() >= MANY {
            self.rooms.retain(|_, bucket| now.saturating_duration_since(bucket.at) < WINDOW);
        }
    }
}

impl Bucket {
    /// Takes a token, or says when there will be one.
    fn take(&mut self, per_second: f64, most: f64, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(most);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            None
        } else {
            Some(Duration::from_secs_f64((1.0 - self.tokens) / per_second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(settings::Limits {
            sender_per_minute: 30,
            sender_burst: 5,
            room_per_minute: 60,
            denials: 5,
            ignore_seconds: 300,
            role_cache_seconds: 30,
        })
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_flood_is_told_once_and_then_met_with_silence() {
        let (mut limits, start) = (limits(), Instant::now());
        let verdicts: Vec<Verdict> = (0..100).map(|_| limits.take("@a:x", "!r", start)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Pass).count(), 5);
        assert_eq!(verdicts[5], Verdict::Slow { retry_after: Duration::from_secs(2) });
        assert!(verdicts[6..].iter().all(|verdict| *verdict == Verdict::Silence("told to slow down")));
        assert_eq!(limits.take("@b:x", "!r", start), Verdict::Pass, "another sender in the same room");
        assert_eq!(limits.take("@a:x", "!r", after(start, 2)), Verdict::Pass, "time gives new commands");
        assert_eq!(limits.take("@a:x", "!r", after(start, 2)), Verdict::Silence("told to slow down"));
        let verdicts: Vec<Verdict> = (0..6).map(|_| limits.take("@a:x", "!r", after(start, 70))).collect();
        assert!(matches!(verdicts[5], Verdict::Slow { .. }), "told again in another window");
    }

    #[test]
    fn a_room_has_a_limit_of_its_own() {
        let (mut limits, start) = (limits(), Instant::now());
        let passed = (0..20)
            .flat_map(|sender| (0..5).map(move |_| format!("@{sender}:x")))
            .filter(|sender| limits.take(sender, "!r", start) == Verdict::Pass)
            .count();
        assert_eq!(passed, 60);
        assert_eq!(limits.take("@new:x", "!other", start), Verdict::Pass);
    }

    #[test]
    fn whoever_is_denied_too_often_is_ignored_for_a_while() {
        let (mut limits, start) = (limits(), Instant::now());
        for second in 0..5 {
            assert_eq!(limits.take("@a:x", "!r", after(start, second * 3)), Verdict::Pass);
            limits.denied("@a:x", after(start, second * 3));
        }
        assert_eq!(limits.take("@a:x", "!r", after(start, 20)), Verdict::Silence("denied too often"));
        assert_eq!(limits.take("@b:x", "!r", after(start, 20)), Verdict::Pass);
        assert_eq!(limits.take("@a:x", "!r", after(start, 313)), Verdict::Pass);
    }
}
