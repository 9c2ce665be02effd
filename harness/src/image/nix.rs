//! An image built by Nix: `nix build` of an installable, and the disk file in its output.

mod failure;
mod printed;
#[cfg(test)]
mod tests;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::build::{self, Limits};
use super::manifest::{self, Image, Provider};
use super::path;
use super::source::{ImageError, Sources};
pub use failure::{Meaning, NixError};
use printed::Built;

/// The longest a build may take.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// The longest Nix may take to say whether it could build.
const DRY_RUN_LIMIT: Duration = Duration::from_secs(120);
/// The longest Nix may take to answer from its own store.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Builds the installable and finds the image in its output.
///
/// # Errors
/// If Nix is missing, the build fails, or its output has no image.
pub fn provide(sources: &Sources<'_>, installable: &str, reason: &str) -> Result<Image, ImageError> {
    let version = find(sources)?;
    let started = Instant::now();
    let mut command = build_command(sources, installable);
    command.args(["--json", "--print-build-logs"]);
    let output =
        build::run(command, &limits(sources, BUILD_LIMIT)).map_err(|source| NixError::failed(installable, source))?;
    let took = started.elapsed().as_secs();
    let no_image = |why: String| NixError::Output { installable: installable.to_owned(), why };
    let Built { derivation, output, seconds } = Built::of(&output).map_err(no_image)?;
    let image = in_output(Utf8Path::new(&output), reason)?.ok_or_else(|| {
        no_image(format!("`{output}` has neither image.json nor exactly one .qcow2, .img or .raw file"))
    })?;
    Ok(Image {
        provider: Provider::Nix,
        nar_hash: nar_hash(sources, &output),
        store_path: Some(output),
        derivation,
        nix_version: Some(version),
        // Its own derivation may do little more than put the files of another side by side.
        built_seconds: image.built_seconds.or(seconds.max(Some(took))),
        ..image
    })
}

/// Whether `nix build --dry-run` of the installable succeeds here, and if not, why.
pub fn can_build(sources: &Sources<'_>, installable: &str) -> Result<(), String> {
    let dry_run = || -> Result<String, ImageError> {
        find(sources)?;
        let mut command = build_command(sources, installable);
        // Five attempts are usual: without a network each run would wait nine seconds for them.
        command.args(["--dry-run", "--option", "download-attempts", "2"]);
        let limits = Limits { progress: &|_| {}, ..limits(sources, DRY_RUN_LIMIT) };
        build::run(command, &limits).map_err(|source| NixError::failed(installable, source))
    };
    dry_run().map(drop).map_err(|error| match error {
        ImageError::Nix(NixError::Failed { meaning, source, .. }) => {
            let text = source.to_string();
            let last = text.lines().rev().find(|line| line.starts_with("error:")).or(text.lines().next());
            format!("{meaning}: {}", last.unwrap_or_default().trim())
        }
        error => format!("{:#}", anyhow::Error::from(error)),
    })
}

/// The version of the program `nix`, as it says it.
fn find(sources: &Sources<'_>) -> Result<String, NixError> {
    which::which("nix").map_err(|_| NixError::Absent)?;
    let mut command = Command::new("nix");
    command.arg("--version").current_dir(sources.root);
    let said = build::run(command, &quiet(sources)).unwrap_or_default().trim().to_owned();
    match printed::version(&said) {
        Some(version) if version >= (2, 4) => Ok(said),
        Some(_) => Err(NixError::TooOld { said }),
        None => Err(NixError::NotNix { said: said.lines().next().unwrap_or_default().to_owned() }),
    }
}

/// Flakes are switched on by the command itself, as configuration may not have them. A lock file that would have to be
/// changed is an error: what is tested is what is locked.
fn build_command(sources: &Sources<'_>, installable: &str) -> Command {
    let mut command = nix(sources);
    command.args(["build", "--no-link", "--no-update-lock-file"]);
    if sources.safe_mode {
        command.args(["--max-jobs", "1", "--cores", "2"]);
    }
    command.arg(installable);
    command
}

fn nix(sources: &Sources<'_>) -> Command {
    let mut command = Command::new("nix");
    command.args(["--extra-experimental-features", "nix-command flakes"]).current_dir(sources.root);
    command.stdin(Stdio::null());
    command
}

fn nar_hash(sources: &Sources<'_>, store_path: &str) -> Option<String> {
    let mut command = nix(sources);
    command.args(["path-info", "--json", store_path]);
    printed::nar_hash(&build::run(command, &quiet(sources)).ok()?)
}

fn limits<'a>(sources: &'a Sources<'a>, time: Duration) -> Limits<'a> {
    Limits { time, log: sources.build_log, interrupted: sources.interrupted, progress: sources.progress }
}

fn quiet<'a>(sources: &'a Sources<'a>) -> Limits<'a> {
    Limits { log: Utf8Path::new("/dev/null"), progress: &|_| {}, ..limits(sources, ANSWER_LIMIT) }
}

pub(super) fn in_output(output: &Utf8Path, reason: &str) -> Result<Option<Image>, ImageError> {
    if output.join(manifest::FILE_NAME).is_file() || output.is_file() {
        return path::provide(output, reason).map(Some);
    }
    let disks: Vec<Utf8PathBuf> = output
        .read_dir_utf8()
        .map(|entries| entries.flatten().map(|entry| entry.path().to_owned()).collect::<Vec<_>>())
        .unwrap_or_default()
        .into_iter()
        .filter(|path| matches!(path.extension(), Some("qcow2" | "img" | "raw")))
        .collect();
    match disks.as_slice() {
        [disk] => path::provide(disk, reason).map(Some),
        _ => Ok(None),
    }
}
