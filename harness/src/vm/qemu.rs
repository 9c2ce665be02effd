//! The QEMU programs on this machine: where they are and how old they are.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest QEMU this harness works with: Debian 12's. PNG screenshots came with 7.1, `pvpanic-pci` with 6.0.
pub const OLDEST: Version = Version { major: 7, minor: 2 };

/// The machine versions the harness uses, newest first. One that an old and a new QEMU both have keeps the guest's hardware the same; the
/// newer one is there because QEMU deprecates machine versions after six years.
const MACHINE_TYPES: [(Version, &str); 2] =
    [(Version { major: 10, minor: 0 }, "pc-q35-10.0"), (Version { major: 7, minor: 2 }, "pc-q35-7.2")];

/// The QEMU programs, found and old enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The system emulator, `qemu-system-x86_64`.
    pub system: PathBuf,
    /// The image tool, `qemu-img`.
    pub img: PathBuf,
    /// The emulator's version.
    pub version: Version,
}

/// A QEMU version, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

/// Why there is no usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// A program is not in `PATH`.
    #[error("`{program}` is not installed")]
    Missing {
        /// The program's name.
        program: &'static str,
    },
    /// The emulator could not be asked for its version.
    #[error("could not run `{} --version`", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer to `--version` holds no version.
    #[error("`{} --version` answered {answer:?}, which names no version", program.display())]
    NoVersion {
        /// The program.
        program: PathBuf,
        /// Its first line.
        answer: String,
    },
    /// The emulator is too old.
    #[error("`{}` is QEMU {found}; {OLDEST} or later is needed", program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
}

impl Qemu {
    /// Finds the programs in `PATH` and asks the emulator how old it is.
    ///
    /// # Errors
    /// A program that is missing, does not answer, or is older than [`OLDEST`].
    pub fn find() -> Result<Self, QemuError> {
        Self::find_in(std::env::var_os("PATH").unwrap_or_default())
    }

    /// As [`Qemu::find`], in the folders of `path` (separated as in `PATH`).
    ///
    /// # Errors
    /// As [`Qemu::find`].
    pub fn find_in(path: impl AsRef<OsStr>) -> Result<Self, QemuError> {
        let path = path.as_ref();
        let find = |program: &'static str| {
            which::which_in_global(program, Some(path))
                .ok()
                .and_then(|mut found| found.next())
                .ok_or(QemuError::Missing { program })
        };
        let system = find("qemu-system-x86_64")?;
        let img = find("qemu-img")?;
        let version = ask_version(&system)?;
        if version < OLDEST {
            return Err(QemuError::TooOld { program: system, found: version });
        }
        Ok(Self { system, img, version })
    }

    /// The fixed machine version for this QEMU: the newest of a short list that it has.
    #[must_use]
    pub fn machine_type(&self) -> &'static str {
        MACHINE_TYPES.iter().find(|(since, _)| *since <= self.version).map_or("pc-q35-7.2", |(_, name)| name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn ask_version(program: &Path) -> Result<Version, QemuError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|source| QemuError::Run { program: program.to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    parse_version(first)
        .ok_or_else(|| QemuError::NoVersion { program: program.to_owned(), answer: first.chars().take(200).collect() })
}

/// Reads `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)`.
fn parse_version(line: &str) -> Option<Version> {
    let numbers = line.strip_prefix("QEMU emulator version ")?;
    let mut parts = numbers.split(|c: char| !c.is_ascii_digit());
    Some(Version { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[track_caller]
    fn check(line: &str, expected: Option<(u32, u32)>) {
        assert_eq!(parse_version(line).map(|v| (v.major, v.minor)), expected, "{line}");
    }

    #[test]
    fn reads_versions() {
        check("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", Some((10, 0)));
        check("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u16)", Some((7, 2)));
        check("QEMU emulator version 9.1", Some((9, 1)));
        check("qemu-img version 9.1", None);
        check("QEMU emulator version ten", None);
        check("", None);
    }

    #[test]
    fn takes_the_newest_machine_version_that_qemu_has() {
        let with = |major, minor| Qemu { system: "/q".into(), img: "/i".into(), version: Version { major, minor } };
        assert_eq!(with(7, 2).machine_type(), "pc-q35-7.2");
        assert_eq!(with(9, 2).machine_type(), "pc-q35-7.2");
        assert_eq!(with(10, 0).machine_type(), "pc-q35-10.0");
        assert_eq!(with(11, 1).machine_type(), "pc-q35-10.0");
    }

    /// A folder with programs of these names that answer `--version` with `answer`.
    fn programs(names: &[&str], answer: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    #[test]
    fn says_what_is_missing_or_too_old() {
        let error = |names: &[&str], answer: &str| {
            let folder = programs(names, answer);
            let error = Qemu::find_in(folder.path()).unwrap_err().to_string();
            error.replace(&*folder.path().to_string_lossy(), "DIR")
        };
        assert_eq!(error(&[], ""), "`qemu-system-x86_64` is not installed");
        assert_eq!(error(&["qemu-system-x86_64"], ""), "`qemu-img` is not installed");
        let both = ["qemu-system-x86_64", "qemu-img"];
        assert_eq!(
            error(&both, "QEMU emulator version 5.2.0"),
            "`DIR/qemu-system-x86_64` is QEMU 5.2; 7.2 or later is needed"
        );
        assert_eq!(
            error(&both, "hello"),
            "`DIR/qemu-system-x86_64 --version` answered \"hello\", which names no version"
        );
    }
}
