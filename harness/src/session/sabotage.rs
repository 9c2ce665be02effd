//! `hermetic sabotage`: breaks on purpose what scenarios ask about, each time on a machine or in a copy of its own, and looks whether they notice.
//!
//! A scenario is asked twice at least: while nothing is broken, since only what holds then can be seen to fail; and after each of its
//! sabotages.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::list::NothingChosen;
use super::run::{Ended, watch_signals};
use super::shared::{Preparation, Shared};
use crate::error::chain;
use crate::guest::{Captured, Exit};
use crate::interrupt::Interrupt;
use crate::scenario::accounts::is_of_account;
use crate::scenario::facts::{Facts, is_fact};
use crate::scenario::file::{self, Folder};
use crate::scenario::host;
use crate::scenario::model::{Piece, Requires, SCRATCH, Sabotage, Scenario, Step, Template, Tree, Variables, pieces};
use crate::scenario::runner::{self, Breach, Context, Target, milliseconds};
use crate::settings::Settings;
use crate::transcript::model::{
    Outcome, SabotageRecord, ScenarioRecord, ScenarioSensitivity, Sensitivity, SensitivityRecord, StepSensitivity,
};

/// How long a sabotage's own commands may take.
const BREAK_WITHIN: Duration = Duration::from_secs(60);
/// A step that waits may do so for this many times what it needed when nothing was broken, and the time below.
const PATIENCE_TIMES: u32 = 3;
const PATIENCE_MORE: Duration = Duration::from_secs(2);

/// Breaks and asks the scenarios whose name contains one of the words, or all; prints what came of it. `only`: a part of the name
/// of sabotages, and no others are carried out.
///
/// # Errors
/// If the settings or a scenario file are not as they must be, nothing is chosen, or there is no machine or no fork of it.
pub fn sabotage(words: &[String], only: Option<&str>, json: bool) -> anyhow::Result<Ended> {
    let settings = Settings::from_environment()?;
    let Folder { scenarios, beside } = file::read(&settings.scenarios)?;
    let chosen = |scenario: &Scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word));
    let mut scenarios: Vec<_> = scenarios.into_iter().filter(chosen).collect();
    if scenarios.is_empty() {
        return Err(NothingChosen::Scenarios(words.join(", ")).into());
    }
    if let Some(part) = only {
        scenarios.iter_mut().for_each(|scenario| scenario.sabotages.retain(|sabotage| sabotage.name.contains(part)));
        scenarios.retain(|scenario| !scenario.sabotages.is_empty());
        if scenarios.is_empty() {
            return Err(NothingChosen::Sabotages(part.to_owned()).into());
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(runtime.handle(), Arc::clone(&interrupt))?;
    let needed = scenarios.iter().map(needs).max().unwrap_or(Requires::Nothing);
    let preparation = Preparation::check(settings, needed)?;
    let shared =
        Shared::new(preparation, runtime.handle().clone(), Arc::clone(&interrupt), &scenarios, beside).using_saved();
    if needed == Requires::Machine {
        shared.forks_now().map_err(|why| anyhow::anyhow!(why))?;
    }
    let record = all(&shared, &scenarios);
    // Where one is chosen, the others are not missing.
    let record = if only.is_some() { record.without_unseen() } else { record };
    shared.end_machine();
    if json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    } else {
        print!("{}", text(&record));
    }
    Ok(match interrupt.reason() {
        Some(_) => Ended::CouldNotRun,
        None if record.complete() => Ended::Passed,
        None => Ended::Failed,
    })
}

/// What has to be there for a scenario and its sabotages. Without one it is not asked.
fn needs(scenario: &Scenario) -> Requires {
    let runs = scenario.sabotages.iter().any(|sabotage| sabotage.run.is_some());
    match scenario.sabotages.is_empty() {
        true => Requires::Nothing,
        false if runs => Requires::Machine,
        false => scenario.requires(),
    }
}

/// Breaks and asks all of them, as many at once as there is room for.
pub fn all(shared: &Shared, scenarios: &[Scenario]) -> SensitivityRecord {
    let waiting = Mutex::new(scenarios.iter().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(BTreeMap::new());
    let lock = |waiting: &Mutex<VecDeque<_>>| waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |cores| cores.get() * 2) {
            scope.spawn(|| {
                while let Some((index, scenario)) = lock(&waiting) {
                    let sensitivity = one(shared, scenario);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, sensitivity);
                }
            });
        }
    });
    let scenarios: Vec<_> = done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect();
    SensitivityRecord::of(scenarios)
}

fn one(shared: &Shared, scenario: &Scenario) -> ScenarioSensitivity {
    let mut sensitivity = ScenarioSensitivity {
        name: scenario.name.clone(),
        file: runner::relative(&scenario.file, shared.root()),
        unbroken: Outcome::Skipped,
        reason: "it has no sabotage".to_owned(),
        steps: Vec::new(),
        sabotages: Vec::new(),
    };
    let mut baseline = None;
    if !scenario.sabotages.is_empty() {
        match attempt(shared, scenario, 0, None) {
            Err(Unasked { outcome, reason }) => (sensitivity.unbroken, sensitivity.reason) = (outcome, reason),
            Ok(record) => {
                sensitivity.unbroken = record.outcome;
                sensitivity.reason = why(&record);
                baseline = Some(record);
            }
        }
    }
    let holds = matches!(sensitivity.unbroken, Outcome::Passed | Outcome::Warned);
    if let Some(baseline) = baseline.as_ref().filter(|_| holds) {
        for (number, sabotage) in scenario.sabotages.iter().enumerate() {
            let patient = patient(scenario, sabotage, baseline, shared.time_factor());
            let begun = Instant::now();
            let record = attempt(shared, &patient, number + 1, Some(sabotage));
            let judged = judge(sabotage, baseline, record, begun.elapsed());
            // It takes long, and is worth watching.
            let word = if judged.as_declared { "noticed as declared" } else { "NOT as declared" };
            shared.say(&format!("{}: {}: {word}", scenario.name, sabotage.name));
            sensitivity.sabotages.push(judged);
        }
    }
    // What this guest does not have cannot be broken there.
    let elsewhere = sensitivity.unbroken == Outcome::Skipped && !scenario.sabotages.is_empty();
    let elsewhere = elsewhere.then_some(sensitivity.reason.as_str());
    sensitivity.steps = steps(scenario, baseline.as_ref(), &sensitivity.sabotages, elsewhere);
    sensitivity
}

/// Why a scenario did not hold though nothing was broken.
fn why(record: &ScenarioRecord) -> String {
    match record.outcome {
        Outcome::Failed | Outcome::Errored => {
            let text = crate::report::text::scenario(record, "");
            text.lines().next().unwrap_or_default().to_owned()
        }
        _ => record.reason.clone(),
    }
}

/// The scenario with waits that are not longer than they have to be: what waits for a broken service would wait to the end.
fn patient(scenario: &Scenario, sabotage: &Sabotage, baseline: &ScenarioRecord, time_factor: u32) -> Scenario {
    let mut scenario = scenario.clone();
    for (step, record) in scenario.steps.iter_mut().zip(&baseline.steps) {
        let needed = Duration::from_millis(record.took_ms) * PATIENCE_TIMES / time_factor + PATIENCE_MORE;
        step.within = step.within.map(|within| within.min(sabotage.within.unwrap_or(needed)));
    }
    scenario
}

/// Why a scenario was not asked at all.
struct Unasked {
    outcome: Outcome,
    reason: String,
}

impl Unasked {
    fn errored(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Errored, reason: reason.into() }
    }
}

/// Asks a scenario once, on a fork of its own if it or what breaks it needs one.
fn attempt(
    shared: &Shared,
    scenario: &Scenario,
    number: usize,
    sabotage: Option<&Sabotage>,
) -> Result<ScenarioRecord, Unasked> {
    if let Some(reason) = shared.interrupt().reason() {
        return Err(Unasked::errored(format!("the run was cut short by {reason}")));
    }
    let folder = shared.place().folder.join("sabotage").join(scenario.name.replace("::", "/")).join(number.to_string());
    let requires = scenario.requires().max(match sabotage.and_then(|sabotage| sabotage.run.as_ref()) {
        Some(_) => Requires::Machine,
        None => Requires::Nothing,
    });
    let booted = match requires {
        Requires::Nothing => None,
        Requires::Image => shared.image_now().map(|()| None).map_err(Unasked::errored)?,
        Requires::Machine => Some(shared.machine().map_err(|failure| Unasked::errored(failure.short()))?),
    };
    if let Some((booted, missing)) = booted.and_then(|booted| Some((booted, booted.profile.missing(&scenario.needs)?)))
    {
        let reason = format!("`{}` has no `{missing}`", booted.profile.name);
        return Err(Unasked { outcome: Outcome::Skipped, reason });
    }
    let fork = match booted {
        None => None,
        Some(_) => {
            let forks = shared.forks_now().map_err(Unasked::errored)?;
            Some(forks.fork(scenario, folder.join("machine")).map_err(Unasked::errored)?)
        }
    };
    let below = fork.as_ref().map_or_else(|| shared.facts(), |fork| &fork.facts);
    let facts = Facts::above(below);
    let context = shared.context(fork.as_ref().map(|fork| fork as &dyn Target), &facts, booted);
    let context = Context { session_folder: &folder, ..context };
    let record = match sabotage {
        None => Ok(runner::run(scenario, &context)),
        Some(sabotage) => broken(sabotage, scenario, &context),
    };
    if let Some(fork) = fork {
        shared.mask_logs(&fork.end());
    }
    record
}

/// Carries out a sabotage and asks the scenario.
fn broken(sabotage: &Sabotage, scenario: &Scenario, context: &Context<'_>) -> Result<ScenarioRecord, Unasked> {
    let failed = |what: &str, why: String| Unasked::errored(format!("{what} could not be carried out: {why}"));
    let base = crate::vm::runtime::default_base();
    let scratch = tempfile::Builder::new().prefix("rave-sabotage-").tempdir_in(base);
    let scratch = scratch.map_err(|error| failed("the sabotage", error.to_string()))?;
    let folder = Utf8PathBuf::from_path_buf(scratch.path().to_owned());
    let folder = folder.map_err(|path| failed("the sabotage", format!("`{}` is not UTF-8", path.display())))?;
    let root = match sabotage.tree {
        Tree::Project => context.root.to_owned(),
        Tree::Copy => copy_tree(context.root, &folder).map_err(|why| failed("the copy of the tree", why))?,
    };
    if sabotage.tree == Tree::Copy
        && let Ok(scenarios) = context.facts.get("harness.scenarios")
        && let Ok(inside) = Utf8Path::new(&scenarios).strip_prefix(context.root)
    {
        context.facts.set("harness.scenarios", root.join(inside));
    }
    let accounts = context.secrets.iter().filter(|(name, _)| is_of_account(name));
    let accounts: Variables = accounts.map(|(name, value)| (name.clone(), value.clone())).collect();
    let fill = |template: &Template| fill(template, context.facts, &folder, accounts.clone());
    let env = sabotage.env.iter().map(|(name, value)| Ok((name.clone(), fill(value)?)));
    let env = env.collect::<Result<Vec<_>, String>>().map_err(|why| failed("`env`", why))?;
    let context = Context { root: &root, env: &env, ..*context };
    if let Some(command) = &sabotage.host {
        let command = fill(command).map_err(|why| failed("`host`", why))?;
        let place = host::Place { folder: &root, env: &[] };
        let deadline = Instant::now() + BREAK_WITHIN * context.time_factor;
        let captured = host::run(&command, None, place, deadline, context.interrupt.flag());
        carried_out(captured.map_err(|error| chain(&error))).map_err(|why| failed("`host`", why))?;
    }
    for (name, value) in &sabotage.set {
        context.facts.set(name, fill(value).map_err(|why| failed("`set`", why))?);
    }
    let act = |known: &Variables| {
        let (Some(command), Some(target)) = (&sabotage.run, context.target) else { return Ok(()) };
        let known = known.clone().into_iter().chain(accounts.clone()).collect();
        let command = self::fill(command, context.facts, &folder, known)?;
        let deadline = Instant::now() + BREAK_WITHIN * context.time_factor;
        carried_out(target.guest().run("root", &command, None, deadline).map_err(|error| chain(&error)))
    };
    let last = scenario.steps.iter().rposition(|step| sabotage.names(&step.name)).unwrap_or(scenario.steps.len());
    let breach = Breach { before: sabotage.before, last, act: &act };
    runner::run_broken(scenario, &context, &breach).map_err(|why| failed("`run`", why))
}

fn carried_out(captured: Result<Captured, String>) -> Result<(), String> {
    match captured? {
        Captured { exit: Exit::Status(0), .. } => Ok(()),
        Captured { exit, stdout, stderr, .. } => {
            let said = [stdout, stderr].concat();
            Err(format!("{exit:?}: {}", String::from_utf8_lossy(&said).trim()))
        }
    }
}

/// A text with what is `known` in it, the variables of the run, and the scratch folder.
fn fill(template: &Template, facts: &Facts, scratch: &Utf8Path, known: Variables) -> Result<String, String> {
    let mut variables = known;
    variables.insert(SCRATCH.to_owned(), scratch.to_string());
    for piece in pieces(&template.0) {
        if let Piece::Name(name) = piece
            && is_fact(name)
        {
            variables.insert(name.to_owned(), facts.get(name)?);
        }
        if let Piece::Name(name) = piece
            && !variables.contains_key(name)
        {
            return Err(format!("`{name}` has no value, because the step that captures it did not hold"));
        }
    }
    Ok(template.fill(&variables))
}

/// A copy of what git knows of the project, with its changes, in `scratch`.
fn copy_tree(root: &Utf8Path, scratch: &Utf8Path) -> Result<Utf8PathBuf, String> {
    const COPY: &str = "set -e\n\
        git clone -q --shared --no-checkout . \"$1\"\n\
        git -C \"$1\" reset -q\n\
        git ls-files -z --cached --others --exclude-standard --deduplicate |\n\
        while IFS= read -r -d '' file; do [ ! -e \"$file\" ] || printf '%s\\0' \"$file\"; done |\n\
        tar -c --null -T - | tar -x -C \"$1\"";
    let copy = scratch.join("tree");
    let output =
        Command::new("bash").args(["-o", "pipefail", "-c", COPY, "copy"]).arg(&copy).current_dir(root).output();
    let output = output.map_err(|error| format!("could not run bash: {error}"))?;
    if output.status.success() { Ok(copy) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn judge(
    sabotage: &Sabotage,
    baseline: &ScenarioRecord,
    record: Result<ScenarioRecord, Unasked>,
    took: Duration,
) -> SabotageRecord {
    let mut judged = SabotageRecord {
        name: sabotage.name.clone(),
        line: sabotage.line,
        as_declared: false,
        reason: String::new(),
        unnoticed: Vec::new(),
        errored: Vec::new(),
        also_failed: Vec::new(),
        took_ms: milliseconds(took),
    };
    let record = match record {
        Ok(record) => record,
        Err(Unasked { outcome: _, reason }) => return SabotageRecord { reason, ..judged },
    };
    let mut noticed = false;
    for (step, unbroken) in record.steps.iter().zip(&baseline.steps) {
        let (name, outcome) = (&step.name, step.outcome);
        // One that warned before shows nothing by warning again.
        let fails = outcome == Outcome::Failed || (outcome == Outcome::Warned && unbroken.outcome != Outcome::Warned);
        let errs = outcome == Outcome::Errored;
        let (must_fail, must_err) = (sabotage.fails.contains(name), sabotage.errors.contains(name));
        let as_named = (must_fail && fails) || (must_err && errs);
        match (must_fail || must_err, as_named) {
            (true, true) => noticed = true,
            (true, false) => judged.unnoticed.push(name.clone()),
            (false, _) if errs && !noticed => judged.errored.push(name.clone()),
            (false, _) if fails || errs => judged.also_failed.push(name.clone()),
            (false, _) => {}
        }
    }
    judged.as_declared = judged.unnoticed.is_empty() && judged.errored.is_empty();
    judged
}

/// What is said of each step. `elsewhere`: why the scenario can be asked on other guests only.
fn steps(
    scenario: &Scenario,
    baseline: Option<&ScenarioRecord>,
    sabotages: &[SabotageRecord],
    elsewhere: Option<&str>,
) -> Vec<StepSensitivity> {
    let step = |(index, step): (usize, &Step)| {
        let seen_after = sabotages.iter().filter(|record| {
            let declared = scenario.sabotages.iter().find(|sabotage| sabotage.name == record.name);
            let named = declared.is_some_and(|sabotage| sabotage.names(&step.name));
            named && record.reason.is_empty() && !record.unnoticed.contains(&step.name)
        });
        let seen_after: Vec<_> = seen_after.map(|record| record.name.clone()).collect();
        let unbroken = baseline.and_then(|baseline| baseline.steps.get(index));
        let skipped = unbroken.filter(|record| record.outcome == Outcome::Skipped).map(|record| record.reason.clone());
        let skipped = skipped.or_else(|| elsewhere.map(str::to_owned));
        let (verdict, reason) = match (seen_after.is_empty(), &step.unbreakable, skipped) {
            (false, _, _) => (Sensitivity::Seen, String::new()),
            (true, Some(reason), _) => (Sensitivity::Unbreakable, reason.clone()),
            (true, None, Some(reason)) => (Sensitivity::Skipped, reason),
            (true, None, None) => (Sensitivity::Unseen, String::new()),
        };
        StepSensitivity { name: step.name.clone(), line: step.line, verdict, seen_after, reason }
    };
    scenario.steps.iter().enumerate().map(step).collect()
}

/// For people: what was never seen to fail, what came otherwise than declared, and the sums.
fn text(record: &SensitivityRecord) -> String {
    let mut text = String::new();
    for scenario in &record.scenarios {
        let _ = writeln!(text, "{}", scenario.name);
        if !scenario.reason.is_empty() {
            let _ = writeln!(text, "  {}: {}", scenario.unbroken.word(), scenario.reason);
        }
        for step in &scenario.steps {
            let place = format!("{}:{}: {}", scenario.file, step.line, step.name);
            let _ = match step.verdict {
                Sensitivity::Seen => writeln!(text, "  seen         {place} (after: {})", step.seen_after.join("; ")),
                Sensitivity::Unbreakable => writeln!(text, "  unbreakable  {place} ({})", step.reason),
                Sensitivity::Skipped => writeln!(text, "  skipped      {place} ({})", step.reason),
                Sensitivity::Unseen => writeln!(text, "  NEVER SEEN   {place}"),
            };
        }
        for sabotage in scenario.sabotages.iter().filter(|sabotage| !sabotage.as_declared) {
            let _ = writeln!(text, "  NOT AS DECLARED  {}:{}: {}", scenario.file, sabotage.line, sabotage.name);
            for (what, names) in [("held all the same", &sabotage.unnoticed), ("could not be asked", &sabotage.errored)]
            {
                for name in names {
                    let _ = writeln!(text, "    {what}: {name}");
                }
            }
            if !sabotage.reason.is_empty() {
                let _ = writeln!(text, "    {}", sabotage.reason);
            }
        }
        for sabotage in scenario.sabotages.iter().filter(|sabotage| !sabotage.also_failed.is_empty()) {
            let _ = writeln!(
                text,
                "  after `{}` also failed, and is not named: {}",
                sabotage.name,
                sabotage.also_failed.join("; ")
            );
        }
    }
    let _ = writeln!(text, "sensitivity: {}", record.summary);
    text
}
