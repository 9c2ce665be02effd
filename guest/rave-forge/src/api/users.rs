//! Users and their SSH keys.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{created, no_content, ok};
use crate::access;
use crate::accounts::{self, NewUser};
use crate::app::Shared;
use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};
use crate::text;

/// What everybody who is signed in may see; administrators see more.
const SHOWN: &str = "forge_user(u.id) || jsonb_build_object('created_at', forge_iso(u.created_at), 'bio', '', 'bot', false, 'public_email', NULL)
    || CASE WHEN $1 THEN jsonb_build_object('email', u.email, 'is_admin', u.admin, 'confirmed_at', forge_iso(u.confirmed_at), 'can_create_project', true,
         'can_create_group', u.admin, 'external', false, 'two_factor_enabled', false, 'projects_limit', 100000, 'identities', '[]'::jsonb,
         'commit_email', u.email, 'namespace_id', (SELECT n.id FROM namespaces n WHERE n.kind = 'user' AND n.owner_id = u.id LIMIT 1))
       ELSE '{}'::jsonb END";

const KEY: &str = "jsonb_build_object('id', k.id, 'title', k.title, 'key', k.key, 'created_at', forge_iso(k.created_at), 'expires_at', NULL,
    'usage_type', 'auth_and_signing')";

pub async fn own(State(app): State<Shared>, caller: Caller) -> Answer {
    show(&app, true, caller.id).await.map(ok)
}

pub async fn one(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    show(&app, caller.admin, id).await.map(ok)
}

pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    let (username, search) = (params.text("username")?, params.text("search")?);
    let sql = format!(
        "SELECT {SHOWN} AS item FROM users u WHERE ($2::text IS NULL OR lower(u.username) = lower($2))
           AND ($3::text IS NULL OR strpos(lower(u.username || ' ' || u.name), lower($3)) > 0 OR lower(u.email) = lower($3)) ORDER BY u.id DESC"
    );
    Page::of(&params)?.rows(&app, &uri, &sql, &[&caller.admin, &username, &search]).await
}

pub async fn create(State(app): State<Shared>, caller: Caller, params: Params) -> Answer {
    caller.must_be_admin()?;
    let (email, name, username) = (params.needed("email")?, params.needed("name")?, params.needed("username")?);
    if !text::is_path(&username) {
        return Err(ApiError::field("username", "can contain only letters, digits, '_', '-' and '.'"));
    }
    if !email.contains('@') || email.len() > 254 || email.contains(char::is_whitespace) {
        return Err(ApiError::field("email", "is invalid"));
    }
    let password = params.text("password")?;
    let random =
        params.flag("force_random_password")?.unwrap_or(false) || params.flag("reset_password")?.unwrap_or(false);
    match &password {
        None if !random => {
            let message =
                "password, reset_password, force_random_password are missing, at least one parameter must be provided";
            return Err(ApiError::Refused(StatusCode::BAD_REQUEST, json!({ "error": message })));
        }
        Some(password) if password.chars().count() < 8 => {
            return Err(ApiError::field("password", "is too short (minimum is 8 characters)"));
        }
        Some(password) if password.len() > 72 => {
            return Err(ApiError::field("password", "is too long (maximum is 72 bytes)"));
        }
        _ => {}
    }
    for (column, value, word) in [("email", &email, "Email"), ("username", &username, "Username")] {
        let taken = app.db.row(&format!("SELECT 1 FROM users WHERE lower({column}) = lower($1)"), &[value]).await?;
        if taken.is_some() {
            return Err(ApiError::conflict(format!("{word} has already been taken")));
        }
    }
    let user = NewUser { username, name, email, admin: params.flag("admin")?.unwrap_or(false), password };
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let id = accounts::create_user(&transaction, &user, params.flag("skip_confirmation")?.unwrap_or(false)).await?;
    transaction.commit().await?;
    show(&app, true, id).await.map(created)
}

pub async fn block(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    if id == caller.id {
        return Err(ApiError::forbidden_because("You cannot block your own account."));
    }
    set_state(&app, &caller, id, "blocked").await
}

pub async fn unblock(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    set_state(&app, &caller, id, "active").await
}

pub async fn keys(
    State(app): State<Shared>,
    _: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let number = id.parse::<i64>().ok();
    let found = app
        .db
        .row("SELECT id FROM users WHERE id = $1 OR ($1 IS NULL AND lower(username) = lower($2))", &[&number, &id])
        .await?;
    let user: i64 = found.ok_or_else(|| ApiError::not_found("User"))?.get("id");
    list_keys(&app, &uri, &params, user).await
}

pub async fn own_keys(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    list_keys(&app, &uri, &params, caller.id).await
}

pub async fn key(State(app): State<Shared>, caller: Caller, Segments(key): Segments<i64>) -> Answer {
    let sql = format!("SELECT {KEY} AS item FROM user_keys k WHERE k.id = $1 AND k.user_id = $2");
    let row = app.db.row(&sql, &[&key, &caller.id]).await?.ok_or_else(|| ApiError::not_found("Key"))?;
    Ok(ok(row.get("item")))
}

pub async fn add_key(State(app): State<Shared>, caller: Caller, params: Params) -> Answer {
    let (title, key) = (params.needed("title")?, params.needed("key")?);
    let (key, fingerprint) = public_key(&key).ok_or_else(|| ApiError::field("key", "is invalid"))?;
    let sql = format!(
        "INSERT INTO user_keys AS k (user_id, title, key, fingerprint) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING {KEY} AS item"
    );
    let row = app.db.row(&sql, &[&caller.id, &title, &key, &fingerprint]).await?;
    Ok(created(row.ok_or_else(|| ApiError::field("fingerprint_sha256", "has already been taken"))?.get("item")))
}

pub async fn remove_key(State(app): State<Shared>, caller: Caller, Segments(key): Segments<i64>) -> Answer {
    match app.db.change("DELETE FROM user_keys WHERE id = $1 AND user_id = $2", &[&key, &caller.id]).await? {
        0 => Err(ApiError::not_found("Key")),
        _ => Ok(no_content()),
    }
}

async fn show(app: &Shared, whole: bool, id: i64) -> Result<Value, ApiError> {
    let row = app.db.row(&format!("SELECT {SHOWN} AS item FROM users u WHERE u.id = $2"), &[&whole, &id]).await?;
    Ok(row.ok_or_else(|| ApiError::not_found("User"))?.get("item"))
}

async fn set_state(app: &Shared, caller: &Caller, id: i64, state: &str) -> Answer {
    caller.must_be_admin()?;
    match app.db.change("UPDATE users SET state = $2, updated_at = forge_now() WHERE id = $1", &[&id, &state]).await? {
        0 => Err(ApiError::not_found("User")),
        _ => Ok(created(json!(true))),
    }
}

async fn list_keys(app: &Shared, uri: &Uri, params: &Params, user: i64) -> Answer {
    let sql = format!("SELECT {KEY} AS item FROM user_keys k WHERE k.user_id = $1 ORDER BY k.id");
    Page::of(params)?.rows(app, uri, &sql, &[&user]).await
}

/// A public key as it may stand in `authorized_keys`, one line without options, and its fingerprint.
fn public_key(text: &str) -> Option<(String, String)> {
    let mut words = text.split_whitespace();
    let (kind, data) = (words.next()?, words.next()?);
    let kinds = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
    ];
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let sound =
        kinds.contains(&kind) && name == kind.as_bytes() && text.trim().lines().count() == 1 && text.len() <= 5000;
    let comment = words.collect::<Vec<_>>().join(" ");
    let comment: String = comment.chars().filter(|character| !character.is_control()).collect();
    let digest = base64::engine::general_purpose::STANDARD_NO_PAD.encode(Sha256::digest(&bytes));
    sound.then(|| (format!("{kind} {data} {comment}").trim_end().to_owned(), format!("SHA256:{digest}")))
}

/// The id of a user that must be there.
pub(super) async fn must_exist(app: &Shared, id: i64) -> Result<(), ApiError> {
    app.db.row("SELECT 1 FROM users WHERE id = $1", &[&id]).await?.map(drop).ok_or_else(|| ApiError::not_found("User"))
}

/// One of GitLab's access levels.
pub(super) fn level(params: &Params) -> Result<i32, ApiError> {
    let level = params.number("access_level")?.ok_or_else(|| ApiError::missing("access_level"))?;
    let known = [access::GUEST, access::REPORTER, access::DEVELOPER, access::MAINTAINER, access::OWNER];
    known
        .into_iter()
        .find(|known| i64::from(*known) == level)
        .ok_or_else(|| ApiError::not_a_valid_value("access_level"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE2VJz7mrGeCVwKSyp9bV0FbWAB+gTNOBZUWuZ5nBLzR";

    #[test]
    fn a_key_is_one_line_of_a_known_kind() {
        let (line, fingerprint) = public_key(&format!("  {KEY}  me@here \n")).unwrap();
        assert_eq!(line, format!("{KEY} me@here"));
        assert!(fingerprint.starts_with("SHA256:") && fingerprint.len() == 50);
        for bad in ["", "ssh-ed25519", "ssh-ed25519 ****", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "ssh-ed25519 AAAA"] {
            assert!(public_key(bad).is_none(), "{bad}");
        }
        assert!(public_key(&format!("command=\"x\" {KEY}")).is_none());
        assert!(public_key(&format!("{KEY}\n{KEY}")).is_none());
    }
}
