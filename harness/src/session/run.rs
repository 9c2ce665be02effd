//! The run from its arguments to its exit code.

use std::io::IsTerminal as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use libtest_mimic::{Completion, Failed, Trial};

use super::arguments::RunArguments;
use super::sabotage;
use super::schedule::{Schedule, Turn};
use super::shared::{Preparation, Shared};
use crate::interrupt::{Interrupt, tell};
use crate::report;
use crate::scenario::file::{self, Beside, Folder};
use crate::scenario::mask::Mask;
use crate::scenario::model::{On, Requires, Scenario};
use crate::settings::Settings;
use crate::transcript::model::{Outcome, OverallStatus, ScenarioRecord, Transcript};
use crate::transcript::sign::SigningKey;
use crate::transcript::{sign, store, verify};

/// How a run ended, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every scenario passed, warned or was skipped.
    Passed = 0,
    /// It could not run, or was cut short.
    CouldNotRun = 1,
    /// Wrong arguments or settings, or a filter that matches nothing.
    WrongUsage = 2,
    /// At least one scenario failed or could not be asked.
    Failed = 101,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        Self::from(ended as u8)
    }
}

/// Runs the scenarios that `arguments` choose.
pub fn main(mut arguments: RunArguments) -> Ended {
    if let Some(why) = arguments.unusable() {
        return complain(why, Ended::WrongUsage);
    }
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(errors) => return complain(&errors.to_string(), Ended::WrongUsage),
    };
    let Folder { scenarios, beside } = match file::read(&settings.scenarios) {
        Ok(folder) => folder,
        Err(mistakes) => return complain(&mistakes.to_string(), Ended::CouldNotRun),
    };
    let (chosen, left): (Vec<_>, Vec<_>) = scenarios.into_iter().partition(|scenario| arguments.chooses(scenario));
    if chosen.is_empty() {
        return complain(&arguments.nothing_chosen(&left), Ended::WrongUsage);
    }
    let filters =
        arguments.filters().into_iter().chain(arguments.libtest.skip.iter().map(|word| format!("--skip {word}")));
    let filters: Vec<String> = filters.collect();
    // libtest's own filter knows one word only, so it is told by name what to leave out, and counts it.
    arguments.libtest.filter = None;
    arguments.libtest.exact = true;
    arguments.libtest.skip = left.iter().map(|scenario| scenario.name.clone()).collect();
    let left = left.iter().map(|scenario| Trial::test(&scenario.name, || Ok(())));
    if arguments.libtest.list {
        // Asked for those that are ignored: there are none.
        let chosen = if arguments.libtest.ignored { Vec::new() } else { chosen };
        let listed = chosen.iter().map(|scenario| Trial::test(&scenario.name, || Ok(()))).chain(left).collect();
        // Listing has no result.
        let _ = libtest_mimic::run(&arguments.libtest, listed);
        return Ended::Passed;
    }
    let chosen = Chosen { scenarios: chosen, left: left.collect(), filters };
    match run(settings, beside, chosen, &arguments) {
        Ok(ran) => ran.ended,
        Err(error) => complain(&format!("{error:#}"), Ended::CouldNotRun),
    }
}

fn complain(text: &str, ended: Ended) -> Ended {
    text.lines().for_each(|line| tell(&format!("hermetic: {line}")));
    ended
}

/// What is asked in a run.
pub(super) struct Chosen {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// The others, which libtest counts.
    pub left: Vec<Trial>,
    /// The words by which they were chosen.
    pub filters: Vec<String>,
}

/// A run that has been.
pub(super) struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// Its transcript, read back.
    pub transcript: Transcript,
    /// Its session.
    pub session: String,
}

/// Asks what was chosen, and leaves a signed transcript.
///
/// # Errors
/// If it cannot begin, or the transcript cannot be written.
pub(super) fn run(settings: Settings, beside: Beside, chosen: Chosen, arguments: &RunArguments) -> anyhow::Result<Ran> {
    let Chosen { scenarios: chosen, left, filters } = chosen;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(runtime.handle(), Arc::clone(&interrupt))?;
    let needed = chosen.iter().map(Scenario::requires).max().unwrap_or(Requires::Nothing);
    let preparation = Preparation::check(settings, needed)?;
    let shared = Shared::new(preparation, runtime.handle().clone(), Arc::clone(&interrupt), &chosen, beside);
    // A full run is always first-hand, and so is what is asked of the machine that was booted.
    let asks_cold = |scenario: &Scenario| scenario.machine == On::Cold && scenario.requires() == Requires::Machine;
    let shared = if filters.is_empty() || chosen.iter().any(asks_cold) { shared } else { shared.using_saved() };
    let shared = Arc::new(shared);
    runtime.spawn(watch_deadline(Arc::clone(&shared)));
    let schedule = Arc::new(Schedule::new(chosen.iter().map(Turn::of)));
    let to_break = if shared.breaks() { chosen.clone() } else { Vec::new() };
    let trials = chosen.into_iter().map(|scenario| trial(scenario, &shared, &schedule)).chain(left).collect();
    let mut libtest = arguments.libtest.clone();
    // Plain lines where nobody looks on, in the order in which scenarios end.
    libtest.test_threads.get_or_insert_with(threads);
    // libtest's printer panics when nobody reads its output any more; what was found is written all the same.
    let conclusion = catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(&libtest, trials)));
    let failed = conclusion.map_or(true, |conclusion| conclusion.has_failed());
    let sensitivity = shared.breaks().then(|| sabotage::all(&shared, &to_break));
    let transcript = shared.finish(filters, sensitivity);
    let sealed = write(shared.place(), shared.key(), shared.mask(), &transcript)?;
    tell(&report::text::summary(&sealed));
    shared.say_where();
    shared.keep_if_asked();
    let ended = match (sealed.overall_status, failed) {
        (OverallStatus::Success | OverallStatus::Warning, false) => Ended::Passed,
        (OverallStatus::Aborted, _) => Ended::CouldNotRun,
        _ if shared.could_not_run() => Ended::CouldNotRun,
        _ => Ended::Failed,
    };
    Ok(Ran { ended, transcript: sealed, session: shared.place().session.clone() })
}

/// Scenarios that are on their way at the same time unless `--test-threads` says otherwise: some more than may be asked then, which is
/// the `Room`'s to say, so that there is always one that waits for its turn.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get() * 2)
}

fn trial(scenario: Scenario, shared: &Arc<Shared>, schedule: &Arc<Schedule>) -> Trial {
    let (shared, schedule) = (Arc::clone(shared), Arc::clone(schedule));
    Trial::ignorable_test(scenario.name.clone(), move || {
        let mut permit = schedule.turn(Turn::of(&scenario));
        let asked = catch_unwind(AssertUnwindSafe(|| {
            permit.begin(scenario.alone && shared.others_are_near(&scenario));
            shared.ask(&scenario)
        }));
        let record = asked.unwrap_or_else(|panic| shared.panicked(&scenario, panic.as_ref()));
        let verdict = verdict(&record, &shared.place().folder);
        shared.record(record);
        verdict
    })
}

/// A result in libtest's terms.
fn verdict(record: &ScenarioRecord, session: &Utf8Path) -> Result<Completion, Failed> {
    let text = report::text::scenario(record, session.as_str());
    match record.outcome {
        Outcome::Passed | Outcome::Warned => {
            if !text.is_empty() {
                tell(&format!("{}:\n{}", record.name, text.trim_end()));
            }
            Ok(Completion::Completed)
        }
        Outcome::Skipped => Ok(Completion::ignored_with(&record.reason)),
        Outcome::Failed | Outcome::Errored => Err(Failed::from(text)),
    }
}

/// Signs the transcript, writes it, and verifies it by reading it back: one that cannot be read back is not a pass.
///
/// # Errors
/// If any of that fails.
pub fn write(
    place: &store::Place,
    key: &SigningKey,
    mask: &Mask,
    transcript: &Transcript,
) -> anyhow::Result<Transcript> {
    use anyhow::Context as _;
    if key.is_ephemeral() {
        store::write_whole(&place.public_key(), key.public_file()?.as_bytes())?;
    }
    place.write(&sign::seal(transcript, key)?)?;
    let json =
        std::fs::read(&place.transcript).with_context(|| format!("could not read back `{}`", place.transcript))?;
    let minisig = std::fs::read_to_string(place.minisig())?;
    let own = verify::public_key(&key.public_base64())?;
    let (verified, _) = verify::verify(&json, &minisig, Some(&own))
        .with_context(|| format!("the transcript `{}` does not verify", place.transcript))?;
    store::write_whole(&place.junit(), report::junit(&verified)?.as_bytes())?;
    let session = report::session::Session::read(&place.folder);
    let page = report::html::Page {
        transcript: &verified,
        file_name: place.transcript.file_name().unwrap_or_default(),
        session: &session,
        against: None,
    };
    // The logs of a machine that is kept are masked when it ends.
    let page = mask.text(&report::html::html(&page)?);
    store::write_whole(&place.html(), page.as_bytes())?;
    Ok(verified)
}

/// Turns SIGINT, SIGTERM, SIGHUP and SIGQUIT into the end of the run; the last would otherwise leave a core file, with keys in it. A second one ends this process at once; what it started dies
/// with it.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn watch_signals(runtime: &tokio::runtime::Handle, interrupt: Arc<Interrupt>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _runtime = runtime.enter();
    // Installed before anything is made that would have to be cleaned up.
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    runtime.spawn(async move {
        let mut first = true;
        loop {
            let name = tokio::select! {
                _ = int.recv() => "SIGINT",
                _ = term.recv() => "SIGTERM",
                _ = hup.recv() => "SIGHUP",
                _ = quit.recv() => "SIGQUIT",
            };
            interrupt.set(name);
            if !first {
                tell(&format!("{name} again: giving up at once, without a transcript"));
                std::process::exit(Ended::CouldNotRun as i32);
            }
            first = false;
            tell(&format!("{name}: ending the machine and writing the transcript"));
        }
    });
    Ok(())
}

/// Ends the run when its time is over; the time the image took to build does not count.
async fn watch_deadline(shared: Arc<Shared>) {
    let limit = shared.validation_timeout();
    loop {
        let used = shared.elapsed().saturating_sub(shared.building());
        let left = limit.saturating_sub(used);
        if shared.is_over() {
            return;
        }
        if left.is_zero() {
            return shared.interrupt().set(format!("VALIDATION_TIMEOUT: {} s are over", limit.as_secs()));
        }
        // While an image is being built the deadline moves on with the clock.
        tokio::time::sleep(left.max(Duration::from_millis(50))).await;
    }
}

/// Says something on stderr, with the time since the session began.
pub fn say(since: Instant, text: &str) {
    let seconds = since.elapsed().as_secs_f64();
    if std::io::stderr().is_terminal() {
        tell(&format!("\x1b[2m[{seconds:6.1} s]\x1b[0m {text}"));
    } else {
        tell(&format!("[{seconds:6.1} s] {text}"));
    }
}
