//! Who somebody is, and whether that is enough: judged from what the provider says of them.

use serde::{Deserialize, Serialize};

use crate::login::LoginError;

/// What the provider says of an account: the ID token, and what only userinfo has.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The account's number.
    pub subject: String,
    /// The account's name.
    pub login: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Its address.
    pub email: Option<String>,
    /// The address is its own. From the ID token.
    pub email_verified: bool,
    /// Groups, from userinfo.
    pub groups: Groups,
}

/// GitLab's claims about groups.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// All of them.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Those it owns.
    #[serde(default, rename = "https://gitlab.org/claims/groups/owner")]
    pub owner: Vec<String>,
    /// Those it is a maintainer of.
    #[serde(default, rename = "https://gitlab.org/claims/groups/maintainer")]
    pub maintainer: Vec<String>,
    /// Those it is a developer of.
    #[serde(default, rename = "https://gitlab.org/claims/groups/developer")]
    pub developer: Vec<String>,
}

impl openidconnect::AdditionalClaims for Groups {}

/// What somebody may do in Grafana's one organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and change.
    Editor,
}

/// Somebody who has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The provider's number for the account.
    pub subject: String,
    /// The account's name.
    pub login: String,
    /// What people call it.
    pub name: String,
    /// Its address.
    pub email: String,
    /// What it may do.
    pub role: Role,
}

impl User {
    /// Lets in members of the group with an address of their own; developers and above may edit.
    pub fn judge(claims: Claims, group: &str) -> Result<Self, LoginError> {
        let Claims { subject, login, name, email, email_verified, groups } = claims;
        let Some(email) = email.filter(|email| !email.is_empty()) else { return Err(LoginError::NoEmail) };
        if !email_verified {
            return Err(LoginError::EmailNotVerified);
        }
        let has = |list: &[String]| list.iter().any(|found| found == group);
        if !has(&groups.groups) {
            return Err(LoginError::NotInGroup);
        }
        let edits = has(&groups.owner) || has(&groups.maintainer) || has(&groups.developer);
        let login = login.unwrap_or_else(|| email.clone());
        Ok(Self {
            subject,
            name: name.unwrap_or_else(|| login.clone()),
            login,
            email,
            role: if edits { Role::Editor } else { Role::Viewer },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Claims), expected: Result<Role, LoginError>) {
        let groups = Groups { groups: vec!["other".into(), "rave".into()], ..Groups::default() };
        let mut claims = Claims {
            subject: "41".into(),
            login: Some("dana".into()),
            name: None,
            email: Some("dana@rave.local".into()),
            email_verified: true,
            groups,
        };
        change(&mut claims);
        let found = User::judge(claims, "rave").map(|user| user.role).map_err(|error| error.code());
        assert_eq!(found, expected.map_err(|error| error.code()));
    }

    #[test]
    fn members_look_and_developers_edit() {
        check(|_| (), Ok(Role::Viewer));
        check(|claims| claims.groups.developer = vec!["rave".into()], Ok(Role::Editor));
        check(|claims| claims.groups.owner = vec!["rave".into()], Ok(Role::Editor));
        check(|claims| claims.groups.maintainer = vec!["other".into()], Ok(Role::Viewer));
    }

    #[test]
    fn nobody_else_comes_in() {
        check(|claims| claims.groups.groups = vec!["rave/sub".into(), "Rave".into()], Err(LoginError::NotInGroup));
        check(|claims| claims.email_verified = false, Err(LoginError::EmailNotVerified));
        check(|claims| claims.email = None, Err(LoginError::NoEmail));
    }
}
