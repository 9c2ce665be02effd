//! Merging, without a work tree: git makes the tree, the commit is made of it, and the branch moves last.

use super::commit::Author;
use super::run::{GitError, Repository, failed};

/// What a merge would bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// The tree of the merged files.
    Clean {
        /// Its name.
        tree: String,
    },
    /// Both sides have changed the same.
    Conflict,
    /// There is nothing to merge.
    Contained,
    /// The two have no commit in common.
    Unrelated,
}

impl Repository {
    /// Tries to merge `source` into `target`.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn try_merge(&self, target: &str, source: &str) -> Result<Tried, GitError> {
        match self.merge_base(target, source).await? {
            None => return Ok(Tried::Unrelated),
            Some(base) if base == source => return Ok(Tried::Contained),
            Some(_) => {}
        }
        let arguments = ["merge-tree", "--write-tree", "--no-messages", target, source];
        let ended = self.try_run(&arguments, &[], b"").await?;
        match ended.status {
            0 => Ok(Tried::Clean { tree: String::from_utf8_lossy(&ended.stdout).trim().to_owned() }),
            1 => Ok(Tried::Conflict),
            _ => Err(failed(&arguments, &ended)),
        }
    }

    /// Where two commits parted.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn merge_base(&self, one: &str, other: &str) -> Result<Option<String>, GitError> {
        let ended = self.try_run(&["merge-base", one, other], &[], b"").await?;
        match ended.status {
            0 => Ok(Some(String::from_utf8_lossy(&ended.stdout).trim().to_owned())),
            1 => Ok(None),
            _ => Err(failed(&["merge-base"], &ended)),
        }
    }

    /// Whether `later` contains `earlier`.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn contains(&self, later: &str, earlier: &str) -> Result<bool, GitError> {
        let ended = self.try_run(&["merge-base", "--is-ancestor", earlier, later], &[], b"").await?;
        match ended.status {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(failed(&["merge-base"], &ended)),
        }
    }

    /// Makes a commit of a tree. No branch moves.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn commit_tree(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
        author: &Author,
        committer: &Author,
    ) -> Result<String, GitError> {
        let mut arguments = vec!["commit-tree", tree];
        for parent in parents {
            arguments.extend(["-p", parent]);
        }
        let environment = [
            ("GIT_AUTHOR_NAME", author.name.as_str()),
            ("GIT_AUTHOR_EMAIL", &author.email),
            ("GIT_COMMITTER_NAME", &committer.name),
            ("GIT_COMMITTER_EMAIL", &committer.email),
        ];
        let answer = self.run_in(&arguments, &environment, message.as_bytes()).await?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}
