//! Signals at random moments of whole runs. Half of the runs boot a machine and save it, half make forks of one that was kept, so that locks
//! and kept files are hit as well.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rave_hermetic::wait::{Probe, until};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use super::Found;
use super::rig::{End, Start, said, spawn};
use crate::run::{nothing_left, project};
use crate::support::Project;

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";
/// How long a run may take to end after a signal; and one without.
const ENOUGH: Duration = Duration::from_secs(600);

/// Sends one of the signals so many times, in turn, to a run each. `FAULTS_SEED` chooses the moments; it is printed.
///
/// # Errors
/// The first run after which something is not as it must be, with its seed.
pub fn at_random(signals: &[Signal], times: u32) -> Result<String, String> {
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ u64::from(times));
    eprintln!("signals: FAULTS_SEED={seed}");
    let project = project("ok", &[("health/true", TRUE), ("security/true", TRUE)]).set("RAVE_KEEP_SAVED", "1");
    let mut tally = Tally::default();
    // How long such a run takes at this time: the longest that went to its end.
    let mut lengths = [whole(&project, Kind::Boots)?, whole(&project, Kind::Forks)?];
    for (number, &signal) in (0..times).zip(signals.iter().cycle()) {
        let kind = if number % 2 == 0 { Kind::Boots } else { Kind::Forks };
        let part = random(seed, signal, number);
        let length = &mut lengths[kind as usize];
        let moment = length.mul_f64(part * 1.05);
        one(&project, kind, signal, moment, length, &mut tally)
            .map_err(|why| format!("seed {seed}, number {number}, after {moment:?} of a run that {kind:?}: {why}"))?;
    }
    // What is kept is still good.
    whole(&project, Kind::Forks)?;
    Ok(format!("{times} of {times}, with seed {seed}: {tally}"))
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Boots a machine, saves it, asks on forks, keeps it.
    Boots,
    /// Asks on a fork of the one that is kept.
    Forks,
}

impl Kind {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Boots => &["run"],
            Self::Forks => &["run", "security"],
        }
    }
}

/// How runs ended.
#[derive(Default)]
struct Tally {
    aborted: u32,
    too_late: u32,
    none: u32,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { aborted, too_late, none } = self;
        write!(f, "{aborted} left a transcript ABORTED, {none} none, {too_late} had asked everything and say SUCCESS")
    }
}

/// A number from 0 to 1 that follows from these.
fn random(seed: u64, signal: Signal, number: u32) -> f64 {
    let digest = Sha256::digest(format!("{seed} {} {number}", signal.as_raw()));
    let bytes = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(bytes) / f64::from(u32::MAX)
}

/// A run to its end, without a signal: how long it takes.
fn whole(project: &Project, kind: Kind) -> Result<Duration, String> {
    let begun = Instant::now();
    let (end, _) = run(project, kind, None, &mut ENOUGH.clone())?;
    let took = begun.elapsed();
    let status = found(project)?.status().map(str::to_owned);
    if end != End::Code(0) || status.as_deref() != Some("SUCCESS") {
        return Err(format!("without a signal: {end}, {status:?}; it said:\n{}", said(project)));
    }
    clear(project);
    Ok(took)
}

/// Starts a run, waits for the moment, sends the signal, and waits for its end. Whether the signal met it alive.
fn run(
    project: &Project,
    kind: Kind,
    signal: Option<(Signal, Duration)>,
    length: &mut Duration,
) -> Result<(End, bool), String> {
    use std::os::unix::process::ExitStatusExt as _;
    let begun = Instant::now();
    let mut child = spawn(project, kind.arguments(), Start::Plainly);
    let pid = Pid::from_child(&child);
    let mut sent = signal.is_none();
    let mut status = None;
    let ended = until(Instant::now() + ENOUGH, || {
        status = child.try_wait().map_err(|error| error.to_string())?;
        if status.is_none()
            && let Some((signal, moment)) = signal.filter(|_| !sent)
        {
            // Waited for exactly, within one question: between two there may be a second.
            let left = moment.saturating_sub(begun.elapsed());
            let _ = waits_for_end(pid, left);
            let _ = kill_process(pid, signal);
            sent = true;
        }
        Ok::<_, String>(if status.is_some() { Probe::Ready(()) } else { Probe::NotYet("it runs".to_owned()) })
    });
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("it did not end; it said:\n{}", said(project)));
    }
    if !sent {
        *length = begun.elapsed();
    }
    let status = status.unwrap();
    Ok((status.signal().map_or_else(|| End::Code(status.code().unwrap_or_default()), End::Killed), sent))
}

/// Waits until the process ends, at most so long.
fn waits_for_end(pid: Pid, at_most: Duration) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).map(drop)
}

fn one(
    project: &Project,
    kind: Kind,
    signal: Signal,
    moment: Duration,
    length: &mut Duration,
    tally: &mut Tally,
) -> Result<(), String> {
    let (end, _) = run(project, kind, Some((signal, moment)), length)?;
    nothing_left(project);
    no_lock_is_held(&project.path("cache/rave-hermetic/machines"))?;
    let found = found(project)?;
    let told = |what: String| Err(format!("{what}; it said:\n{}", said(project)));
    let killed = matches!(end, End::Killed(_));
    match found.status() {
        None if end == End::Code(0) => return told("passed without a transcript".to_owned()),
        None => tally.none += 1,
        Some("ABORTED") if end == End::Code(1) || killed => tally.aborted += 1,
        // It came when all had been asked.
        Some("SUCCESS") if end == End::Code(0) || killed => {
            if found.passed().is_empty() || found.records().count() != found.passed().len() {
                return told("SUCCESS, and not everything passed".to_owned());
            }
            tally.too_late += 1;
        }
        Some(status) => return told(format!("{end}, {status}")),
    }
    clear(project);
    Ok(())
}

fn found(project: &Project) -> Result<Found, String> {
    Found::read(project, &project.path("artifacts"))
}

/// Takes the artifacts away, so that the next run leaves the only ones.
fn clear(project: &Project) {
    let artifacts = project.path("artifacts");
    if artifacts.exists() {
        fs::remove_dir_all(artifacts).unwrap();
    }
}

fn no_lock_is_held(folder: &Path) -> Result<(), String> {
    let locks = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for lock in locks.filter(|path| path.extension().is_some_and(|end| end == "lock")) {
        fs::File::open(&lock).unwrap().try_lock().map_err(|error| format!("`{}`: {error}", lock.display()))?;
    }
    Ok(())
}
