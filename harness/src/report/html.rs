//! The page to look at: one self-contained HTML file, made from a verified transcript and the folder of its session.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, escape_formatter};
use serde::Serialize;

use super::boot::{self, Boot};
use super::compare::{Comparison, Row};
use super::session::{Failure, Session};
use crate::transcript::model::{AnswerRecord, Outcome, OverallStatus, ScenarioRecord, StepRecord, Transcript};

/// A page is never larger than this, bytes.
pub const LARGEST: usize = 3_000_000;

/// As much of each stream as is shown, bytes, until the page is small enough.
const EXCERPTS: [usize; 5] = [2048, 512, 128, 32, 0];

/// What a page is made of.
pub struct Page<'a> {
    /// The transcript, verified.
    pub transcript: &'a Transcript,
    /// Its name as a file.
    pub file_name: &'a str,
    /// What lies in the session's folder.
    pub session: &'a Session,
    /// It held against an earlier one.
    pub against: Option<&'a Comparison>,
}

/// The page.
///
/// # Errors
/// If the template cannot be filled in, which no transcript can bring about.
pub fn html(page: &Page<'_>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // Escaping is the template's default; this is for what HTML does not know or shows as something else.
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(printable(text))),
        _ => escape_formatter(out, state, value),
    });
    environment.add_template("page.html", include_str!("page.html"))?;
    let template = environment.get_template("page.html")?;
    let mut text = String::new();
    for excerpt in EXCERPTS {
        text = template.render(Serde(values(page, excerpt)))?;
        if text.len() < LARGEST {
            break;
        }
    }
    Ok(text)
}

/// What the template is filled in with; short names, since they stand in it often.
#[derive(Serialize)]
struct Values<'a> {
    t: &'a Transcript,
    file_name: &'a str,
    session: &'a Session,
    /// Link, name and bytes.
    files: Vec<(Option<String>, &'a str, u64)>,
    mark: &'static str,
    status: &'static str,
    status_class: String,
    counts: Vec<(&'static str, &'static str, u64)>,
    only_on_stand_ins: usize,
    took: String,
    ready: Option<String>,
    disk_mib: Option<u64>,
    run: TimeLine,
    boot: Option<TimeLine>,
    phases: Vec<PhaseView<'a>>,
    against: Option<&'a Comparison>,
    outside: Option<Vec<&'a Row>>,
    forked: bool,
    arguments: Option<String>,
}

fn values<'a>(page: &Page<'a>, excerpt: usize) -> Values<'a> {
    let Page { transcript, file_name, session, against } = *page;
    let stand_ins = transcript.results().filter(|record| record.on_stand_in && record.outcome <= Outcome::Warned);
    let machine = transcript.machine.as_ref();
    Values {
        t: transcript,
        file_name,
        session,
        files: session.files.iter().map(|(name, bytes)| (session.link(name), name.as_str(), *bytes)).collect(),
        mark: mark(match transcript.overall_status {
            OverallStatus::Success => Outcome::Passed,
            OverallStatus::Warning => Outcome::Warned,
            OverallStatus::Failed => Outcome::Failed,
            OverallStatus::Aborted => Outcome::Errored,
        }),
        status: transcript.overall_status.word(),
        status_class: transcript.overall_status.word().to_lowercase(),
        counts: counts(transcript),
        only_on_stand_ins: stand_ins.count(),
        took: duration(transcript.duration_seconds.saturating_mul(1000)),
        ready: machine.and_then(|machine| machine.ready_ms).map(duration),
        disk_mib: transcript
            .image
            .as_ref()
            .and_then(|image| image.files.first())
            .map(|file| file.bytes / (1024 * 1024)),
        run: run_line(transcript),
        boot: boot::boot(transcript).map(|boot| boot_line(&boot, session)),
        phases: phases(transcript, excerpt, session),
        against,
        outside: against.map(Comparison::outside),
        forked: transcript.results().any(|record| record.fork.is_some()),
        arguments: machine.map(|machine| arguments(&machine.arguments)),
    }
}

fn counts(transcript: &Transcript) -> Vec<(&'static str, &'static str, u64)> {
    let summary = transcript.test_summary;
    let counts = [
        (Outcome::Passed, summary.passed),
        (Outcome::Warned, summary.warned),
        (Outcome::Failed, summary.failed),
        (Outcome::Errored, summary.errored),
        (Outcome::Skipped, summary.skipped),
    ];
    let shown = counts.into_iter().filter(|(outcome, count)| *count > 0 || *outcome == Outcome::Passed);
    shown.map(|(outcome, count)| (mark(outcome), outcome.word(), count)).collect()
}

/// A sign for each outcome, so that no colour is needed to tell them apart.
fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "✓",
        Outcome::Warned => "▲",
        Outcome::Failed => "✗",
        Outcome::Errored => "■",
        Outcome::Skipped => "○",
    }
}

/// `850 ms`, `12.3 s`, `5 min 28 s`.
fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A mark on an axis: as short as may be.
fn tick(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        1..1000 => format!("{ms} ms"),
        _ if !ms.is_multiple_of(1000) => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        1000..60_000 => format!("{} s", ms / 1000),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Bars over one stretch of time.
#[derive(Serialize)]
struct TimeLine {
    /// Where there is a mark on the axis, thousandths, and what it says.
    ticks: Vec<(u64, String)>,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    /// What it is.
    name: String,
    /// How it ended, as a style and as a sign; empty where that is not the question.
    class: &'static str,
    mark: &'static str,
    /// Beginning and length, thousandths of the line.
    from: u64,
    length: u64,
    /// What made it ready just before: the making of a fork.
    before: Option<(u64, u64)>,
    /// In words.
    label: String,
}

impl TimeLine {
    fn new(whole_ms: u64) -> Self {
        let steps =
            [100, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000];
        let step = steps.into_iter().find(|step| whole_ms / step <= 7).unwrap_or(u64::MAX);
        let ticks = (0..=7).map(|number| number * step.min(u64::MAX / 8)).filter(|at| *at <= whole_ms);
        Self { ticks: ticks.map(|at| (thousandth(at, whole_ms), tick(at))).collect(), bars: Vec::new() }
    }

    fn add(&mut self, whole_ms: u64, name: &str, kind: (&'static str, &'static str), from_ms: u64, took_ms: u64) {
        let from = thousandth(from_ms, whole_ms);
        self.bars.push(Bar {
            name: name.to_owned(),
            class: kind.0,
            mark: kind.1,
            from,
            length: thousandth(took_ms, whole_ms).clamp(3, 1000).min(1003 - from),
            before: None,
            label: duration(took_ms),
        });
    }
}

fn thousandth(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 1000 / u128::from(whole.max(1))).min(1000).try_into().unwrap_or(1000)
}

/// The run: what came before the machine, its boot, and every scenario.
fn run_line(transcript: &Transcript) -> TimeLine {
    let ended = transcript.results().map(|record| record.started_ms.saturating_add(record.took_ms)).max();
    let whole = transcript.duration_seconds.saturating_mul(1000).max(ended.unwrap_or_default()).max(1);
    let mut line = TimeLine::new(whole);
    let machine = transcript.machine.as_ref();
    let first = transcript.results().filter(|record| record.machine != "none").map(|record| record.started_ms).min();
    if let (Some(first), Some(ready)) = (first, machine.and_then(|machine| machine.ready_ms)) {
        line.add(whole, "the machine, until it was ready", ("machine", ""), first.saturating_sub(ready), ready);
    }
    let mut records: Vec<_> = transcript.results().collect();
    records.sort_by_key(|record| record.started_ms);
    for record in records {
        let kind = (record.outcome.word(), mark(record.outcome));
        let origin = if record.fork.is_some() { " (fork)" } else { "" };
        line.add(whole, &format!("{}{origin}", record.name), kind, record.started_ms, record.took_ms);
        if let (Some(fork), Some(bar)) = (&record.fork, line.bars.last_mut()) {
            let decided = thousandth(fork.began_ms.saturating_sub(fork.running_ms), whole);
            let awake = thousandth(fork.began_ms.saturating_add(fork.awake_ms), whole);
            bar.before = Some((decided, awake.saturating_sub(decided).max(1)));
        }
    }
    line
}

/// The guest's boot by its own clock: its parts, and the units that took longest to start.
fn boot_line(boot: &Boot, session: &Session) -> TimeLine {
    let units = session.units.iter().map(|unit| unit.from_ms.saturating_add(unit.took_ms)).max().unwrap_or_default();
    let whole = boot.total_ms.max(units).max(1);
    let mut line = TimeLine::new(whole);
    let mut from = 0_u64;
    for (name, ms) in &boot.parts {
        line.add(whole, name, ("machine", ""), from, *ms);
        from = from.saturating_add(*ms);
    }
    if session.units.is_empty() {
        for (name, ms) in boot.units.iter().take(15) {
            line.add(whole, &format!("{name} (its beginning is not known)"), ("unit", ""), 0, *ms);
        }
    } else {
        // The journal's clock begins with the machine, the guest's account with its kernel.
        let ahead =
            units.saturating_sub(boot.total_ms).min(session.units.iter().map(|unit| unit.from_ms).min().unwrap_or(0));
        for unit in &session.units {
            line.add(whole, &unit.name, ("unit", ""), unit.from_ms.saturating_sub(ahead), unit.took_ms);
        }
    }
    line
}

#[derive(Serialize)]
struct PhaseView<'a> {
    name: &'a str,
    /// `9 passed, 1 failed`.
    counts: String,
    class: &'static str,
    mark: &'static str,
    open: bool,
    scenarios: Vec<ScenarioView<'a>>,
}

#[derive(Serialize)]
struct ScenarioView<'a> {
    record: &'a ScenarioRecord,
    word: &'static str,
    mark: &'static str,
    took: String,
    open: bool,
    steps: Vec<StepView<'a>>,
    /// What was gathered about its failure, with the files' links and names.
    failure: Option<FailureView<'a>>,
}

#[derive(Serialize)]
struct FailureView<'a> {
    found: &'a Failure,
    files: Vec<(Option<String>, &'a str)>,
}

#[derive(Serialize)]
struct StepView<'a> {
    record: &'a StepRecord,
    word: &'static str,
    mark: &'static str,
    took: String,
    streams: Vec<StreamView<'a>>,
}

#[derive(Serialize)]
struct StreamView<'a> {
    name: &'a str,
    bytes: u64,
    text: &'a str,
    cut: bool,
    /// All of it, as a link from the page, where its path is a plain one.
    link: Option<String>,
}

fn phases<'a>(transcript: &'a Transcript, excerpt: usize, session: &'a Session) -> Vec<PhaseView<'a>> {
    let mut phases: Vec<(&str, Vec<&ScenarioRecord>)> = Vec::new();
    for record in transcript.results() {
        let phase = record.name.split("::").next().unwrap_or_default();
        match phases.last_mut() {
            Some((name, records)) if *name == phase => records.push(record),
            _ => phases.push((phase, vec![record])),
        }
    }
    let view = |(name, records): (&'a str, Vec<&'a ScenarioRecord>)| {
        let worst = records.iter().map(|record| record.outcome).max().unwrap_or(Outcome::Skipped);
        let mut counted: BTreeMap<Outcome, usize> = BTreeMap::new();
        records.iter().for_each(|record| *counted.entry(record.outcome).or_default() += 1);
        let counts: Vec<_> =
            counted.iter().rev().map(|(outcome, count)| format!("{count} {}", outcome.word())).collect();
        PhaseView {
            name,
            counts: counts.join(", "),
            class: worst.word(),
            mark: mark(worst),
            open: worst >= Outcome::Warned,
            scenarios: records.into_iter().map(|record| scenario(record, excerpt, session)).collect(),
        }
    };
    phases.into_iter().map(view).collect()
}

fn scenario<'a>(record: &'a ScenarioRecord, excerpt: usize, session: &'a Session) -> ScenarioView<'a> {
    let step = |step: &'a StepRecord| StepView {
        record: step,
        word: step.outcome.word(),
        mark: mark(step.outcome),
        took: duration(step.took_ms),
        streams: step.answer.iter().flat_map(|answer| streams(answer, excerpt, session)).collect(),
    };
    let failure = session.failures.get(&record.name).filter(|_| record.outcome >= Outcome::Failed);
    let failure = failure.map(|found| FailureView {
        found,
        files: found.files.iter().map(|file| (session.link(file), file.as_str())).collect(),
    });
    ScenarioView {
        record,
        failure,
        word: record.outcome.word(),
        mark: mark(record.outcome),
        took: duration(record.took_ms),
        open: record.outcome >= Outcome::Warned,
        steps: record.steps.iter().map(step).collect(),
    }
}

fn streams<'a>(answer: &'a AnswerRecord, excerpt: usize, session: &Session) -> Vec<StreamView<'a>> {
    let streams = answer.streams.iter().filter(|(_, stream)| stream.bytes > 0);
    let view = |(name, stream): (&'a String, &'a crate::transcript::model::StreamRecord)| {
        let text = beginning(&stream.excerpt, excerpt);
        StreamView {
            name,
            bytes: stream.bytes,
            cut: stream.file.is_some() || text.len() < stream.excerpt.len(),
            text,
            link: stream.file.as_deref().and_then(|file| session.link(file)),
        }
    };
    streams.map(view).collect()
}

/// At most this many bytes, cut between two characters.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Control characters, which HTML does not know, are shown as pictures of themselves.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            '\r' => {}
            '\0'..='\x1f' => shown.push(char::from_u32(0x2400 + u32::from(letter)).unwrap_or('\u{fffd}')),
            // Letters that turn the direction of writing could make a text read as another.
            '\x7f'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(letter));
            }
            _ => shown.push(letter),
        }
    }
    shown
}

/// QEMU's arguments, an option a line.
fn arguments(arguments: &[String]) -> String {
    let mut text = String::new();
    for argument in arguments {
        if argument.starts_with('-') {
            text.push('\n');
        } else if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(argument);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::{self, Band};
    use crate::report::session::Unit;
    use crate::transcript::model::{MismatchRecord, StreamRecord};
    use crate::transcript::sample;

    fn page(transcript: &Transcript, session: &Session) -> String {
        html(&Page { transcript, file_name: "boot_transcript.json", session, against: None }).unwrap()
    }

    const HOSTILE: &str = "</pre></details><script>alert(1)</script><img src=x onerror=\"alert(2)\">&amp;{{ 7 * 7 }}{% raw %}\u{202e}\x1b[31m\0";

    /// Every text of a transcript, replaced.
    fn hostile() -> Transcript {
        fn replace(value: &mut serde_json::Value) {
            use serde_json::Value;
            match value {
                Value::String(text) => *text = format!("{HOSTILE}{text}"),
                Value::Array(values) => values.iter_mut().for_each(replace),
                Value::Object(values) => values.values_mut().for_each(replace),
                _ => {}
            }
        }
        let mut transcript = sample::transcript();
        let record = &mut transcript.service_health[0];
        record.reason = "x".into();
        record.steps[0].reason = "x".into();
        record.steps[0].mismatches.push(MismatchRecord {
            line: 4,
            what: "x".into(),
            expected: "x".into(),
            actual: "x".into(),
        });
        record.steps[0].answer.as_mut().unwrap().streams.get_mut("stdout").unwrap().file = Some("x".into());
        transcript.reasons.push("x".into());
        transcript.filters.push("x".into());
        let mut value = serde_json::to_value(&transcript).unwrap();
        replace(&mut value);
        value["overall_status"] = "FAILED".into();
        let text = serde_json::to_string(&value).unwrap();
        let outcome = serde_json::to_string(&format!("{HOSTILE}passed")).unwrap();
        serde_json::from_str(&text.replace(&outcome, "\"failed\"")).unwrap()
    }

    #[test]
    fn nothing_that_was_recorded_becomes_part_of_the_page() {
        let transcript = hostile();
        let hostile = HOSTILE.to_owned();
        let unit = Unit { name: hostile.clone(), from_ms: 0, took_ms: 1 };
        let session = Session {
            folder: Some(hostile.clone()),
            linked: true,
            console: hostile.clone(),
            journal: hostile.clone(),
            files: vec![(hostile.clone(), 1)],
            units: vec![unit],
            screenshot: None,
            failures: BTreeMap::from([(
                transcript.service_health[0].name.clone(),
                Failure { texts: vec![("x", hostile.clone())], screenshot: None, files: vec![hostile.clone()] },
            )]),
        };
        let against = compare::compare(&[&sample::transcript()], &transcript, Band::default());
        let page = Page { transcript: &transcript, file_name: HOSTILE, session: &session, against: Some(&against) };
        let html = html(&page).unwrap();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(!html.contains("alert(2)\"") && !html.contains("49"), "{html}");
        assert!(!html.contains(['\0', '\x1b', '\u{202e}']), "{html}");
        assert!(html.contains("&lt;script&gt;"));
        assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
        assert_eq!(html.matches("<pre").count(), html.matches("</pre>").count());
    }

    #[test]
    fn the_page_says_how_it_went_without_colours() {
        let mut transcript = sample::transcript();
        let step = &mut transcript.service_health[0].steps[0];
        step.outcome = Outcome::Failed;
        step.mismatches.push(MismatchRecord {
            line: 7,
            what: "stdout".into(),
            expected: "equals 3".into(),
            actual: "2".into(),
        });
        transcript.service_health[0].outcome = Outcome::Failed;
        transcript.overall_status = OverallStatus::Failed;
        let html = page(&transcript, &Session::default());
        for text in ["✗ FAILED", "equals 3", "expected", "actual", "health::nginx (fork)", "P6-reference"] {
            assert!(html.contains(text), "`{text}` is not in\n{html}");
        }
        assert!(!html.contains("http://") && !html.contains("<script") && !html.contains("<link"));
    }

    #[test]
    fn a_page_stays_small_however_large_the_transcript() {
        let mut transcript = sample::transcript();
        for number in 0..150 {
            let mut record = sample::scenario(&format!("security::s{number}"));
            let step = record.steps[0].clone();
            record.steps = (0..10).map(|_| step.clone()).collect();
            for step in &mut record.steps {
                let stream = StreamRecord {
                    bytes: 5000,
                    digest: String::new(),
                    excerpt: "<&\n".repeat(680),
                    file: Some("security/x/01-stdout".into()),
                };
                step.answer.as_mut().unwrap().streams.insert("stdout".into(), stream);
            }
            transcript.add(record);
        }
        let html = page(&transcript, &Session::default());
        assert!(html.len() < LARGEST, "{}", html.len());
        assert!(html.contains("security::s149"));
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let check = |ms, expected| assert_eq!(duration(ms), expected);
        check(0, "0 ms");
        check(999, "999 ms");
        check(12_340, "12.3 s");
        check(328_862, "5 min 28 s");
        assert_eq!(beginning("añb", 2), "a");
        assert_eq!(printable("a\x1b[0m\r\n\u{202e}"), "a␛[0m\n\\u{202e}");
    }
}
