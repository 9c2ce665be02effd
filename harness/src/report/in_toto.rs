//! The result of a run as an in-toto statement (<https://in-toto.io/Statement/v1>) with the predicate `test-result`, for
//! policies that know no transcripts.

use serde_json::{Value, json};

use crate::transcript::model::{Outcome, OverallStatus, Transcript};

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The statement about the image of a transcript, which lies in a file of this name with this digest (64 digits); `None` if the
/// transcript is about no image.
///
/// The predicate knows tests that passed, warned and failed. What could not be asked has failed. What was skipped, and what
/// passed on a stand-in only, stands in extension fields, whose names begin with `rave_`.
pub fn statement(transcript: &Transcript, file_name: &str, sha256: &str) -> Option<Value> {
    let image = transcript.image.as_ref()?;
    let of = |wanted: &[Outcome]| -> Vec<&str> {
        let records = transcript.results().filter(|record| wanted.contains(&record.outcome));
        records.map(|record| record.name.as_str()).collect()
    };
    let result = match transcript.overall_status {
        OverallStatus::Success => "PASSED",
        OverallStatus::Warning => "WARNED",
        OverallStatus::Failed | OverallStatus::Aborted => "FAILED",
    };
    let on_stand_in = transcript.results().filter(|record| record.on_stand_in);
    let capabilities = transcript.profile.iter().flat_map(|profile| &profile.capabilities);
    let stand_ins = capabilities.filter(|(_, found)| found.stand_in);
    let file = |file: &crate::transcript::model::FileRecord| json!({ "name": name_of(&file.path), "digest": { "sha256": digits(&file.digest) } });
    let (disk, others): (Vec<_>, Vec<_>) = image.files.iter().partition(|file| file.role == "disk");
    let mut configuration = vec![json!({ "name": file_name, "digest": { "sha256": sha256 } })];
    configuration.extend(others.into_iter().map(file));
    if let Some(commit) = &transcript.harness.git_commit {
        configuration.push(json!({ "name": "harness", "digest": { "gitCommit": commit } }));
    }
    Some(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": disk.into_iter().map(file).collect::<Vec<_>>(),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": result,
            "configuration": configuration,
            "passedTests": of(&[Outcome::Passed]),
            "warnedTests": of(&[Outcome::Warned]),
            "failedTests": of(&[Outcome::Failed, Outcome::Errored]),
            "rave_skippedTests": skipped(transcript),
            "rave_standInTests": on_stand_in.map(|record| record.name.as_str()).collect::<Vec<_>>(),
            "rave_standIns": stand_ins.map(|(name, found)| json!({ "capability": name, "implementation": found.implementation })).collect::<Vec<_>>(),
            "rave_status": transcript.overall_status.word(),
            "rave_version": transcript.rave_version,
            "rave_session": transcript.test_session_id,
        },
    }))
}

/// Whole scenarios, and single steps of others, with the reason.
fn skipped(transcript: &Transcript) -> Vec<Value> {
    let mut skipped = Vec::new();
    for record in transcript.results() {
        if record.outcome == Outcome::Skipped && record.steps.is_empty() {
            skipped.push(json!({ "name": record.name, "reason": record.reason }));
        }
        for step in record.steps.iter().filter(|step| step.outcome == Outcome::Skipped) {
            skipped.push(json!({ "name": record.name, "step": step.name, "reason": step.reason }));
        }
    }
    skipped
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::sample;

    #[test]
    fn nothing_is_lost_that_would_make_a_result_look_better() {
        let mut transcript = sample::transcript();
        for (outcome, name) in [
            (Outcome::Failed, "security::a"),
            (Outcome::Errored, "security::b"),
            (Outcome::Skipped, "security::c"),
            (Outcome::Warned, "security::d"),
        ] {
            let mut record = sample::scenario(name);
            record.outcome = outcome;
            record.on_stand_in = outcome == Outcome::Warned;
            record.reason = "because".into();
            record.steps.clear();
            transcript.add(record);
        }
        transcript.overall_status = OverallStatus::Aborted;
        let found = statement(&transcript, "boot_transcript.json", "cc").unwrap();
        let predicate = &found["predicate"];
        assert_eq!(predicate["result"], "FAILED");
        assert_eq!(predicate["passedTests"], json!(["boot::ready", "health::nginx"]));
        assert_eq!(predicate["warnedTests"], json!(["security::d"]));
        assert_eq!(predicate["failedTests"], json!(["security::a", "security::b"]));
        assert_eq!(predicate["rave_skippedTests"], json!([{ "name": "security::c", "reason": "because" }]));
        assert_eq!(predicate["rave_standInTests"], json!(["security::d"]));
        assert_eq!(found["subject"], json!([{ "name": "disk.qcow2", "digest": { "sha256": "a".repeat(64) } }]));
        transcript.image = None;
        assert_eq!(statement(&transcript, "x", "cc"), None);
    }
}
