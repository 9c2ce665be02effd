//! Settings files: TOML, read once at start. A wrong one ends the program with the file, the line, and what would be right.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the settings file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML, or not what the program expects.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

/// Reads a settings file. `T` should refuse unknown fields (`#[serde(deny_unknown_fields)]`).
///
/// # Errors
/// If the file cannot be read or does not fit `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::Invalid { path: path.to_owned(), line, message: error.message().to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        port: u16,
    }

    fn check(content: &str, expected: Result<u16, &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        fs::write(&path, content).unwrap();
        let found = read::<Settings>(&path).map(|settings| settings.port).map_err(|error| error.to_string());
        let found = found.map_err(|message| message.replace(&format!("{}:", path.display()), ""));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        check("port = 80\n", Ok(80));
        check("\nprot = 80\n", Err("2: unknown field `prot`, expected `port`"));
        check("# no port\n", Err("1: missing field `port`"));
        check("\n\nport = 70000", Err("3: invalid value: integer `70000`, expected u16"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read::<Settings>(Path::new("/nowhere/a.toml")).unwrap_err();
        assert_eq!(error.to_string(), "could not read the settings file `/nowhere/a.toml`");
    }
}
