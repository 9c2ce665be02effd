//! A run that was made again, held against the transcript it was made from: what went in, the verdicts, the answers, the times.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;

use super::compare::{Band, Place, compare, not_comparable};
use crate::transcript::model::{AnswerRecord, MachineRecord, ScenarioRecord, Transcript};

/// As much of a line as is shown of an answer that differs, characters.
const SHOWN: usize = 120;
/// Settings that are about a run itself, not about what is asked: what it asked of is recorded elsewhere, and what it left is its own.
pub const OF_THE_RUN: [&str; 9] = [
    "DEBUG",
    "RAVE_ACCEL",
    "RAVE_ARTIFACTS",
    "RAVE_BASELINE",
    "RAVE_IMAGE",
    "RAVE_KEEP_SAVED",
    "RAVE_KEEP_VM",
    "RAVE_SABOTAGE",
    "RAVE_SIGNING_KEY",
];

/// Something that goes into a run, as it was and as it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What.
    pub what: String,
    /// As recorded.
    pub recorded: String,
    /// As it is here.
    pub here: String,
}

/// A reproduction held against what it is one of.
pub struct Reproduction {
    /// The session it was made from.
    pub recorded: String,
    /// Its own.
    pub here: String,
    /// What went into both.
    pub inputs: Vec<Input>,
    /// What went into them, and cannot be compared, and why.
    pub unknown: Vec<String>,
    /// The scenarios, in order.
    pub scenarios: Vec<Again>,
    /// Times and sizes outside the band, a line each; or why they say nothing.
    pub outside: Result<Vec<String>, String>,
    /// The band.
    pub band: Band,
}

/// A scenario that was asked again.
pub struct Again {
    /// Its name.
    pub name: String,
    /// Its verdict then.
    pub recorded: &'static str,
    /// And now; `not there` if it could not be asked again.
    pub here: &'static str,
    /// Steps whose verdict or answer is another, a line each.
    pub differences: Vec<String>,
    /// How many steps have an answer in both.
    pub answers: usize,
    /// How many of those answers are the same, byte for byte.
    pub same_answers: usize,
}

/// What the transcripts themselves do not tell of what went into them.
#[derive(Debug, Default)]
pub struct More {
    /// What was looked up.
    pub inputs: Vec<Input>,
    /// What could not be, and why.
    pub unknown: Vec<String>,
}

/// Holds what was found again against what was recorded, for these scenarios.
pub fn reproduction(
    recorded: &Transcript,
    here: &Transcript,
    names: &[String],
    more: More,
    band: Band,
) -> Reproduction {
    let mut inputs = inputs(recorded, here);
    inputs.extend(more.inputs);
    let find = |transcript: &'_ Transcript, name: &str| transcript.results().find(|found| found.name == name).cloned();
    let scenarios = names.iter().filter_map(|name| Some(again(&find(recorded, name)?, find(here, name).as_ref())));
    let scenarios = scenarios.collect();
    let outside = match not_comparable(recorded, here) {
        Some(why) => Err(why),
        None => {
            let found = compare(&[recorded], here, band);
            let line = |row: &&super::compare::Row| {
                let mark = if row.place == Place::Above { "above" } else { "below" };
                format!("{mark} the band: {}", row.text())
            };
            Ok(found.outside().iter().map(line).collect())
        }
    };
    Reproduction {
        recorded: recorded.test_session_id.clone(),
        here: here.test_session_id.clone(),
        inputs,
        unknown: more.unknown,
        scenarios,
        outside,
        band,
    }
}

fn again(recorded: &ScenarioRecord, here: Option<&ScenarioRecord>) -> Again {
    let mut again = Again {
        name: recorded.name.clone(),
        recorded: recorded.outcome.word(),
        here: here.map_or("not there", |here| here.outcome.word()),
        differences: Vec::new(),
        answers: 0,
        same_answers: 0,
    };
    let Some(here) = here else { return again };
    if here.reason != recorded.reason && here.steps.is_empty() {
        again.differences.push(format!("{}: {}", here.outcome.word(), here.reason));
    }
    for (index, step) in recorded.steps.iter().enumerate() {
        let Some(other) = here.steps.get(index).filter(|other| other.name == step.name) else {
            again.differences.push(format!("step `{}` was not asked again", step.name));
            continue;
        };
        if step.outcome != other.outcome {
            let (then, now) = (step.outcome.word(), other.outcome.word());
            let reason = if other.reason.is_empty() { String::new() } else { format!(": {}", other.reason) };
            again.differences.push(format!("step `{}`: {then} → {now}{reason}", step.name));
        }
        if let (Some(then), Some(now)) = (&step.answer, &other.answer) {
            again.answers += 1;
            match answers(then, now) {
                None => again.same_answers += 1,
                Some(difference) => again.differences.push(format!("step `{}`: {difference}", step.name)),
            }
        }
    }
    again
}

/// How one answer differs from another, if it does.
fn answers(then: &AnswerRecord, now: &AnswerRecord) -> Option<String> {
    if then.status != now.status {
        return Some(format!("the answer was `{}`, and is `{}`", then.status, now.status));
    }
    let differs =
        |name: &&String| then.streams.get(*name).map(|s| &s.digest) != now.streams.get(*name).map(|s| &s.digest);
    let name = then.streams.keys().chain(now.streams.keys()).find(differs)?;
    let excerpt = |answer: &AnswerRecord| answer.streams.get(name).map(|s| s.excerpt.clone()).unwrap_or_default();
    let (then, now) = (excerpt(then), excerpt(now));
    let (mut old, mut new) = (then.lines(), now.lines());
    loop {
        let shown = |line: Option<&str>| line.map(|line| line.chars().take(SHOWN).collect::<String>());
        match (old.next(), new.next()) {
            (None, None) => return Some(format!("{name} differs beyond its beginning")),
            (one, other) if one == other => {}
            (one, other) => {
                let quoted = |line| shown(line).map_or("nothing".to_owned(), |line| format!("{line:?}"));
                return Some(format!("{name} differs: {} → {}", quoted(one), quoted(other)));
            }
        }
    }
}

/// What the transcripts tell of what went into both.
fn inputs(recorded: &Transcript, here: &Transcript) -> Vec<Input> {
    let (then, now) = (facts(recorded), facts(here));
    let mut inputs: Vec<_> = then
        .iter()
        .zip(&now)
        .map(|((what, recorded), (_, here))| Input {
            what: (*what).to_owned(),
            recorded: recorded.clone(),
            here: here.clone(),
        })
        .collect();
    let settings = |transcript: &Transcript| transcript.harness.settings.clone();
    let (then, now) = (settings(recorded), settings(here));
    let names: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
    // Whether scenarios are the same is told by what they asked, not by where their files lie.
    let matters = |name: &&String| !OF_THE_RUN.contains(&name.as_str()) && *name != "RAVE_SCENARIOS";
    for name in names.into_iter().filter(matters) {
        let value = |settings: &BTreeMap<String, String>| settings.get(name).cloned().unwrap_or_else(|| "none".into());
        inputs.push(Input { what: format!("setting {name}"), recorded: value(&then), here: value(&now) });
    }
    if let (Some(then), Some(now)) = (&recorded.machine, &here.machine) {
        let (then, now) = (normal(then), normal(now));
        let only = |one: &[String], other: &[String]| {
            let words: Vec<_> = one.iter().filter(|word| !other.contains(word)).cloned().collect();
            if words.is_empty() { "the same".to_owned() } else { words.join(" ") }
        };
        inputs.push(Input { what: "QEMU's arguments".into(), recorded: only(&then, &now), here: only(&now, &then) });
    }
    inputs
}

fn facts(transcript: &Transcript) -> [(&'static str, String); 7] {
    let Transcript { image_digest, machine, profile, harness, system_info, rave_version, .. } = transcript;
    let none = || "none".to_owned();
    let machine = machine.as_ref();
    let commit = harness.git_commit.as_deref().map_or_else(none, |commit| commit.chars().take(12).collect());
    let dirty = if harness.git_dirty == Some(true) { " with changes" } else { "" };
    [
        ("image", image_digest.clone().unwrap_or_else(none)),
        (
            "guest",
            profile.as_ref().map_or_else(|| rave_version.clone(), |guest| format!("{} {}", guest.name, guest.version)),
        ),
        ("QEMU", machine.map_or_else(none, |machine| machine.qemu_version.clone())),
        ("accelerator", machine.map_or_else(none, |machine| machine.accelerator.clone())),
        ("machine's origin", machine.map_or_else(none, |machine| machine.origin.clone())),
        ("harness", format!("{} {commit}{dirty}", harness.version)),
        ("host", format!("{}, {} processors, {} MiB", system_info.kernel, system_info.cpus, system_info.memory_mib)),
    ]
}

/// QEMU's arguments without what is another in every run: folders and addresses.
fn normal(machine: &MachineRecord) -> Vec<String> {
    static PATH: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?:/[^/,=: ]+)+/([^/,=: ]+)").ok());
    static ADDRESS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"127\.\d+\.\d+\.\d+").ok());
    let normal = |argument: &String| {
        let mut text = argument.clone();
        for (pattern, with) in [(&*PATH, "$1"), (&*ADDRESS, "ADDRESS")] {
            text = pattern.as_ref().map_or(text.clone(), |pattern| pattern.replace_all(&text, with).into_owned());
        }
        text
    };
    machine.arguments.iter().map(normal).collect()
}

/// What was asked of a scenario, as far as a record tells: another text of the scenario file mostly asks otherwise.
pub fn questions(record: &ScenarioRecord) -> impl Iterator<Item = (&str, u64, &str, &[String])> {
    record.steps.iter().map(|step| (step.name.as_str(), step.line, step.kind.as_str(), step.expectations.as_slice()))
}

impl Reproduction {
    /// Whether every verdict is as recorded.
    pub fn is_same(&self) -> bool {
        self.scenarios.iter().all(|again| again.recorded == again.here)
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { recorded, here, inputs, unknown, scenarios, outside, band } = self;
        let mut text = format!("{recorded} made again as {here}\n");
        let (same, differs): (Vec<_>, Vec<_>) = inputs.iter().partition(|input| input.recorded == input.here);
        for Input { what, recorded, here } in differs {
            let _ = writeln!(text, "  differs: {what}: {recorded} → {here}");
        }
        for what in unknown {
            let _ = writeln!(text, "  not known: {what}");
        }
        let same: Vec<_> = same.iter().map(|input| input.what.as_str()).collect();
        let _ = writeln!(text, "  the same: {}", same.join(", "));
        for Again { name, recorded, here, differences, answers, same_answers } in scenarios {
            let verdict =
                if recorded == here { format!("{here}, as recorded") } else { format!("{recorded} → {here}") };
            let _ = writeln!(text, "{name}: {verdict}; {same_answers} of {answers} answers are the same");
            for difference in differences {
                let _ = writeln!(text, "  {difference}");
            }
        }
        let Band { percent, floor_ms, floor_mib } = band;
        match outside {
            Err(why) => drop(writeln!(text, "times and sizes are not compared: {why}")),
            Ok(rows) => {
                let _ = writeln!(
                    text,
                    "{} times and sizes are outside the band of {percent} % (and more than {floor_ms} ms or {floor_mib} MiB)",
                    rows.len()
                );
                for row in rows {
                    let _ = writeln!(text, "  {row}");
                }
            }
        }
        let changed = scenarios.iter().filter(|again| again.recorded != again.here).count();
        let word = if changed == 0 { "REPRODUCED" } else { "NOT REPRODUCED" };
        let _ = writeln!(text, "{word}: {} of {} verdicts are as recorded", scenarios.len() - changed, scenarios.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::model::Outcome;
    use crate::transcript::sample;

    fn names() -> Vec<String> {
        vec!["health::nginx".to_owned()]
    }

    #[test]
    fn the_same_run_is_the_same() {
        let found =
            reproduction(&sample::transcript(), &sample::transcript(), &names(), More::default(), Band::default());
        assert!(found.is_same());
        let text = found.text();
        assert!(!text.contains("differs") && !text.contains("→"), "{text}");
        assert!(text.contains("health::nginx: passed, as recorded; 1 of 1 answers are the same\n"), "{text}");
        assert!(text.ends_with("REPRODUCED: 1 of 1 verdicts are as recorded\n"), "{text}");
    }

    #[test]
    fn what_differs_is_named() {
        let mut here = sample::transcript();
        here.image_digest = Some("sha256:other".into());
        here.harness.git_dirty = Some(true);
        here.service_health[0].outcome = Outcome::Failed;
        let step = &mut here.service_health[0].steps[0];
        step.outcome = Outcome::Failed;
        let stream = step.answer.as_mut().unwrap().streams.get_mut("stdout").unwrap();
        (stream.digest, stream.excerpt) = ("sha256:x".into(), "no\n".into());
        here.machine.as_mut().unwrap().accelerator = "kvm".into();
        let input = Input { what: "scenario files".into(), recorded: "a".into(), here: "b".into() };
        let more = More { inputs: vec![input], unknown: vec!["the weather".into()] };
        let found = reproduction(&sample::transcript(), &here, &names(), more, Band::default());
        assert!(!found.is_same());
        let text = found.text();
        for expected in [
            &format!("  differs: image: {} → sha256:other\n", sample::DISK) as &str,
            "  differs: accelerator: tcg → kvm\n",
            "  differs: scenario files: a → b\n",
            "  not known: the weather\n",
            "health::nginx: passed → failed; 0 of 1 answers are the same\n",
            "  step `it answers`: passed → failed\n",
            "  step `it answers`: stdout differs: \"ok\" → \"no\"\n",
            "times and sizes are not compared: the accelerator is tcg in one and kvm in the other\n",
            "NOT REPRODUCED: 0 of 1 verdicts",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let gone = reproduction(
            &sample::transcript(),
            &sample::transcript(),
            &["x::y".into()],
            More::default(),
            Band::default(),
        );
        assert!(gone.scenarios.is_empty());
    }

    #[test]
    fn folders_and_addresses_are_no_difference_of_arguments() {
        let mut here = sample::transcript().machine.unwrap();
        let recorded = MachineRecord {
            arguments: ["/usr/bin/qemu", "-m", "512M", "path=/a/b/console.log", "hostfwd=tcp:127.1.2.3:22-:22"]
                .map(String::from)
                .to_vec(),
            ..here.clone()
        };
        here.arguments = ["/opt/bin/qemu", "-m", "640M", "path=/c/console.log", "hostfwd=tcp:127.9.9.9:22-:22"]
            .map(String::from)
            .to_vec();
        let (then, now) = (normal(&recorded), normal(&here));
        assert_eq!(then, ["qemu", "-m", "512M", "path=console.log", "hostfwd=tcp:ADDRESS:22-:22"]);
        assert_eq!(now.iter().filter(|word| !then.contains(word)).collect::<Vec<_>>(), ["640M"]);
    }
}
