//! Who a sender is: the account of the forge that the Matrix user signed in with, found by its number and never by a name, and what
//! that account may do.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::directory::{Directory, DirectoryError};
use crate::forge::{Forge, ForgeError};

/// With so many people in memory, those not seen lately are forgotten.
const MANY: usize = 1024;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// No member of the group.
    None,
    /// Guest or reporter.
    Viewer,
    /// Developer.
    Developer,
    /// Maintainer or owner.
    Maintainer,
}

/// An account of the forge that speaks through Matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The account's number.
    pub id: u64,
    /// The account's name.
    pub username: String,
    /// What it may do.
    pub role: Role,
}

/// What is known of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The Matrix user did not come from the forge, or the account is gone.
    NotLinked,
    /// The account is blocked.
    Blocked(u64),
    /// The account is in use.
    Linked(Person),
}

/// Why it cannot be said who somebody is. Then nothing may be done for them.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The homeserver's database does not answer.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The forge does not answer.
    #[error(transparent)]
    Forge(#[from] ForgeError),
}

/// Looks people up, and remembers for a little while what their accounts may do.
#[derive(Debug)]
pub struct People {
    directory: Directory,
    remember: Duration,
    known: Mutex<HashMap<u64, (Instant, Standing)>>,
}

impl Role {
    /// The role that an access level of the group gives.
    #[must_use]
    pub fn of(access_level: Option<u32>) -> Self {
        match access_level {
            None | Some(0..10) => Self::None,
            Some(10..30) => Self::Viewer,
            Some(30..40) => Self::Developer,
            Some(_) => Self::Maintainer,
        }
    }

    /// The role in a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no role",
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Maintainer => "maintainer",
        }
    }
}

impl People {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(directory: Directory, remember: Duration) -> Self {
        Self { directory, remember, known: Mutex::new(HashMap::new()) }
    }

    /// Looks up the account behind a Matrix user. The tie itself is never remembered: it costs one short question.
    ///
    /// # Errors
    /// If the database or the forge does not answer.
    pub async fn find(&self, forge: &Forge, user_id: &str) -> Result<Standing, PeopleError> {
        let Some(id) = self.directory.external_id(user_id).await? else { return Ok(Standing::NotLinked) };
        let remembered =
            self.known().get(&id).filter(|(at, _)| at.elapsed() < self.remember).map(|(_, standing)| standing.clone());
        if let Some(standing) = remembered {
            return Ok(standing);
        }
        // The time is taken before the question, so that no answer is older than it seems.
        let asked = Instant::now();
        let standing = match forge.user(id).await? {
            None => Standing::NotLinked,
            Some(user) if user.state != "active" => Standing::Blocked(id),
            Some(user) => {
                let role = Role::of(forge.group_level(id).await?);
                Standing::Linked(Person { id, username: user.username, role })
            }
        };
        let mut known = self.known();
        if known.len() >= MANY {
            known.retain(|_, (at, _)| at.elapsed() < self.remember);
        }
        known.insert(id, (asked, standing.clone()));
        Ok(standing)
    }

    /// Whether a Matrix user has an account at all.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn is_linked(&self, user_id: &str) -> Result<bool, DirectoryError> {
        Ok(self.directory.external_id(user_id).await?.is_some())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Instant, Standing)>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_access_level() {
        let check = |level, expected| assert_eq!(Role::of(level), expected, "{level:?}");
        check(None, Role::None);
        check(Some(5), Role::None);
        check(Some(10), Role::Viewer);
        check(Some(20), Role::Viewer);
        check(Some(30), Role::Developer);
        check(Some(40), Role::Maintainer);
        check(Some(50), Role::Maintainer);
        assert!(Role::Viewer < Role::Developer && Role::None < Role::Viewer);
    }
}
