//! `hermetic image`: provides the image and says what it is.

use std::sync::atomic::AtomicBool;

use crate::image::{self, Sources};
use crate::settings::Settings;

/// Provides the image and prints path, digests, package list and size.
pub fn main() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let folder = tempfile::tempdir()?;
    let log = camino::Utf8PathBuf::try_from(folder.path().join("build.log"))?;
    let sources = Sources {
        root: &settings.root,
        cache: Sources::default_cache(),
        build_log: &log,
        safe_mode: settings.safe_mode,
        interrupted: &AtomicBool::new(false),
        progress: &|line| eprintln!("image: {line}"),
    };
    let image = image::provide(&settings.image, &sources)?;
    println!("provider  {} ({})", image.provider.word(), image.reason);
    for (role, path) in image.files() {
        let found = image::digest(path)?;
        println!("{role:<9} {path}\n          {} {} bytes", found.digest, found.bytes);
    }
    println!("size      {} MiB on disk", image::bytes_on_disk(&image) / (1024 * 1024));
    Ok(())
}
