//! `hermetic verify`: is this transcript what somebody signed, does it say what follows from itself, and is it good enough?

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use minisign::PublicKey;
use serde::Serialize;

use crate::image::{self, Image, Provider};
use crate::report::text;
use crate::transcript::model::{Outcome, TestSummary, Transcript};
use crate::transcript::policy::{self, Policy};
pub use crate::transcript::read::check;
use crate::transcript::verify::{self, Check, Findings, Reason, Refusal, Trust};

/// The exit code of a transcript that is not verified.
pub const NOT_VERIFIED: u8 = 3;

/// What `hermetic verify` is told.
#[derive(Args)]
pub struct VerifyArguments {
    /// The transcript; its signature lies beside it as .minisig
    transcript: Utf8PathBuf,
    /// A key that must have signed it: a .pub file, or the base64 text itself; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// A policy file (TOML): what it must also hold to be accepted
    #[arg(long, value_name = "FILE")]
    policy: Option<Utf8PathBuf>,
    /// The image it must be about: a disk file, or a folder (a Nix store path) that holds one
    #[arg(long, value_name = "PATH")]
    image: Option<Utf8PathBuf>,
    /// Prints the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// The verdict, for programs.
#[derive(Serialize)]
struct Verdict<'a> {
    /// `verified`, `refused`, or `could_not_check`.
    verdict: &'static str,
    /// The file that was looked at.
    transcript: &'a Utf8Path,
    /// Why it is not verified; empty where it is.
    reasons: Vec<Reason>,
    /// Why it could not be checked.
    error: Option<String>,
    /// Whose key it was verified with.
    trust: Option<Trust>,
    /// The policy it was held against.
    policy: Option<&'a Utf8Path>,
    /// The image it was held against.
    image: Option<&'a Utf8Path>,
    /// What it says, where it is genuine.
    says: Option<Says<'a>>,
}

/// The parts of a genuine transcript that decide what it is worth.
#[derive(Serialize)]
struct Says<'a> {
    session: &'a str,
    status: &'static str,
    rave_version: &'a str,
    image_digest: Option<&'a str>,
    completion_time: &'a str,
    accelerator: Option<&'a str>,
    origin: Option<&'a str>,
    signed_by: &'a str,
    ephemeral_key: bool,
    git_commit: Option<&'a str>,
    git_dirty: Option<bool>,
    summary: TestSummary,
    warned: Vec<Mention<'a>>,
    skipped: Vec<Mention<'a>>,
    stand_ins: Vec<&'a str>,
}

/// A scenario, or a step of it, that is not simply passed.
#[derive(Serialize)]
struct Mention<'a> {
    scenario: &'a str,
    step: Option<&'a str>,
    why: &'a str,
}

/// How a transcript was found.
struct Found {
    /// What it says and whose key it was verified with, where it is genuine.
    genuine: Option<(Transcript, Trust)>,
    reasons: Vec<Reason>,
}

/// Prints the verdict.
pub fn main(arguments: &VerifyArguments) -> ExitCode {
    let found = examine(arguments);
    let (word, code) = match &found {
        Ok(found) if found.reasons.is_empty() => ("verified", ExitCode::SUCCESS),
        Ok(_) => ("refused", NOT_VERIFIED.into()),
        Err(_) => ("could_not_check", crate::session::Ended::CouldNotRun.into()),
    };
    if arguments.json {
        print_json(arguments, word, &found);
    } else {
        print_text(arguments, &found);
    }
    code
}

fn examine(arguments: &VerifyArguments) -> anyhow::Result<Found> {
    let VerifyArguments { transcript: path, keys, policy, image, json: _ } = arguments;
    let policy = policy.as_deref().map(policy::read).transpose()?;
    let mut trusted = keys.iter().map(|key| read_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    trusted.extend(policy.iter().flat_map(|policy: &Policy| policy.keys.clone()));
    let image = image.as_deref().map(digest_of).transpose()?;
    let (transcript, trust) = match check(path, &trusted) {
        Ok(genuine) => genuine,
        Err(error) => {
            let Refusal(reasons) = error.downcast::<Refusal>()?;
            return Ok(Found { genuine: None, reasons });
        }
    };
    let mut findings = Findings::default();
    if let Some(digest) = image {
        findings.unless(transcript.image_digest.as_ref() == Some(&digest), Check::Image, || {
            let recorded = transcript.image_digest.as_deref().unwrap_or("no image");
            format!("the image given is {digest}, the transcript is about {recorded}")
        });
    }
    if let Some(policy) = policy {
        policy.check(&transcript, trust, jiff::Timestamp::now(), &mut findings);
    }
    Ok(Found { genuine: Some((transcript, trust)), reasons: findings.reasons().to_vec() })
}

/// The digest of a disk file, or of the disk of the image in a folder.
fn digest_of(path: &Utf8Path) -> anyhow::Result<String> {
    let disk = if path.is_dir() { Image::in_folder(path, Provider::Path, "given")?.disk } else { path.to_owned() };
    Ok(image::digest(&disk)?.digest)
}

fn print_text(arguments: &VerifyArguments, found: &anyhow::Result<Found>) {
    match found {
        Err(error) => format!("{error:#}").lines().for_each(|line| eprintln!("hermetic: {line}")),
        Ok(Found { genuine, reasons }) => {
            for reason in reasons {
                println!("NOT VERIFIED: {}: {}", arguments.transcript, reason.text);
            }
            let Some((transcript, trust)) = genuine else { return };
            let word = if reasons.is_empty() { "verified" } else { "genuine, and not accepted" };
            println!("{word}: {}", text::summary(transcript));
            println!("signed by {}", transcript.signing_key.public_key);
            if *trust == Trust::FromTranscript {
                println!("no --key was given: it is unchanged since it was signed, but anybody could have signed it");
            }
        }
    }
}

fn print_json(arguments: &VerifyArguments, verdict: &'static str, found: &anyhow::Result<Found>) {
    let genuine = found.as_ref().ok().and_then(|found| found.genuine.as_ref());
    let verdict = Verdict {
        verdict,
        transcript: &arguments.transcript,
        reasons: found.as_ref().map(|found| found.reasons.clone()).unwrap_or_default(),
        error: found.as_ref().err().map(|error| format!("{error:#}")),
        trust: genuine.map(|(_, trust)| *trust),
        policy: arguments.policy.as_deref(),
        image: arguments.image.as_deref(),
        says: genuine.map(|(transcript, _)| says(transcript)),
    };
    match serde_json::to_string_pretty(&verdict) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("hermetic: {error}"),
    }
}

fn says(transcript: &Transcript) -> Says<'_> {
    let machine = transcript.machine.as_ref();
    let capabilities = transcript.profile.iter().flat_map(|profile| &profile.capabilities);
    Says {
        session: &transcript.test_session_id,
        status: transcript.overall_status.word(),
        rave_version: &transcript.rave_version,
        image_digest: transcript.image_digest.as_deref(),
        completion_time: &transcript.completion_time,
        accelerator: machine.map(|machine| machine.accelerator.as_str()),
        origin: machine.map(|machine| machine.origin.as_str()),
        signed_by: &transcript.signing_key.public_key,
        ephemeral_key: transcript.signing_key.ephemeral,
        git_commit: transcript.harness.git_commit.as_deref(),
        git_dirty: transcript.harness.git_dirty,
        summary: transcript.test_summary,
        warned: mentions(transcript, Outcome::Warned),
        skipped: mentions(transcript, Outcome::Skipped),
        stand_ins: capabilities.filter(|(_, found)| found.stand_in).map(|(name, _)| name.as_str()).collect(),
    }
}

fn mentions(transcript: &Transcript, outcome: Outcome) -> Vec<Mention<'_>> {
    let mut mentions = Vec::new();
    for record in transcript.results() {
        let scenario = record.name.as_str();
        if record.outcome == outcome && record.steps.is_empty() {
            mentions.push(Mention { scenario, step: None, why: &record.reason });
        }
        for step in record.steps.iter().filter(|step| step.outcome == outcome) {
            let why = step.mismatches.first().map_or(step.reason.as_str(), |found| found.actual.as_str());
            mentions.push(Mention { scenario, step: Some(&step.name), why });
        }
    }
    mentions
}

/// A key that was given on the command line.
///
/// # Errors
/// If it is neither a key nor a file of one.
pub fn read_key(key: &str) -> anyhow::Result<PublicKey> {
    let text = match fs::read_to_string(key) {
        Ok(text) => text,
        Err(_) if !key.contains(['/', '.']) => key.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("could not read the key `{key}`")),
    };
    verify::public_key(&text).map_err(|refusal| anyhow::anyhow!("`{key}`: {refusal}"))
}
