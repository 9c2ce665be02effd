//! Makes a good machine of a copy: its clock is set from the host's, its random numbers become its own, and both are checked.
//!
//! The guest listens on a port of its own (`credentials` has the unit), since nothing else is as quick: no login, and no service has to run.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ssh_key::rand_core::{OsRng, RngCore as _};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use super::boot::{Life, Loss, Vm};

/// How far the guest's clock may be from the host's.
pub const CLOCK_WITHIN: Duration = Duration::from_secs(2);
/// A clock that is not closer than this is set once more: the first time, a guest takes long to do anything.
const CLOCK_GOAL: Duration = Duration::from_millis(500);
/// How often the clock is set at most.
const MOST_CALLS: u32 = 5;
/// Bytes stirred into the guest's random pool. The kernel's own notice of being a copy (vmgenid) does not depend on them.
const SEED_BYTES: usize = 32;
/// Digits of the random bytes in the guest's answer.
const RANDOM_DIGITS: usize = 64;

/// The way to the guest's port.
pub(super) struct Caller(Mutex<Line>);

struct Line {
    write: OwnedWriteHalf,
    read: Lines<BufReader<OwnedReadHalf>>,
    number: u64,
}

/// A copy that was woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awake {
    /// How far its clock is from the host's, at most.
    pub clock_off: Duration,
    /// Random bytes out of its pool, as hexadecimal digits. No other copy may ever give the same.
    pub random: String,
    /// How often its clock was set.
    pub calls: u32,
    /// How long all of that took.
    pub took: Duration,
}

/// Why a copy is no good machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// It does not answer.
    #[error("the guest did not answer on its port `{}` within {} s", super::machine::WAKE_PORT, within.as_secs())]
    Silent {
        /// How long was waited.
        within: Duration,
    },
    /// It answers something else.
    #[error("the guest answered {line:?} on its port `{}`", super::machine::WAKE_PORT)]
    Nonsense {
        /// Its answer.
        line: String,
    },
    /// Its clock does not go with the host's.
    #[error("the guest's clock is {} ms off after it was set {calls} times", off.as_millis())]
    Clock {
        /// How far, at least.
        off: Duration,
        /// How often it was set.
        calls: u32,
    },
    /// It was lost.
    #[error("the machine was lost: {0}")]
    Lost(Loss),
}

impl Vm {
    /// Sets the guest's clock, gives it random numbers of its own, and checks the clock. That the random numbers are like nobody else's is
    /// for the caller to check, who knows the others.
    ///
    /// # Errors
    /// A guest that does not answer within `within`, or whose clock stays wrong.
    pub fn wake(&self, within: Duration) -> Result<Awake, WakeError> {
        let begun = Instant::now();
        let mut life = self.life();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                Ok(life) = life.wait_for(|life| *life != Life::Running) => Err(WakeError::Lost(match &*life {
                    Life::Lost(loss) => loss.clone(),
                    Life::Running | Life::Ended => Loss::PoweredOff,
                })),
                awake = self.caller.wake(begun) => awake,
                () = tokio::time::sleep(within) => Err(WakeError::Silent { within }),
            }
        })
    }
}

impl Caller {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self(Mutex::new(Line { write, read: BufReader::new(read).lines(), number: 0 }))
    }

    async fn wake(&self, begun: Instant) -> Result<Awake, WakeError> {
        let mut line = self.0.lock().await;
        let mut calls = 0;
        loop {
            calls += 1;
            let (clock_off, random) = line.call().await?;
            if clock_off <= CLOCK_GOAL || (calls == MOST_CALLS && clock_off <= CLOCK_WITHIN) {
                return Ok(Awake { clock_off, random, calls, took: begun.elapsed() });
            }
            if calls == MOST_CALLS {
                return Err(WakeError::Clock { off: clock_off, calls });
            }
        }
    }
}

impl Line {
    /// Tells the guest the time and a seed; returns how far its clock is off and its random bytes.
    async fn call(&mut self) -> Result<(Duration, String), WakeError> {
        self.number += 1;
        let mut seed = [0; SEED_BYTES];
        OsRng.fill_bytes(&mut seed);
        let now = jiff::Timestamp::now().as_millisecond();
        let call = format!(
            "{} {}.{:03} {}\n",
            self.number,
            now.div_euclid(1000),
            now.rem_euclid(1000),
            STANDARD_NO_PAD.encode(seed)
        );
        let sent = self.write.write_all(call.as_bytes()).await;
        loop {
            let line = match (&sent, self.read.next_line().await) {
                (Ok(()), Ok(Some(line))) => line,
                // QEMU has ended; whoever watches it says how.
                _ => return std::future::pending().await,
            };
            let here = jiff::Timestamp::now().as_millisecond();
            let answer = answer(&line).ok_or_else(|| WakeError::Nonsense { line: line.clone() })?;
            // An answer to an earlier call that nobody waited for.
            if answer.number == self.number {
                return Ok((Duration::from_millis(here.abs_diff(answer.time_ms)), answer.random.to_owned()));
            }
        }
    }
}

/// What the guest says.
struct Answer<'a> {
    number: u64,
    time_ms: i64,
    random: &'a str,
}

fn answer(line: &str) -> Option<Answer<'_>> {
    let mut words = line.trim().split(' ');
    let (number, time, random) = (words.next()?, words.next()?, words.next()?);
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    // A guest whose `date` knows no fractions says a letter instead.
    let millis = fraction.get(..3).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(500);
    let hexadecimal = random.len() == RANDOM_DIGITS && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hexadecimal && words.next().is_none()).then_some(())?;
    Some(Answer { number: number.parse().ok()?, time_ms: seconds.parse::<i64>().ok()? * 1000 + millis, random })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_fractions() {
        let random = "0123456789abcdef".repeat(4);
        let read = |time: &str| answer(&format!("3 {time} {random}")).map(|answer| (answer.number, answer.time_ms));
        assert_eq!(read("1700000000.123456789"), Some((3, 1_700_000_000_123)));
        assert_eq!(read("1700000000.N"), Some((3, 1_700_000_000_500)));
        assert_eq!(read("1700000000."), Some((3, 1_700_000_000_500)));
        assert_eq!(read("now"), None);
        assert!(answer("3 1700000000.1 abc").is_none());
        assert!(answer(&format!("3 1700000000.123 {random} more")).is_none());
        assert!(answer("").is_none());
    }
}
