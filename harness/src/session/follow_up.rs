//! What one does after a failure: `README.txt` beside what a failed scenario left, with the commands to go on with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::diagnostics::{FOLDER, Harvest};
use crate::report;
use crate::settings::Settings;
use crate::transcript::model::{Outcome, ScenarioRecord};

/// The file's name, in the scenario's folder.
pub const README: &str = "README.txt";
/// The scenario's result, in the same folder.
pub const RESULT: &str = "result.json";

/// What is said about the run in which something failed.
pub struct Run<'a> {
    /// What it was told.
    pub settings: &'a Settings,
    /// Its id.
    pub session: &'a str,
    /// Where its transcript is going to be.
    pub transcript: &'a Utf8Path,
    /// The program to call.
    pub program: &'a Utf8Path,
    /// Image, guest and accelerator, as far as there are any.
    pub ground: String,
}

/// What became of the machine.
pub enum Machine {
    /// There was none, or it was lost.
    None,
    /// It is the scenario's own, and was kept on disk.
    Kept,
    /// It was the scenario's own, and has ended.
    Ended,
    /// Others use it.
    Shared,
}

/// The text of the file.
pub fn readme(record: &ScenarioRecord, harvest: Option<&Harvest>, machine: &Machine, run: &Run<'_>) -> String {
    let ScenarioRecord { name, summary, outcome, .. } = record;
    let Run { session, ground, transcript, program, settings } = run;
    let mut text = format!("{name}: {}\n{summary}\n\nsession {session}\n{ground}\n\n", outcome.word());
    text.push_str(&report::text::scenario(record, "this session's folder"));
    if record.outcome == Outcome::Errored && record.steps.is_empty() {
        text.push_str("Nothing was asked. What the booted machine left is in ../../machine/.\n");
    }
    text.push_str("\nWhat is here\n");
    let _ = writeln!(text, "  {RESULT:<32} every step with its answer, as in the transcript");
    let _ = writeln!(text, "  {:<32} whole answers that are too long for it", "NN-stdout, NN-stderr, NN-body, …");
    match machine {
        Machine::Kept | Machine::Ended => {
            let _ = writeln!(text, "  {:<32} what its own machine said since it was made", "machine/");
        }
        Machine::Shared => {
            let _ = writeln!(text, "  {:<32} what the machine said, which others use as well", "../../machine/");
        }
        Machine::None => {}
    }
    for (file, bytes) in harvest.iter().flat_map(|harvest| &harvest.files) {
        let _ = writeln!(text, "  {file:<32} {} ({} KiB)", meaning(file), bytes.div_ceil(1024));
    }
    for (file, why) in harvest.iter().flat_map(|harvest| &harvest.missing) {
        let _ = writeln!(text, "  {:<32} NOT THERE: {why}", format!("{FOLDER}/{file}"));
    }
    if let Some(harvest) = harvest {
        let _ = writeln!(
            text,
            "Gathered in {:.1} s. Secrets are masked in all of it but the picture.",
            harvest.took.as_secs_f64()
        );
    }
    let change = changed(settings, &[]);
    let place = variables(settings, |name| name == "RAVE_ARTIFACTS");
    let keeping = changed(settings, &[("RAVE_KEEP_VM", "1")]);
    let root = quoted(settings.root.as_str());
    let (program, transcript) = (quoted(program.as_str()), quoted(transcript.as_str()));
    let _ = write!(
        text,
        "\nTo go on\n\
         \x20 ask this scenario again:\n    cd {root} && {change}{program} run --exact {name}\n\
         \x20 ask it on what was recorded, and see what differs:\n    cd {root} && {place}{program} reproduce {transcript} {name}\n",
    );
    let _ = match machine {
        Machine::Kept => writeln!(
            text,
            "  open a shell on its machine, at the moment of the failure:\n    cd {root} && {change}{program} shell {session}/{name}"
        ),
        Machine::Shared => writeln!(
            text,
            "  open a shell on such a machine (it stays until ^C, and the run says how to enter it):\n    cd {root} && {keeping}{program} run --exact {name}"
        ),
        Machine::Ended | Machine::None => writeln!(
            text,
            "  open a shell on such a machine, at the moment of the failure:\n    cd {root} && {keeping}{program} run --exact {name}\n    \
             and then the command that it prints: {program} shell SESSION/{name}"
        ),
    };
    text
}

/// What a file of [`FOLDER`] is.
fn meaning(file: &str) -> &'static str {
    match file.rsplit('/').next().unwrap_or_default() {
        "console.txt" => "the serial console from the boot to the failure",
        "journal.txt" => "the journal from the boot to the failure; `!!` marks errors, `!` warnings",
        "screenshot.png" => "the screen",
        "qemu.txt" => "what QEMU says: status, processors, disk, network",
        "host.txt" => "QEMU's process, and what this host has left",
        "qmp.log" => "every message on QEMU's control socket",
        "qemu.log" => "what QEMU printed",
        "command.txt" => "QEMU's exact arguments, and a line to start it by hand",
        "guest-state.txt" => "time, load, kernel",
        "guest-units.txt" => "units: failed, waiting, all",
        "guest-failed-units.txt" => "the status of each failed unit",
        "guest-processes.txt" => "processes",
        "guest-sockets.txt" => "sockets, and whose they are",
        "guest-disk.txt" => "file systems",
        "guest-memory.txt" => "memory and pressure",
        "guest-kernel.txt" => "the kernel's last messages",
        _ => "",
    }
}

/// The settings that are not as they are by default, as a shell takes them before a command; with some set otherwise.
fn changed(settings: &Settings, others: &[(&str, &str)]) -> String {
    // A run that is made again signs with a key of its own, and is not about keeping unless it says so.
    let set = variables(settings, |name| !matches!(name, "RAVE_SIGNING_KEY" | "RAVE_KEEP_VM"));
    let others = others.iter().map(|(name, value)| format!("{name}={} ", quoted(value)));
    set + &others.collect::<String>()
}

/// Those of the settings that are not as they are by default.
fn variables(settings: &Settings, wanted: impl Fn(&str) -> bool) -> String {
    let defaults = Settings::read(&BTreeMap::new(), &settings.root, &settings.root);
    let defaults = defaults.map(|settings| settings.recorded()).unwrap_or_default();
    let recorded = settings.recorded().into_iter();
    let set = recorded.filter(|(name, value)| wanted(name) && defaults.get(name) != Some(value));
    set.map(|(name, value)| format!("{name}={} ", quoted(&value))).collect()
}

fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), Into::into)
}

/// The `hermetic` command that belongs to this process, which may be the test binary beside it.
pub fn program() -> Utf8PathBuf {
    let own = std::env::current_exe().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
    let name = "hermetic";
    let found = own.and_then(|own| {
        let beside = own.parent()?.parent()?.join(name);
        if own.file_name() == Some(name) { Some(own) } else { Some(beside).filter(|path| path.is_file()) }
    });
    found.unwrap_or_else(|| Utf8PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transcript::sample;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Settings::read(&environment, "/the project".into(), "/here".into()).unwrap()
    }

    #[test]
    fn settings_that_were_changed_come_before_the_command() {
        assert_eq!(changed(&settings(&[]), &[]), "");
        let changed_ones = settings(&[("RAVE_ACCEL", "tcg"), ("RAVE_ARTIFACTS", "a b"), ("RAVE_KEEP_VM", "1")]);
        assert_eq!(changed(&changed_ones, &[]), "RAVE_ACCEL=tcg RAVE_ARTIFACTS='/here/a b' ");
        assert_eq!(changed(&settings(&[]), &[("RAVE_KEEP_VM", "1")]), "RAVE_KEEP_VM=1 ");
    }

    #[test]
    fn the_readme_says_what_is_there_what_is_not_and_how_to_go_on() {
        let mut record = sample::scenario("health::nginx");
        record.outcome = Outcome::Errored;
        record.steps[0].outcome = Outcome::Errored;
        record.steps[0].reason = "the machine was lost".into();
        let harvest = Harvest {
            files: BTreeMap::from([("diagnostics/console.txt".to_owned(), 2049)]),
            missing: vec![("guest-*.txt", "the guest is gone".to_owned())],
            took: Duration::from_millis(1234),
        };
        let settings = settings(&[("RAVE_ACCEL", "tcg")]);
        let run = Run {
            settings: &settings,
            session: "spinup-1",
            transcript: "/a/boot_transcript_1.json".into(),
            program: "/t/hermetic".into(),
            ground: "no image".into(),
        };
        let text = readme(&record, Some(&harvest), &Machine::Ended, &run);
        for expected in [
            "health::nginx: errored\n",
            "could not be asked: the machine was lost",
            "  diagnostics/console.txt          the serial console from the boot to the failure (3 KiB)\n",
            "  diagnostics/guest-*.txt          NOT THERE: the guest is gone\n",
            "Gathered in 1.2 s.",
            "    cd '/the project' && RAVE_ACCEL=tcg /t/hermetic run --exact health::nginx\n",
            "    cd '/the project' && /t/hermetic reproduce /a/boot_transcript_1.json health::nginx\n",
            "    cd '/the project' && RAVE_ACCEL=tcg RAVE_KEEP_VM=1 /t/hermetic run --exact health::nginx\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let kept = readme(&record, None, &Machine::Kept, &run);
        assert!(kept.contains("RAVE_ACCEL=tcg /t/hermetic shell spinup-1/health::nginx\n"), "{kept}");
    }
}
