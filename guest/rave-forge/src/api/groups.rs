//! Groups and namespaces.

use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{created, ok};
use crate::access::{self, GUEST};
use crate::app::Shared;
use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};
use crate::text;

const SHOWN: &str = "forge_namespace(n) || jsonb_build_object('visibility', n.visibility, 'description', '', 'full_name', n.name,
    'created_at', forge_iso(n.created_at), 'project_creation_level', 'developer', 'members_count_with_descendants', NULL)";

/// A group, and what the caller is in it.
pub(super) struct Group {
    pub id: i64,
    pub level: i32,
}

/// A group by number or path, for whoever may see it.
pub(super) async fn group(app: &Shared, caller: &Caller, id: &str) -> Result<Group, ApiError> {
    let sql = "SELECT id, visibility FROM namespaces WHERE kind = 'group' AND (id = $1 OR ($1 IS NULL AND lower(path) = lower($2)))";
    let found = if id.contains('\0') { None } else { app.db.row(sql, &[&id.parse::<i64>().ok(), &id]).await? };
    let row = found.ok_or_else(|| ApiError::not_found("Group"))?;
    let level = access::namespace_level(&app.db, caller, row.get("id")).await?;
    if level >= GUEST || row.get::<_, &str>("visibility") != "private" {
        Ok(Group { id: row.get("id"), level })
    } else {
        Err(ApiError::not_found("Group"))
    }
}

pub async fn one(State(app): State<Shared>, caller: Caller, Segments(id): Segments<String>) -> Answer {
    let group = group(&app, &caller, &id).await?;
    let row = app.db.row(&format!("SELECT {SHOWN} AS item FROM namespaces n WHERE n.id = $1"), &[&group.id]).await?;
    Ok(ok(row.ok_or_else(|| ApiError::not_found("Group"))?.get("item")))
}

pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    let search = params.text("search")?;
    let sql = format!(
        "SELECT {SHOWN} AS item FROM namespaces n WHERE n.kind = 'group' AND ($3::text IS NULL OR strpos(lower(n.path || n.name), lower($3)) > 0)
           AND ($2 OR n.visibility <> 'private' OR EXISTS (SELECT 1 FROM members m WHERE m.namespace_id = n.id AND m.user_id = $1)) ORDER BY n.name, n.id"
    );
    Page::of(&params)?.rows(&app, &uri, &sql, &[&caller.id, &caller.admin, &search]).await
}

pub async fn create(State(app): State<Shared>, caller: Caller, params: Params) -> Answer {
    caller.must_be_admin()?;
    let (name, path) = (params.needed("name")?, params.needed("path")?);
    let visibility =
        params.one_of("visibility", &["private", "internal", "public"])?.unwrap_or_else(|| "private".to_owned());
    if !text::is_path(&path) || !text::is_name(&name) {
        return Err(ApiError::bad(
            "Failed to save group {:path=>[\"can contain only letters, digits, '_', '-' and '.'\"]}",
        ));
    }
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let row = transaction
        .query_opt(
            &format!(
                "INSERT INTO namespaces AS n (kind, path, name, visibility) SELECT 'group', $1, $2, $3
                 WHERE NOT EXISTS (SELECT 1 FROM namespaces WHERE lower(path) = lower($1)) ON CONFLICT DO NOTHING RETURNING n.id, {SHOWN} AS item"
            ),
            &[&path, &name, &visibility],
        )
        .await?
        .ok_or_else(|| ApiError::bad("Failed to save group {:path=>[\"has already been taken\"]}"))?;
    let id: i64 = row.get("id");
    transaction
        .execute("INSERT INTO members (user_id, namespace_id, access_level) VALUES ($1, $2, 50)", &[&caller.id, &id])
        .await?;
    transaction.commit().await?;
    Ok(created(row.get("item")))
}

pub async fn namespaces(State(app): State<Shared>, caller: Caller, uri: Uri, params: Params) -> Answer {
    let search = params.text("search")?;
    let sql = "SELECT forge_namespace(n) AS item FROM namespaces n WHERE ($3::text IS NULL OR strpos(lower(n.path), lower($3)) > 0)
        AND ($2 OR n.owner_id = $1 OR EXISTS (SELECT 1 FROM members m WHERE m.namespace_id = n.id AND m.user_id = $1)) ORDER BY n.id";
    Page::of(&params)?.rows(&app, &uri, sql, &[&caller.id, &caller.admin, &search]).await
}

pub async fn namespace(State(app): State<Shared>, caller: Caller, Segments(id): Segments<String>) -> Answer {
    let sql = "SELECT forge_namespace(n) AS item FROM namespaces n WHERE (n.id = $3 OR ($3 IS NULL AND lower(n.path) = lower($4)))
        AND ($2 OR n.owner_id = $1 OR n.visibility <> 'private' OR EXISTS (SELECT 1 FROM members m WHERE m.namespace_id = n.id AND m.user_id = $1))";
    if id.contains('\0') {
        return Err(ApiError::not_found("Namespace"));
    }
    let row = app.db.row(sql, &[&caller.id, &caller.admin, &id.parse::<i64>().ok(), &id]).await?;
    let mut item: Value = row.ok_or_else(|| ApiError::not_found("Namespace"))?.get("item");
    item["members_count_with_descendants"] = json!(null);
    Ok(ok(item))
}
