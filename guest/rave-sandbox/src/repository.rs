//! A merge request's commit, from the forge's bare repository on this machine. Only its objects are read: git works in a repository of our own,
//! with no settings and a clean environment, so nothing is written to the forge's, and nothing that is set there is run.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Wins over the attributes in a commit, which would leave files out of an archive, or rewrite them.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

/// A bare repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    project: String,
    objects: PathBuf,
    own: PathBuf,
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
    #[error("could not read the repository of `{project}`")]
    System {
        /// The project.
        project: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Repository {
    /// The repository of a project whose path was checked. `own` is a folder of ours for git to work in.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(repositories: &Path, project: &str, own: &Path) -> Result<Self, RepositoryError> {
        let objects = repositories.join(format!("{project}.git/objects"));
        if !objects.is_dir() {
            return Err(RepositoryError::NoRepository(project.to_owned()));
        }
        let repository = Self { project: project.to_owned(), objects, own: own.to_owned() };
        repository.make_own().map_err(|source| repository.system(source))?;
        Ok(repository)
    }

    /// Looks for a commit.
    ///
    /// # Errors
    /// If there is none with that name.
    pub fn has(&self, sha: &str) -> Result<(), RepositoryError> {
        let output = self.git(&["cat-file", "-t", sha]).output().map_err(|source| self.system(source))?;
        if output.status.success() && output.stdout == b"commit\n" {
            Ok(())
        } else {
            Err(RepositoryError::NoCommit { project: self.project.clone(), sha: sha.to_owned() })
        }
    }

    /// Writes a commit's files into a tar archive of at most `limit` bytes.
    ///
    /// # Errors
    /// If git fails or the archive becomes too large.
    pub fn archive(&self, sha: &str, limit: u64, into: &Path) -> Result<(), RepositoryError> {
        let system = |source| self.system(source);
        let mut git = self.git(&["archive", "--format=tar", sha]);
        let mut git = git.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(system)?;
        let mut written = 0;
        if let Some(output) = git.stdout.take() {
            let mut file = File::create(into).map_err(system)?;
            written = io::copy(&mut output.take(limit + 1), &mut file).map_err(system)?;
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

    /// The least that git takes for a repository.
    fn make_own(&self) -> io::Result<()> {
        for folder in ["objects", "refs", "info"] {
            fs::create_dir_all(self.own.join(folder))?;
        }
        fs::write(self.own.join("HEAD"), "ref: refs/heads/none\n")?;
        fs::write(self.own.join("info/attributes"), ATTRIBUTES)
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", "/nonexistent");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_DIR", &self.own).env("GIT_OBJECT_DIRECTORY", &self.objects);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn system(&self, source: io::Error) -> RepositoryError {
        RepositoryError::System { project: self.project.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with nothing in it, which every git knows.
    const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    /// A bare repository `rave/hello` with one commit; returns the commit.
    fn hello(repositories: &Path) -> String {
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
        let repository = Repository::of(folder.path(), "rave/hello", &folder.path().join("own")).unwrap();
        repository.has(&sha).unwrap();
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
        let error = Repository::of(folder.path(), "rave/other", &folder.path().join("own")).unwrap_err();
        assert_eq!(error.to_string(), "there is no repository of `rave/other`");
        let repository = Repository::of(folder.path(), "rave/hello", &folder.path().join("own")).unwrap();
        let error = repository.has(EMPTY_TREE).unwrap_err();
        assert_eq!(error.to_string(), format!("`rave/hello` has no commit {EMPTY_TREE}"));
        let error = repository.archive(&sha, 1000, &folder.path().join("a.tar")).unwrap_err();
        assert_eq!(error.to_string(), format!("commit {sha} has more than 1000 bytes"));
    }
}
