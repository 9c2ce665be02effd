//! `hermetic reproduce`: makes a run again from its transcript: the same image by its digest, the same machine, settings and order.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use super::arguments::RunArguments;
use super::run::{self, Chosen, Ended, Ran};
use super::shell;
use crate::image::{self, Sources};
use crate::interrupt::tell;
use crate::report::compare::Band;
use crate::report::reproduce::{Input, More, OF_THE_RUN, questions, reproduction};
use crate::scenario::file::{self, Folder};
use crate::scenario::model::{Requires, Scenario};
use crate::settings::{DEFAULT_INSTALLABLE, ImageChoice, Keep, MachineSize, Settings};
use crate::transcript::model::{ImageRecord, MachineRecord, ScenarioRecord, Transcript};

/// What is to be made again, and how.
pub struct Wish<'a> {
    /// The transcript, which is verified.
    pub recorded: &'a Transcript,
    /// One scenario of it, or all.
    pub scenario: Option<&'a str>,
    /// Whether a shell is opened on its machine afterwards.
    pub shell: bool,
    /// Whether the image may be built anew where it is not here.
    pub build: bool,
    /// How far times and sizes may be from the recorded ones.
    pub band: Band,
}

/// Why a transcript cannot be made again as it was asked for: the wish is wrong.
#[derive(Debug, thiserror::Error)]
pub enum WrongWish {
    /// It has no such scenario.
    #[error("the transcript of {session} has no scenario `{name}`{nearest}")]
    NoScenario {
        /// The transcript's session.
        session: String,
        /// What was asked for.
        name: String,
        /// What may have been meant.
        nearest: String,
    },
    /// A shell needs a machine.
    #[error("`{name}` was asked without a machine, so there is none to open a shell on")]
    NoMachine {
        /// The scenario.
        name: String,
    },
    /// Of several scenarios, which?
    #[error("--shell goes with one scenario: hermetic reproduce TRANSCRIPT SCENARIO --shell")]
    ShellOnAll,
}

/// What the transcript needs and is not here.
#[derive(Debug, thiserror::Error)]
#[error("missing: {what}\n  {instead}")]
pub struct Missing {
    what: String,
    instead: String,
}

/// Makes the run again and says what was the same and what differs.
///
/// # Errors
/// If the wish is wrong, something is missing, or the run cannot begin.
pub fn reproduce(wish: &Wish<'_>) -> anyhow::Result<Ended> {
    let Wish { recorded, scenario, shell, build, band } = *wish;
    let names = names(recorded, scenario)?;
    if shell {
        let name = scenario.ok_or(WrongWish::ShellOnAll)?;
        let found = recorded.results().find(|record| record.name == name);
        if found.is_some_and(|record| record.machine == "none" && !record.steps.is_empty()) {
            return Err(WrongWish::NoMachine { name: name.to_owned() }.into());
        }
    }
    let mut settings = Settings::from_environment_over(&recorded_settings(recorded)?)?;
    settings.size = recorded.machine.as_ref().and_then(size);
    if shell {
        settings.keep_vm = Keep::Always;
    }
    let Folder { scenarios, beside } = file::read(&settings.scenarios)?;
    let (chosen, gone) = choose(scenarios, &names, &settings)?;
    if chosen.iter().any(|scenario| scenario.requires() >= Requires::Image)
        && let Some(record) = &recorded.image
        && std::env::var_os("RAVE_IMAGE").is_none_or(|value| value.is_empty())
    {
        settings.image = image(record, recorded.harness.settings.get("RAVE_IMAGE"), build)?;
    }
    for name in &gone {
        tell(&format!("`{name}` is not among the scenarios in `{}` any more", settings.scenarios));
    }
    let (root, session) = (settings.root.clone(), recorded.test_session_id.clone());
    tell(&format!("making {} of {} scenarios of {session} again", chosen.len(), recorded.results().count()));
    let filters = names.iter().map(|name| format!("--exact {name}")).collect();
    let kept = scenario.filter(|_| shell);
    let chosen = Chosen { scenarios: chosen, left: Vec::new(), filters };
    let Ran { ended, transcript: here, session: again } = run::run(settings, beside, chosen, &RunArguments::all())?;
    let more = scenario_files(recorded, &here, &names, &root);
    let found = reproduction(recorded, &here, &names, more, band);
    print!("{}", found.text());
    if let Some(name) =
        kept.filter(|name| here.results().any(|record| record.name == **name && record.machine == "fork"))
    {
        shell::resume(&format!("{again}/{name}"))?;
    }
    Ok(match ended {
        Ended::CouldNotRun | Ended::WrongUsage => Ended::CouldNotRun,
        Ended::Passed | Ended::Failed if found.is_same() => Ended::Passed,
        Ended::Passed | Ended::Failed => Ended::Failed,
    })
}

/// The scenarios that are wanted, in the order in which they were asked.
fn names(recorded: &Transcript, scenario: Option<&str>) -> Result<Vec<String>, WrongWish> {
    let mut records: Vec<&ScenarioRecord> = recorded.results().collect();
    records.sort_by_key(|record| record.started_ms);
    let names = records.iter().map(|record| record.name.clone());
    let Some(name) = scenario else { return Ok(names.collect()) };
    if let Some(name) = names.clone().find(|known| known == name) {
        return Ok(vec![name]);
    }
    let nearest = names.min_by_key(|known| strsim::osa_distance(known, name));
    let nearest = nearest.map(|nearest| format!("; the nearest is `{nearest}`")).unwrap_or_default();
    Err(WrongWish::NoScenario { session: recorded.test_session_id.clone(), name: name.to_owned(), nearest })
}

/// The recorded settings that are to hold again, as environment variables.
fn recorded_settings(recorded: &Transcript) -> Result<BTreeMap<String, String>, Missing> {
    let mut settings = recorded.harness.settings.clone();
    let own = |name: &str| OF_THE_RUN.contains(&name) || name == "RAVE_SIGNING_KEY_PASSWORD_FILE";
    settings.retain(|name, value| value != "none" && !own(name));
    // Of the machine that recorded it; here it may lie elsewhere.
    if settings.get("RAVE_SCENARIOS").is_some_and(|path| !Utf8Path::new(path).is_dir()) {
        settings.remove("RAVE_SCENARIOS");
    }
    let own = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(path) = settings.get("RAVE_CREDENTIALS")
        && !Utf8Path::new(path).is_dir()
        && !own("RAVE_CREDENTIALS")
    {
        return Err(Missing {
            what: format!("the credentials that the guest was handed, from the folder `{path}`"),
            instead: "set RAVE_CREDENTIALS to a folder that holds them".to_owned(),
        });
    }
    if let Some(machine) = &recorded.machine {
        // Where KVM is not to be had it is TCG all the same, and that is named.
        let word = if machine.accelerator == "tcg" { "tcg" } else { "auto" };
        settings.insert("RAVE_ACCEL".to_owned(), word.to_owned());
        let keep = if machine.origin == "saved" { "1" } else { "0" };
        settings.insert("RAVE_KEEP_SAVED".to_owned(), keep.to_owned());
    }
    Ok(settings)
}

/// Cores and memory of a recorded machine, from QEMU's arguments.
fn size(machine: &MachineRecord) -> Option<MachineSize> {
    let value = |option: &str| {
        let at = machine.arguments.iter().position(|argument| argument == option)?;
        machine.arguments.get(at + 1)
    };
    let cores = value("-smp")?.parse().ok()?;
    let memory_mib = value("-m")?.strip_suffix('M')?.parse().ok()?;
    Some(MachineSize { cores, memory_mib })
}

/// The scenarios of these names, in this order, and the names of which there is none any more.
fn choose(
    scenarios: Vec<Scenario>,
    names: &[String],
    settings: &Settings,
) -> Result<(Vec<Scenario>, Vec<String>), Missing> {
    let mut known: BTreeMap<_, _> = scenarios.into_iter().map(|scenario| (scenario.name.clone(), scenario)).collect();
    let chosen: Vec<_> = names.iter().filter_map(|name| known.remove(name)).collect();
    let found: BTreeSet<_> = chosen.iter().map(|scenario| &scenario.name).collect();
    let gone: Vec<_> = names.iter().filter(|name| !found.contains(name)).cloned().collect();
    if chosen.is_empty() {
        return Err(Missing {
            what: format!("the scenario `{}` in `{}`", gone.join("`, `"), settings.scenarios),
            instead: "set RAVE_SCENARIOS to the folder of the scenario files it is of".to_owned(),
        });
    }
    Ok((chosen, gone))
}

/// The recorded image, where it is here; or how it is built again.
fn image(record: &ImageRecord, setting: Option<&String>, build: bool) -> Result<ImageChoice, Missing> {
    let cache = Sources::default_cache();
    let Some(disk) = record.files.first() else {
        return Err(Missing { what: "the image: none is recorded".into(), instead: "set RAVE_IMAGE to one".into() });
    };
    let mut looked_at = Vec::new();
    for path in places(record, &cache) {
        match image_at(&path, record) {
            Ok(()) => return Ok(ImageChoice::Recorded { path, provider: record.provider.clone() }),
            Err(why) => looked_at.push(format!("{path} ({why})")),
        }
    }
    let (choice, how) = match record.provider.as_str() {
        "nix" => {
            let derivation = record.derivation.as_ref().filter(|path| Utf8Path::new(path).exists());
            let installable = derivation.map(|path| format!("{path}^*"));
            let recorded = setting.and_then(|setting| setting.strip_prefix("nix:")).map(str::to_owned);
            let installable = installable.or(recorded).unwrap_or_else(|| DEFAULT_INSTALLABLE.to_owned());
            let how = format!("or --build builds nix:{installable} and says whether that is the same");
            (Some(ImageChoice::Nix(installable)), how)
        }
        "reference" => (
            Some(ImageChoice::Reference),
            "or --build builds it by the recipe in guest/reference and says whether that is the same".to_owned(),
        ),
        _ => (None, "no recipe is recorded that could build it".to_owned()),
    };
    match choice.filter(|_| build) {
        Some(choice) => Ok(choice),
        None => Err(Missing {
            what: format!(
                "the image {} ({}, {} bytes); looked at: {}",
                disk.digest,
                record.provider,
                disk.bytes,
                looked_at.join(", ")
            ),
            instead: format!(
                "set RAVE_IMAGE to it; {how}; or set RAVE_IMAGE to another image, which is then named as a difference"
            ),
        }),
    }
}

/// Where the image may be: where it was, in the Nix store, in the cache.
fn places(record: &ImageRecord, cache: &Utf8Path) -> Vec<Utf8PathBuf> {
    let disk = record.files.first().map(|file| Utf8PathBuf::from(&file.path));
    let whole = |disk: Utf8PathBuf| match disk.parent().filter(|folder| folder.join(image::MANIFEST).is_file()) {
        Some(folder) => folder.to_owned(),
        None => disk,
    };
    let mut places: Vec<_> = disk.map(whole).into_iter().collect();
    places.extend(record.store_path.as_ref().map(Utf8PathBuf::from));
    let cached = cache.read_dir_utf8().into_iter().flatten().flatten().map(|entry| entry.path().to_owned());
    let mut cached: Vec<_> = cached.filter(|path| path.join(image::MANIFEST).is_file()).collect();
    cached.sort();
    places.extend(cached);
    let mut seen = BTreeSet::new();
    places.retain(|path| seen.insert(path.clone()));
    places
}

/// Whether the image at a path is the recorded one: each of its files has the digest. Lengths are compared first, since that takes no time.
fn image_at(path: &Utf8Path, record: &ImageRecord) -> Result<(), String> {
    if !path.exists() {
        return Err("not there".to_owned());
    }
    let found = image::at(path, &record.provider).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    let files = found.files();
    for recorded in &record.files {
        let (role, digest) = (&recorded.role, &recorded.digest);
        let file = files.iter().find(|(known, _)| known == role).map(|(_, path)| *path);
        let file = file.ok_or_else(|| format!("it has no {role}"))?;
        let bytes = file.metadata().map(|file| file.len()).map_err(|error| error.to_string())?;
        if bytes != recorded.bytes {
            return Err(format!("its {role} has {bytes} bytes"));
        }
        let here = image::digest(file).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?.digest;
        if here != *digest {
            return Err(format!("its {role} is {here}"));
        }
    }
    Ok(())
}

/// What is known of the scenario files then and now: by git where it knows the recorded commit, and by what was asked.
fn scenario_files(recorded: &Transcript, here: &Transcript, names: &[String], root: &Utf8Path) -> More {
    let commit = recorded.harness.git_commit.as_deref().filter(|_| recorded.harness.git_dirty == Some(false));
    let (mut asks_otherwise, mut changed, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let find = |transcript: &Transcript| transcript.results().find(|found| found.name == *name).cloned();
        let (Some(then), Some(now)) = (find(recorded), find(here)) else { continue };
        let both = then.steps.len().min(now.steps.len());
        if !questions(&then).take(both).eq(questions(&now).take(both)) {
            asks_otherwise.push(now.file.clone());
        }
        match commit.and_then(|commit| file_at(root, commit, &then.file)) {
            Some(text) if std::fs::read(root.join(&now.file)).is_ok_and(|now| now == text) => {}
            Some(_) => changed.push(now.file),
            None => unknown.push(now.file),
        }
    }
    let input = |what: &str, same: &str, differs: Vec<String>| {
        let here = if differs.is_empty() { same.to_owned() } else { format!("others in {}", differs.join(", ")) };
        Input { what: what.to_owned(), recorded: same.to_owned(), here }
    };
    let mut more = More { inputs: vec![input("questions", "as recorded", asks_otherwise)], unknown: Vec::new() };
    if unknown.is_empty() || !changed.is_empty() {
        more.inputs.push(input("scenario files", "those of the recorded commit", changed));
    }
    if !unknown.is_empty() {
        let why = match (&recorded.harness.git_commit, commit) {
            (None, _) => "no commit is recorded".to_owned(),
            (Some(_), None) => "the recorded checkout had changes".to_owned(),
            (Some(commit), Some(_)) => format!("git has no such files in the recorded commit {commit}"),
        };
        more.unknown.push(format!("whether scenario files are the same to the byte: {why}"));
    }
    more
}

/// A file of the project as it was in a commit.
fn file_at(root: &Utf8Path, commit: &str, file: &str) -> Option<Vec<u8>> {
    let mut git = Command::new("git");
    let shown = git.args(["-C", root.as_str(), "show", &format!("{commit}:./{file}")]).output().ok()?;
    shown.status.success().then_some(shown.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::sample;

    #[test]
    fn what_is_wanted_is_in_the_order_in_which_it_was_asked() {
        let mut recorded = sample::transcript();
        recorded.service_health[0].started_ms = 0;
        recorded.validation_results[0].started_ms = 5;
        assert_eq!(names(&recorded, None).unwrap(), ["health::nginx", "boot::ready"]);
        assert_eq!(names(&recorded, Some("boot::ready")).unwrap(), ["boot::ready"]);
        let wrong = names(&recorded, Some("boot::redy")).unwrap_err().to_string();
        assert!(wrong.ends_with("has no scenario `boot::redy`; the nearest is `boot::ready`"), "{wrong}");
    }

    #[test]
    fn the_machine_has_the_size_that_is_recorded() {
        let mut machine = sample::transcript().machine.unwrap();
        machine.arguments = ["qemu", "-smp", "3", "-m", "6144M"].map(String::from).to_vec();
        assert_eq!(size(&machine), Some(MachineSize { cores: 3, memory_mib: 6144 }));
        machine.arguments.truncate(3);
        assert_eq!(size(&machine), None);
    }

    #[test]
    fn settings_that_are_about_another_machine_are_left_out() {
        let mut recorded = sample::transcript();
        for (name, value) in [
            ("SAFE_MODE", "0"),
            ("RAVE_SCENARIOS", "/nonexistent/scenarios"),
            ("RAVE_ARTIFACTS", "/x"),
            ("RAVE_CREDENTIALS", "none"),
        ] {
            recorded.harness.settings.insert(name.into(), value.into());
        }
        let settings = recorded_settings(&recorded).unwrap();
        assert_eq!((settings["SAFE_MODE"].as_str(), settings["RAVE_ACCEL"].as_str()), ("0", "tcg"));
        assert_eq!(settings["RAVE_KEEP_SAVED"], "0");
        for name in ["RAVE_SCENARIOS", "RAVE_ARTIFACTS", "RAVE_CREDENTIALS"] {
            assert!(!settings.contains_key(name), "{name}");
        }
        recorded.harness.settings.insert("RAVE_CREDENTIALS".into(), "/nonexistent/credentials".into());
        let missing = recorded_settings(&recorded).unwrap_err().to_string();
        assert!(missing.starts_with("missing: the credentials"), "{missing}");
    }

    #[test]
    fn an_image_is_known_by_the_digests_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let disk = folder.join("disk.raw");
        let mut bytes = vec![0; 512];
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&disk, &bytes).unwrap();
        let digest = image::digest(&disk).unwrap();
        let mut record = sample::transcript().image.unwrap();
        record.files.truncate(1);
        (record.files[0].bytes, record.files[0].digest) = (digest.bytes, digest.digest);
        assert_eq!(image_at(&disk, &record), Ok(()));
        record.files[0].digest = "sha256:other".into();
        assert!(image_at(&disk, &record).unwrap_err().starts_with("its disk is sha256:"));
        record.files[0].bytes = 513;
        assert_eq!(image_at(&disk, &record), Err("its disk has 512 bytes".into()));
        assert_eq!(image_at(&folder.join("none"), &record), Err("not there".into()));
    }
}
