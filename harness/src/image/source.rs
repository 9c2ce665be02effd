//! Which provider makes the image, and why.

use std::io;
use std::sync::atomic::AtomicBool;

use camino::{Utf8Path, Utf8PathBuf};

use super::build::BuildError;
use super::manifest::{Image, ManifestError, Provider};
use super::nix::NixError;
use super::path::PathError;
use super::{nix, path, reference};
use crate::settings::{DEFAULT_INSTALLABLE, ImageChoice};

/// What providers are given.
pub struct Sources<'a> {
    /// The project's folder.
    pub root: &'a Utf8Path,
    /// Where built images are kept.
    pub cache: Utf8PathBuf,
    /// Where a build's output is kept.
    pub build_log: &'a Utf8Path,
    /// One build job on two cores.
    pub safe_mode: bool,
    /// Set when the run is to end.
    pub interrupted: &'a AtomicBool,
    /// Called with every line a build says.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Sources<'_> {
    /// `$XDG_CACHE_HOME/rave-hermetic`, or `~/.cache/rave-hermetic` (XDG Base Directory Specification).
    pub fn default_cache() -> Utf8PathBuf {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
        let base = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let base = base.or_else(|| variable("HOME").map(|home| home.join(".cache")));
        base.unwrap_or_else(|| Utf8PathBuf::from("/var/tmp")).join("rave-hermetic")
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The recipe cannot be read.
    #[error("could not read the recipe `{path}`")]
    Recipe {
        /// Its folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache cannot be used.
    #[error("could not use the image cache `{path}`")]
    Cache {
        /// Its folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another run's build did not end.
    #[error("waited for another run that builds the image: {0}")]
    OtherBuild(String),
    /// A build failed.
    #[error("could not build the image")]
    Build(#[from] BuildError),
    /// A folder is not an image.
    #[error("no image")]
    Manifest(#[from] ManifestError),
    /// A path is not an image.
    #[error("no image")]
    Path(#[from] PathError),
    /// Nix gave none.
    #[error(transparent)]
    Nix(#[from] NixError),
}

/// Provides the image that was chosen.
///
/// # Errors
/// If there is none; the error and its sources say why.
pub fn provide(choice: &ImageChoice, sources: &Sources<'_>) -> Result<Image, ImageError> {
    match choice {
        ImageChoice::Nix(installable) => nix::provide(sources, installable, "RAVE_IMAGE asks for it"),
        ImageChoice::Reference => reference::provide(sources, "RAVE_IMAGE asks for it"),
        ImageChoice::Path(path) => path::provide(path, "RAVE_IMAGE names it"),
        ImageChoice::Recorded { path, provider } => at(path, provider),
        ImageChoice::Auto => match nix::can_build(sources, DEFAULT_INSTALLABLE) {
            Ok(()) => {
                nix::provide(sources, DEFAULT_INSTALLABLE, &format!("auto: {DEFAULT_INSTALLABLE} can be built here"))
            }
            Err(why) => {
                reference::provide(sources, &format!("auto: {DEFAULT_INSTALLABLE} cannot be built here ({why})"))
            }
        },
    }
}

/// The image at a path that a provider of this word made.
///
/// # Errors
/// If there is none.
pub fn at(path: &Utf8Path, provider: &str) -> Result<Image, ImageError> {
    let known = [Provider::Nix, Provider::Reference, Provider::Path];
    let provider = known.into_iter().find(|known| known.word() == provider).unwrap_or(Provider::Path);
    let reason = "it is the one that the transcript is about";
    let image = match provider {
        Provider::Nix => nix::in_output(path, reason)?.ok_or_else(|| NixError::Output {
            installable: path.to_string(),
            why: "there is no image in it".to_owned(),
        })?,
        Provider::Reference | Provider::Path => path::provide(path, reason)?,
    };
    let store_path = Some(path.to_string()).filter(|_| provider == Provider::Nix);
    Ok(Image { provider, store_path, ..image })
}
