//! Plain text for people: what a scenario's result was and why, pointing into the scenario file.

use std::fmt::Write as _;

use crate::transcript::model::{Outcome, ScenarioRecord, StepRecord, Transcript};

/// What is to be said of a scenario: nothing for one that passed without a warning or a skipped step.
/// Files are shown below `session`, the session's folder.
pub fn scenario(record: &ScenarioRecord, session: &str) -> String {
    let mut text = String::new();
    for step in &record.steps {
        if step.outcome == Outcome::Skipped {
            let _ = writeln!(text, "skipped: {}:{}: step `{}`: {}", record.file, step.line, step.name, step.reason);
        } else if step.outcome >= Outcome::Warned {
            text.push_str(&self::step(&record.file, step, session));
        }
    }
    if text.is_empty() && !record.reason.is_empty() {
        let _ = writeln!(text, "{}: {}", record.outcome.word(), record.reason);
    }
    text
}

/// Every step in a line, with how its answer began.
pub fn steps(record: &ScenarioRecord) -> String {
    let mut text = String::new();
    for step in &record.steps {
        let _ = writeln!(text, "{}: {} ({}, {} ms)", step.outcome.word(), step.name, step.kind, step.took_ms);
        let Some(answer) = &step.answer else { continue };
        let _ = writeln!(text, "  asked:  {}", step.asked.lines().next().unwrap_or_default());
        let _ = writeln!(text, "  answer: {}", answer.status);
        for (name, stream) in answer.streams.iter().filter(|(_, stream)| stream.bytes > 0) {
            for line in stream.excerpt.lines().take(5) {
                let _ = writeln!(text, "  {name}: {line}");
            }
        }
    }
    text
}

fn step(file: &str, step: &StepRecord, session: &str) -> String {
    let mut text = String::new();
    let word = if step.outcome == Outcome::Warned { "warning: " } else { "" };
    for mismatch in &step.mismatches {
        let _ =
            writeln!(text, "{word}{file}:{}: step `{}`: {} does not match", mismatch.line, step.name, mismatch.what);
        let _ = writeln!(text, "  expected: {}", mismatch.expected);
        let _ = writeln!(text, "  actual:   {}", mismatch.actual);
    }
    if step.outcome == Outcome::Errored {
        let _ = writeln!(text, "{file}:{}: step `{}`: could not be asked: {}", step.line, step.name, step.reason);
    }
    let _ = writeln!(text, "  asked:    {} ({}, {} ms, {})", step.asked, step.kind, step.took_ms, times(step.attempts));
    if let Some(answer) = &step.answer {
        let _ = writeln!(text, "  answer:   {}", answer.status);
        for (name, stream) in &answer.streams {
            let whole = stream.file.as_ref().map(|file| format!(", all of it in {session}/{file}")).unwrap_or_default();
            if stream.bytes > 0 {
                let _ = writeln!(text, "  {name} ({} bytes{whole}):", stream.bytes);
                for line in stream.excerpt.lines().take(20) {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
    }
    text
}

fn times(attempts: u64) -> String {
    if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") }
}

/// The last line of a run: verdict, counts, image, accelerator, and what only passed on a stand-in.
pub fn summary(transcript: &Transcript) -> String {
    let summary = transcript.test_summary;
    let counts = [
        (summary.passed, "passed"),
        (summary.warned, "warned"),
        (summary.failed, "failed"),
        (summary.errored, "errored"),
        (summary.skipped, "skipped"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let stand_ins =
        transcript.results().filter(|record| record.on_stand_in && record.outcome <= Outcome::Warned).count();
    let machine =
        transcript.machine.as_ref().map_or_else(|| "no machine".to_owned(), |machine| machine.accelerator.clone());
    let reasons =
        if transcript.reasons.is_empty() { String::new() } else { format!(" ({})", transcript.reasons.join("; ")) };
    let image = transcript
        .image_digest
        .as_ref()
        .map_or_else(|| "no image".to_owned(), |digest| format!("{} {digest}", transcript.rave_version));
    let sensitivity = transcript.sensitivity.as_ref().map(|sensitivity| format!("; {}", sensitivity.summary));
    format!(
        "{}{reasons}: {}; {image}; {machine}; {stand_ins} verified on a stand-in only{}",
        transcript.overall_status.word(),
        counts.collect::<Vec<_>>().join(", "),
        sensitivity.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::model::{MismatchRecord, OverallStatus};
    use crate::transcript::sample;

    #[test]
    fn a_failed_step_points_into_its_file() {
        let mut record = sample::scenario("health::nginx");
        record.outcome = Outcome::Failed;
        let step = &mut record.steps[0];
        step.outcome = Outcome::Failed;
        step.mismatches.push(MismatchRecord {
            line: 7,
            what: "stdout".into(),
            expected: r#"contains "active""#.into(),
            actual: r#""ok""#.into(),
        });
        let expected = "\
scenarios/health/nginx.toml:7: step `it answers`: stdout does not match
  expected: contains \"active\"
  actual:   \"ok\"
  asked:    root: true (run, 12 ms, once)
  answer:   exit 0
  stdout (3 bytes):
    ok
";
        assert_eq!(scenario(&record, "session"), expected);
    }

    #[test]
    fn what_passed_is_not_talked_about() {
        assert_eq!(scenario(&sample::scenario("health::nginx"), "session"), "");
    }

    #[test]
    fn the_summary_names_image_accelerator_and_stand_ins() {
        let mut transcript = sample::transcript();
        transcript.service_health[0].on_stand_in = true;
        transcript.overall_status = OverallStatus::Warning;
        assert_eq!(
            summary(&transcript),
            format!("WARNING: 2 passed; P6-reference {}; tcg; 1 verified on a stand-in only", sample::DISK)
        );
    }
}
