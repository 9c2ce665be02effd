//! A login on its way: what the browser carries to the provider and back, and what can go wrong.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::{CsrfToken, Nonce};
use sha2::{Digest as _, Sha256};

/// Why somebody was not let in. The source is for the journal, the code for the browser.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The provider says so.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The browser has no cookie of a login that it began here.
    #[error("no login was begun in this browser")]
    NoState,
    /// The answer belongs to another login.
    #[error("the state is not that of this browser")]
    WrongState,
    /// The provider cannot be asked.
    #[error("the provider does not answer: {0}")]
    Unavailable(String),
    /// The code is not good.
    #[error("the code was not redeemed: {0}")]
    Exchange(String),
    /// The ID token is missing or not to be believed.
    #[error("the ID token is not valid: {0}")]
    IdToken(String),
    /// The provider does not tell more.
    #[error("userinfo was not given: {0}")]
    UserInfo(String),
    /// The account has no address.
    #[error("the account has no e-mail address")]
    NoEmail,
    /// The account's address is not known to be its own.
    #[error("the account's e-mail address is not verified")]
    EmailNotVerified,
    /// The account is in none of the groups.
    #[error("the account is not in the group")]
    NotInGroup,
}

impl LoginError {
    /// A word for the cookie `login_error`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused_by_provider",
            Self::NoState => "missing_saved_state",
            Self::WrongState => "state_mismatch",
            Self::Unavailable(_) => "provider_unavailable",
            Self::Exchange(_) => "code_not_redeemed",
            Self::IdToken(_) => "invalid_id_token",
            Self::UserInfo(_) => "no_userinfo",
            Self::NoEmail => "no_email",
            Self::EmailNotVerified => "email_not_verified",
            Self::NotInGroup => "not_in_group",
        }
    }
}

/// What ties a login to one browser without anything being kept here: all follows from the state and a key of this process.
pub struct Ties(CsrfToken);

impl Ties {
    /// With a new key.
    pub fn new() -> Self {
        Self(CsrfToken::new_random_len(32))
    }

    /// For the cookie `oauth_state`, as Grafana does it: a digest of the state with the key.
    pub fn cookie(&self, state: &CsrfToken) -> String {
        self.derive("state", state)
    }

    /// The nonce of the ID token.
    pub fn nonce(&self, state: &CsrfToken) -> Nonce {
        Nonce::new(self.derive("nonce", state))
    }

    /// Whether the answer with this state belongs to the browser with that cookie.
    pub fn check(&self, state: &CsrfToken, cookie: Option<&str>) -> Result<(), LoginError> {
        let cookie = cookie.filter(|cookie| !cookie.is_empty()).ok_or(LoginError::NoState)?;
        // Digests of both, so that how long it takes says nothing about the right one.
        if Sha256::digest(cookie) == Sha256::digest(self.cookie(state)) { Ok(()) } else { Err(LoginError::WrongState) }
    }

    fn derive(&self, purpose: &str, state: &CsrfToken) -> String {
        let digest = Sha256::new()
            .chain_update(purpose)
            .chain_update([0])
            .chain_update(self.0.secret())
            .chain_update([0])
            .chain_update(state.secret());
        BASE64_URL_SAFE_NO_PAD.encode(digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_good_in_its_own_browser_only() {
        let ties = Ties::new();
        let (state, other) = (CsrfToken::new_random(), CsrfToken::new_random());
        let check = |state: &CsrfToken, cookie: Option<&str>, expected: Option<&str>| {
            assert_eq!(ties.check(state, cookie).err().map(|error| error.code()), expected)
        };
        check(&state, Some(&ties.cookie(&state)), None);
        check(&state, Some(&ties.cookie(&other)), Some("state_mismatch"));
        check(&state, Some(&Ties::new().cookie(&state)), Some("state_mismatch"));
        check(&state, Some(""), Some("missing_saved_state"));
        check(&state, None, Some("missing_saved_state"));
        assert_ne!(ties.nonce(&state).secret(), &ties.cookie(&state));
    }
}
