//! Several transcripts side by side: has the last one left the band of those before it, and which answers are others?

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::boot;
use crate::transcript::model::{MachineRecord, Outcome, ScenarioRecord, Transcript};

/// How far a value may be from the median of the earlier ones.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Band {
    /// Percent of the median.
    pub percent: u64,
    /// Milliseconds that are no difference, whatever they are of the median.
    pub floor_ms: u64,
    /// MiB that are no difference.
    pub floor_mib: u64,
}

impl Default for Band {
    fn default() -> Self {
        Self { percent: 30, floor_ms: 1000, floor_mib: 64 }
    }
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// MiB.
    Mib,
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Above the band: slower, or larger.
    Above,
    /// Below it.
    Below,
    /// In it.
    Within,
}

/// One value over all transcripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `boot.kernel`, `machine.ready`, `memory.machine`, or `phase::scenario: step`.
    pub name: String,
    /// What is counted.
    pub unit: Unit,
    /// The earlier values, in the order of the transcripts; those that do not have it are left out.
    pub earlier: Vec<u64>,
    /// Their median.
    pub median: u64,
    /// The value of the last transcript.
    pub latest: u64,
    /// Percent above the median; negative below.
    pub change_percent: i64,
    /// Where that is.
    pub place: Place,
}

/// A verdict that is another than in the transcript before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The scenario.
    pub scenario: String,
    /// Its outcome in the transcript before; `not there` if it was not.
    pub before: &'static str,
    /// Its outcome in the last transcript.
    pub after: &'static str,
}

/// Instead of an outcome, where there is none.
const MISSING: &str = "not there";

/// The last transcript held against those before it.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The sessions it is held against.
    pub earlier: Vec<String>,
    /// The session that is judged.
    pub latest: String,
    /// The band.
    pub band: Band,
    /// What is not the same in the last transcript as in the one before: image, harness, machine, settings.
    pub differences: Vec<String>,
    /// Verdicts that changed since the transcript before.
    pub verdicts: Vec<Verdict>,
    /// All values that the last transcript and at least one earlier one have.
    pub rows: Vec<Row>,
}

/// Why times and sizes of two transcripts say nothing about each other: another accelerator, another machine to run on, …
pub fn not_comparable(one: &Transcript, other: &Transcript) -> Option<String> {
    Values::of(one).not_comparable(&Values::of(other))
}

/// The times and sizes of a run, and what they depend on.
#[derive(Debug, Clone)]
pub struct Values {
    ground: [(&'static str, String); 3],
    values: BTreeMap<String, (Unit, u64)>,
}

impl Values {
    /// Those of a transcript.
    pub fn of(transcript: &Transcript) -> Self {
        Self::so_far(transcript.machine.as_ref(), &transcript.rave_version, transcript.results())
    }

    /// Those of a run that may still go on.
    pub fn so_far<'a>(
        machine: Option<&MachineRecord>,
        guest: &str,
        results: impl Iterator<Item = &'a ScenarioRecord> + Clone,
    ) -> Self {
        let ground = [
            ("accelerator", machine.map_or("none", |machine| &machine.accelerator).to_owned()),
            ("machine's origin", machine.map_or("none", |machine| &machine.origin).to_owned()),
            ("guest", guest.to_owned()),
        ];
        Self { ground, values: measures(machine, results).into_iter().collect() }
    }

    fn not_comparable(&self, other: &Self) -> Option<String> {
        let differs = self.ground.iter().zip(&other.ground).find(|(one, other)| one.1 != other.1);
        differs.map(|((what, one), (_, other))| format!("the {what} is {one} in one and {other} in the other"))
    }

    /// Each of these values that an earlier run has as well, held against the median of the earlier ones.
    fn rows(&self, earlier: &[&Self], band: Band) -> Vec<Row> {
        let rows = self.values.iter().filter_map(|(name, (unit, latest))| {
            let earlier: Vec<u64> =
                earlier.iter().filter_map(|run| run.values.get(name)).map(|(_, value)| *value).collect();
            if earlier.is_empty() { None } else { Some(row(name.clone(), *unit, earlier, *latest, band)) }
        });
        rows.collect()
    }

    /// Those of these values that are above the band of the earlier runs, the worst first.
    ///
    /// # Errors
    /// Why none of the earlier runs can be compared.
    pub fn above(&self, earlier: &[Self], band: Band) -> Result<Vec<Row>, String> {
        let (mut comparable, mut why) = (Vec::new(), "there are none".to_owned());
        for run in earlier {
            match run.not_comparable(self) {
                None => comparable.push(run),
                Some(reason) => why = reason,
            }
        }
        if comparable.is_empty() {
            return Err(why);
        }
        let mut rows = self.rows(&comparable, band);
        rows.retain(|row| row.place == Place::Above);
        rows.sort_by_key(|row| std::cmp::Reverse(row.latest.abs_diff(row.median)));
        Ok(rows)
    }
}

/// Holds the last transcript against those before it.
pub fn compare(earlier: &[&Transcript], latest: &Transcript, band: Band) -> Comparison {
    let values: Vec<Values> = earlier.iter().map(|transcript| Values::of(transcript)).collect();
    let rows = Values::of(latest).rows(&values.iter().collect::<Vec<_>>(), band);
    let before = earlier.last();
    Comparison {
        earlier: earlier.iter().map(|transcript| transcript.test_session_id.clone()).collect(),
        latest: latest.test_session_id.clone(),
        band,
        differences: before.map(|before| differences(before, latest)).unwrap_or_default(),
        verdicts: before.map(|before| verdicts(before, latest)).unwrap_or_default(),
        rows,
    }
}

fn row(name: String, unit: Unit, earlier: Vec<u64>, latest: u64, band: Band) -> Row {
    let mut sorted = earlier.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    let floor = match unit {
        Unit::Ms => band.floor_ms,
        Unit::Mib => band.floor_mib,
    };
    let width = floor.max(median.saturating_mul(band.percent) / 100);
    let place = if latest > median.saturating_add(width) {
        Place::Above
    } else if latest < median.saturating_sub(width) {
        Place::Below
    } else {
        Place::Within
    };
    let change = (i128::from(latest) - i128::from(median)) * 100 / i128::from(median.max(1));
    let change_percent = i64::try_from(change).unwrap_or(i64::MAX);
    Row { name, unit, earlier, median, latest, change_percent, place }
}

/// Every value of a run that can be compared: parts of the boot, readiness, memory, and the time of each step that passed.
fn measures<'a>(
    machine: Option<&MachineRecord>,
    results: impl Iterator<Item = &'a ScenarioRecord> + Clone,
) -> Vec<(String, (Unit, u64))> {
    let mut found = Vec::new();
    if let Some(boot) = boot::of_results(results.clone()) {
        found.extend(boot.parts.into_iter().map(|(name, ms)| (format!("boot.{name}"), (Unit::Ms, ms))));
        found.push(("boot.total".to_owned(), (Unit::Ms, boot.total_ms)));
    }
    let ready = machine.and_then(|machine| machine.ready_ms);
    found.extend(ready.map(|ready| ("machine.ready".to_owned(), (Unit::Ms, ready))));
    for record in results {
        for step in &record.steps {
            let value = step.answer.as_ref().and_then(|answer| answer.streams.get("value"));
            let value = value.and_then(|value| value.excerpt.trim().parse::<u64>().ok());
            match value.filter(|_| step.asked.ends_with("_mib")) {
                Some(value) => found.push((format!("memory.{}", step.asked), (Unit::Mib, value))),
                None if step.kind != "measure" && matches!(step.outcome, Outcome::Passed | Outcome::Warned) => {
                    found.push((format!("{}: {}", record.name, step.name), (Unit::Ms, step.took_ms)));
                }
                None => {}
            }
        }
    }
    found
}

fn differences(before: &Transcript, after: &Transcript) -> Vec<String> {
    let facts = |transcript: &Transcript| -> BTreeMap<String, String> {
        let Transcript { image_digest, machine, profile, harness, system_info, filters, overall_status, .. } =
            transcript;
        let none = || "none".to_owned();
        let machine = machine.as_ref();
        let mut facts = BTreeMap::from([
            ("status".to_owned(), overall_status.word().to_owned()),
            ("image".to_owned(), image_digest.clone().unwrap_or_else(none)),
            ("QEMU".to_owned(), machine.map_or_else(none, |machine| machine.qemu_version.clone())),
            ("accelerator".to_owned(), machine.map_or_else(none, |machine| machine.accelerator.clone())),
            ("harness".to_owned(), harness.git_commit.clone().unwrap_or_else(|| harness.version.clone())),
            ("host".to_owned(), format!("{} with {} processors", system_info.kernel, system_info.cpus)),
            ("filters".to_owned(), if filters.is_empty() { none() } else { filters.join(" ") }),
        ]);
        let settings = harness.settings.iter();
        facts.extend(settings.map(|(name, value)| (format!("setting {name}"), value.clone())));
        let capabilities = profile.iter().flat_map(|profile| &profile.capabilities);
        facts.extend(capabilities.map(|(name, found)| (format!("capability {name}"), found.implementation.clone())));
        facts
    };
    let (before, after) = (facts(before), facts(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let text = |facts: &BTreeMap<String, String>, name: &str| facts.get(name).cloned().unwrap_or_else(|| "none".into());
    let both = names.into_iter().map(|name| (name, text(&before, name), text(&after, name)));
    both.filter(|(_, one, other)| one != other).map(|(name, one, other)| format!("{name}: {one} → {other}")).collect()
}

fn verdicts(before: &Transcript, after: &Transcript) -> Vec<Verdict> {
    let outcomes = |transcript: &Transcript| -> BTreeMap<String, &'static str> {
        transcript.results().map(|record| (record.name.clone(), record.outcome.word())).collect()
    };
    let (before, after) = (outcomes(before), outcomes(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let verdicts = names.into_iter().map(|name| Verdict {
        scenario: name.clone(),
        before: before.get(name).copied().unwrap_or(MISSING),
        after: after.get(name).copied().unwrap_or(MISSING),
    });
    verdicts.filter(|verdict| verdict.before != verdict.after).collect()
}

impl Verdict {
    /// Whether both transcripts have the scenario.
    fn is_of_both(&self) -> bool {
        self.before != MISSING && self.after != MISSING
    }
}

impl Comparison {
    /// Values outside the band, the worst first.
    pub fn outside(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.iter().filter(|row| row.place != Place::Within).collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.place == Place::Above, row.latest.abs_diff(row.median))));
        rows
    }

    /// Whether a value is above the band.
    pub fn is_worse(&self) -> bool {
        self.rows.iter().any(|row| row.place == Place::Above)
    }

    /// For people: what differs, what left the band, and the values one always wants to see.
    pub fn text(&self) -> String {
        let Self { earlier, latest, band, differences, verdicts, rows } = self;
        let mut text = format!("{latest} against {}\n", earlier.join(", "));
        for difference in differences {
            let _ = writeln!(text, "  differs: {difference}");
        }
        for Verdict { scenario, before, after } in verdicts.iter().filter(|verdict| verdict.is_of_both()) {
            let _ = writeln!(text, "  verdict: {scenario}: {before} → {after}");
        }
        for (what, missing) in [("new", true), ("not there", false)] {
            let of_one =
                verdicts.iter().filter(|verdict| !verdict.is_of_both() && (verdict.before == MISSING) == missing);
            let names: Vec<_> = of_one.map(|verdict| verdict.scenario.as_str()).collect();
            if !names.is_empty() {
                let _ = writeln!(text, "  {what}: {}", names.join(", "));
            }
        }
        let plain = rows.iter().filter(|row| !row.name.contains("::") && row.place == Place::Within);
        let rows: Vec<_> = self.outside().into_iter().chain(plain).collect();
        let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        for row in &rows {
            let mark = match row.place {
                Place::Above => "ABOVE",
                Place::Below => "below",
                Place::Within => "",
            };
            let unit = row.unit.word();
            let (name, median, now) = (&row.name, row.median, row.latest);
            let _ = writeln!(
                text,
                "  {mark:<5} {name:<width$} {median:>8} → {now:>8} {unit:<3} {:+} %",
                row.change_percent
            );
        }
        let above = self.rows.iter().filter(|row| row.place == Place::Above).count();
        let Band { percent, floor_ms, floor_mib } = band;
        let _ = writeln!(
            text,
            "{} values compared, {above} above the band of {percent} % (and more than {floor_ms} ms or {floor_mib} MiB)",
            self.rows.len(),
        );
        text
    }
}

impl Row {
    /// In a line.
    pub fn text(&self) -> String {
        let Self { name, unit, median, latest, change_percent, .. } = self;
        format!("{name}: {median} → {latest} {} ({change_percent:+} %)", unit.word())
    }
}

impl Unit {
    /// The unit's sign.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::Mib => "MiB",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::sample;

    fn ready_after(ms: u64) -> Transcript {
        let mut transcript = sample::transcript();
        transcript.machine.as_mut().unwrap().ready_ms = Some(ms);
        transcript
    }

    #[track_caller]
    fn check(earlier: &[u64], latest: u64, expected: Place) {
        let earlier: Vec<_> = earlier.iter().map(|ms| ready_after(*ms)).collect();
        let found = compare(&earlier.iter().collect::<Vec<_>>(), &ready_after(latest), Band::default());
        let row = found.rows.iter().find(|row| row.name == "machine.ready").unwrap();
        assert_eq!(row.place, expected, "{row:?}");
        assert_eq!(found.is_worse(), expected == Place::Above);
    }

    #[test]
    fn a_value_is_held_against_the_median_of_the_earlier_ones() {
        check(&[100_000], 130_000, Place::Within);
        check(&[100_000], 130_001, Place::Above);
        check(&[100_000], 69_999, Place::Below);
        check(&[100_000, 100_000, 900_000], 131_000, Place::Above);
        check(&[100], 1100, Place::Within);
        check(&[100], 1101, Place::Above);
        check(&[0], 900, Place::Within);
        check(&[u64::MAX], u64::MAX, Place::Within);
    }

    #[test]
    fn a_run_that_goes_on_is_held_against_those_that_can_be_compared() {
        let runs = |ms: &[u64]| ms.iter().map(|ms| Values::of(&ready_after(*ms))).collect::<Vec<_>>();
        let now = Values::of(&ready_after(200_000));
        let above = now.above(&runs(&[100_000, 110_000, 90_000]), Band::default()).unwrap();
        assert_eq!(above.iter().map(Row::text).collect::<Vec<_>>(), ["machine.ready: 100000 → 200000 ms (+100 %)"]);
        assert_eq!(now.above(&runs(&[190_000]), Band::default()), Ok(vec![]));
        assert_eq!(now.above(&[], Band::default()), Err("there are none".into()));
        let mut other = ready_after(100_000);
        other.machine.as_mut().unwrap().accelerator = "kvm".into();
        let mixed = [Values::of(&other), Values::of(&ready_after(150_000))];
        assert_eq!(now.above(&mixed, Band::default()).unwrap()[0].median, 150_000);
        let why = now.above(&mixed[..1], Band::default()).unwrap_err();
        assert_eq!(why, "the accelerator is kvm in one and tcg in the other");
    }

    #[test]
    fn what_differs_is_named() {
        let before = sample::transcript();
        let mut after = ready_after(200_000);
        after.image_digest = Some("sha256:other".into());
        after.service_health[0].outcome = Outcome::Failed;
        after.validation_results.clear();
        let found = compare(&[&before], &after, Band::default());
        assert_eq!(found.differences, [format!("image: {} → sha256:other", sample::DISK)]);
        let verdict = |scenario: &str, after| Verdict { scenario: scenario.into(), before: "passed", after };
        assert_eq!(found.verdicts, [verdict("boot::ready", "not there"), verdict("health::nginx", "failed")]);
        let text = found.text();
        assert!(text.contains("ABOVE machine.ready   100000 →   200000 ms  +100 %"), "{text}");
        assert!(text.contains("1 above the band of 30 %"), "{text}");
    }

    #[test]
    fn times_under_another_accelerator_say_nothing() {
        let mut other = sample::transcript();
        assert_eq!(not_comparable(&sample::transcript(), &other), None);
        other.machine.as_mut().unwrap().accelerator = "kvm".into();
        let why = not_comparable(&sample::transcript(), &other).unwrap();
        assert_eq!(why, "the accelerator is tcg in one and kvm in the other");
    }
}
