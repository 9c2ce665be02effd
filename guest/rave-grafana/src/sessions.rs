//! Who is signed in. In memory, by the digest of what the browser's cookie holds; the oldest goes when there are too many.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::CsrfToken;
use sha2::{Digest as _, Sha256};

use crate::user::User;

/// How long one stays signed in.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const MOST: usize = 1000;

struct Session {
    user: User,
    started: Instant,
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// Starts a session; the answer is for the browser's cookie.
    pub fn start(&self, user: User) -> String {
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.started.elapsed() < LIFETIME);
        if sessions.len() >= MOST
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.started).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        let identifier = CsrfToken::new_random_len(32).into_secret();
        sessions.insert(digest(&identifier), Session { user, started: Instant::now() });
        identifier
    }

    /// Who that cookie belongs to.
    pub fn find(&self, identifier: &str) -> Option<User> {
        self.lock()
            .get(&digest(identifier))
            .filter(|session| session.started.elapsed() < LIFETIME)
            .map(|session| session.user.clone())
    }

    /// Ends a session, for every copy of its cookie.
    pub fn end(&self, identifier: &str) -> Option<User> {
        self.lock().remove(&digest(identifier)).map(|session| session.user)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(identifier: &str) -> [u8; 32] {
    Sha256::digest(identifier).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::Role;

    fn user(login: &str) -> User {
        User { subject: "1".into(), login: login.into(), name: login.into(), email: "a@b".into(), role: Role::Viewer }
    }

    #[test]
    fn a_session_is_found_until_it_ends_or_a_thousand_are_younger() {
        let sessions = Sessions::default();
        let (first, second) = (sessions.start(user("first")), sessions.start(user("second")));
        assert_eq!(sessions.find(&first), Some(user("first")));
        assert_eq!(sessions.find(&first[1..]), None);
        assert_eq!(sessions.end(&second), Some(user("second")));
        assert_eq!(sessions.find(&second), None);
        for _ in 0..MOST {
            sessions.start(user("other"));
        }
        assert_eq!(sessions.find(&first), None);
        assert_eq!(sessions.lock().len(), MOST);
    }
}
