//! Personal access tokens.

use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{created, no_content, ok};
use crate::app::Shared;
use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};
use crate::text;

/// The scopes that a token may have here.
const SCOPES: [&str; 5] = ["api", "read_api", "read_user", "read_repository", "write_repository"];

pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Segments(user): Segments<i64>,
    params: Params,
) -> Answer {
    caller.must_be_admin()?;
    super::users::must_exist(&app, user).await?;
    let name = params.needed("name")?;
    let scopes = params.list("scopes")?.ok_or_else(|| ApiError::missing("scopes"))?;
    if scopes.is_empty() || scopes.iter().any(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(ApiError::not_a_valid_value("scopes"));
    }
    // As in GitLab, a token ends within a year.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let last = today.saturating_add(jiff::Span::new().days(365));
    let expires = match params.text("expires_at")? {
        None => last,
        Some(date) => date.parse::<jiff::civil::Date>().map_err(|_| ApiError::invalid("expires_at"))?,
    };
    if expires > last {
        return Err(ApiError::bad("Expiration date must be within 365 days"));
    }
    let token = text::token("glpat-")?;
    let row = app
        .db
        .row(
            "INSERT INTO personal_access_tokens AS t (user_id, name, token_digest, scopes, expires_at)
             VALUES ($1, $2, $3, $4, $5::text::date) RETURNING forge_token(t) AS item",
            &[&user, &name, &text::sha256(&token), &scopes.join(" "), &expires.to_string()],
        )
        .await?;
    let mut item: Value = row.ok_or_else(|| ApiError::not_found("User"))?.get("item");
    item["token"] = json!(token);
    Ok(created(item))
}

pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    if !caller.has_scope(&["api", "read_api"]) {
        return Err(ApiError::insufficient_scope("api read_api"));
    }
    let user = if caller.admin { params.number("user_id")? } else { Some(caller.id) };
    let sql = "SELECT forge_token(t) AS item FROM personal_access_tokens t WHERE $1::bigint IS NULL OR t.user_id = $1 ORDER BY t.id";
    Page::of(&params)?.rows(&app, &uri, sql, &[&user]).await
}

pub async fn own(State(app): State<Shared>, caller: Caller) -> Answer {
    let row = app
        .db
        .row("SELECT forge_token(t) AS item FROM personal_access_tokens t WHERE t.id = $1", &[&caller.token_id])
        .await?;
    Ok(ok(row.ok_or_else(|| ApiError::not_found("Token"))?.get("item")))
}

pub async fn revoke_own(State(app): State<Shared>, caller: Caller) -> Answer {
    let token = caller.token_id.ok_or_else(|| ApiError::bad("400 Bad request - not a personal access token"))?;
    app.db.change("UPDATE personal_access_tokens SET revoked = true WHERE id = $1", &[&token]).await?;
    Ok(no_content())
}

pub async fn revoke(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    if !caller.has_scope(&["api"]) {
        return Err(ApiError::insufficient_scope("api"));
    }
    let sql = "UPDATE personal_access_tokens SET revoked = true WHERE id = $1 AND ($2 OR user_id = $3)";
    match app.db.change(sql, &[&id, &caller.admin, &caller.id]).await? {
        0 => Err(ApiError::not_found("Personal Access Token")),
        _ => Ok(no_content()),
    }
}
