//! What the run was told: environment variables, each with a typed, checked value. Read once, at the start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

/// Where the image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageChoice {
    /// `nix` where the installable can be built here, else `reference`.
    Auto,
    /// `nix build` of this installable.
    Nix(String),
    /// The Debian reference guest.
    Reference,
    /// A disk file, or a folder with an `image.json`.
    Path(Utf8PathBuf),
    /// The image that a transcript is about, which is there. No variable says this.
    Recorded {
        /// A disk file, or a folder with an `image.json`.
        path: Utf8PathBuf,
        /// The word of the provider that made it.
        provider: String,
    },
}

impl fmt::Display for ImageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Nix(installable) => write!(f, "nix:{installable}"),
            Self::Reference => f.write_str("reference"),
            Self::Path(path) | Self::Recorded { path, .. } => f.write_str(path.as_str()),
        }
    }
}

/// Which accelerator QEMU is to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccelChoice {
    /// KVM where a guest makes progress under it, else TCG.
    Auto,
    /// KVM, or an error.
    Kvm,
    /// QEMU's own translation.
    Tcg,
}

impl AccelChoice {
    /// The word of the setting.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The key transcripts are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// A key made for the session.
    Ephemeral,
    /// A minisign secret key file, with the file of its password where it has one.
    File {
        /// The secret key.
        key: Utf8PathBuf,
        /// The first line of this file is the password.
        password: Option<Utf8PathBuf>,
    },
}

/// Which machines stay for people to enter them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// The first on which something failed.
    Failed,
    /// The one that was asked, whatever came of it; a shell is opened on it. No variable says this.
    Always,
}

impl Keep {
    /// Whether a machine stays on which something `failed`, or did not.
    pub fn wants(self, failed: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Failed => failed,
            Self::Always => true,
        }
    }
}

/// How large a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineSize {
    /// Its cores.
    pub cores: u32,
    /// Its memory, MiB.
    pub memory_mib: u64,
}

/// Everything the run was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The project's folder; commands of `host` steps run there.
    pub root: Utf8PathBuf,
    /// The folder of the scenario files.
    pub scenarios: Utf8PathBuf,
    /// Where the image comes from.
    pub image: ImageChoice,
    /// Two cores and 6-8 GB for the guest instead of what the machine has.
    pub safe_mode: bool,
    /// Every command, answer and QMP message on stderr.
    pub debug: bool,
    /// The longest the whole run may take, the image's own build excluded.
    pub validation_timeout: Duration,
    /// Which accelerator.
    pub accel: AccelChoice,
    /// Which key.
    pub key: KeyChoice,
    /// Where sessions go.
    pub artifacts: Utf8PathBuf,
    /// Which machines stay.
    pub keep_vm: Keep,
    /// This size instead of what `SAFE_MODE` makes of this host. No variable says this.
    pub size: Option<MachineSize>,
    /// Ask every scenario on a fork of its own, where that can be.
    pub forks: bool,
    /// Keep a saved machine for the next run, and use one that was kept.
    pub keep_saved: bool,
    /// Break on purpose, when all has been asked, what the scenarios ask about.
    pub sabotage: bool,
    /// A transcript, or a folder of them, that the run is held against.
    pub baseline: Option<Utf8PathBuf>,
    /// A folder of files that the guest is handed as systemd credentials, each under its own name.
    pub credentials: Option<Utf8PathBuf>,
}

/// The installable that is built where none is named.
pub const DEFAULT_INSTALLABLE: &str = ".#p6-image";

/// Name, default and meaning of every variable, in the order of the README.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("RAVE_IMAGE", "auto", "auto, nix, nix:<installable>, reference, or a path to a disk file or an image folder"),
    ("SAFE_MODE", "1", "1: two cores and 6-8 GB for the guest; 0: what the machine has, 8-16 GB"),
    ("DEBUG", "0", "1: every command, answer and QMP message on stderr"),
    ("VALIDATION_TIMEOUT", "1800", "seconds for the whole run, the image's own build excluded"),
    ("RAVE_ACCEL", "auto", "auto, kvm or tcg"),
    ("RAVE_SIGNING_KEY", "none", "a minisign secret key file; without one a key is made for the session"),
    ("RAVE_SIGNING_KEY_PASSWORD_FILE", "none", "a file whose first line is that key's password"),
    ("RAVE_ARTIFACTS", "artifacts/", "where sessions go"),
    ("RAVE_KEEP_VM", "0", "1: keep the machine of the first failed scenario for `hermetic shell <session>/<scenario>`"),
    (
        "RAVE_FORKS",
        "1",
        "1: a fork of the booted machine for every scenario; 0: all scenarios share the booted machine",
    ),
    (
        "RAVE_KEEP_SAVED",
        "1",
        "1: keep the saved machine for later runs with a filter, which then boot nothing; 0: neither keep nor use one",
    ),
    (
        "RAVE_BASELINE",
        "none",
        "an earlier transcript, or a folder of them: `performance` warns of what is above their band",
    ),
    (
        "RAVE_SABOTAGE",
        "0",
        "1: then break what the scenarios ask about, one thing at a time, and say in the transcript which steps noticed; fails if one never did",
    ),
    ("RAVE_CREDENTIALS", "none", "a folder of files that the guest is handed as systemd credentials of these names"),
    ("RAVE_SCENARIOS", "scenarios/", "the folder of the scenario files"),
];

/// A value that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={found}: {wanted}")]
pub struct SettingError {
    /// The variable.
    pub variable: String,
    /// Its value.
    pub found: String,
    /// What would be right.
    pub wanted: String,
}

/// All values that cannot be used; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingErrors(pub Vec<SettingError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for SettingErrors {}

impl Settings {
    /// Reads the settings of this process; the project's folder is the nearest one above the working folder that
    /// has a `scenarios` folder and a `Cargo.toml`, or else the working folder.
    ///
    /// # Errors
    /// Every variable whose value cannot be used.
    pub fn from_environment() -> Result<Self, SettingErrors> {
        Self::from_environment_over(&BTreeMap::new())
    }

    /// The same, where these values hold for variables that are not set.
    ///
    /// # Errors
    /// As [`Settings::from_environment`].
    pub fn from_environment_over(others: &BTreeMap<String, String>) -> Result<Self, SettingErrors> {
        let here = std::env::current_dir().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
        let here = here.unwrap_or_else(|| Utf8PathBuf::from("."));
        // cargo starts tests in the package's folder; a relative path is meant from where the user stands.
        let under_cargo = std::env::var_os("CARGO_MANIFEST_DIR").is_some();
        let base = std::env::var("PWD").map(Utf8PathBuf::from).ok().filter(|path| under_cargo && path.is_dir());
        let root =
            here.ancestors().find(|folder| folder.join("scenarios").is_dir() && folder.join("Cargo.toml").is_file());
        let root = root.unwrap_or(&here).to_owned();
        let mut environment: BTreeMap<OsString, OsString> =
            others.iter().map(|(name, value)| (name.into(), value.into())).collect();
        environment.extend(std::env::vars_os().filter(|(_, value)| !value.is_empty()));
        Self::read(&environment, &root, &base.unwrap_or(here))
    }

    /// Reads the settings from `environment`; relative paths are taken from `base`, defaults lie in `root`.
    ///
    /// # Errors
    /// Every variable whose value cannot be used.
    pub fn read(
        environment: &BTreeMap<OsString, OsString>,
        root: &Utf8Path,
        base: &Utf8Path,
    ) -> Result<Self, SettingErrors> {
        let mut reader = Reader { environment, base, errors: Vec::new() };
        reader.refuse_misspelt();
        let key_file = reader.path("RAVE_SIGNING_KEY");
        let password = reader.path("RAVE_SIGNING_KEY_PASSWORD_FILE");
        let key = match (key_file, password) {
            (Some(key), password) => KeyChoice::File { key, password },
            (None, Some(file)) => {
                reader.refuse(
                    "RAVE_SIGNING_KEY_PASSWORD_FILE",
                    file.as_str(),
                    "has no meaning without RAVE_SIGNING_KEY",
                );
                KeyChoice::Ephemeral
            }
            (None, None) => KeyChoice::Ephemeral,
        };
        let settings = Self {
            root: root.to_owned(),
            scenarios: reader.path("RAVE_SCENARIOS").unwrap_or_else(|| root.join("scenarios")),
            image: reader.image(),
            safe_mode: reader.switch("SAFE_MODE", true),
            debug: reader.switch("DEBUG", false),
            validation_timeout: reader.seconds("VALIDATION_TIMEOUT", 1800),
            accel: reader.accel(),
            key,
            artifacts: reader.path("RAVE_ARTIFACTS").unwrap_or_else(|| root.join("artifacts")),
            keep_vm: if reader.switch("RAVE_KEEP_VM", false) { Keep::Failed } else { Keep::Nothing },
            size: None,
            forks: reader.switch("RAVE_FORKS", true),
            sabotage: reader.switch("RAVE_SABOTAGE", false),
            keep_saved: reader.switch("RAVE_KEEP_SAVED", true),
            baseline: reader.existing("RAVE_BASELINE", "is neither a transcript nor a folder of transcripts"),
            credentials: reader.folder("RAVE_CREDENTIALS"),
        };
        if reader.errors.is_empty() { Ok(settings) } else { Err(SettingErrors(reader.errors)) }
    }

    /// The settings as recorded in a transcript, by variable name.
    pub fn recorded(&self) -> BTreeMap<String, String> {
        let switch = |on: bool| if on { "1" } else { "0" }.to_owned();
        let key = match &self.key {
            KeyChoice::Ephemeral => "none".to_owned(),
            KeyChoice::File { key, .. } => key.to_string(),
        };
        BTreeMap::from([
            ("RAVE_IMAGE".to_owned(), self.image.to_string()),
            ("SAFE_MODE".to_owned(), switch(self.safe_mode)),
            ("DEBUG".to_owned(), switch(self.debug)),
            ("VALIDATION_TIMEOUT".to_owned(), self.validation_timeout.as_secs().to_string()),
            ("RAVE_ACCEL".to_owned(), self.accel.word().to_owned()),
            ("RAVE_SIGNING_KEY".to_owned(), key),
            ("RAVE_ARTIFACTS".to_owned(), self.artifacts.to_string()),
            ("RAVE_KEEP_VM".to_owned(), switch(self.keep_vm != Keep::Nothing)),
            ("RAVE_FORKS".to_owned(), switch(self.forks)),
            ("RAVE_KEEP_SAVED".to_owned(), switch(self.keep_saved)),
            ("RAVE_BASELINE".to_owned(), self.baseline.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("RAVE_SABOTAGE".to_owned(), switch(self.sabotage)),
            (
                "RAVE_CREDENTIALS".to_owned(),
                self.credentials.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            ),
            ("RAVE_SCENARIOS".to_owned(), self.scenarios.to_string()),
        ])
    }
}

struct Reader<'a> {
    environment: &'a BTreeMap<OsString, OsString>,
    base: &'a Utf8Path,
    errors: Vec<SettingError>,
}

impl Reader<'_> {
    fn refuse(&mut self, variable: &str, found: &str, wanted: &str) {
        self.errors.push(SettingError { variable: variable.into(), found: found.into(), wanted: wanted.into() });
    }

    /// The value of a variable; an empty one counts as not set.
    fn text(&mut self, variable: &str) -> Option<String> {
        let value = self.environment.get(&OsString::from(variable)).filter(|value| !value.is_empty())?;
        let text = value.to_str().map(str::to_owned);
        if text.is_none() {
            self.refuse(variable, &value.to_string_lossy(), "is not UTF-8");
        }
        text
    }

    fn switch(&mut self, variable: &str, default: bool) -> bool {
        match self.text(variable).as_deref() {
            None => default,
            Some("1") => true,
            Some("0") => false,
            Some(other) => {
                self.refuse(variable, other, "must be 1 or 0");
                default
            }
        }
    }

    fn seconds(&mut self, variable: &str, default: u64) -> Duration {
        let Some(text) = self.text(variable) else { return Duration::from_secs(default) };
        match text.parse::<u32>() {
            Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds.into()),
            _ => {
                self.refuse(variable, &text, "must be a whole number of seconds from 1 to 86400");
                Duration::from_secs(default)
            }
        }
    }

    fn path(&mut self, variable: &str) -> Option<Utf8PathBuf> {
        self.text(variable).map(|text| self.base.join(text))
    }

    fn existing(&mut self, variable: &str, wanted: &str) -> Option<Utf8PathBuf> {
        let path = self.path(variable)?;
        if !path.exists() {
            self.refuse(variable, path.as_str(), wanted);
        }
        Some(path)
    }

    fn folder(&mut self, variable: &str) -> Option<Utf8PathBuf> {
        let path = self.path(variable)?;
        if !path.is_dir() {
            self.refuse(variable, path.as_str(), "is no folder");
        }
        Some(path)
    }

    fn image(&mut self) -> ImageChoice {
        let text = self.text("RAVE_IMAGE");
        match text.as_deref() {
            None | Some("auto") => ImageChoice::Auto,
            Some("nix") => ImageChoice::Nix(DEFAULT_INSTALLABLE.to_owned()),
            Some("reference") => ImageChoice::Reference,
            Some(text) => match text.strip_prefix("nix:") {
                Some("") => {
                    self.refuse(
                        "RAVE_IMAGE",
                        text,
                        "names no installable; write nix:<installable>, for example nix:.#p6-image",
                    );
                    ImageChoice::Auto
                }
                Some(installable) => ImageChoice::Nix(installable.to_owned()),
                None => {
                    let path = self.base.join(text);
                    if !path.exists() {
                        self.refuse(
                            "RAVE_IMAGE",
                            text,
                            &format!("`{path}` does not exist; must be auto, nix, nix:<installable>, reference, or the path of an image"),
                        );
                    }
                    ImageChoice::Path(path)
                }
            },
        }
    }

    fn accel(&mut self) -> AccelChoice {
        match self.text("RAVE_ACCEL").as_deref() {
            None | Some("auto") => AccelChoice::Auto,
            Some("kvm") => AccelChoice::Kvm,
            Some("tcg") => AccelChoice::Tcg,
            Some(other) => {
                self.refuse("RAVE_ACCEL", other, "must be auto, kvm or tcg");
                AccelChoice::Auto
            }
        }
    }

    /// A `RAVE_` variable that is one slip away from a known one would be ignored in silence otherwise.
    fn refuse_misspelt(&mut self) {
        for name in self.environment.keys().filter_map(|name| name.to_str()) {
            let known = VARIABLES.iter().any(|(known, ..)| *known == name);
            let near = VARIABLES.iter().find(|(known, ..)| strsim::osa_distance(known, name) <= 2);
            if let (false, true, Some((near, ..))) = (known, name.starts_with("RAVE_"), near) {
                self.errors.push(SettingError {
                    variable: name.into(),
                    found: self.environment[&OsString::from(name)].to_string_lossy().into_owned(),
                    wanted: format!("no such setting; {near} is the nearest"),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Settings::read(&environment, "/project".into(), "/here".into()).map_err(|errors| errors.to_string())
    }

    fn refused(variables: &[(&str, &str)], expected: &str) {
        assert_eq!(read(variables).unwrap_err(), expected);
    }

    #[test]
    fn defaults_are_those_of_the_readme() {
        let settings = read(&[]).unwrap();
        assert!(settings.safe_mode);
        assert_eq!(settings.image, ImageChoice::Auto);
        assert_eq!(settings.validation_timeout, Duration::from_secs(1800));
        assert_eq!(settings.artifacts, "/project/artifacts");
        assert_eq!(settings.key, KeyChoice::Ephemeral);
        for (variable, ..) in VARIABLES.iter().filter(|(name, ..)| *name != "RAVE_SIGNING_KEY_PASSWORD_FILE") {
            assert!(settings.recorded().contains_key(*variable), "{variable} is not recorded");
        }
    }

    #[test]
    fn values_are_typed() {
        let settings = read(&[
            ("SAFE_MODE", "0"),
            ("RAVE_IMAGE", "nix:.#other"),
            ("RAVE_ARTIFACTS", "out"),
            ("RAVE_ACCEL", "tcg"),
            ("VALIDATION_TIMEOUT", "60"),
            ("RAVE_SIGNING_KEY", "/keys/a.key"),
        ])
        .unwrap();
        assert!(!settings.safe_mode);
        assert_eq!(settings.image, ImageChoice::Nix(".#other".into()));
        assert_eq!(settings.artifacts, "/here/out");
        assert_eq!(settings.accel, AccelChoice::Tcg);
        assert_eq!(settings.validation_timeout, Duration::from_secs(60));
        assert_eq!(settings.key, KeyChoice::File { key: "/keys/a.key".into(), password: None });
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        refused(&[("SAFE_MODE", "yes")], "SAFE_MODE=yes: must be 1 or 0");
        refused(
            &[("VALIDATION_TIMEOUT", "-1")],
            "VALIDATION_TIMEOUT=-1: must be a whole number of seconds from 1 to 86400",
        );
        refused(
            &[("VALIDATION_TIMEOUT", "0")],
            "VALIDATION_TIMEOUT=0: must be a whole number of seconds from 1 to 86400",
        );
        refused(&[("RAVE_ACCEL", "hvf")], "RAVE_ACCEL=hvf: must be auto, kvm or tcg");
        refused(&[("RAVE_IMGAE", "x")], "RAVE_IMGAE=x: no such setting; RAVE_IMAGE is the nearest");
        refused(
            &[("RAVE_IMAGE", "no/such.qcow2")],
            "RAVE_IMAGE=no/such.qcow2: `/here/no/such.qcow2` does not exist; must be auto, nix, nix:<installable>, reference, or the path of an image",
        );
        refused(
            &[("RAVE_SIGNING_KEY_PASSWORD_FILE", "/p")],
            "RAVE_SIGNING_KEY_PASSWORD_FILE=/p: has no meaning without RAVE_SIGNING_KEY",
        );
    }

    #[test]
    fn all_wrong_values_are_reported() {
        let text = read(&[("SAFE_MODE", "yes"), ("DEBUG", "loud")]).unwrap_err();
        assert_eq!(text, "SAFE_MODE=yes: must be 1 or 0\nDEBUG=loud: must be 1 or 0");
    }
}
