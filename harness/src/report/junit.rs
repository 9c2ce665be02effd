//! JUnit XML, as GitLab and other CI systems show it.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::transcript::model::{Outcome, ScenarioRecord, Transcript};

/// The report may lie anywhere; files are named from the artifacts' point of view.
const SESSION: &str = "<session>";

/// The report of a transcript: a suite for each phase, a case for each scenario.
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
            suites.push(TestSuite::new(phase));
        }
        if let Some(suite) = suites.last_mut() {
            suite.add_test_case(case(phase, name, record));
        }
    }
    report.add_test_suites(suites);
    report.to_string()
}

fn case(phase: &str, name: &str, record: &ScenarioRecord) -> TestCase {
    let status = match record.outcome {
        Outcome::Passed | Outcome::Warned => TestCaseStatus::success(),
        Outcome::Failed => non_success(NonSuccessKind::Failure, record),
        Outcome::Errored => non_success(NonSuccessKind::Error, record),
        Outcome::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(&record.reason);
            status
        }
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(phase);
    case.set_time(Duration::from_millis(record.took_ms));
    let text = super::text::scenario(record, SESSION);
    if !text.is_empty() {
        case.set_system_out(text);
    }
    case
}

fn non_success(kind: NonSuccessKind, record: &ScenarioRecord) -> TestCaseStatus {
    let text = super::text::scenario(record, SESSION);
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(text.lines().next().unwrap_or_default());
    status.set_description(text);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let xml = junit(&transcript).unwrap();
        for expected in [
            r#"tests="5" skipped="1" failures="1" errors="1""#,
            r#"<testsuite name="security" tests="3" "#,
            r#"<skipped message="because &lt;of&gt; this"/>"#,
            r#"<testcase name="ready" classname="boot" time="0.015"/>"#,
        ] {
            assert!(xml.contains(expected), "{expected} is not in\n{xml}");
        }
    }
}
