//! What is broken on purpose around runs, in machines and in their services, and what must come of it. `table` is the list; every fault is
//! judged by the same rules: the run ends, with the exit code it must have; it leaves a transcript that verifies and says what was found, or
//! none; nothing has passed that was broken; and no process, no file and no lock is left.
//!
//! `cargo test --test machine faults` tries those that take seconds. `make faults` tries all, and writes `tests/faults.md`.

mod control;
mod inside;
mod rig;
mod signals;
mod table;

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use self::rig::{End, Given, Rig};
use crate::run::nothing_left;
use crate::support::Project;

/// One fault.
pub struct Fault {
    /// What goes wrong.
    pub name: &'static str,
    /// Where.
    pub at: At,
    /// How it is done.
    pub how: &'static str,
    /// Whether `make test` tries it too.
    pub quick: bool,
    /// The same, for the program.
    pub done: Done,
}

/// Where a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The machine the harness runs on.
    Host,
    /// The emulator.
    Qemu,
    /// The control connection between the two.
    Qmp,
    /// The system in the machine.
    Guest,
    /// A service in the reference guest.
    Service,
    /// The harness itself.
    Harness,
}

/// How a fault is done, and what must come of it.
pub enum Done {
    /// From outside, to a run of its own.
    Around {
        /// The run.
        given: Given,
        /// Waits for the event at which it is done, and does it.
        act: fn(&Rig),
        /// What must come of it.
        wanted: Ends,
    },
    /// By the steps of a scenario, to the fork it is asked on. All of these of a guest are asked in one run, beside a scenario that must pass.
    Inside {
        /// The guest.
        guest: Guest,
        /// The scenario's steps.
        steps: &'static str,
        /// Its outcome.
        outcome: &'static str,
        /// What its record must say.
        says: &'static str,
    },
    /// By a signal to the harness, at a random moment of a whole run, so many times.
    AtRandom {
        /// The signal.
        signal: Signal,
        /// How often, in `make faults`.
        times: u32,
    },
}

/// What the run with a fault must come to.
#[derive(Clone, Copy)]
pub struct Ends {
    /// How it ends.
    pub end: End,
    /// `overall_status` of its transcript; without one there is none.
    pub status: Option<&'static str>,
    /// The scenarios that passed; no other may have.
    pub passed: &'static [&'static str],
    /// What is said about it, on stderr and in the transcript if there is one.
    pub says: &'static str,
}

/// A guest that is broken from within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// The microguest.
    Micro,
    /// The reference guest, with its services.
    Reference,
}

/// What came of a fault.
pub struct Seen {
    fault: &'static str,
    /// What was seen, or what was wrong with it.
    result: Result<String, String>,
    took: Duration,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Qemu => "QEMU",
            Self::Qmp => "QMP",
            Self::Guest => "guest",
            Self::Service => "service",
            Self::Harness => "harness",
        })
    }
}

/// In words, for the table.
impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Around { wanted: Ends { end, status, passed, says }, .. } => {
                let passed = if passed.is_empty() { "nothing".to_owned() } else { passed.join(", ") };
                match status {
                    Some(status) => write!(f, "{end}, {status}; passed: {passed}; says \"{says}\""),
                    None if says.is_empty() => write!(f, "{end}, no transcript"),
                    None => write!(f, "{end}, no transcript; says \"{says}\""),
                }
            }
            Self::Inside { outcome, says, .. } if says.is_empty() => f.write_str(outcome),
            Self::Inside { outcome, says, .. } => write!(f, "{outcome}; says \"{says}\""),
            Self::AtRandom { times, .. } => {
                write!(f, "{times} times: a transcript that verifies and is true, or none; nothing left")
            }
        }
    }
}

#[test]
fn what_takes_seconds_comes_out_as_it_must() {
    check(&try_all(|fault| fault.quick, |_| ()));
}

/// The table's signals, once each.
#[test]
fn signals_at_random_moments_leave_nothing() {
    let signals = table::faults().into_iter().filter_map(|fault| match fault.done {
        Done::AtRandom { signal, .. } => Some(signal),
        _ => None,
    });
    let signals: Vec<_> = signals.collect();
    eprintln!("{}", signals::at_random(&signals, signals.len() as u32).unwrap());
}

/// `make faults`. `FAULTS` may have words between commas, of which a fault's name must have one or its place be one. What was seen goes into the
/// table; the lines of others stay.
#[test]
#[ignore = "takes an hour"]
fn everything_comes_out_as_it_must() {
    let words = std::env::var("FAULTS").unwrap_or_default();
    let meant = |fault: &Fault, word: &str| fault.name.contains(word) || fault.at.to_string() == word;
    let chosen = |fault: &Fault| words.is_empty() || words.split(',').any(|word| meant(fault, word.trim()));
    // After each, so that half a run is not for nothing.
    let write = |seen: &[Seen]| {
        let before = std::fs::read_to_string(published()).unwrap_or_default();
        std::fs::write(published(), text(seen, &before)).unwrap();
    };
    check(&try_all(chosen, write));
}

/// The table says what was wanted and seen of every fault that there is, and of no other.
#[test]
fn the_published_table_has_every_fault() {
    let published = std::fs::read_to_string(published()).unwrap();
    let faults = table::faults();
    for fault in &faults {
        let beginning = row(fault);
        let line = published.lines().find(|line| line.starts_with(&beginning));
        assert!(line.is_some(), "`make faults` writes the table; it has no line\n{beginning}");
        assert!(!line.unwrap().contains(WRONG), "{}", line.unwrap());
    }
    assert_eq!(published.lines().filter(|line| line.starts_with("| ")).count(), faults.len() + 1);
    let mut names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), faults.len(), "two faults have one name");
}

const WRONG: &str = "NOT AS IT MUST BE";

fn published() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults.md")
}

fn row(fault: &Fault) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| {} | {} | {} | {} |", cell(fault.name), fault.at, cell(fault.how), cell(&fault.done.to_string()))
}

/// The table, with what was seen now, and what was seen `before` of other faults.
fn text(seen: &[Seen], before: &str) -> String {
    let mut text = format!(
        "Made by `make faults` ([machine/faults/](machine/faults/)), which does these things to real machines. For every one: the run ends by\n\
         itself; its transcript, if there is one, verifies; nothing has passed but what is named; no process, file or lock is left.\n\
         {} faults. Seconds are those of a busy machine with two cores and no KVM; nothing is judged by them. Those with * are also in `make test`.\n\n\
         | fault | where | how | what must come of it | what came of it | seconds |\n|---|---|---|---|---|---|\n",
        table::faults().len()
    );
    for fault in table::faults() {
        let beginning = row(&fault);
        let Some(Seen { result, took, .. }) = seen.iter().find(|seen| seen.fault == fault.name) else {
            let line = before.lines().find(|line| line.starts_with(&beginning));
            line.iter().for_each(|line| text += &format!("{line}\n"));
            continue;
        };
        let result = result.as_ref().map_or_else(|why| format!("{WRONG}: {why}"), Clone::clone);
        let result = result.replace('|', "\\|").replace('\n', " ");
        let star = if fault.quick { "*" } else { "" };
        let _ = writeln!(text, "{beginning} {result} | {}{star} |", took.as_secs());
    }
    text
}

#[track_caller]
fn check(seen: &[Seen]) {
    let wrong = seen.iter().filter_map(|seen| Some(format!("{}: {}", seen.fault, seen.result.as_ref().err()?)));
    let wrong: Vec<_> = wrong.collect();
    assert!(!seen.is_empty(), "no fault was chosen");
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), seen.len(), wrong.join("\n\n"));
}

/// Tries the chosen faults, two at a time; those within one guest together. Whenever some have been tried, `tell` is given all that have been.
fn try_all(chosen: impl Fn(&Fault) -> bool, tell: impl Fn(&[Seen]) + Sync) -> Vec<Seen> {
    let faults: Vec<_> = table::faults().into_iter().filter(chosen).collect();
    let mut jobs: Vec<Box<dyn FnOnce() -> Vec<Seen> + Send + '_>> = Vec::new();
    for guest in [Guest::Reference, Guest::Micro] {
        let inside =
            faults.iter().filter(move |fault| matches!(&fault.done, Done::Inside { guest: of, .. } if *of == guest));
        let inside: Vec<_> = inside.collect();
        if !inside.is_empty() {
            jobs.push(Box::new(move || inside::try_together(guest, &inside)));
        }
    }
    for fault in &faults {
        match &fault.done {
            Done::Around { given, act, wanted } => {
                jobs.push(Box::new(move || vec![seen(fault, || around(given, *act, wanted))]));
            }
            Done::AtRandom { signal, times } => {
                jobs.push(Box::new(move || vec![seen(fault, || signals::at_random(&[*signal], *times))]));
            }
            Done::Inside { .. } => {}
        }
    }
    // The first job first.
    jobs.reverse();
    let (jobs, all) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(job) = jobs.lock().unwrap().pop() else { return };
                    let seen = job();
                    for Seen { fault, result, took } in &seen {
                        eprintln!("{fault}: {} ({} s)", result.as_ref().unwrap_or_else(|why| why), took.as_secs());
                    }
                    let mut all = all.lock().unwrap();
                    all.extend(seen);
                    tell(&all);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// Tries one, and does not end for its panic.
fn seen(fault: &Fault, attempt: impl FnOnce() -> Result<String, String>) -> Seen {
    let begun = Instant::now();
    let result = guarded(attempt);
    Seen { fault: fault.name, result, took: begun.elapsed() }
}

fn guarded<T>(attempt: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

fn around(given: &Given, act: fn(&Rig), wanted: &Ends) -> Result<String, String> {
    let mut rig = Rig::start(given);
    act(&rig);
    let end = rig.end();
    let artifacts = match given.start {
        rig::Start::OnSmallDisk { at: "artifacts", .. } => rig.project.path("left"),
        _ => rig.project.path("artifacts"),
    };
    nothing_left(&rig.project);
    let found = Found::read(&rig.project, &artifacts)?;
    let Ends { end: wanted_end, status, passed, says } = *wanted;
    let wrong = |what: String| Err(format!("{what}; it said:\n{}", rig.said()));
    if end != wanted_end {
        return wrong(format!("{end}"));
    }
    if found.status() != status {
        return wrong(format!("the transcript's status is {:?}", found.status()));
    }
    let really = found.passed();
    if really != passed {
        return wrong(format!("passed: {really:?}"));
    }
    let (said, recorded) = (rig.said(), found.text());
    if !said.contains(says) {
        return wrong(format!("`{says}` was not said"));
    }
    if status.is_some_and(|status| status != "SUCCESS") && !recorded.contains(says) {
        return wrong(format!("`{says}` is not in the transcript"));
    }
    let line = said.lines().find(|line| !says.is_empty() && line.contains(says)).unwrap_or_default();
    let status = status.unwrap_or("no transcript");
    Ok(format!("{end}, {status}; {} passed{}", really.len(), words_of(line)))
}

/// A line of the run, without what is different every time, for the table.
fn words_of(line: &str) -> String {
    let line = regex::Regex::new(r"^\[ *[0-9.]+ s\] |\x1b\[[0-9;]*m|^hermetic: ").unwrap().replace_all(line.trim(), "");
    let line = regex::Regex::new(r"/(tmp|var/tmp)/\.tmp\w+").unwrap().replace_all(&line, "…");
    let line = regex::Regex::new(r"127\.\d+\.\d+\.\d+").unwrap().replace_all(&line, "127.…");
    let line: String =
        if line.chars().count() > 200 { line.chars().take(199).chain(['…']).collect() } else { line.into() };
    if line.is_empty() { line } else { format!("; {line}") }
}

/// What a run has left, as far as it is evidence.
struct Found(Option<Value>);

impl Found {
    /// The transcript, which must verify; none if there is none, and then nothing that looks like one may lie there.
    fn read(project: &Project, artifacts: &Path) -> Result<Self, String> {
        let files = std::fs::read_dir(artifacts).into_iter().flatten().flatten().map(|entry| entry.path());
        let transcripts: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        let Some(transcript) = transcripts.first() else { return Ok(Self(None)) };
        if transcripts.len() > 1 {
            return Err(format!("one run left {transcripts:?}"));
        }
        let verified = project.hermetic(&["verify", transcript.to_str().unwrap()]);
        if verified.code != Some(0) {
            return Err(format!("the transcript does not verify: {}", verified.stderr));
        }
        let value: Value = serde_json::from_slice(&std::fs::read(transcript).unwrap()).unwrap();
        let found = Self(Some(value));
        found.is_consistent().map(|()| found)
    }

    /// What must hold of every transcript, whatever happened.
    fn is_consistent(&self) -> Result<(), String> {
        let Some(transcript) = &self.0 else { return Ok(()) };
        let lasted = transcript["duration_seconds"].as_u64().unwrap_or_default();
        for record in self.records() {
            let outcome = record["outcome"].as_str().unwrap_or_default();
            let steps = record["steps"].as_array().cloned().unwrap_or_default();
            let whole = steps.iter().all(|step| step["outcome"] == "passed" && step["answer"].is_object());
            if outcome == "passed" && (steps.is_empty() || !whole) {
                return Err(format!("passed without an answer to every question: {record}"));
            }
            // A guest's clock has no part in it.
            if record["took_ms"].as_u64().unwrap_or_default() / 1000 > lasted + 1 {
                return Err(format!("took longer than the run of {lasted} s: {record}"));
            }
        }
        Ok(())
    }

    fn status(&self) -> Option<&str> {
        self.0.as_ref().and_then(|transcript| transcript["overall_status"].as_str())
    }

    fn records(&self) -> impl Iterator<Item = &Value> {
        let lists = self.0.iter().flat_map(|transcript| transcript.as_object().unwrap().values());
        lists.filter_map(Value::as_array).flatten().filter(|record| record["steps"].is_array())
    }

    fn passed(&self) -> Vec<&str> {
        let passed = self.records().filter(|record| matches!(record["outcome"].as_str(), Some("passed" | "warned")));
        let mut names: Vec<_> = passed.filter_map(|record| record["name"].as_str()).collect();
        names.sort_unstable();
        names
    }

    /// All of its strings.
    fn text(&self) -> String {
        fn collect(value: &Value, text: &mut String) {
            match value {
                Value::String(string) => *text += &format!("{string}\n"),
                Value::Array(values) => values.iter().for_each(|value| collect(value, text)),
                Value::Object(fields) => fields.values().for_each(|value| collect(value, text)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut text = String::new();
        self.0.iter().for_each(|transcript| collect(transcript, &mut text));
        text
    }
}
