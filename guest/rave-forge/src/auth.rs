//! Who asks: personal access tokens and doorkeeper's access tokens, both known by their SHA-256 only.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;

use crate::app::Shared;
use crate::db::Db;
use crate::error::ApiError;
use crate::text;

/// The user behind a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's id.
    pub id: i64,
    /// The user's name for signing in.
    pub username: String,
    /// The user's name for reading.
    pub name: String,
    /// The user's address.
    pub email: String,
    /// Whether the user is an administrator.
    pub admin: bool,
    /// What the token may be used for.
    pub scopes: Vec<String>,
    /// The personal access token, if it is one.
    pub token_id: Option<i64>,
}

/// The caller of a request that nobody needs to sign in for.
#[derive(Debug, Clone)]
pub struct Anyone(pub Option<Caller>);

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        Anyone::from_request_parts(parts, app).await?.0.ok_or_else(ApiError::unauthorized)
    }
}

impl FromRequestParts<Shared> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        let Some(token) = api_token(&parts.headers, parts.uri.query()) else { return Ok(Self(None)) };
        let caller = known(&app.db, &token).await?;
        let needed = needed_scopes(
            &parts.method,
            parts.uri.path().strip_prefix(app.settings.prefix.as_str()).unwrap_or_default(),
        );
        if needed.is_empty() || caller.has_scope(needed) {
            Ok(Self(Some(caller)))
        } else {
            Err(ApiError::insufficient_scope(&needed.join(" ")))
        }
    }
}

impl Caller {
    /// Whether the token has one of some scopes.
    #[must_use]
    pub fn has_scope(&self, scopes: &[&str]) -> bool {
        self.scopes.iter().any(|scope| scopes.contains(&scope.as_str()))
    }

    /// Lets only administrators through.
    ///
    /// # Errors
    /// 403 for all others.
    pub fn must_be_admin(&self) -> Result<(), ApiError> {
        if self.admin { Ok(()) } else { Err(ApiError::forbidden()) }
    }
}

/// The user of a token.
///
/// # Errors
/// 401 for a token that is unknown, revoked or expired, 403 for a blocked user.
pub async fn known(db: &Db, token: &str) -> Result<Caller, ApiError> {
    // One question for both kinds; a personal token's `expires_at` is the first day on which it is no longer valid.
    let found = db
        .row(
            "SELECT u.id, u.username, u.name, u.email, u.admin, u.state, t.token_id, t.scopes, t.revoked, t.expired, t.stale FROM (
               SELECT id AS token_id, user_id, scopes, revoked, expires_at <= forge_now()::date AS expired,
                      coalesce(last_used_at < forge_now() - interval '10 minutes', true) AS stale
                 FROM personal_access_tokens WHERE token_digest = $1
               UNION ALL
               SELECT NULL, resource_owner_id, scopes, revoked_at IS NOT NULL AND revoked_at <= forge_now(),
                      expires_in IS NOT NULL AND created_at + expires_in * interval '1 second' <= forge_now(), false
                 FROM oauth_access_tokens WHERE token = $1) t
             JOIN users u ON u.id = t.user_id",
            &[&text::sha256(token)],
        )
        .await?
        .ok_or_else(ApiError::unauthorized)?;
    if found.get("revoked") {
        return Err(ApiError::invalid_token("Token was revoked. You have to re-authorize from the user."));
    }
    if found.get("expired") {
        return Err(ApiError::invalid_token("Token is expired. You can either do re-authorization or token refresh."));
    }
    if found.get::<_, &str>("state") != "active" {
        return Err(ApiError::forbidden_because("Your account has been blocked."));
    }
    let token_id: Option<i64> = found.get("token_id");
    if found.get("stale") {
        db.change("UPDATE personal_access_tokens SET last_used_at = forge_now() WHERE id = $1", &[&token_id]).await?;
    }
    let scopes = found.get::<_, Option<&str>>("scopes").unwrap_or_default();
    Ok(Caller {
        id: found.get("id"),
        username: found.get("username"),
        name: found.get("name"),
        email: found.get("email"),
        admin: found.get("admin"),
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        token_id,
    })
}

/// User name and password of `Authorization: Basic`.
#[must_use]
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = scheme(headers, "basic")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn api_token(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = headers.get("private-token").map(|value| value.to_str().unwrap_or("unreadable").to_owned());
    let parameter = || {
        let found =
            form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == "private_token" || key == "access_token");
        found.map(|(_, value)| value.into_owned())
    };
    header.or_else(|| scheme(headers, "bearer").map(str::to_owned)).or_else(parameter)
}

fn scheme<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| value.trim())
}

/// The scopes of which a token needs one; none are needed where a token is asked about itself.
fn needed_scopes(method: &Method, path: &str) -> &'static [&'static str] {
    let path = path.strip_prefix("/api/v4/").unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "personal_access_tokens" => &[],
        "user" | "users" | "version" if reads => &["api", "read_api", "read_user"],
        "projects" if reads && path.contains("/repository/") => &["api", "read_api", "read_repository"],
        _ if reads => &["api", "read_api"],
        _ => &["api"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn what_a_scope_is_good_for() {
        let check = |method: Method, path: &str, scope: &str, expected: bool| {
            let needed = needed_scopes(&method, path);
            assert_eq!(needed.is_empty() || needed.contains(&scope), expected, "{method} {path} {scope}");
        };
        check(Method::GET, "/api/v4/user", "read_user", true);
        check(Method::GET, "/api/v4/projects", "read_user", false);
        check(Method::GET, "/api/v4/projects/1", "read_api", true);
        check(Method::POST, "/api/v4/projects", "read_api", false);
        check(Method::POST, "/api/v4/user/keys", "read_user", false);
        check(Method::GET, "/api/v4/projects/1/repository/tree", "read_repository", true);
        check(Method::GET, "/api/v4/projects/1", "read_repository", false);
        check(Method::DELETE, "/api/v4/personal_access_tokens/self", "read_user", true);
        check(Method::GET, "/elsewhere", "read_user", false);
    }

    #[test]
    fn a_token_may_come_in_four_ways() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
        };
        assert_eq!(api_token(&headers("private-token", "a"), None).as_deref(), Some("a"));
        assert_eq!(api_token(&headers("authorization", "Bearer b"), None).as_deref(), Some("b"));
        assert_eq!(api_token(&headers("authorization", "Basic b"), None), None);
        assert_eq!(api_token(&HeaderMap::new(), Some("x=1&private_token=c%21")).as_deref(), Some("c!"));
        assert_eq!(basic(&headers("authorization", "basic b2F1dGgyOmE6Yg==")), Some(("oauth2".into(), "a:b".into())));
        assert_eq!(basic(&headers("authorization", "Basic ***")), None);
    }
}
