//! Running the git program: a clean environment, no shell, bounded in time, number and output.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// The most output that is taken from one git program.
const OUTPUT: u64 = 16 << 20;
/// How long one git program may take that answers the API.
const PATIENCE: Duration = Duration::from_secs(40);

/// Why git did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be run, or be talked to.
    #[error("could not run git {what}")]
    Run {
        /// Git's command.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("git {what} ended with {status}: {stderr}")]
    Failed {
        /// Git's command.
        what: String,
        /// Its exit status.
        status: i32,
        /// What it said.
        stderr: String,
    },
    /// It took too long, or said too much.
    #[error("git {what} was given up: {why}")]
    GivenUp {
        /// Git's command.
        what: String,
        /// Why.
        why: &'static str,
    },
    /// It said something else than expected.
    #[error("git {what} gave an answer that cannot be read")]
    Unreadable {
        /// Git's command.
        what: String,
    },
}

/// The repositories, and how many programs may work on them at once.
#[derive(Debug, Clone)]
pub struct Git {
    folder: PathBuf,
    programs: Arc<Semaphore>,
}

/// One bare repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its folder.
    pub path: PathBuf,
    programs: Arc<Semaphore>,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Git {
    /// Works on the repositories in a folder.
    #[must_use]
    pub fn new(folder: &Path, programs: usize) -> Self {
        Self { folder: folder.to_owned(), programs: Arc::new(Semaphore::new(programs)) }
    }

    /// The folder with all repositories.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The repository of a project; both names come from the database, which holds none that could leave the folder.
    #[must_use]
    pub fn repository(&self, namespace: &str, project: &str) -> Repository {
        let path = self.folder.join(namespace).join(format!("{project}.git"));
        Repository { path, programs: Arc::clone(&self.programs) }
    }
}

impl Repository {
    /// Makes an empty repository, if there is none yet.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn create(&self, default_branch: &str) -> Result<(), GitError> {
        let what = || "init".to_owned();
        tokio::fs::create_dir_all(&self.path).await.map_err(|source| GitError::Run { what: what(), source })?;
        self.run(&["init", "--quiet", "--bare", "--template=", "--initial-branch", default_branch, "."], b"").await?;
        for (key, value) in [
            ("gc.auto", "0"),
            ("receive.autogc", "false"),
            ("core.logAllRefUpdates", "false"),
            ("http.receivepack", "true"),
        ] {
            self.run(&["config", key, value], b"").await?;
        }
        Ok(())
    }

    /// Runs git and wants success.
    pub(super) async fn run(&self, arguments: &[&str], stdin: &[u8]) -> Result<Vec<u8>, GitError> {
        self.run_in(arguments, &[], stdin).await
    }

    /// Runs git with more environment and wants success.
    pub(super) async fn run_in(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdin: &[u8],
    ) -> Result<Vec<u8>, GitError> {
        let ended = self.try_run(arguments, environment, stdin).await?;
        if ended.status == 0 { Ok(ended.stdout) } else { Err(failed(arguments, &ended)) }
    }

    /// Runs git, whatever it ends with.
    pub(super) async fn try_run(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdin: &[u8],
    ) -> Result<Ended, GitError> {
        let what = || arguments.first().copied().unwrap_or_default().to_owned();
        let failed = |source| GitError::Run { what: what(), source };
        let _turn =
            self.programs.acquire().await.map_err(|_| GitError::GivenUp { what: what(), why: "the program ends" })?;
        let mut child = clean("git")
            .args(arguments)
            .env("GIT_DIR", &self.path)
            .envs(environment.iter().copied())
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(GitError::Unreadable { what: what() });
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let talk = async {
            let write = async {
                // A program that has seen enough closes its end; what it says of that is its exit status.
                let _ = input.write_all(stdin).await;
                drop(input);
            };
            let (mut output, mut errors) = (output.take(OUTPUT + 1), errors.take(64 << 10));
            let (_, read, _) = tokio::join!(write, output.read_to_end(&mut stdout), errors.read_to_end(&mut stderr));
            read?;
            if u64::try_from(stdout.len()).unwrap_or(u64::MAX) > OUTPUT {
                Ok(None)
            } else {
                child.wait().await.map(Some)
            }
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Err(_) => Err(GitError::GivenUp { what: what(), why: "it took too long" }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok(None)) => Err(GitError::GivenUp { what: what(), why: "it said too much" }),
            Ok(Ok(Some(status))) => Ok(Ended { status: status.code().unwrap_or(-1), stdout, stderr }),
        }
    }

    /// Runs git and takes its answer as a text.
    pub(super) async fn text(&self, arguments: &[&str], stdin: &[u8]) -> Result<String, GitError> {
        let what = || arguments.first().copied().unwrap_or_default().to_owned();
        let answer = self.run(arguments, stdin).await?;
        String::from_utf8(answer).map_err(|_| GitError::Unreadable { what: what() })
    }
}

pub(super) fn failed(arguments: &[&str], ended: &Ended) -> GitError {
    GitError::Failed {
        what: arguments.first().copied().unwrap_or_default().to_owned(),
        status: ended.status,
        stderr: String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
    }
}

/// A command with nothing of this program's environment, that ends with the value.
#[must_use]
pub fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "core.hooksPath")
        .env("GIT_CONFIG_VALUE_1", "/dev/null")
        .kill_on_drop(true);
    command
}
