//! What whoever verifies asks of a transcript beyond that it is genuine: a TOML file, strict where it says nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use minisign::PublicKey;
use serde::Deserialize;
use toml::Spanned;

use super::model::{Outcome, OverallStatus, Transcript};
use super::verify::{self, Check, Findings, Trust};

/// A clock that is this much ahead of ours is not a forgery.
const CLOCKS_DIFFER: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

const PHASES: [&str; 10] =
    ["config", "image", "boot", "health", "oidc", "agent_control", "sandbox", "e2e", "performance", "security"];

/// A policy, checked. What a field says of an empty list or `None` is that anything will do.
#[derive(Debug)]
pub struct Policy {
    /// Keys one of which must have signed.
    pub keys: Vec<PublicKey>,
    rave_version: Option<String>,
    providers: Vec<String>,
    accelerators: Vec<String>,
    origins: Vec<String>,
    oldest: Option<(String, jiff::SignedDuration)>,
    any_stand_in: bool,
    stand_ins: BTreeSet<String>,
    dirty: bool,
    filtered: bool,
    sensitivity: bool,
    required: Vec<String>,
    warnings: Vec<Allowed>,
    skips: Vec<Allowed>,
}

/// A warning or a skip that is put up with.
#[derive(Debug)]
struct Allowed {
    scenario: String,
    step: Option<String>,
    until: Option<jiff::civil::Date>,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    rave_version: Option<String>,
    #[serde(default)]
    providers: Vec<Spanned<String>>,
    #[serde(default)]
    accelerators: Vec<Spanned<String>>,
    #[serde(default)]
    origins: Vec<Spanned<String>>,
    oldest: Option<Spanned<String>>,
    #[serde(default)]
    any_stand_in: bool,
    #[serde(default)]
    dirty: bool,
    #[serde(default)]
    filtered: bool,
    #[serde(default)]
    sensitivity: bool,
    #[serde(default)]
    required: Vec<Spanned<String>>,
    #[serde(default, rename = "stand_in")]
    stand_ins: Vec<StandInFile>,
    #[serde(default, rename = "warning")]
    warnings: Vec<AllowedFile>,
    #[serde(default, rename = "skip")]
    skips: Vec<AllowedFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StandInFile {
    capability: String,
    reason: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedFile {
    scenario: Spanned<String>,
    step: Option<String>,
    reason: Spanned<String>,
    until: Option<Spanned<String>>,
}

/// Why a policy file cannot be used: every mistake with its line.
#[derive(Debug)]
pub struct PolicyError {
    /// The file.
    pub file: Utf8PathBuf,
    /// Line (0: the whole file) and what is wrong.
    pub mistakes: Vec<(usize, String)>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (line, mistake)) in self.mistakes.iter().enumerate() {
            let (file, end) = (&self.file, if number + 1 < self.mistakes.len() { "\n" } else { "" });
            match line {
                0 => write!(f, "{file}: {mistake}{end}")?,
                line => write!(f, "{file}:{line}: {mistake}{end}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// Reads a policy file. Keys that are named as files lie relative to it.
///
/// # Errors
/// If it cannot be read, or for everything that is wrong in it.
pub fn read(file: &Utf8Path) -> Result<Policy, PolicyError> {
    let error = |mistakes| PolicyError { file: file.to_owned(), mistakes };
    let text = fs::read_to_string(file).map_err(|why| error(vec![(0, format!("could not be read: {why}"))]))?;
    parse(&text, file.parent().unwrap_or(Utf8Path::new(""))).map_err(error)
}

fn parse(text: &str, folder: &Utf8Path) -> Result<Policy, Vec<(usize, String)>> {
    let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let written: PolicyFile = toml::from_str(text).map_err(|error| {
        let message = error.message().replace('\n', " ");
        vec![(error.span().map_or(0, |span| line(span.start)), message)]
    })?;
    let mut reader = Reader { line: &line, mistakes: Vec::new() };
    let policy = reader.policy(written, folder);
    if reader.mistakes.is_empty() {
        Ok(policy)
    } else {
        reader.mistakes.sort();
        Err(reader.mistakes)
    }
}

/// Checks what was written, and collects every mistake.
struct Reader<'a> {
    line: &'a dyn Fn(usize) -> usize,
    mistakes: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn mistake<T>(&mut self, at: &Spanned<T>, text: impl Into<String>) {
        self.mistakes.push(((self.line)(at.span().start), text.into()));
    }

    fn policy(&mut self, written: PolicyFile, folder: &Utf8Path) -> Policy {
        let PolicyFile {
            keys,
            rave_version,
            providers,
            accelerators,
            origins,
            oldest,
            any_stand_in,
            dirty,
            filtered,
            sensitivity,
            required,
            stand_ins,
            warnings,
            skips,
        } = written;
        let skips: Vec<_> = skips.into_iter().map(|skip| self.allowed(skip)).collect();
        for name in &required {
            self.check_scenario(name, true);
            if skips.iter().any(|skip| skip.step.is_none() && skip.scenario == *name.as_ref()) {
                self.mistake(name, format!("`{}` is required, and may be skipped: one of the two", name.as_ref()));
            }
        }
        Policy {
            keys: keys.iter().filter_map(|key| self.key(key, folder)).collect(),
            rave_version,
            providers: self.words(providers, "a provider", &["nix", "reference", "path"]),
            accelerators: self.words(accelerators, "an accelerator", &["kvm", "tcg"]),
            origins: self.words(origins, "an origin", &["cold", "fork", "shared", "saved"]),
            oldest: oldest.and_then(|oldest| self.duration(&oldest)),
            any_stand_in,
            stand_ins: stand_ins.into_iter().map(|stand_in| self.stand_in(stand_in)).collect(),
            dirty,
            filtered,
            sensitivity,
            required: required.into_iter().map(Spanned::into_inner).collect(),
            warnings: warnings.into_iter().map(|warning| self.allowed(warning)).collect(),
            skips,
        }
    }

    fn key(&mut self, key: &Spanned<String>, folder: &Utf8Path) -> Option<PublicKey> {
        let text = key.as_ref();
        let content = if text.ends_with(".pub") {
            fs::read_to_string(folder.join(text)).map_err(|why| format!("the key `{text}` could not be read: {why}"))
        } else {
            Ok(text.clone())
        };
        let found = content.and_then(|content| verify::public_key(&content).map_err(|why| format!("`{text}`: {why}")));
        found.map_err(|why| self.mistake(key, why)).ok()
    }

    fn words(&mut self, words: Vec<Spanned<String>>, what: &str, known: &[&str]) -> Vec<String> {
        for word in &words {
            if !known.contains(&word.as_ref().as_str()) {
                self.mistake(word, format!("`{}` is not {what}; known are {}", word.as_ref(), known.join(", ")));
            }
        }
        words.into_iter().map(Spanned::into_inner).collect()
    }

    fn duration(&mut self, text: &Spanned<String>) -> Option<(String, jiff::SignedDuration)> {
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let parsed = text.as_ref().parse::<jiff::Span>().and_then(|span| span.to_duration(days));
        match parsed {
            Ok(duration) if duration.is_positive() => Some((text.as_ref().clone(), duration)),
            _ => {
                self.mistake(
                    text,
                    format!("`oldest` must be a time such as \"7d\" or \"12h\", not `{}`", text.as_ref()),
                );
                None
            }
        }
    }

    fn stand_in(&mut self, StandInFile { capability, reason }: StandInFile) -> String {
        self.check_reason(&reason);
        capability
    }

    fn allowed(&mut self, AllowedFile { scenario, step, reason, until }: AllowedFile) -> Allowed {
        self.check_scenario(&scenario, false);
        self.check_reason(&reason);
        let until = until.and_then(|until| match until.as_ref().parse() {
            Ok(date) => Some(date),
            Err(_) => {
                self.mistake(
                    &until,
                    format!("`until` must be a date such as \"2026-12-31\", not `{}`", until.as_ref()),
                );
                None
            }
        });
        Allowed { scenario: scenario.into_inner(), step, until }
    }

    fn check_reason(&mut self, reason: &Spanned<String>) {
        if reason.as_ref().trim().is_empty() {
            self.mistake(reason, "an exception needs a reason");
        }
    }

    fn check_scenario(&mut self, name: &Spanned<String>, or_phase: bool) {
        let text = name.as_ref();
        let known = match text.split_once("::") {
            Some((phase, rest)) => PHASES.contains(&phase) && !rest.is_empty(),
            None => or_phase && PHASES.contains(&text.as_str()),
        };
        if !known {
            let or = if or_phase { ", nor a phase" } else { "" };
            self.mistake(name, format!("`{text}` is not `phase::name` of a known phase{or}"));
        }
    }
}

impl Policy {
    /// Every reason for which a genuine transcript is not good enough, `now`.
    pub fn check(&self, transcript: &Transcript, trust: Trust, now: jiff::Timestamp, findings: &mut Findings) {
        let mut refuse = |text: String| findings.add(Check::Policy, text);
        if trust == Trust::FromTranscript {
            refuse("no trusted key was given, by the policy or by --key: anybody could have signed it".to_owned());
        }
        if !matches!(transcript.overall_status, OverallStatus::Success | OverallStatus::Warning) {
            refuse(format!("the status is {}", transcript.overall_status.word()));
        }
        if self.rave_version.as_ref().is_some_and(|wanted| *wanted != transcript.rave_version) {
            let wanted = self.rave_version.as_deref().unwrap_or_default();
            refuse(format!("rave_version is `{}`, and must be `{wanted}`", transcript.rave_version));
        }
        self.check_age(transcript, now, &mut refuse);
        self.check_ground(transcript, &mut refuse);
        self.check_results(transcript, now, &mut refuse);
    }

    fn check_age(&self, transcript: &Transcript, now: jiff::Timestamp, refuse: &mut impl FnMut(String)) {
        let Ok(end) = transcript.completion_time.parse::<jiff::Timestamp>() else { return };
        let age = now.duration_since(end);
        if age < -CLOCKS_DIFFER {
            refuse(format!("it was completed at {}, which is in the future", transcript.completion_time));
        }
        if let Some((text, oldest)) = &self.oldest
            && age > *oldest
        {
            refuse(format!("it was completed at {}, more than {text} ago", transcript.completion_time));
        }
    }

    /// What was booted, in what, and by which checkout.
    fn check_ground(&self, transcript: &Transcript, refuse: &mut impl FnMut(String)) {
        let Transcript { image, machine, profile, harness, filters, .. } = transcript;
        let mut one_of = |what: &str, found: Option<&str>, allowed: &[String]| {
            if !allowed.is_empty() && !found.is_some_and(|found| allowed.iter().any(|word| word == found)) {
                refuse(format!("the {what} is {}, and must be {}", found.unwrap_or("none"), allowed.join(" or ")));
            }
        };
        one_of("image's provider", image.as_ref().map(|image| image.provider.as_str()), &self.providers);
        one_of("accelerator", machine.as_ref().map(|machine| machine.accelerator.as_str()), &self.accelerators);
        // The machine was booted by this session or saved by an earlier one; each scenario was asked on it or on a fork of it.
        let saved = machine.as_ref().map(|machine| machine.origin.as_str()).filter(|origin| *origin == "saved");
        if saved.is_some() {
            one_of("machine's origin", saved, &self.origins);
        }
        for record in transcript.results().filter(|record| record.machine != "none" && !self.origins.is_empty()) {
            if !self.origins.contains(&record.machine) {
                refuse(format!(
                    "`{}` was asked on a {} machine, and must be on {}",
                    record.name,
                    record.machine,
                    self.origins.join(" or ")
                ));
            }
        }
        let capabilities = profile.iter().flat_map(|profile| &profile.capabilities);
        for (capability, found) in capabilities.filter(|(_, found)| found.stand_in && !self.any_stand_in) {
            if !self.stand_ins.contains(capability) {
                refuse(format!("`{capability}` is a stand-in: {}", found.implementation));
            }
        }
        if harness.git_dirty != Some(false) && !self.dirty {
            let found = if harness.git_dirty.is_none() { "is not known" } else { "had changes" };
            refuse(format!("the checkout of the harness {found}"));
        }
        if self.sensitivity && transcript.sensitivity.is_none() {
            refuse("nobody looked whether its questions notice what they ask about (RAVE_SABOTAGE=1)".to_owned());
        }
        if !filters.is_empty() && !self.filtered {
            refuse(format!("the run was filtered: {}", filters.join(" ")));
        }
    }

    fn check_results(&self, transcript: &Transcript, now: jiff::Timestamp, refuse: &mut impl FnMut(String)) {
        for required in &self.required {
            let phase = format!("{required}::");
            let mut found =
                transcript.results().filter(|record| record.name == *required || record.name.starts_with(&phase));
            if !found.any(|record| matches!(record.outcome, Outcome::Passed | Outcome::Warned)) {
                refuse(format!("`{required}` is required, and nothing of it passed"));
            }
        }
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let allowed = |list: &[Allowed], scenario: &str, step: Option<&str>| {
            list.iter().any(|allowed| {
                allowed.scenario == scenario
                    && allowed.until.is_none_or(|until| today < until)
                    && allowed.step.as_deref().is_none_or(|name| step == Some(name))
            })
        };
        for record in transcript.results() {
            let name = &record.name;
            match record.outcome {
                Outcome::Failed | Outcome::Errored => refuse(format!("`{name}` {}", record.outcome.word())),
                Outcome::Skipped if record.steps.is_empty() && !allowed(&self.skips, name, None) => {
                    refuse(format!("`{name}` was skipped: {}", record.reason));
                }
                _ => {}
            }
            for step in &record.steps {
                let (list, word, why) = match step.outcome {
                    Outcome::Skipped => (&self.skips, "was skipped", step.reason.as_str()),
                    Outcome::Warned => {
                        (&self.warnings, "warned", step.mismatches.first().map_or("", |found| &found.actual))
                    }
                    _ => continue,
                };
                if !allowed(list, name, Some(&step.name)) {
                    refuse(format!("`{name}`: step `{}` {word}: {why}", step.name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::model::{MismatchRecord, ScenarioRecord, Sensitivity};
    use crate::transcript::sample;

    fn policy(text: &str) -> Policy {
        parse(text, Utf8Path::new("")).unwrap()
    }

    /// What a policy has against a transcript an hour after it was made, that was verified with a key that is trusted.
    fn reasons(text: &str, transcript: &Transcript) -> Vec<String> {
        let now = "2026-11-24T13:03:00Z".parse().unwrap();
        let mut findings = Findings::default();
        policy(text).check(transcript, Trust::Given, now, &mut findings);
        findings.reasons().iter().map(|reason| reason.text.clone()).collect()
    }

    #[track_caller]
    fn check(text: &str, change: impl FnOnce(&mut Transcript), expected: &[&str]) {
        let mut transcript = sample::transcript();
        transcript.harness.git_dirty = Some(false);
        change(&mut transcript);
        let reasons = reasons(text, &transcript);
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (reason, expected) in reasons.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason:?} does not contain {expected:?}");
        }
    }

    #[track_caller]
    fn mistakes(text: &str, expected: &[(usize, &str)]) {
        let found = parse(text, Utf8Path::new("")).unwrap_err();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, mistake), (expected_line, expected)) in found.iter().zip(expected) {
            assert!(line == expected_line && mistake.contains(expected), "{line}: {mistake}");
        }
    }

    fn step(record: &mut ScenarioRecord, outcome: Outcome) {
        record.steps[0].outcome = outcome;
        match outcome {
            Outcome::Skipped => record.steps[0].reason = "T7".into(),
            _ => record.steps[0].mismatches.push(MismatchRecord {
                line: 4,
                what: "stdout".into(),
                expected: "at most 8".into(),
                actual: "9".into(),
            }),
        }
    }

    #[test]
    fn what_is_in_order_is_accepted() {
        check("", |_| {}, &[]);
        let strict = r#"
            rave_version = "P6-reference"
            providers = ["reference"]
            accelerators = ["kvm", "tcg"]
            origins = ["cold", "fork"]
            oldest = "2h"
            required = ["boot", "health::nginx"]
        "#;
        check(strict, |_| {}, &[]);
    }

    #[test]
    fn every_reason_is_given() {
        let strict = r#"
            rave_version = "P6-production"
            providers = ["nix"]
            accelerators = ["kvm"]
            origins = ["fork"]
            oldest = "30m"
            required = ["oidc", "health::nginx"]
            sensitivity = true
        "#;
        let expected = [
            "the status is FAILED",
            "must be `P6-production`",
            "more than 30m ago",
            "provider is reference, and must be nix",
            "accelerator is tcg, and must be kvm",
            "origin is saved, and must be fork",
            "`boot::ready` was asked on a cold machine",
            "`nginx` is a stand-in: nginx 1.26",
            "the checkout of the harness had changes",
            "nobody looked whether its questions notice",
            "the run was filtered: nginx",
            "`oidc` is required",
        ];
        let change = |transcript: &mut Transcript| {
            transcript.overall_status = OverallStatus::Failed;
            transcript.harness.git_dirty = Some(true);
            transcript.filters.push("nginx".into());
            transcript.machine.as_mut().unwrap().origin = "saved".into();
            transcript.profile.as_mut().unwrap().capabilities.get_mut("nginx").unwrap().stand_in = true;
        };
        check(strict, change, &expected);
        let seen = |transcript: &mut Transcript| transcript.sensitivity = Some(sample::sensitivity(Sensitivity::Seen));
        check("sensitivity = true", seen, &[]);
        check("dirty = true\nany_stand_in = true\nfiltered = true", change, &["the status is FAILED"]);
    }

    #[test]
    fn warnings_skips_and_stand_ins_are_allowed_by_name_until_a_date() {
        let warned = |transcript: &mut Transcript| step(&mut transcript.service_health[0], Outcome::Warned);
        check("", warned, &["`health::nginx`: step `it answers` warned: 9"]);
        check("[[warning]]\nscenario = 'health::nginx'\nreason = 'T7'", warned, &[]);
        check("[[warning]]\nscenario = 'health::nginx'\nreason = 'T7'\nuntil = '2026-11-25'", warned, &[]);
        check("[[warning]]\nscenario = 'health::nginx'\nreason = 'T7'\nuntil = '2026-11-24'", warned, &["warned"]);
        check("[[warning]]\nscenario = 'health::nginx'\nstep = 'other'\nreason = 'T7'", warned, &["warned"]);
        check("[[skip]]\nscenario = 'health::nginx'\nreason = 'T7'", warned, &["warned"]);

        let skipped = |transcript: &mut Transcript| step(&mut transcript.service_health[0], Outcome::Skipped);
        check("", skipped, &["step `it answers` was skipped: T7"]);
        check("[[skip]]\nscenario = 'health::nginx'\nstep = 'it answers'\nreason = 'T7'", skipped, &[]);
        let whole = |transcript: &mut Transcript| {
            let mut record = sample::scenario("oidc::login");
            record.outcome = Outcome::Skipped;
            record.reason = "the guest has no gitlab".into();
            record.steps.clear();
            transcript.add(record);
        };
        check("", whole, &["`oidc::login` was skipped: the guest has no gitlab"]);
        check("[[skip]]\nscenario = 'oidc::login'\nreason = 'T7'", whole, &[]);
        check("[[skip]]\nscenario = 'oidc::login'\nreason = 'T7'\n", whole, &[]);
        check("required = ['oidc']\n[[skip]]\nscenario = 'oidc::login'\nreason = 'T7'", whole, &["`oidc` is required"]);

        let stand_in = |transcript: &mut Transcript| {
            transcript.profile.as_mut().unwrap().capabilities.get_mut("nginx").unwrap().stand_in = true;
        };
        check("", stand_in, &["is a stand-in"]);
        check("[[stand_in]]\ncapability = 'nginx'\nreason = 'T7'", stand_in, &[]);
    }

    #[test]
    fn nobody_signs_the_future_and_nobody_unknown_is_trusted() {
        check("", |transcript| transcript.completion_time = "2026-11-24T14:00:00Z".into(), &["in the future"]);
        let mut findings = Findings::default();
        let now = "2026-11-24T13:03:00Z".parse().unwrap();
        policy("dirty = true").check(&sample::transcript(), Trust::FromTranscript, now, &mut findings);
        assert!(findings.reasons()[0].text.contains("anybody could have signed it"));
    }

    #[test]
    fn every_mistake_has_its_line() {
        mistakes("dirty = true\nrequires = ['boot']\n", &[(2, "unknown field `requires`")]);
        mistakes("dirty = 1\n", &[(1, "invalid type")]);
        mistakes("[[skip]]\nscenario = 'oidc::x'\n", &[(1, "missing field `reason`")]);
        mistakes("dirty = true\ndirty = true\n", &[(2, "duplicate key")]);
        mistakes(
            "accelerators = ['kvm', 'hvf']\norigins = ['warm']\noldest = 'soon'\nrequired = ['bot', 'oidc::x']\nkeys = ['RWx']\n\
             [[skip]]\nscenario = 'oidc::x'\nreason = ' '\nuntil = 'later'\n",
            &[
                (1, "`hvf` is not an accelerator; known are kvm, tcg"),
                (2, "`warm` is not an origin"),
                (3, "`oldest` must be a time"),
                (4, "`bot` is not `phase::name`"),
                (4, "`oidc::x` is required, and may be skipped"),
                (5, "`RWx`: the public key is not a minisign key"),
                (8, "an exception needs a reason"),
                (9, "`until` must be a date"),
            ],
        );
        let error = read(Utf8Path::new("/nonexistent/policy.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/policy.toml: could not be read"), "{error}");
    }
}
