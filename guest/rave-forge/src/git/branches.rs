//! Branches: which there are, and moving them only from where they are believed to be.

use std::collections::BTreeMap;

use super::NOTHING;
use super::run::{GitError, Repository, failed};

/// Whether a branch has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is where it should be.
    Yes,
    /// Somebody else was first, or the name cannot be taken.
    No,
}

impl Repository {
    /// All branches and their commits.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn branches(&self) -> Result<BTreeMap<String, String>, GitError> {
        let answer = self.run(&["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"], b"").await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let branch = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((name.strip_prefix("refs/heads/")?.to_owned(), id.to_owned()))
        };
        Ok(text.lines().filter_map(branch).collect())
    }

    /// Moves a branch from `before` (or [`NOTHING`]) to a commit; with [`NOTHING`] as the commit, removes it.
    ///
    /// # Errors
    /// If git cannot be run.
    pub async fn move_branch(&self, name: &str, before: &str, to: &str) -> Result<Moved, GitError> {
        self.move_ref(&format!("refs/heads/{name}"), before, to).await
    }

    /// Points a name outside the branches to a commit, wherever it pointed before.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn keep(&self, reference: &str, commit: &str) -> Result<(), GitError> {
        self.run(&["update-ref", reference, commit], b"").await.map(drop)
    }

    /// Says which branch is the default.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn set_head(&self, branch: &str) -> Result<(), GitError> {
        self.run(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")], b"").await.map(drop)
    }

    async fn move_ref(&self, reference: &str, before: &str, to: &str) -> Result<Moved, GitError> {
        let arguments: &[&str] = if to == NOTHING {
            &["update-ref", "-d", reference, before]
        } else {
            &["update-ref", reference, to, before]
        };
        let ended = self.try_run(arguments, &[], b"").await?;
        match ended.status {
            0 => Ok(Moved::Yes),
            // 128, or 1 by version: the expected value did not hold, the lock was taken, or the name is in the way of another.
            1 | 128 => Ok(Moved::No),
            _ => Err(failed(arguments, &ended)),
        }
    }
}
