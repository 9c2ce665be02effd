//! What a run cannot be made to show. A real Nix is asked in `tests/it/nix.rs`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::image::build::BuildError;

/// What a provider is given.
struct Place {
    folder: tempfile::TempDir,
    log: Utf8PathBuf,
    interrupted: AtomicBool,
    said: Mutex<Vec<String>>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Utf8Path::from_path(folder.path()).unwrap().join("log");
        Self { folder, log, interrupted: AtomicBool::new(false), said: Mutex::default() }
    }

    fn with<T>(&self, safe_mode: bool, then: impl FnOnce(&Sources<'_>) -> T) -> T {
        let progress = |line: &str| self.said.lock().unwrap().push(line.to_owned());
        then(&Sources {
            root: Utf8Path::from_path(self.folder.path()).unwrap(),
            cache: Utf8PathBuf::from("/nonexistent"),
            build_log: &self.log,
            safe_mode,
            interrupted: &self.interrupted,
            progress: &progress,
        })
    }
}

fn arguments(command: &Command) -> String {
    command.get_args().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_command_switches_flakes_on_and_keeps_the_lock_and_the_limits() {
    let check = |safe_mode, expected: &str| {
        Place::new().with(safe_mode, |sources| assert_eq!(arguments(&build_command(sources, ".#x")), expected));
    };
    let always = "--extra-experimental-features nix-command flakes build --no-link --no-update-lock-file";
    check(true, &format!("{always} --max-jobs 1 --cores 2 .#x"));
    check(false, &format!("{always} .#x"));
}

/// A program that behaves like a `nix` that does not end; its child would be the builder.
#[test]
fn a_build_has_a_limit_and_can_be_interrupted() {
    let place = Place::new();
    let hangs = |limit: Duration| {
        place.with(true, |sources| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo building >&2; sleep 7654321 & echo $! >&2; wait"]);
            build::run(command, &limits(sources, limit)).unwrap_err()
        })
    };
    let error = hangs(Duration::from_millis(500));
    assert!(matches!(&error, BuildError::TooLong { tail, .. } if tail.starts_with("building")), "{error}");
    let builder = place.said.lock().unwrap()[1].clone();
    // Killed, if not yet reaped by whoever inherited it.
    let command_line = std::fs::read(format!("/proc/{builder}/cmdline")).unwrap_or_default();
    assert!(command_line.is_empty(), "{builder} is left");
    let ImageError::Nix(error) = NixError::failed(".#x", error) else { panic!("not Nix's") };
    assert_eq!(error.to_string(), "`nix build .#x`: it did not end in time");
    place.interrupted.store(true, Ordering::Relaxed);
    let error = hangs(Duration::from_secs(600));
    assert!(matches!(error, BuildError::Interrupted { .. }), "{error}");
}
