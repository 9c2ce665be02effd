//! `hermetic image`: provides the image and says what it is.

use std::sync::Arc;

use crate::image::{self, Sources};
use crate::interrupt::Interrupt;
use crate::session;
use crate::settings::Settings;

/// Provides the image and prints path, digests, package list and size.
pub fn main() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupt = Arc::new(Interrupt::default());
    session::watch_signals(runtime.handle(), Arc::clone(&interrupt))?;
    let cache = Sources::default_cache();
    std::fs::create_dir_all(&cache)?;
    let sources = Sources {
        root: &settings.root,
        build_log: &cache.join("image-build.log"),
        cache,
        safe_mode: settings.safe_mode,
        interrupted: interrupt.flag(),
        progress: &|line| eprintln!("image: {line}"),
    };
    let image = image::provide(&settings.image, &sources)?;
    println!("provider  {} ({})", image.provider.word(), image.reason);
    for (role, path) in image.files() {
        let found = image::digest(path)?;
        println!("{role:<9} {path}\n          {} {} bytes", found.digest, found.bytes);
    }
    let nix = [
        ("store", &image.store_path),
        ("derivation", &image.derivation),
        ("narHash", &image.nar_hash),
        ("by", &image.nix_version),
    ];
    for (what, value) in nix.into_iter().filter_map(|(what, value)| Some((what, value.as_deref()?))) {
        println!("{what:<9} {value}");
    }
    println!("size      {} MiB on disk", image::bytes_on_disk(&image) / (1024 * 1024));
    Ok(())
}
