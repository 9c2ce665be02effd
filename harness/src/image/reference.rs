//! The Debian reference guest: built by the recipe in `guest/reference/`, cached by a key over all that goes into it: `guest/`, and what the
//! programs there are compiled with.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};

use super::build::{self, Limits};
use super::manifest;
use super::manifest::{Image, Provider};
use super::source::{ImageError, Sources};
use crate::hex;

/// The longest a build may take (the budget of the appliance).
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Takes the image from the cache, or builds it.
///
/// # Errors
/// If the recipe cannot be read, the cache not be written, or the build fails.
pub fn provide(sources: &Sources<'_>, reason: &str) -> Result<Image, ImageError> {
    let recipe = sources.root.join("guest/reference");
    let key = recipe_key(sources.root).map_err(|source| ImageError::Recipe { path: recipe.clone(), source })?;
    let folder = sources.cache.join(format!("reference-{}", &key[..16]));
    if folder.join(manifest::FILE_NAME).is_file() {
        return Ok(Image::in_folder(&folder, Provider::Reference, reason)?);
    }
    let cache_error = |source| ImageError::Cache { path: sources.cache.to_owned(), source };
    fs::create_dir_all(&sources.cache).map_err(cache_error)?;
    // Two runs that want the same image: the second waits here and finds it built.
    let lock = File::create(sources.cache.join("reference.lock")).map_err(cache_error)?;
    if lock.try_lock().is_err() {
        (sources.progress)("another run is building a reference image; waiting for it");
        wait_for(&lock, sources)?;
    }
    if !folder.join(manifest::FILE_NAME).is_file() {
        build(sources, &recipe, &folder)?;
    }
    Ok(Image::in_folder(&folder, Provider::Reference, reason)?)
}

fn wait_for(lock: &File, sources: &Sources<'_>) -> Result<(), ImageError> {
    use crate::wait::{Probe, until};
    let ended = until(Instant::now() + BUILD_LIMIT, || {
        if sources.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("interrupted while waiting for another run's build".to_owned());
        }
        Ok(if lock.try_lock().is_ok() { Probe::Ready(()) } else { Probe::NotYet("it is still building".into()) })
    });
    ended.map_err(|error| ImageError::OtherBuild(error.to_string()))
}

/// Builds into a folder of another name and renames it, so that an interrupted build is never taken for an image.
fn build(sources: &Sources<'_>, recipe: &Utf8Path, folder: &Utf8Path) -> Result<(), ImageError> {
    let cache_error = |source| ImageError::Cache { path: sources.cache.to_owned(), source };
    remove_unfinished(&sources.cache).map_err(cache_error)?;
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(&sources.cache)
        .map_err(cache_error)?;
    (sources.progress)("building the reference guest (once for this recipe; a few minutes)");
    let mut command = Command::new(recipe.join("build"));
    command.arg(unfinished.path()).env("RAVE_DOWNLOADS", sources.cache.join("downloads"));
    let limits = Limits {
        time: BUILD_LIMIT,
        log: sources.build_log,
        interrupted: sources.interrupted,
        progress: sources.progress,
    };
    build::run(command, &limits)?;
    let made = Utf8Path::from_path(unfinished.path()).unwrap_or(folder);
    Image::in_folder(made, Provider::Reference, "")?;
    fs::rename(unfinished.path(), folder).map_err(cache_error)?;
    let _ = unfinished.keep();
    Ok(())
}

const UNFINISHED: &str = ".building-";

/// What a build that was killed has left; nobody builds while the lock is ours.
fn remove_unfinished(cache: &Utf8Path) -> io::Result<()> {
    for entry in cache.read_dir_utf8()? {
        let entry = entry?;
        if entry.file_name().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A digest over name, mode and content of every file that goes into the image. Tests do not.
fn recipe_key(root: &Utf8Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut files = files_below(&root.join("guest"))?;
    files.extend(["Cargo.toml", "Cargo.lock"].map(|name| root.join(name)));
    for path in files {
        let metadata = fs::symlink_metadata(&path)?;
        let content = if metadata.is_symlink() {
            fs::read_link(&path)?.into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path)?
        };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let name = path.strip_prefix(root).unwrap_or(&path);
        hasher.update(format!("{name}\0{executable}\0{}\0", content.len()));
        hasher.update(&content);
    }
    Ok(hex::digits(&hasher.finalize()))
}

fn files_below(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if !matches!(entry.file_name(), "test" | "tests") {
                files.extend(files_below(entry.path())?);
            }
        } else {
            files.push(entry.path().to_owned());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_sees_content_name_and_mode_of_all_but_tests() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(folder.path()).unwrap();
        fs::create_dir_all(root.join("guest/bridge/tests")).unwrap();
        let write = |name: &str, content: &str| fs::write(root.join(name), content).unwrap();
        write("Cargo.toml", "");
        write("Cargo.lock", "");
        write("guest/bridge/a", "1");
        let first = recipe_key(root).unwrap();
        write("guest/bridge/tests/it.rs", "");
        assert_eq!(recipe_key(root).unwrap(), first);

        write("guest/bridge/a", "2");
        let content = recipe_key(root).unwrap();
        fs::set_permissions(root.join("guest/bridge/a"), fs::Permissions::from_mode(0o755)).unwrap();
        let mode = recipe_key(root).unwrap();
        fs::rename(root.join("guest/bridge/a"), root.join("guest/bridge/b")).unwrap();
        let name = recipe_key(root).unwrap();
        write("Cargo.lock", "other versions");
        let versions = recipe_key(root).unwrap();
        let keys = std::collections::BTreeSet::from([first, content, mode, name, versions]);
        assert_eq!(keys.len(), 5);
    }
}
