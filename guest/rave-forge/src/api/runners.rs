//! Runners, as administrators see them.

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

pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    caller.must_be_admin()?;
    let paused = params.flag("paused")?;
    let status = params.one_of("status", &["online", "offline", "stale", "never_contacted", "active", "paused"])?;
    let sql = "SELECT forge_runner(r) AS item FROM runners r WHERE ($1::boolean IS NULL OR r.paused = $1)
        AND ($2::text IS NULL OR forge_runner(r)->>'status' = $2 OR ($2 = 'paused' AND r.paused) OR ($2 = 'active' AND NOT r.paused)) ORDER BY r.id DESC";
    Page::of(&params)?.rows(&app, &uri, sql, &[&paused, &status]).await
}

pub async fn one(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    caller.must_be_admin()?;
    show(&app, id).await.map(ok)
}

pub async fn create(State(app): State<Shared>, caller: Caller, params: Params) -> Answer {
    let kind = params
        .one_of("runner_type", &["instance_type", "group_type", "project_type"])?
        .ok_or_else(|| ApiError::missing("runner_type"))?;
    caller.must_be_admin()?;
    if kind != "instance_type" {
        return Err(ApiError::bad("only runners of the whole instance are supported"));
    }
    let tags = params.list("tag_list")?.unwrap_or_default();
    let untagged = params.flag("run_untagged")?.unwrap_or(true);
    if tags.is_empty() && !untagged {
        return Err(ApiError::field("tags_list", "can not be empty when runner is not allowed to pick untagged jobs"));
    }
    let (description, paused) =
        (params.text("description")?.unwrap_or_default(), params.flag("paused")?.unwrap_or(false));
    let token = text::token("glrt-")?;
    let row = app
        .db
        .row(
            "INSERT INTO runners (description, token_digest, runner_type, tag_list, run_untagged, paused, creator_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
             RETURNING id",
            &[&description, &text::sha256(&token), &kind, &tags, &untagged, &paused, &caller.id],
        )
        .await?;
    let id: i64 = row.ok_or_else(|| ApiError::not_found("Runner"))?.get("id");
    Ok(created(json!({ "id": id, "token": token, "token_expires_at": null })))
}

pub async fn change(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>, params: Params) -> Answer {
    caller.must_be_admin()?;
    let (paused, description, tags) = (params.flag("paused")?, params.text("description")?, params.list("tag_list")?);
    let sql = "UPDATE runners SET paused = coalesce($2, paused), description = coalesce($3, description), tag_list = coalesce($4, tag_list) WHERE id = $1";
    app.db.change(sql, &[&id, &paused, &description, &tags]).await?;
    show(&app, id).await.map(ok)
}

pub async fn remove(State(app): State<Shared>, caller: Caller, Segments(id): Segments<i64>) -> Answer {
    caller.must_be_admin()?;
    match app.db.change("DELETE FROM runners WHERE id = $1", &[&id]).await? {
        0 => Err(ApiError::not_found("Runner")),
        _ => Ok(no_content()),
    }
}

async fn show(app: &Shared, id: i64) -> Result<Value, ApiError> {
    let sql = "SELECT forge_runner(r) || jsonb_build_object('tag_list', to_jsonb(r.tag_list), 'run_untagged', r.run_untagged, 'locked', false,
        'access_level', 'not_protected', 'maximum_timeout', NULL, 'contacted_at', forge_iso(r.contacted_at), 'projects', '[]'::jsonb, 'groups', '[]'::jsonb,
        'version', NULL, 'revision', NULL, 'platform', 'linux', 'architecture', NULL) AS item FROM runners r WHERE r.id = $1";
    Ok(app.db.row(sql, &[&id]).await?.ok_or_else(|| ApiError::not_found("Runner"))?.get("item"))
}
