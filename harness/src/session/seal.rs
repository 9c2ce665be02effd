//! `hermetic seal`: joins the transcripts of several runs into one signed transcript. Under cargo nextest every scenario is a process, and so a
//! run, of its own; all of them make forks of one saved machine.

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use sha2::{Digest as _, Sha256};

use super::run::{Ended, write};
use crate::hex;
use crate::interrupt::tell;
use crate::report;
use crate::scenario::mask::Mask;
use crate::settings::{KeyChoice, Settings};
use crate::transcript::model::{OverallStatus, PartRecord, SensitivityRecord, TestSummary, Transcript};
use crate::transcript::sign::SigningKey;
use crate::transcript::{store, verify};

/// Verifies the parts, joins them, signs what comes of it, and writes it among the artifacts.
///
/// # Errors
/// If a part does not verify, or does not go with the others.
pub fn seal(paths: &[Utf8PathBuf]) -> anyhow::Result<Ended> {
    let settings = Settings::from_environment()?;
    let key = match &settings.key {
        KeyChoice::Ephemeral => SigningKey::ephemeral(),
        KeyChoice::File { key, password } => SigningKey::open(key, password.as_deref()),
    }?;
    // Whoever signs with a key of his own answers for the parts, so they must be his.
    let own = match &settings.key {
        KeyChoice::Ephemeral => None,
        KeyChoice::File { .. } => Some(verify::public_key(&key.public_base64())?),
    };
    let parts = paths.iter().map(|path| read(path, own.as_ref())).collect::<anyhow::Result<Vec<_>>>()?;
    let place = store::reserve(&settings.artifacts, jiff::Timestamp::now())?;
    let joined = Transcript { test_session_id: place.session.clone(), signing_key: key.record(), ..join(parts)? };
    let sealed = write(&place, &key, &Mask::default(), &joined)?;
    tell(&report::text::summary(&sealed));
    tell(&format!("transcript: {}", place.transcript));
    Ok(match sealed.overall_status {
        OverallStatus::Success | OverallStatus::Warning => Ended::Passed,
        OverallStatus::Aborted => Ended::CouldNotRun,
        OverallStatus::Failed => Ended::Failed,
    })
}

/// One part, and what is recorded of it.
struct Part {
    transcript: Transcript,
    record: PartRecord,
}

fn read(path: &Utf8PathBuf, key: Option<&minisign::PublicKey>) -> anyhow::Result<Part> {
    let json = std::fs::read(path).with_context(|| format!("could not read `{path}`"))?;
    let minisig = path.with_extension("json.minisig");
    let minisig = std::fs::read_to_string(&minisig).with_context(|| format!("could not read `{minisig}`"))?;
    let (transcript, _) = verify::verify(&json, &minisig, key).with_context(|| format!("`{path}` does not verify"))?;
    let record = PartRecord {
        test_session_id: transcript.test_session_id.clone(),
        digest: hex::sha256(&Sha256::digest(&json)),
        public_key: transcript.signing_key.public_key.clone(),
    };
    Ok(Part { transcript, record })
}

fn join(mut parts: Vec<Part>) -> anyhow::Result<Transcript> {
    parts.sort_by(|a, b| a.transcript.start_time.cmp(&b.transcript.start_time));
    let records = parts.iter().map(|part| part.record.clone()).collect();
    let mut parts = parts.into_iter().map(|part| part.transcript);
    let Some(mut joined) = parts.next() else { bail!("there is nothing to join") };
    joined.parts = records;
    joined.signature = None;
    let start: jiff::Timestamp = joined.start_time.parse().context("start_time")?;
    // Whether it was booted by one of the parts or before them, this session did not do it.
    let saved = |transcript: &Transcript| {
        let forks = transcript.machine.as_ref().and_then(|machine| machine.forks.as_ref());
        forks.and_then(|forks| forks.saved.as_ref()).map(|saved| saved.id.clone())
    };
    for part in parts {
        let other = &part.test_session_id;
        let same =
            part.harness.version == joined.harness.version && part.harness.git_commit == joined.harness.git_commit;
        ensure!(same, "`{other}` is of another version of the harness");
        if joined.image_digest.is_none() {
            (joined.image_digest, joined.image) = (part.image_digest.clone(), part.image.clone());
        }
        ensure!(
            part.image_digest.is_none() || part.image_digest == joined.image_digest,
            "`{other}` is of another image"
        );
        if joined.machine.is_none() {
            (joined.machine, joined.profile) = (part.machine.clone(), part.profile.clone());
            joined.rave_version.clone_from(&part.rave_version);
        }
        ensure!(part.machine.is_none() || saved(&part) == saved(&joined), "`{other}` is of another machine");
        ensure!(part.profile.is_none() || part.profile == joined.profile, "`{other}` is of another guest");
        let unchanged = part.image.as_ref().and_then(|image| image.unchanged_after_run);
        if let Some(image) = joined.image.as_mut().filter(|_| unchanged.is_some()) {
            image.unchanged_after_run = Some(unchanged == Some(true) && image.unchanged_after_run != Some(false));
        }
        joined.completion_time = joined.completion_time.max(part.completion_time.clone());
        joined.reasons.extend(part.reasons.iter().map(|reason| format!("{other}: {reason}")));
        joined.filters.extend(part.filters.clone());
        if part.overall_status == OverallStatus::Aborted {
            joined.overall_status = OverallStatus::Aborted;
        }
        let began: jiff::Timestamp = part.start_time.parse().context("start_time")?;
        let later = u64::try_from(began.duration_since(start).as_millis()).unwrap_or_default();
        if let Some(part) = part.sensitivity.clone() {
            let known = joined.sensitivity.take().map(|known| known.scenarios).unwrap_or_default();
            joined.sensitivity = Some(SensitivityRecord::of([known, part.scenarios].concat()));
        }
        for mut record in part.results().cloned().collect::<Vec<_>>() {
            let known = joined.results().any(|known| known.name == record.name);
            ensure!(!known, "`{}` is there twice: also in `{other}`", record.name);
            record.started_ms += later;
            record.steps.iter_mut().for_each(|step| step.started_ms += later);
            if let Some(fork) = &mut record.fork {
                fork.began_ms += later;
            }
            joined.add(record);
        }
    }
    if let Some(machine) = joined.machine.as_mut().filter(|machine| machine.forks.is_some()) {
        "saved".clone_into(&mut machine.origin);
    }
    joined.filters.dedup();
    let end: jiff::Timestamp = joined.completion_time.parse().context("completion_time")?;
    joined.duration_seconds = u64::try_from(end.duration_since(start).as_secs()).unwrap_or_default();
    joined.test_summary = TestSummary::of(joined.results());
    if joined.overall_status != OverallStatus::Aborted {
        let follows = joined.status_of_results();
        let why = joined.reasons.iter().any(|reason| !reason.is_empty());
        joined.overall_status = if why { OverallStatus::Failed } else { follows };
    }
    Ok(joined)
}
