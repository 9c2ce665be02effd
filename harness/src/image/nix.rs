//! An image built by Nix: `nix build` of an installable, and the disk file in its output.

use std::process::Command;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::build::{self, Limits};
use super::manifest::{self, Image, Provider};
use super::path;
use super::source::{ImageError, Sources};

/// The longest a build may take.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// The longest Nix may take to say whether it could build.
const DRY_RUN_LIMIT: Duration = Duration::from_secs(120);

/// Nix with flakes switched on by the command itself, as configuration may not have them.
fn nix(sources: &Sources<'_>) -> Command {
    let mut command = Command::new("nix");
    command.args(["--extra-experimental-features", "nix-command flakes"]).current_dir(sources.root);
    command
}

/// Whether `nix build --dry-run` of the installable succeeds here, and if not, why.
pub fn can_build(sources: &Sources<'_>, installable: &str) -> Result<(), String> {
    if which::which("nix").is_err() {
        return Err("there is no nix program".to_owned());
    }
    let mut command = nix(sources);
    command.args(["build", "--dry-run", "--no-link", installable]);
    let limits = Limits { time: DRY_RUN_LIMIT, progress: &|_| {}, ..limits(sources, BUILD_LIMIT) };
    build::run(command, &limits).map(drop).map_err(|error| {
        let text = error.to_string();
        text.lines()
            .rev()
            .find(|line| line.contains("error:"))
            .or(text.lines().next())
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
}

fn limits<'a>(sources: &'a Sources<'a>, time: Duration) -> Limits<'a> {
    Limits { time, log: sources.build_log, interrupted: sources.interrupted, progress: sources.progress }
}

/// One element of what `nix build --json` prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Built {
    drv_path: String,
    outputs: BTreeMap<String, String>,
}

/// Builds the installable and finds the image in its output.
///
/// # Errors
/// If Nix is missing, the build fails, or its output has no image.
pub fn provide(sources: &Sources<'_>, installable: &str, reason: &str) -> Result<Image, ImageError> {
    let mut command = nix(sources);
    command.args(["build", "--no-link", "--json", "--print-build-logs"]);
    if sources.safe_mode {
        command.args(["--max-jobs", "1", "--cores", "2"]);
    }
    command.arg(installable);
    let output = build::run(command, &limits(sources, BUILD_LIMIT))?;
    let no_image = |why: String| ImageError::NixOutput { installable: installable.to_owned(), why };
    let built: Vec<Built> =
        serde_json::from_str(&output).map_err(|error| no_image(format!("nix printed no JSON: {error}")))?;
    let built = built.first().ok_or_else(|| no_image("nix built nothing".into()))?;
    let store_path = built.outputs.get("out").ok_or_else(|| no_image("it has no output `out`".into()))?;
    let image = in_output(Utf8Path::new(store_path), reason)?.ok_or_else(|| {
        no_image(format!("`{store_path}` has neither image.json nor exactly one .qcow2, .img or .raw file"))
    })?;
    let version = Command::new("nix").arg("--version").output().ok();
    Ok(Image {
        provider: Provider::Nix,
        store_path: Some(store_path.clone()),
        derivation: Some(built.drv_path.clone()),
        nix_version: version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        ..image
    })
}

fn in_output(output: &Utf8Path, reason: &str) -> Result<Option<Image>, ImageError> {
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
