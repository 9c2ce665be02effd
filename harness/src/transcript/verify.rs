//! Verifies a transcript offline: first the bytes, then what they say, then that it follows from itself.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Cursor;

use minisign::{PublicKey, PublicKeyBox, SignatureBox};

use super::model::{Outcome, OverallStatus, SCHEMA, ScenarioRecord, StepRecord, TestSummary, Transcript};
use super::{canonical, sign};

/// The largest transcript that is read, bytes.
pub const LARGEST: u64 = 256 * 1024 * 1024;

/// Whose key a transcript was verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The key came from whoever verifies.
    Given,
    /// The key came with the transcript: nothing changed since it was signed, but not who signed.
    FromTranscript,
}

/// A reason not to believe a transcript.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(reason.into()))
}

/// A public key from the text of a `.pub` file or from its base64 line alone.
///
/// # Errors
/// If it is neither.
pub fn public_key(text: &str) -> Result<PublicKey, Refusal> {
    let key = if text.trim().lines().count() > 1 {
        PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key)
    } else {
        PublicKey::from_base64(text.trim())
    };
    key.map_err(|error| Refusal(format!("the public key is not a minisign key: {error}")))
}

/// Verifies the bytes of a transcript file and of its detached signature.
///
/// # Errors
/// The first reason not to believe it.
pub fn verify(json: &[u8], minisig: &str, key: Option<&PublicKey>) -> Result<(Transcript, Trust), Refusal> {
    let outer = SignatureBox::from_string(minisig)
        .map_err(|error| Refusal(format!("the detached signature is not a minisign signature: {error}")))?;
    // With a key of one's own the bytes are checked before anything in them is parsed.
    if let Some(key) = key {
        check_signature(key, &outer, json, "the detached signature")?;
    }
    let transcript: Transcript = serde_json::from_slice(json)
        .map_err(|error| Refusal(format!("it is not a transcript of schema {SCHEMA}: {error}")))?;
    let own = public_key(&transcript.signing_key.public_key)?;
    let trust = match key {
        Some(key) if *key == own => Trust::Given,
        Some(_) => return refuse("it names another key than the one it was verified with"),
        None => {
            check_signature(&own, &outer, json, "the detached signature")?;
            Trust::FromTranscript
        }
    };
    if transcript.schema != SCHEMA {
        return refuse(format!("it has schema {}, this program reads {SCHEMA}", transcript.schema));
    }
    match canonical::of(&transcript) {
        Ok(bytes) if bytes == json => {}
        _ => return refuse("it is not in canonical form (RFC 8785)"),
    }
    check_inner(&transcript, &own)?;
    let comment = sign::trusted_comment(&transcript);
    if outer.trusted_comment().ok().as_ref() != Some(&comment) {
        return refuse(format!("the signature's trusted comment is not `{comment}`"));
    }
    check_consistency(&transcript)?;
    Ok((transcript, trust))
}

fn check_signature(key: &PublicKey, signature: &SignatureBox, bytes: &[u8], what: &str) -> Result<(), Refusal> {
    minisign::verify(key, signature, Cursor::new(bytes), true, false, false)
        .map_err(|error| Refusal(format!("{what} does not verify: {error}")))
}

fn check_inner(transcript: &Transcript, key: &PublicKey) -> Result<(), Refusal> {
    let Some(text) = &transcript.signature else { return refuse("it has no signature inside") };
    let inner = SignatureBox::from_string(text)
        .map_err(|error| Refusal(format!("the signature inside is not a minisign signature: {error}")))?;
    let bytes = canonical::of_unsigned(transcript).map_err(|error| Refusal(error.to_string()))?;
    check_signature(key, &inner, &bytes, "the signature inside")?;
    if inner.trusted_comment().ok().as_ref() == Some(&sign::trusted_comment(transcript)) {
        Ok(())
    } else {
        refuse("the trusted comment of the signature inside is about another session, image or status")
    }
}

/// That the summary, the verdict and every outcome follow from what was recorded.
fn check_consistency(transcript: &Transcript) -> Result<(), Refusal> {
    let summary = TestSummary::of(transcript.results());
    if summary != transcript.test_summary {
        return refuse(format!("the summary says {:?}, the results say {summary:?}", transcript.test_summary));
    }
    let follows = transcript.status_of_results();
    let status = transcript.overall_status;
    if status != OverallStatus::Aborted && status != OverallStatus::Failed && status != follows {
        return refuse(format!("the status is {}, the results say {}", status.word(), follows.word()));
    }
    if matches!(status, OverallStatus::Aborted) || status != follows {
        if transcript.reasons.is_empty() {
            return refuse(format!("the status is {} and no reason is given", status.word()));
        }
    } else if status != OverallStatus::Failed && !transcript.reasons.is_empty() {
        return refuse("it gives reasons for a failure, and its status is none");
    }
    check_times(transcript)?;
    check_image(transcript)?;
    check_machine(transcript)?;
    let mut names = BTreeSet::new();
    for (field, phases, records) in transcript.sections() {
        for record in records {
            let name = &record.name;
            if !names.insert(name) {
                return refuse(format!("`{name}` is there twice"));
            }
            if !phases.iter().any(|phase| name.strip_prefix(phase).is_some_and(|rest| rest.starts_with("::"))) {
                return refuse(format!("`{name}` does not belong into {field}"));
            }
            check_scenario(record).or_else(|why| refuse(format!("`{name}`: {why}")))?;
        }
    }
    Ok(())
}

fn check_times(transcript: &Transcript) -> Result<(), Refusal> {
    let time = |what: &str, text: &str| {
        text.parse::<jiff::Timestamp>().map_err(|_| Refusal(format!("{what} `{text}` is not an RFC 3339 time")))
    };
    let start = time("start_time", &transcript.start_time)?;
    let end = time("completion_time", &transcript.completion_time)?;
    let seconds = end.duration_since(start).as_secs();
    if u64::try_from(seconds) == Ok(transcript.duration_seconds) {
        Ok(())
    } else {
        refuse(format!("duration_seconds is {}, its times say {seconds}", transcript.duration_seconds))
    }
}

fn check_image(transcript: &Transcript) -> Result<(), Refusal> {
    let disk = transcript.image.as_ref().and_then(|image| image.files.iter().find(|file| file.role == "disk"));
    if transcript.image_digest.as_ref() != disk.map(|disk| &disk.digest) {
        return refuse("image_digest is not the digest of the image's disk");
    }
    let good = matches!(transcript.overall_status, OverallStatus::Success | OverallStatus::Warning);
    let unchanged = transcript.image.as_ref().and_then(|image| image.unchanged_after_run);
    if good && transcript.machine.is_some() && unchanged != Some(true) {
        return refuse("the image changed during the run or was not looked at again, yet the status is good");
    }
    if good && transcript.machine.as_ref().is_some_and(|machine| machine.failure.is_some()) {
        return refuse("the machine was lost, yet the status is good");
    }
    Ok(())
}

/// That what a guest answered was answered by the guest of this transcript.
fn check_machine(transcript: &Transcript) -> Result<(), Refusal> {
    let Transcript { machine, profile, image, rave_version, .. } = transcript;
    let name = profile.as_ref().map_or("none", |profile| profile.name.as_str());
    if rave_version != name {
        return refuse(format!("rave_version is `{rave_version}`, the guest's profile says `{name}`"));
    }
    if name == "P6-production" && image.as_ref().is_some_and(|image| image.provider == "reference") {
        return refuse("a reference guest is not P6-production");
    }
    let ready =
        machine.as_ref().is_some_and(|machine| machine.ready_ms.is_some()) && profile.is_some() && image.is_some();
    check_forks(transcript)?;
    for record in transcript.results() {
        let mut steps = record.steps.iter().filter(|step| step.answer.is_some());
        if !ready && steps.any(|step| matches!(step.kind.as_str(), "run" | "http" | "port")) {
            return refuse(format!("`{}` was answered by a guest, and there was none", record.name));
        }
        let capabilities = profile.as_ref().map(|profile| &profile.capabilities);
        for answered in &record.answered_by {
            let (capability, _) = answered.split_once(": ").unwrap_or((answered, ""));
            let known = capabilities.and_then(|capabilities| capabilities.get(capability));
            let text = known.map(|known| {
                format!("{capability}: {}{}", known.implementation, if known.stand_in { " (stand-in)" } else { "" })
            });
            if text.as_ref() != Some(answered) {
                return refuse(format!(
                    "`{}` was answered by `{answered}`, which the profile does not have",
                    record.name
                ));
            }
        }
        if record.on_stand_in != record.answered_by.iter().any(|answered| answered.ends_with(" (stand-in)")) {
            return refuse(format!("`{}` does not say truly whether a stand-in answered", record.name));
        }
    }
    Ok(())
}

/// How far a fork's clock may be off, milliseconds.
const CLOCK_OFF_MS: u64 = 2000;

/// That every fork is one of the machine that was saved, and a good one: its clock is right, and its random numbers are like nobody else's.
fn check_forks(transcript: &Transcript) -> Result<(), Refusal> {
    let forks = transcript.machine.as_ref().and_then(|machine| machine.forks.as_ref());
    let saved = forks.and_then(|forks| forks.saved.as_ref());
    if let Some(forks) = forks.filter(|forks| (forks.method == "none") != forks.saved.is_none()) {
        return refuse(format!("forks by `{}` do not go with what was saved", forks.method));
    }
    let cold = transcript.machine.as_ref().is_some_and(|machine| machine.origin == "cold");
    let own = format!("{}/", transcript.test_session_id);
    if let Some(saved) = saved.filter(|saved| cold && !saved.id.starts_with(&own)) {
        return refuse(format!("the machine is said to be booted by this session, and was saved by `{}`", saved.id));
    }
    let mut random = BTreeSet::new();
    for record in transcript.results() {
        let name = &record.name;
        match (record.machine.as_str(), &record.fork) {
            ("fork", Some(fork)) => {
                if saved.map(|saved| &saved.id) != Some(&fork.of) {
                    return refuse(format!(
                        "`{name}` was asked on a fork of `{}`, which is not the saved machine",
                        fork.of
                    ));
                }
                if fork.clock_off_ms > CLOCK_OFF_MS {
                    return refuse(format!(
                        "`{name}` was asked on a fork whose clock was {} ms off",
                        fork.clock_off_ms
                    ));
                }
                if !random.insert(&fork.random) {
                    return refuse(format!("`{name}` was asked on a fork with another fork's random numbers"));
                }
            }
            ("shared", None) if saved.is_some() => {
                return refuse(format!("`{name}` was asked on a shared machine, and there were forks"));
            }
            ("none" | "cold" | "shared", None) => {}
            (machine, _) => {
                return refuse(format!("`{name}` does not say truly which machine it was asked on: `{machine}`"));
            }
        }
    }
    Ok(())
}

fn check_scenario(record: &ScenarioRecord) -> Result<(), Refusal> {
    let asked = record.steps.iter().map(|step| step.outcome).max();
    match (asked, record.outcome) {
        (None, Outcome::Skipped | Outcome::Errored) if !record.reason.is_empty() => {}
        (None, outcome) => return refuse(format!("{} without a step, or without a reason", outcome.word())),
        (Some(worst), outcome) if worst == outcome => {}
        (Some(worst), outcome) => {
            return refuse(format!("it is {} though its worst step is {}", outcome.word(), worst.word()));
        }
    }
    for step in &record.steps {
        check_step(step).or_else(|why| refuse(format!("step `{}`: {why}", step.name)))?;
    }
    Ok(())
}

fn check_step(step: &StepRecord) -> Result<(), Refusal> {
    let differs = !step.mismatches.is_empty();
    let explained = !step.reason.is_empty();
    let answered = step.answer.is_some() && step.attempts > 0;
    let follows = match step.outcome {
        Outcome::Passed => answered && !differs && !explained && !step.expectations.is_empty(),
        Outcome::Failed | Outcome::Warned => answered && differs,
        Outcome::Errored => explained,
        Outcome::Skipped => explained && step.attempts == 0,
    };
    if follows { Ok(()) } else { refuse(format!("{} does not follow from what was recorded", step.outcome.word())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::sample;
    use crate::transcript::sign::{Sealed, SigningKey, seal};

    fn sealed(transcript: &Transcript) -> (Sealed, PublicKey) {
        let key = SigningKey::ephemeral().unwrap();
        let transcript = Transcript { signing_key: key.record(), ..transcript.clone() };
        (seal(&transcript, &key).unwrap(), public_key(&key.public_base64()).unwrap())
    }

    /// Signs a transcript that was changed before signing: what does a verifier say whom the signature does not protect?
    fn check(change: impl FnOnce(&mut Transcript), expected: &str) {
        let mut transcript = sample::transcript();
        change(&mut transcript);
        let (sealed, key) = sealed(&transcript);
        let refusal = verify(&sealed.json, &sealed.minisig, Some(&key)).unwrap_err().0;
        assert!(refusal.contains(expected), "{refusal:?} does not contain {expected:?}");
    }

    #[test]
    fn what_was_sealed_verifies() {
        let (sealed, key) = sealed(&sample::transcript());
        let (transcript, trust) = verify(&sealed.json, &sealed.minisig, Some(&key)).unwrap();
        assert_eq!(trust, Trust::Given);
        assert_eq!(transcript.test_summary, TestSummary::of(transcript.results()));
        assert_eq!(verify(&sealed.json, &sealed.minisig, None).unwrap().1, Trust::FromTranscript);
    }

    #[test]
    fn no_byte_can_be_changed() {
        let (sealed, key) = sealed(&sample::transcript());
        for position in 0..sealed.json.len() {
            let mut json = sealed.json.clone();
            json[position] ^= 1;
            assert!(verify(&json, &sealed.minisig, Some(&key)).is_err(), "byte {position}");
            assert!(verify(&json, &sealed.minisig, None).is_err(), "byte {position}, with its own key");
        }
        assert!(verify(&sealed.json[..sealed.json.len() - 1], &sealed.minisig, Some(&key)).is_err());
    }

    #[test]
    fn another_key_or_signature_is_refused() {
        let (first, key) = sealed(&sample::transcript());
        let (second, other) = sealed(&sample::transcript());
        assert!(verify(&first.json, &first.minisig, Some(&other)).is_err());
        assert!(verify(&first.json, &second.minisig, Some(&key)).is_err());
        assert!(verify(&first.json, "untrusted comment: nothing", Some(&key)).is_err());
        let comment = first.minisig.replace("status:SUCCESS", "status:FAILED");
        assert_ne!(comment, first.minisig);
        assert!(verify(&first.json, &comment, Some(&key)).is_err());
    }

    #[test]
    fn a_signer_cannot_contradict_itself() {
        check(|transcript| transcript.test_summary.passed += 1, "the summary says");
        check(
            |transcript| transcript.overall_status = OverallStatus::Warning,
            "the status is WARNING, the results say SUCCESS",
        );
        check(|transcript| transcript.overall_status = OverallStatus::Aborted, "no reason is given");
        check(|transcript| transcript.reasons.push("something".into()), "gives reasons for a failure");
        check(|transcript| transcript.duration_seconds += 1, "duration_seconds is");
        check(|transcript| transcript.start_time = "yesterday".into(), "is not an RFC 3339 time");
        check(|transcript| transcript.image_digest = Some("sha256:00".into()), "image_digest is not the digest");
        check(|transcript| transcript.image.as_mut().unwrap().unchanged_after_run = Some(false), "the image changed");
        check(|transcript| transcript.machine.as_mut().unwrap().failure = Some("gone".into()), "the machine was lost");
        check(|transcript| transcript.schema = 2, "it has schema 2");
        check(|transcript| transcript.image.as_mut().unwrap().unchanged_after_run = None, "was not looked at again");
        check(
            |transcript| transcript.machine.as_mut().unwrap().ready_ms = None,
            "was answered by a guest, and there was none",
        );
        check(|transcript| transcript.rave_version = "P6-production".into(), "the guest's profile says `P6-reference`");
        check(|transcript| transcript.service_health[0].on_stand_in = true, "does not say truly");
        check(
            |transcript| transcript.service_health[0].answered_by = vec!["gitlab: gitlab-ce 19".into()],
            "the profile does not have",
        );
        let forks = |transcript: &mut Transcript| transcript.machine.as_mut().unwrap().forks.take().unwrap();
        check(|transcript| transcript.test_session_id = "spinup-1".into(), "and was saved by `spinup-20261124-120000/");
        check(|transcript| drop(forks(transcript)), "which is not the saved machine");
        check(
            |transcript| transcript.machine.as_mut().unwrap().forks.as_mut().unwrap().method = "none".into(),
            "do not go with what was saved",
        );
        check(|transcript| transcript.service_health[0].fork.as_mut().unwrap().clock_off_ms = 2001, "2001 ms off");
        check(|transcript| transcript.service_health[0].fork = None, "does not say truly which machine");
        check(|transcript| transcript.validation_results[0].machine = "shared".into(), "and there were forks");
        check(
            |transcript| {
                transcript.validation_results[0].machine = "fork".into();
                transcript.validation_results[0].fork = transcript.service_health[0].fork.clone();
            },
            "another fork's random numbers",
        );
        check(|transcript| transcript.service_health[0].name = "boot::ready".into(), "is there twice");
        check(
            |transcript| transcript.service_health[0].name = "oidc::login".into(),
            "does not belong into service_health",
        );
        check(|transcript| transcript.service_health[0].steps.clear(), "passed without a step");
        check(
            |transcript| transcript.service_health[0].steps[0].outcome = Outcome::Failed,
            "it is passed though its worst step is failed",
        );
        check(
            |transcript| transcript.service_health[0].steps[0].answer = None,
            "passed does not follow from what was recorded",
        );
        check(|transcript| transcript.service_health[0].steps[0].expectations.clear(), "passed does not follow");
    }

    #[test]
    fn a_dropped_result_is_seen_only_by_the_signature_and_the_summary() {
        check(|transcript| drop(transcript.service_health.pop()), "the summary says");
    }

    #[test]
    fn only_the_canonical_form_is_a_transcript() {
        let key = SigningKey::ephemeral().unwrap();
        let own = public_key(&key.public_base64()).unwrap();
        let transcript = Transcript { signing_key: key.record(), ..sample::transcript() };
        let text = String::from_utf8(seal(&transcript, &key).unwrap().json).unwrap();
        let comment = sign::trusted_comment(&transcript);
        let refused = |text: &str, expected: &str| {
            let minisig = key.sign(text.as_bytes(), &comment).unwrap();
            let refusal = verify(text.as_bytes(), &minisig, Some(&own)).unwrap_err().0;
            assert!(refusal.contains(expected), "{refusal:?} does not contain {expected:?}");
        };
        refused(&format!("{text}\n"), "not in canonical form");
        refused(&text.replacen("{", "{ ", 1), "not in canonical form");
        refused(&text.replacen("{", r#"{"schema":1,"#, 1), "duplicate field");
        refused(&text.replacen("{", r#"{"extra":1,"#, 1), "unknown field `extra`");
        refused(&text.replacen(r#""schema":1"#, r#""schema":1.0"#, 1), "not a transcript");
        refused(&"[".repeat(100_000), "not a transcript");
        refused("", "not a transcript");
    }
}
