//! Projects: listing, making, changing, removing.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::{created, groups, ok};
use crate::access::{self, DEVELOPER, MAINTAINER, OWNER};
use crate::app::{App, Shared, to_the_end};
use crate::auth::{Anyone, Caller};
use crate::db;
use crate::error::{Answer, ApiError};
use crate::follow::follow;
use crate::git::{Action, Author, Change, NOTHING};
use crate::page::Page;
use crate::params::{Params, Segments};
use crate::text;

const VISIBILITIES: [&str; 3] = ["private", "internal", "public"];

pub async fn list(State(app): State<Shared>, Anyone(caller): Anyone, uri: Uri, params: Params) -> Answer {
    let user = caller.as_ref().map(|caller| caller.id);
    let (search, membership) = (params.text("search")?, params.flag("membership")?.unwrap_or(false));
    let owned = params.flag("owned")?.unwrap_or(false);
    let order = match params
        .one_of("order_by", &["id", "name", "path", "created_at", "updated_at", "last_activity_at"])?
        .as_deref()
    {
        Some("name") => "lower(p.name)",
        Some("path") => "lower(p.path)",
        Some("updated_at" | "last_activity_at") => "p.updated_at",
        _ => "p.id",
    };
    let direction = params.one_of("sort", &["asc", "desc"])?.unwrap_or_else(|| "desc".to_owned());
    let sql = format!(
        "SELECT forge_project(p) AS item FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE {}
           AND ($2::text IS NULL OR strpos(lower(p.name || ' ' || p.path), lower($2)) > 0)
           AND (NOT $3 OR EXISTS (SELECT 1 FROM project_members m WHERE m.user_id = $1 AND m.project_id = p.id) OR n.owner_id = $1
                OR EXISTS (SELECT 1 FROM members m WHERE m.user_id = $1 AND m.namespace_id = p.namespace_id))
           AND (NOT $4 OR n.owner_id = $1 OR EXISTS (SELECT 1 FROM members m WHERE m.user_id = $1 AND m.namespace_id = n.id AND m.access_level = 50))
         ORDER BY {order} {direction}, p.id DESC",
        access::visible()
    );
    Page::of(&params)?.rows(&app, &uri, &sql, &[&user, &search, &membership, &owned]).await
}

pub async fn of_group(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let group = groups::group(&app, &caller, &id).await?;
    of_namespace(&app, &caller, &uri, &params, "n.id = $2", group.id).await
}

pub async fn of_user(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(user): Segments<i64>,
    params: Params,
) -> Answer {
    super::users::must_exist(&app, user).await?;
    of_namespace(&app, &caller, &uri, &params, "n.kind = 'user' AND n.owner_id = $2", user).await
}

async fn of_namespace(
    app: &Shared,
    caller: &Caller,
    uri: &Uri,
    params: &Params,
    condition: &str,
    value: i64,
) -> Answer {
    let sql = format!(
        "SELECT forge_project(p) AS item FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE {condition} AND {} ORDER BY p.id DESC",
        access::visible()
    );
    Page::of(params)?.rows(app, uri, &sql, &[&caller.id, &value]).await
}

pub async fn one(State(app): State<Shared>, Anyone(caller): Anyone, Segments(id): Segments<String>) -> Answer {
    let project = access::project(&app.db, caller.as_ref(), &id).await?;
    let mut item = show(&app, project.id).await?;
    let level = |level: Option<i32>| level.map(|level| json!({ "access_level": level, "notification_level": 3 }));
    let user = caller.map(|caller| caller.id);
    let row = app
        .db
        .row(
            "SELECT (SELECT access_level FROM project_members WHERE project_id = p.id AND user_id = $2) AS own,
                    (SELECT access_level FROM members WHERE namespace_id = p.namespace_id AND user_id = $2) AS shared FROM projects p WHERE id = $1",
            &[&project.id, &user],
        )
        .await?
        .ok_or_else(|| ApiError::not_found("Project"))?;
    item["permissions"] = json!({ "project_access": level(row.get("own")), "group_access": level(row.get("shared")) });
    Ok(ok(item))
}

pub async fn create(State(app): State<Shared>, caller: Caller, params: Params) -> Answer {
    let (name, path) = match (params.text("name")?, params.text("path")?) {
        (None, None) => {
            let message = "name, path are missing, at least one parameter must be provided";
            return Err(ApiError::Refused(StatusCode::BAD_REQUEST, json!({ "error": message })));
        }
        (Some(name), None) => (name.clone(), text::slug(&name)),
        (None, Some(path)) => (path.clone(), path),
        (Some(name), Some(path)) => (name, path),
    };
    if !text::is_name(&name) {
        let why = "can contain only letters, digits, emoji, '_', '.', '+', dashes, or spaces. It must start with a letter, digit, emoji, or '_'.";
        return Err(ApiError::field("name", why));
    }
    if !text::is_path(&path) {
        let why = "can contain only letters, digits, '_', '-' and '.'. Cannot start with '-', end in '.git' or end in '.atom'";
        return Err(ApiError::field("path", why));
    }
    let namespace = namespace(&app, &caller, params.number("namespace_id")?).await?;
    let visibility = params.one_of("visibility", &VISIBILITIES)?.unwrap_or_else(|| "private".to_owned());
    let branch = params.text("default_branch")?.unwrap_or_else(|| "main".to_owned());
    if !text::is_branch(&branch) {
        return Err(ApiError::field("default_branch", "is invalid"));
    }
    let new = New {
        namespace,
        name,
        path,
        description: params.text("description")?.unwrap_or_default(),
        visibility,
        branch,
        must_pass: params.flag("only_allow_merge_if_pipeline_succeeds")?.unwrap_or(false),
        readme: params.flag("initialize_with_readme")?.unwrap_or(false),
    };
    let shared = Arc::clone(&app);
    let id = to_the_end(async move { make(&shared, &caller, &new).await }).await?;
    show(&app, id).await.map(created)
}

struct New {
    namespace: i64,
    name: String,
    path: String,
    description: String,
    visibility: String,
    branch: String,
    must_pass: bool,
    readme: bool,
}

/// The repository is made while the row is not yet to be seen: a life that ends in between leaves a folder that the next attempt takes over.
async fn make(app: &App, caller: &Caller, new: &New) -> Result<i64, ApiError> {
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let row = transaction
        .query_one(
            "INSERT INTO projects (namespace_id, path, name, description, visibility, creator_id, pipeline_must_pass)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id, (SELECT path FROM namespaces WHERE id = $1) AS namespace",
            &[&new.namespace, &new.path, &new.name, &new.description, &new.visibility, &caller.id, &new.must_pass],
        )
        .await
        .map_err(|error| {
            let taken = json!({ "name": ["has already been taken"], "path": ["has already been taken"] });
            if db::is_taken(&error) { ApiError::message(StatusCode::BAD_REQUEST, taken) } else { error.into() }
        })?;
    let id: i64 = row.get("id");
    let repository = app.git.repository(row.get("namespace"), &new.path);
    if tokio::fs::try_exists(&repository.path).await? {
        tokio::fs::remove_dir_all(&repository.path).await?;
    }
    repository.create(&new.branch).await?;
    if new.readme {
        let content = format!("# {}\n\n{}\n", new.name, new.description).trim_end().to_owned() + "\n";
        let change = Change { path: "README.md".to_owned(), action: Action::Create(content.into_bytes()) };
        let tree = repository.changed_tree(None, vec![change]).await.map_err(ApiError::internal)?;
        let author = Author::new(&caller.name, &caller.email);
        let commit = repository.commit_tree(&tree, &[], "Initial commit", &author, &author).await?;
        repository.move_branch(&new.branch, NOTHING, &commit).await?;
    }
    transaction.commit().await?;
    follow(app, id, Some(caller.id)).await?;
    Ok(id)
}

/// The namespace that a project is to be made in: the caller's own, or one in which the caller may.
async fn namespace(app: &Shared, caller: &Caller, wanted: Option<i64>) -> Result<i64, ApiError> {
    let invalid = || ApiError::field("namespace", "is not valid");
    let Some(wanted) = wanted else {
        let own = app.db.row("SELECT id FROM namespaces WHERE kind = 'user' AND owner_id = $1", &[&caller.id]).await?;
        return Ok(own.ok_or_else(invalid)?.get("id"));
    };
    let known = app.db.row("SELECT 1 FROM namespaces WHERE id = $1", &[&wanted]).await?.is_some();
    if known && access::namespace_level(&app.db, caller, wanted).await? >= DEVELOPER {
        Ok(wanted)
    } else {
        Err(invalid())
    }
}

pub async fn change(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = access::project(&app.db, Some(&caller), &id).await?;
    project.needs_writer(MAINTAINER)?;
    let name = params.text("name")?;
    if name.as_deref().is_some_and(|name| !text::is_name(name)) {
        return Err(ApiError::field("name", "is invalid"));
    }
    let visibility = params.one_of("visibility", &VISIBILITIES)?;
    let default_branch = params.text("default_branch")?;
    if let Some(branch) = &default_branch {
        let repository = app.git.repository(&project.namespace, &project.path);
        if !repository.branches().await?.contains_key(branch) {
            return Err(ApiError::field("base", "Could not change HEAD: branch does not exist"));
        }
        repository.set_head(branch).await?;
    }
    let (description, must_pass) = (params.text("description")?, params.flag("only_allow_merge_if_pipeline_succeeds")?);
    app.db
        .change(
            "UPDATE projects SET name = coalesce($2, name), visibility = coalesce($3, visibility), default_branch = coalesce($4, default_branch),
               description = coalesce($5, description), pipeline_must_pass = coalesce($6, pipeline_must_pass), updated_at = forge_now() WHERE id = $1",
            &[&project.id, &name, &visibility, &default_branch, &description, &must_pass],
        )
        .await?;
    show(&app, project.id).await.map(ok)
}

pub async fn remove(State(app): State<Shared>, caller: Caller, Segments(id): Segments<String>) -> Answer {
    let project = access::project(&app.db, Some(&caller), &id).await?;
    project.needs_writer(OWNER)?;
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    transaction.execute("UPDATE projects SET deleting = true WHERE id = $1", &[&project.id]).await?;
    transaction
        .execute(
            "UPDATE jobs SET status = 'canceled', finished_at = forge_now(), token_digest = NULL
             WHERE status IN ('created', 'pending', 'running') AND pipeline_id IN (SELECT id FROM pipelines WHERE project_id = $1)",
            &[&project.id],
        )
        .await?;
    transaction.commit().await?;
    app.work.notify_one();
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "message": "202 Accepted" }))).into_response())
}

async fn show(app: &Shared, id: i64) -> Result<Value, ApiError> {
    let row = app
        .db
        .row("SELECT forge_project(p) AS item FROM projects p WHERE p.id = $1 AND NOT p.deleting", &[&id])
        .await?;
    Ok(row.ok_or_else(|| ApiError::not_found("Project"))?.get("item"))
}
