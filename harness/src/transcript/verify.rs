//! Verifies a transcript offline: first the bytes, then what they say, then that it follows from itself.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Cursor;

use minisign::{PublicKey, PublicKeyBox, SignatureBox};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::model::{
    Outcome, OverallStatus, SCHEMA, ScenarioRecord, SensitivitySummary, StepRecord, StreamRecord, TestSummary,
    Transcript,
};
use super::{canonical, sign};
use crate::hex;

/// The largest transcript that is read, bytes.
pub const LARGEST: u64 = 256 * 1024 * 1024;

/// The versions of the format that are read.
pub const READABLE: std::ops::RangeInclusive<u64> = 1..=SCHEMA;

/// Whose key a transcript was verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The key came from whoever verifies.
    Given,
    /// The key came with the transcript: nothing changed since it was signed, but not who signed.
    FromTranscript,
}

/// What a reason is about, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The detached signature, or the one inside.
    Signature,
    /// Whose key it is.
    Key,
    /// That it is a transcript of a version that is read.
    Schema,
    /// The one byte form.
    Canonical,
    /// That the counts follow from the results.
    Summary,
    /// That the verdict follows from the results.
    Status,
    /// That its times fit each other.
    Times,
    /// The image: its digests, and that it did not change.
    Image,
    /// The machine and the guest's profile.
    Machine,
    /// That each result follows from what was recorded.
    Results,
    /// What the policy of whoever verifies asks for.
    Policy,
}

/// One reason not to believe or not to accept a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What it is about.
    pub check: Check,
    /// For people.
    pub text: String,
}

/// All reasons that were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Reason>);

impl Findings {
    /// One more reason.
    pub fn add(&mut self, check: Check, text: impl Into<String>) {
        self.0.push(Reason { check, text: text.into() });
    }

    /// One more reason unless `holds`.
    pub fn unless(&mut self, holds: bool, check: Check, text: impl FnOnce() -> String) {
        if !holds {
            self.add(check, text());
        }
    }

    /// The reasons, in the order in which they were found.
    pub fn reasons(&self) -> &[Reason] {
        &self.0
    }

    /// `value`, if there is no reason against it.
    ///
    /// # Errors
    /// With all reasons.
    pub fn or<T>(self, value: T) -> Result<T, Refusal> {
        if self.0.is_empty() { Ok(value) } else { Err(Refusal(self.0)) }
    }
}

/// Why a transcript is not believed: at least one reason, and all that were found.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub Vec<Reason>);

impl Refusal {
    /// With one reason.
    pub fn new(check: Check, text: impl Into<String>) -> Self {
        Self(vec![Reason { check, text: text.into() }])
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|reason| reason.text.as_str()).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for Refusal {}

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
    key.map_err(|error| Refusal::new(Check::Key, format!("the public key is not a minisign key: {error}")))
}

/// Verifies the bytes of a transcript file and of its detached signature, with the key it must be signed with or else with the
/// one it names itself.
///
/// # Errors
/// Every reason not to believe it.
pub fn verify(json: &[u8], minisig: &str, key: Option<&PublicKey>) -> Result<(Transcript, Trust), Refusal> {
    verify_with(json, minisig, key.map(std::slice::from_ref).unwrap_or_default())
}

/// As [`verify`], with any of several keys; with none, with the one the transcript names itself.
///
/// # Errors
/// Every reason not to believe it. Where a stage makes the next one meaningless (bytes that are not those that were signed, a
/// document that is not a transcript) there is nothing after it.
pub fn verify_with(json: &[u8], minisig: &str, trusted: &[PublicKey]) -> Result<(Transcript, Trust), Refusal> {
    let outer = signature_box(minisig, "the detached signature")?;
    // With keys of one's own the bytes are checked before anything in them is parsed.
    if let [first, ..] = trusted {
        let key = trusted.iter().find(|key| key.keynum() == outer.keynum()).unwrap_or(first);
        check_signature(key, &outer, json, "the detached signature")?;
    }
    let transcript = parse(json)?;
    let own = public_key(&transcript.signing_key.public_key)?;
    let mut findings = Findings::default();
    let trust = if trusted.is_empty() {
        check_signature(&own, &outer, json, "the detached signature")?;
        Trust::FromTranscript
    } else {
        // The detached signature was verified with the trusted key of this number.
        let named = trusted.contains(&own) && own.keynum() == outer.keynum();
        findings.unless(named, Check::Key, || "it names another key than the one it was verified with".to_owned());
        Trust::Given
    };
    let comment = sign::trusted_comment(&transcript);
    check_comment(&outer, &comment, "the detached signature", &mut findings);
    check_inner(&transcript, &own, &mut findings);
    check_document(&transcript, json, &mut findings);
    findings.or((transcript, trust))
}

/// Everything that can be said of a document without its signatures: that it is a transcript, in the one byte form, and that
/// it does not contradict itself.
///
/// # Errors
/// Every reason not to believe it.
pub fn document(json: &[u8]) -> Result<Transcript, Refusal> {
    let transcript = parse(json)?;
    let mut findings = Findings::default();
    check_document(&transcript, json, &mut findings);
    findings.or(transcript)
}

/// The version alone: a document of another version is refused for that and not for its unknown fields.
#[derive(Deserialize)]
struct Version {
    schema: u64,
}

fn parse(json: &[u8]) -> Result<Transcript, Refusal> {
    let refuse = |text: String| Refusal::new(Check::Schema, text);
    // Found before anything else, so that the reason is the same for every place where such bytes stand.
    let text = std::str::from_utf8(json).map_err(|error| refuse(format!("it is not UTF-8: {error}")))?;
    if let Ok(Version { schema }) = serde_json::from_str(text)
        && !READABLE.contains(&schema)
    {
        let (first, last) = READABLE.into_inner();
        return Err(refuse(format!("it has schema {schema}; this program reads {first} to {last}")));
    }
    serde_json::from_str(text).map_err(|error| refuse(format!("it is not a transcript: {error}")))
}

/// A signature exactly as it is written: stock minisign also takes other spellings, and a comment nobody signed.
fn signature_box(text: &str, what: &str) -> Result<SignatureBox, Refusal> {
    let found = SignatureBox::from_string(text)
        .map_err(|error| Refusal::new(Check::Signature, format!("{what} is not a minisign signature: {error}")))?;
    if found.untrusted_comment().ok().as_deref() != Some(sign::UNTRUSTED_COMMENT) {
        return Err(Refusal::new(Check::Signature, format!("{what} has another comment than this program writes")));
    }
    if found.to_string() == text {
        Ok(found)
    } else {
        Err(Refusal::new(Check::Signature, format!("{what} is not written as this program writes it")))
    }
}

fn check_signature(key: &PublicKey, signature: &SignatureBox, bytes: &[u8], what: &str) -> Result<(), Refusal> {
    minisign::verify(key, signature, Cursor::new(bytes), true, false, false)
        .map_err(|error| Refusal::new(Check::Signature, format!("{what} does not verify: {error}")))
}

fn check_comment(signature: &SignatureBox, expected: &str, what: &str, findings: &mut Findings) {
    let found = signature.trusted_comment().unwrap_or_default();
    findings.unless(found == expected, Check::Signature, || {
        format!("the trusted comment of {what} is `{found}`, about another session, image or status than `{expected}`")
    });
}

fn check_inner(transcript: &Transcript, key: &PublicKey, findings: &mut Findings) {
    let what = "the signature inside";
    let Some(text) = &transcript.signature else {
        return findings.add(Check::Signature, "it has no signature inside");
    };
    let checked = signature_box(text, what).and_then(|inner| {
        let bytes = canonical::of_unsigned(transcript)
            .map_err(|error| Refusal::new(Check::Canonical, format!("it cannot be written as JSON: {error}")))?;
        check_signature(key, &inner, &bytes, what)?;
        Ok(inner)
    });
    match checked {
        Ok(inner) => check_comment(&inner, &sign::trusted_comment(transcript), what, findings),
        Err(Refusal(reasons)) => findings.0.extend(reasons),
    }
}

fn check_document(transcript: &Transcript, json: &[u8], findings: &mut Findings) {
    check_version(transcript, findings);
    let canonical = canonical::of(transcript).is_ok_and(|bytes| bytes == json);
    findings.unless(canonical, Check::Canonical, || "it is not in canonical form (RFC 8785)".to_owned());
    check_status(transcript, findings);
    check_times(transcript, findings);
    check_image(transcript, findings);
    check_machine(transcript, findings);
    let mut names = BTreeSet::new();
    for (field, phases, records) in transcript.sections() {
        for record in records {
            let name = &record.name;
            findings.unless(names.insert(name), Check::Results, || format!("`{name}` is there twice"));
            let belongs =
                phases.iter().any(|phase| name.strip_prefix(phase).is_some_and(|rest| rest.starts_with("::")));
            findings.unless(belongs, Check::Results, || format!("`{name}` does not belong into {field}"));
            check_scenario(record, findings);
        }
    }
}

/// That a document of an older version has no field of a newer one.
fn check_version(transcript: &Transcript, findings: &mut Findings) {
    let machine = transcript.machine.as_ref();
    let forks = machine.is_some_and(|machine| machine.forks.is_some() || machine.ready_at.is_some())
        || transcript.results().any(|record| record.fork.is_some());
    let newer = forks || transcript.sensitivity.is_some();
    findings.unless(transcript.schema >= 2 || !newer, Check::Schema, || {
        format!("it has schema {}, and fields of schema 2", transcript.schema)
    });
}

/// That the summary and the verdict follow from the results.
fn check_status(transcript: &Transcript, findings: &mut Findings) {
    let counted = TestSummary::of(transcript.results());
    findings.unless(counted == transcript.test_summary, Check::Summary, || {
        format!("the summary says {}, the results say {}", counts(&transcript.test_summary), counts(&counted))
    });
    if let Some(sensitivity) = &transcript.sensitivity {
        let counted = SensitivitySummary::of(&sensitivity.scenarios);
        findings.unless(counted == sensitivity.summary, Check::Summary, || {
            format!("the sensitivity's summary says {}, its scenarios say {counted}", sensitivity.summary)
        });
    }
    let (status, follows) = (transcript.overall_status, transcript.status_of_results());
    let worse = matches!(status, OverallStatus::Aborted | OverallStatus::Failed);
    findings.unless(worse || status == follows, Check::Status, || {
        format!("the status is {}, the results say {}", status.word(), follows.word())
    });
    let needs_reason = status == OverallStatus::Aborted || (worse && status != follows);
    findings.unless(!needs_reason || !transcript.reasons.is_empty(), Check::Status, || {
        format!("the status is {} and no reason is given", status.word())
    });
    findings.unless(worse || transcript.reasons.is_empty(), Check::Status, || {
        "it gives reasons for a failure, and its status is none".to_owned()
    });
}

fn counts(summary: &TestSummary) -> String {
    let TestSummary { total_tests, passed, failed, warned, errored, skipped } = summary;
    format!("{total_tests} ({passed} passed, {failed} failed, {warned} warned, {errored} errored, {skipped} skipped)")
}

fn check_times(transcript: &Transcript, findings: &mut Findings) {
    let mut time = |what: &str, text: &str| {
        let time = text.parse::<jiff::Timestamp>().ok();
        findings.unless(time.is_some(), Check::Times, || format!("{what} `{text}` is not an RFC 3339 time"));
        time
    };
    let start = time("start_time", &transcript.start_time);
    let end = time("completion_time", &transcript.completion_time);
    let (Some(start), Some(end)) = (start, end) else { return };
    let took = end.duration_since(start);
    findings.unless(u64::try_from(took.as_secs()) == Ok(transcript.duration_seconds), Check::Times, || {
        format!("duration_seconds is {}, its times say {}", transcript.duration_seconds, took.as_secs())
    });
    let stamp = start.strftime("spinup-%Y%m%d-%H%M%S").to_string();
    let named = transcript.test_session_id.strip_prefix(&stamp).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok())
    });
    // One that was joined from others has the name of when it was joined, and began when the first of them did.
    findings.unless(named || !transcript.parts.is_empty(), Check::Times, || {
        format!("the session is `{}`, and began at {}", transcript.test_session_id, transcript.start_time)
    });
    let whole = u64::try_from(took.as_millis()).unwrap_or_default();
    for record in transcript.results() {
        let ended = record.started_ms.saturating_add(record.took_ms);
        findings.unless(ended <= whole, Check::Times, || {
            format!("`{}` ended {ended} ms after the start of a session of {whole} ms", record.name)
        });
    }
}

fn check_image(transcript: &Transcript, findings: &mut Findings) {
    let image = transcript.image.as_ref();
    for file in image.iter().flat_map(|image| &image.files) {
        findings.unless(is_digest(&file.digest), Check::Image, || {
            format!("`{}` is not a SHA-256 digest of the image's {}", file.digest, file.role)
        });
    }
    let disk = image.and_then(|image| image.files.iter().find(|file| file.role == "disk"));
    findings.unless(transcript.image_digest.as_ref() == disk.map(|disk| &disk.digest), Check::Image, || {
        "image_digest is not the digest of the image's disk".to_owned()
    });
    let good = matches!(transcript.overall_status, OverallStatus::Success | OverallStatus::Warning);
    let unchanged = image.and_then(|image| image.unchanged_after_run);
    findings.unless(!good || transcript.machine.is_none() || unchanged == Some(true), Check::Image, || {
        "the image changed during the run or was not looked at again, yet the status is good".to_owned()
    });
    let lost = transcript.machine.as_ref().is_some_and(|machine| machine.failure.is_some());
    findings.unless(!(good && lost), Check::Machine, || "the machine was lost, yet the status is good".to_owned());
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// That what a guest answered was answered by the guest of this transcript.
fn check_machine(transcript: &Transcript, findings: &mut Findings) {
    let Transcript { machine, profile, image, rave_version, .. } = transcript;
    let name = profile.as_ref().map_or("none", |profile| profile.name.as_str());
    findings.unless(rave_version == name, Check::Machine, || {
        format!("rave_version is `{rave_version}`, the guest's profile says `{name}`")
    });
    if name == "P6-production" {
        let reference = image.as_ref().is_some_and(|image| image.provider == "reference");
        findings.unless(!reference, Check::Machine, || "a reference guest is not P6-production".to_owned());
        let stand_in = profile.iter().flat_map(|profile| profile.capabilities.values()).any(|found| found.stand_in);
        findings.unless(!stand_in, Check::Machine, || "P6-production has no stand-ins".to_owned());
    }
    let ready =
        machine.as_ref().is_some_and(|machine| machine.ready_ms.is_some()) && profile.is_some() && image.is_some();
    check_forks(transcript, findings);
    for record in transcript.results() {
        let name = &record.name;
        let mut steps = record.steps.iter().filter(|step| step.answer.is_some());
        let asked_guest = steps.any(|step| matches!(step.kind.as_str(), "run" | "http" | "port"));
        findings.unless(ready || !asked_guest, Check::Machine, || {
            format!("`{name}` was answered by a guest, and there was none")
        });
        let capabilities = profile.as_ref().map(|profile| &profile.capabilities);
        for answered in &record.answered_by {
            let (capability, _) = answered.split_once(": ").unwrap_or((answered, ""));
            let known = capabilities.and_then(|capabilities| capabilities.get(capability)).map(|known| {
                format!("{capability}: {}{}", known.implementation, if known.stand_in { " (stand-in)" } else { "" })
            });
            findings.unless(known.as_ref() == Some(answered), Check::Machine, || {
                format!("`{name}` was answered by `{answered}`, which the profile does not have")
            });
        }
        let stand_in = record.answered_by.iter().any(|answered| answered.ends_with(" (stand-in)"));
        findings.unless(record.on_stand_in == stand_in, Check::Machine, || {
            format!("`{name}` does not say truly whether a stand-in answered")
        });
    }
}

/// How far a fork's clock may be off, milliseconds.
const CLOCK_OFF_MS: u64 = 2000;

/// That every fork is one of the machine that was saved, and a good one: its clock is right, and its random numbers are like nobody
/// else's.
fn check_forks(transcript: &Transcript, findings: &mut Findings) {
    let forks = transcript.machine.as_ref().and_then(|machine| machine.forks.as_ref());
    let saved = forks.and_then(|forks| forks.saved.as_ref());
    if let Some(forks) = forks {
        findings.unless((forks.method == "none") == forks.saved.is_none(), Check::Machine, || {
            format!("forks by `{}` do not go with what was saved", forks.method)
        });
    }
    let cold = transcript.machine.as_ref().is_some_and(|machine| machine.origin == "cold");
    if let Some(saved) = saved.filter(|_| cold) {
        let session = saved.id.split('/').next().unwrap_or_default();
        findings.unless(session == transcript.test_session_id, Check::Machine, || {
            format!("the machine is said to be booted by this session, and was saved by `{}`", saved.id)
        });
    }
    let mut random = BTreeSet::new();
    for record in transcript.results() {
        let name = &record.name;
        let mut unless = |holds: bool, text: String| findings.unless(holds, Check::Machine, || text);
        match (record.machine.as_str(), &record.fork) {
            ("fork", Some(fork)) => {
                let of_saved = saved.map(|saved| &saved.id) == Some(&fork.of);
                unless(
                    of_saved,
                    format!("`{name}` was asked on a fork of `{}`, which is not the saved machine", fork.of),
                );
                let off = fork.clock_off_ms;
                unless(off <= CLOCK_OFF_MS, format!("`{name}` was asked on a fork whose clock was {off} ms off"));
                let own = random.insert(&fork.random);
                unless(own, format!("`{name}` was asked on a fork with another fork's random numbers"));
            }
            ("shared", None) => {
                unless(saved.is_none(), format!("`{name}` was asked on a shared machine, and there were forks"));
            }
            ("none" | "cold", None) => {}
            (machine, _) => {
                unless(false, format!("`{name}` does not say truly which machine it was asked on: `{machine}`"));
            }
        }
    }
}

fn check_scenario(record: &ScenarioRecord, findings: &mut Findings) {
    let name = &record.name;
    let (worst, outcome) = (record.steps.iter().map(|step| step.outcome).max(), record.outcome);
    match worst {
        None => {
            let explained = matches!(outcome, Outcome::Skipped | Outcome::Errored) && !record.reason.is_empty();
            findings.unless(explained, Check::Results, || {
                format!("`{name}`: {} without a step, or without a reason", outcome.word())
            });
        }
        Some(worst) => findings.unless(worst == outcome, Check::Results, || {
            format!("`{name}`: it is {} though its worst step is {}", outcome.word(), worst.word())
        }),
    }
    for step in &record.steps {
        findings.unless(follows(step), Check::Results, || {
            format!("`{name}`: step `{}`: {} does not follow from what was recorded", step.name, step.outcome.word())
        });
        for (stream, record) in step.answer.iter().flat_map(|answer| &answer.streams) {
            findings.unless(is_whole(record), Check::Results, || {
                format!("`{name}`: step `{}`: {stream} does not have the length and digest it says", step.name)
            });
        }
    }
}

fn follows(step: &StepRecord) -> bool {
    let differs = !step.mismatches.is_empty();
    let explained = !step.reason.is_empty();
    let answered = step.answer.is_some() && step.attempts > 0;
    match step.outcome {
        Outcome::Passed => answered && !differs && !explained && !step.expectations.is_empty(),
        Outcome::Failed | Outcome::Warned => answered && differs,
        Outcome::Errored => explained,
        Outcome::Skipped => explained && step.attempts == 0,
    }
}

/// Whether an excerpt that is all of its stream is the stream whose digest is there.
fn is_whole(stream: &StreamRecord) -> bool {
    let StreamRecord { bytes, digest, excerpt, file } = stream;
    match file {
        Some(_) => is_digest(digest),
        None => excerpt.len() as u64 == *bytes && *digest == hex::sha256(&Sha256::digest(excerpt)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::model::Sensitivity;
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
        let refusal = verify(&sealed.json, &sealed.minisig, Some(&key)).unwrap_err().to_string();
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
        let deaf =
            |transcript: &mut Transcript| transcript.sensitivity = Some(sample::sensitivity(Sensitivity::Unseen));
        check(deaf, "the status is SUCCESS, the results say FAILED");
        let edited = |transcript: &mut Transcript| {
            let mut sensitivity = sample::sensitivity(Sensitivity::Unseen);
            (sensitivity.summary.seen, sensitivity.summary.unseen) = (1, 0);
            transcript.sensitivity = Some(sensitivity);
        };
        check(edited, "the sensitivity's summary says of 1 steps 1 were seen to fail");
        let older = |transcript: &mut Transcript| {
            transcript.schema = 1;
            transcript.sensitivity = Some(sample::sensitivity(Sensitivity::Seen));
        };
        check(older, "it has schema 1, and fields of schema 2");
        check(|transcript| transcript.schema = 3, "it has schema 3");
        check(|transcript| transcript.schema = 1, "it has schema 1, and fields of schema 2");
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
            let refusal = verify(text.as_bytes(), &minisig, Some(&own)).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal:?} does not contain {expected:?}");
        };
        refused(&format!("{text}\n"), "not in canonical form");
        refused(&text.replacen("{", "{ ", 1), "not in canonical form");
        refused(&text.replacen("{", r#"{"schema":2,"#, 1), "duplicate field");
        refused(&text.replacen("{", r#"{"extra":1,"#, 1), "unknown field `extra`");
        refused(&text.replacen(r#""schema":2"#, r#""schema":2.0"#, 1), "not a transcript");
        refused(&"[".repeat(100_000), "not a transcript");
        refused("", "not a transcript");
    }
}
