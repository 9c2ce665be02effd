//! Faults that a scenario makes in the fork it is asked on. All of a guest are asked in one run: a fault on one machine must not reach another.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::rig::{End, Start, said, spawn};
use super::{Done, Fault, Found, Guest, Seen, guarded, words_of};
use crate::run::{nothing_left, project};
use crate::support::Project;

/// Must pass, whatever happens to others.
const CONTROL: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'echo here'\nstdout = { equals = 'here' }\n";

/// Tries all of them in one run.
pub fn try_together(guest: Guest, faults: &[&Fault]) -> Vec<Seen> {
    let found = guarded(|| run(guest, faults));
    let seen = faults.iter().enumerate().map(|(number, fault)| {
        let judged = found.as_ref().map_err(Clone::clone).and_then(|found| judge(found, number, fault));
        let (result, took) = match judged {
            Ok((text, took)) => (Ok(text), took),
            Err(why) => (Err(why), Duration::ZERO),
        };
        Seen { fault: fault.name, result, took }
    });
    seen.collect()
}

fn name(number: usize) -> String {
    format!("fault_{number:02}")
}

fn run(guest: Guest, faults: &[&Fault]) -> Result<Found, String> {
    let project = match guest {
        Guest::Micro => project("ok", &[("health/control", CONTROL)]),
        Guest::Reference => {
            let project = Project::new(&[("health/control", CONTROL)]);
            let tmp = project.path("tmp");
            std::fs::create_dir(&tmp).unwrap();
            // Fifteen forks and a boot, on a busy machine.
            project.set("RAVE_IMAGE", reference()?).set("TMPDIR", tmp).set("VALIDATION_TIMEOUT", "7200")
        }
    };
    for (number, fault) in faults.iter().enumerate() {
        let Done::Inside { steps, .. } = fault.done else { continue };
        let file = project.path("scenarios/security").join(format!("{}.toml", name(number)));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!("summary = \"{}\"\n{steps}", fault.name)).unwrap();
    }
    let mut run = spawn(&project, &["run"], Start::Plainly);
    let status = run.wait().unwrap();
    nothing_left(&project);
    let found = Found::read(&project, &project.path("artifacts"))?;
    let told = |what: &str| Err(format!("{what}; it said:\n{}", said(&project)));
    let is_control = |passed: &&str| *passed == "health::control";
    if !found.passed().iter().any(|passed| is_control(passed)) {
        return told("what was not broken did not pass");
    }
    let every_one = faults.iter().all(|fault| matches!(fault.done, Done::Inside { outcome: "passed", .. }));
    let (end, overall) = if every_one { (0, "SUCCESS") } else { (101, "FAILED") };
    if status.code() != Some(end) || found.status() != Some(overall) {
        return told(&format!("{status}, {:?} instead of {}, {overall}", found.status(), End::Code(end)));
    }
    Ok(found)
}

fn judge(found: &Found, number: usize, fault: &Fault) -> Result<(String, Duration), String> {
    let Done::Inside { outcome, says, .. } = fault.done else { return Err("it is not done by a scenario".to_owned()) };
    let name = format!("security::{}", name(number));
    let record = found.records().find(|record| record["name"] == name.as_str()).ok_or("it was not asked")?;
    let text = Found(Some(record.clone())).text();
    let took = Duration::from_millis(record["took_ms"].as_u64().unwrap_or_default());
    let line = text.lines().find(|line| !says.is_empty() && line.contains(says));
    if record["outcome"] != outcome || (line.is_none() && !says.is_empty()) {
        return Err(format!("{record:#}"));
    }
    Ok((format!("{outcome}{}", words_of(line.unwrap_or_default())), took))
}

/// The folder of the reference guest's image, as `hermetic image` provides it.
fn reference() -> Result<std::path::PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hermetic"));
    let output =
        command.arg("image").current_dir(root).env("RAVE_IMAGE", "reference").env_remove("PWD").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let disk = text.lines().find_map(|line| line.strip_prefix("disk "));
    let disk = disk.ok_or_else(|| format!("no reference image: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Path::new(disk.trim()).parent().unwrap().to_owned())
}
