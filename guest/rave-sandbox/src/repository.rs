//! A merge request's commit, from the forge's bare repository on this machine. Nothing is written there, and nothing of what stands there is
//! run: git gets a clean environment, no settings but the repository's own, and no work tree.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The tree with nothing in it, which every git knows.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A bare repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    folder: PathBuf,
}

/// Why there is no checkout of a commit.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no such repository.
    #[error("there is no repository of `{0}`")]
    NoRepository(String),
    /// There is no such commit.
    #[error("`{project}` has no commit {sha}")]
    NoCommit {
        /// The project.
        project: String,
        /// The commit.
        sha: String,
    },
    /// The commit is too large.
    #[error("commit {sha} has more than {limit} bytes")]
    TooLarge {
        /// The commit.
        sha: String,
        /// The most it may have.
        limit: u64,
    },
    /// git failed.
    #[error("git could not write commit {sha}: {message}")]
    Git {
        /// The commit.
        sha: String,
        /// What git said.
        message: String,
    },
    /// The system failed.
    #[error("could not get commit {sha}")]
    System {
        /// The commit.
        sha: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Repository {
    /// The repository of a project whose path was checked.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(repositories: &Path, project: &str) -> Result<Self, RepositoryError> {
        let folder = repositories.join(format!("{project}.git"));
        if folder.join("HEAD").is_file() {
            Ok(Self { folder })
        } else {
            Err(RepositoryError::NoRepository(project.to_owned()))
        }
    }

    /// Looks for a commit.
    ///
    /// # Errors
    /// If there is none with that name.
    pub fn has(&self, project: &str, sha: &str) -> Result<(), RepositoryError> {
        let output = self.git(&["cat-file", "-t", sha]).output();
        let output = output.map_err(|source| RepositoryError::System { sha: sha.to_owned(), source })?;
        if output.status.success() && output.stdout == b"commit\n" {
            Ok(())
        } else {
            Err(RepositoryError::NoCommit { project: project.to_owned(), sha: sha.to_owned() })
        }
    }

    /// Writes a commit's files into a tar archive of at most `limit` bytes.
    ///
    /// # Errors
    /// If git fails or the archive becomes too large.
    pub fn archive(&self, sha: &str, limit: u64, into: &Path) -> Result<(), RepositoryError> {
        let system = |source| RepositoryError::System { sha: sha.to_owned(), source };
        let mut git = self
            .git(&["archive", "--format=tar", sha])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system)?;
        let mut written = 0;
        if let Some(output) = git.stdout.take() {
            let mut file = File::create(into).map_err(system)?;
            written = io::copy(&mut output.take(limit + 1), &mut file).map_err(system)?;
            file.flush().map_err(system)?;
            // The pipe is closed here, which ends a git that has more to say.
        }
        let output = git.wait_with_output().map_err(system)?;
        if written > limit {
            Err(RepositoryError::TooLarge { sha: sha.to_owned(), limit })
        } else if output.status.success() {
            Ok(())
        } else {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(RepositoryError::Git { sha: sha.to_owned(), message })
        }
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear().envs([
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // A commit's own attributes would leave files out of an archive, or rewrite them.
            ("GIT_ATTR_SOURCE", EMPTY_TREE),
        ]);
        command.arg("--git-dir").arg(&self.folder).args(arguments).stdin(Stdio::null());
        command
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A bare repository `rave/hello` with one commit; returns the commit.
    pub(crate) fn hello(repositories: &Path) -> String {
        let work = tempfile::tempdir().unwrap();
        let long = "long-".repeat(30);
        let script = format!(
            "set -e; git init -q -b main .; mkdir -p {long}/{long}; echo hello >hello.txt; echo secret >left-out; echo '$Format:%H$' >subst; \
             echo deep >{long}/{long}/deep; printf 'left-out export-ignore\\nsubst export-subst\\n' >.gitattributes; ln -s hello.txt link; \
             git add .; git -c user.name=n -c user.email=e@example.org commit -q -m first; \
             git clone -q --bare . \"$1\"; git rev-parse HEAD"
        );
        let target = repositories.join("rave/hello.git");
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", work.path());
        let output = command.current_dir(work.path()).args(["-c", &script, "sh"]).arg(&target).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_commit_is_written_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let sha = hello(folder.path());
        let repository = Repository::of(folder.path(), "rave/hello").unwrap();
        repository.has("rave/hello", &sha).unwrap();
        let archive = folder.path().join("a.tar");
        repository.archive(&sha, 1 << 20, &archive).unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&out).status().unwrap().success());
        assert_eq!(std::fs::read_to_string(out.join("hello.txt")).unwrap(), "hello\n");
        assert_eq!(std::fs::read_to_string(out.join("left-out")).unwrap(), "secret\n");
        assert_eq!(std::fs::read_to_string(out.join("subst")).unwrap(), "$Format:%H$\n");
        let long = "long-".repeat(30);
        assert!(out.join(&long).join(&long).join("deep").is_file());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let sha = hello(folder.path());
        let error = Repository::of(folder.path(), "rave/other").unwrap_err();
        assert_eq!(error.to_string(), "there is no repository of `rave/other`");
        let repository = Repository::of(folder.path(), "rave/hello").unwrap();
        let error = repository.has("rave/hello", EMPTY_TREE).unwrap_err();
        assert_eq!(error.to_string(), format!("`rave/hello` has no commit {EMPTY_TREE}"));
        let error = repository.archive(&sha, 1000, &folder.path().join("a.tar")).unwrap_err();
        assert_eq!(error.to_string(), format!("commit {sha} has more than 1000 bytes"));
    }
}
