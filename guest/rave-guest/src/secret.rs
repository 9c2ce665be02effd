//! Secrets: one value in a file of its own. What is there instead of a secret when a deployment went wrong (a path, a placeholder, an empty
//! or a public file) is refused before anything relies on it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The fewest characters a secret may have: 32 random bytes take at least as many in any writing.
const SHORTEST: usize = 32;
/// A secret is a line, not a file.
const LONGEST: u64 = 4096;

/// A value that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a file is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("could not read the secret `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in the file cannot be a secret.
    #[error("the secret `{}` {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

impl Secret {
    /// Reads a secret from a file, without the newline at its end.
    ///
    /// # Errors
    /// If the file cannot be read, others than its owner and group may read it, or it holds no secret.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        let unfit = |why: String| SecretError::Unfit { path: path.to_owned(), why };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o027 != 0 {
            return Err(unfit(format!("has mode {mode:04o}; it must be 0400, or 0440 where a group shares it")));
        }
        let mut value = String::new();
        file.take(LONGEST).read_to_string(&mut value).map_err(failed)?;
        check(value.trim_end_matches('\n')).map_err(unfit).map(Self)
    }

    /// The value itself, for where it is used. Do not write it anywhere.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn check(value: &str) -> Result<String, String> {
    let characters = value.chars().count();
    if value.contains("${") {
        Err("holds a placeholder `${…}` that nothing has filled in".to_owned())
    } else if value.starts_with('/') {
        Err("holds a path instead of a secret; the file it names should be here".to_owned())
    } else if !value.chars().all(|character| character.is_ascii_graphic()) {
        Err("must be one line of printable ASCII without spaces".to_owned())
    } else if characters < SHORTEST {
        Err(format!("has {characters} characters; at least {SHORTEST} are needed"))
    } else {
        Ok(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    const GOOD: &str = "0123456789abcdef0123456789abcdef";

    fn read(content: &str, mode: u32) -> Result<Secret, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Secret::read(&path).map_err(|error| error.to_string().replace(&format!("the secret `{}` ", path.display()), ""))
    }

    #[test]
    fn a_secret_is_a_long_line_in_a_private_file() {
        assert_eq!(read(&format!("{GOOD}\n"), 0o400).unwrap().expose(), GOOD);
        assert_eq!(read(GOOD, 0o440).unwrap().expose(), GOOD);
        let refused = |content: &str, mode, why: &str| assert_eq!(read(content, mode).unwrap_err(), why);
        refused(GOOD, 0o444, "has mode 0444; it must be 0400, or 0440 where a group shares it");
        refused(GOOD, 0o460, "has mode 0460; it must be 0400, or 0440 where a group shares it");
        refused("", 0o400, "has 0 characters; at least 32 are needed");
        refused("${TOKEN}", 0o400, "holds a placeholder `${…}` that nothing has filled in");
        refused(
            "/run/secrets/token-of-the-bridge-and-forge",
            0o400,
            "holds a path instead of a secret; the file it names should be here",
        );
        refused(&format!("{GOOD}\n{GOOD}"), 0o400, "must be one line of printable ASCII without spaces");
    }

    #[test]
    fn a_secret_shows_nothing() {
        assert_eq!(format!("{:?}", read(GOOD, 0o400).unwrap()), "Secret(…)");
    }
}
