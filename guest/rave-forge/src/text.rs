//! Small questions about texts: names that may become paths, digests, and errors with their causes.

use std::error::Error;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a text, hexadecimal: how tokens lie in the database.
#[must_use]
pub fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a text is a SHA-256 digest in hexadecimal.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a text is a whole commit name.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a text may be the path of a namespace or project: it becomes a folder's name.
#[must_use]
pub fn is_path(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        && !text.starts_with(['-', '.'])
        && !text.ends_with('.')
        && ![".git", ".atom"].iter().any(|end| text.to_ascii_lowercase().ends_with(end))
}

/// Whether a text may be the name of a project or group.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.chars().count())
        && text.chars().all(|character| character.is_alphanumeric() || "_.+- ".contains(character))
        && text.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

/// Whether a text may name a branch, by the rules of `git check-ref-format`, and cannot be taken for an option or a commit.
#[must_use]
pub fn is_branch(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= 200
        && text.split('/').all(part)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.starts_with('-')
        && !text.ends_with('.')
        && text != "@"
        && text != "HEAD"
        && !text.starts_with("refs/")
        && !text.chars().any(|character| character.is_control() || " ~^:?*[\\\u{7f}".contains(character))
        && !is_commit(text)
}

/// Whether a text may name a file in a repository.
#[must_use]
pub fn is_file(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git");
    text.len() <= 1000
        && text.split('/').all(part)
        && !text.chars().any(|character| character.is_control() || character == '\\')
}

/// An error with its causes, for the log.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Lower-case letters, digits and dashes: GitLab's path for a name without one.
#[must_use]
pub fn slug(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || "_.".contains(character) { character } else { '-' })
        .collect();
    plain.to_ascii_lowercase().trim_matches(['-', '.']).to_owned()
}

/// 32 random bytes as a token behind a prefix.
///
/// # Errors
/// If the system has no random bytes.
pub fn token(prefix: &str) -> std::io::Result<String> {
    use base64::Engine as _;
    use std::io::Read as _;
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{prefix}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
}

/// A text as one segment of a path.
#[must_use]
pub fn encode(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_path_cannot_leave_its_folder() {
        for good in ["hello", "a.b", "A_1", "a-b"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", ".", "..", "../a", "a/b", "-a", "a.git", "a.GIT", ".a", "a.", "a b", "ä", "a\0", "a%2e"] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_branch_is_neither_option_nor_expression() {
        for good in ["main", "feature/x", "1.0", "a@b"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in [
            "",
            "-d",
            "a..b",
            "a@{1}",
            "@",
            "HEAD",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.lock",
            "refs/heads/a",
            "a\n",
        ] {
            assert!(!is_branch(bad), "{bad}");
        }
        assert!(!is_branch("0123456789012345678901234567890123456789"));
    }

    #[test]
    fn a_file_stays_in_its_tree() {
        for bad in ["", "/a", "a/", "../a", "a/../b", ".git/config", "a/.GIT/x", "a\\b", "a\0"] {
            assert!(!is_file(bad), "{bad}");
        }
        assert!(is_file(".gitlab-ci.yml") && is_file("src/main.py"));
    }
}
