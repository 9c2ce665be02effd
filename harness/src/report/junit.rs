//! JUnit XML, as GitLab, GitHub's reporters and Jenkins show it.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::html::printable;
use super::text;
use crate::transcript::model::{Outcome, ScenarioRecord, Transcript};

/// The report may lie anywhere; files are named from the artifacts' point of view.
const SESSION: &str = "<session>";

/// The report of a transcript: a suite for each phase, a case for each scenario.
///
/// What these tools do not know is put where they show it: a warning is a passed case whose name says so, and every case has
/// its questions and answers as its output. All suites carry what was booted and by whom as properties.
///
/// # Errors
/// If the XML cannot be written.
pub fn junit(transcript: &Transcript) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new(&transcript.test_session_id);
    report.set_time(Duration::from_secs(transcript.duration_seconds));
    let mut suites: Vec<TestSuite> = Vec::new();
    for record in transcript.results() {
        let (phase, name) = record.name.split_once("::").unwrap_or(("", &record.name));
        if suites.last().is_none_or(|suite| suite.name.as_str() != phase) {
            suites.push(suite(phase, transcript));
        }
        if let Some(suite) = suites.last_mut() {
            suite.time = suite.time.map(|time| time.saturating_add(Duration::from_millis(record.took_ms)));
            suite.add_test_case(case(phase, name, record));
        }
    }
    report.add_test_suites(suites);
    let skipped = format!(r#" skipped="{}""#, report.skipped);
    // The schema of Jenkins knows this number for suites, and not for all of them together.
    Ok(report.to_string()?.replacen(&skipped, "", 1))
}

fn suite(phase: &str, transcript: &Transcript) -> TestSuite {
    let mut suite = TestSuite::new(phase);
    suite.time = Some(Duration::ZERO);
    let began = transcript.start_time.get(..19).unwrap_or_default();
    suite.extra.insert("timestamp".into(), began.into());
    let Transcript { machine, harness, image_digest, rave_version, overall_status, test_session_id, .. } = transcript;
    let none = || "none".to_owned();
    for (name, value) in [
        ("session", test_session_id.clone()),
        ("status", overall_status.word().to_owned()),
        ("rave_version", rave_version.clone()),
        ("image_digest", image_digest.clone().unwrap_or_else(none)),
        ("accelerator", machine.as_ref().map_or_else(none, |machine| machine.accelerator.clone())),
        ("ready_ms", machine.as_ref().and_then(|machine| machine.ready_ms).map_or_else(none, |ms| ms.to_string())),
        ("harness_version", harness.version.clone()),
        ("git_commit", harness.git_commit.clone().unwrap_or_else(none)),
    ] {
        suite.add_property((name, value.as_str()));
    }
    suite
}

fn case(phase: &str, name: &str, record: &ScenarioRecord) -> TestCase {
    let warned = record.outcome == Outcome::Warned;
    let status = match record.outcome {
        Outcome::Passed | Outcome::Warned => TestCaseStatus::success(),
        Outcome::Failed => non_success(NonSuccessKind::Failure, record),
        Outcome::Errored => non_success(NonSuccessKind::Error, record),
        Outcome::Skipped => {
            let mut status = TestCaseStatus::skipped();
            let step = record.steps.iter().find(|step| step.outcome == Outcome::Skipped);
            let reason = if record.reason.is_empty() { step.map(|step| &step.reason) } else { Some(&record.reason) };
            status.set_message(reason.map(String::as_str).unwrap_or_default());
            status
        }
    };
    let name = if warned { format!("{name} (warned)") } else { name.to_owned() };
    let name = if record.on_stand_in { format!("{name} (on a stand-in)") } else { name };
    let mut case = TestCase::new(name, status);
    case.set_classname(phase);
    case.set_time(Duration::from_millis(record.took_ms));
    let output = output(record);
    if !output.is_empty() {
        case.set_system_out(output);
    }
    case
}

fn non_success(kind: NonSuccessKind, record: &ScenarioRecord) -> TestCaseStatus {
    let text = printable(&text::scenario(record, SESSION));
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(record.outcome.word());
    status.set_message(text.lines().next().unwrap_or_default());
    status.set_description(text);
    status
}

/// What went wrong, then every step with how its answer began.
fn output(record: &ScenarioRecord) -> String {
    let mut output = text::scenario(record, SESSION);
    if record.outcome != Outcome::Skipped {
        output.push_str(&text::steps(record));
    }
    printable(&output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::model::MismatchRecord;
    use crate::transcript::sample;

    #[test]
    fn each_outcome_has_its_element() {
        let mut transcript = sample::transcript();
        let outcomes = [Outcome::Failed, Outcome::Errored, Outcome::Skipped];
        for (outcome, name) in outcomes.iter().zip(["security::a", "security::b", "security::c"]) {
            let mut record = sample::scenario(name);
            record.outcome = *outcome;
            record.reason = "because <of> this".into();
            record.steps.clear();
            transcript.add(record);
        }
        let mut record = sample::scenario("security::d");
        record.outcome = Outcome::Warned;
        record.on_stand_in = true;
        record.steps[0].outcome = Outcome::Warned;
        let (expected, actual) = ("at most 8".into(), "9\0\x1b[0m]]>".into());
        record.steps[0].mismatches.push(MismatchRecord { line: 4, what: "stdout".into(), expected, actual });
        transcript.add(record);
        let xml = junit(&transcript).unwrap();
        for expected in [
            r#"tests="6" failures="1" errors="1""#,
            r#"<testsuite name="security" tests="4" "#,
            r#"skipped="1""#,
            r#"timestamp="2026-11-24T12:00:00""#,
            r#"<skipped message="because &lt;of&gt; this"/>"#,
            r#"<property name="accelerator" value="tcg"/>"#,
            r#"<testcase name="ready" classname="boot" time="0.015">"#,
            r#"<testcase name="d (warned) (on a stand-in)""#,
            r#"<failure message="failed: because &lt;of&gt; this" type="failed">"#,
            "passed: it answers",
            "warning: ",
            "9␀",
        ] {
            assert!(xml.contains(expected), "{expected} is not in\n{xml}");
        }
    }
}
