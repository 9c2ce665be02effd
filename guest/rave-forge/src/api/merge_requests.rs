//! Merge requests and their notes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::repository::url;
use super::{created, ok};
use crate::access::{self, DEVELOPER, Project, REPORTER};
use crate::app::{Shared, to_the_end};
use crate::auth::{Anyone, Caller};
use crate::db;
use crate::error::{Answer, ApiError};
use crate::follow;
use crate::merge::{self, Order};
use crate::page::Page;
use crate::params::{Params, Segments};

const TITLE: usize = 255;
const BODY: usize = 100_000;

type Two = Segments<(String, i64)>;

/// A project whose merge requests the caller may see.
async fn readable(app: &Shared, caller: Option<&Caller>, id: &str) -> Result<Project, ApiError> {
    let project = access::project(&app.db, caller, id).await?;
    project.needs(REPORTER)?;
    Ok(project)
}

async fn find(app: &Shared, project: &Project, iid: i64) -> Result<Row, ApiError> {
    let sql = "SELECT m.*, forge_merge_status(m) AS detailed, (forge_head_pipeline(m)).status AS pipeline_status FROM merge_requests m
        WHERE project_id = $1 AND iid = $2";
    app.db
        .row(sql, &[&project.id, &iid])
        .await?
        .ok_or_else(|| ApiError::message(axum::http::StatusCode::NOT_FOUND, "404 Not found"))
}

async fn show(app: &Shared, id: i64) -> Result<Value, ApiError> {
    let row =
        app.db.row("SELECT forge_merge_request_whole(m) AS item FROM merge_requests m WHERE id = $1", &[&id]).await?;
    Ok(row.ok_or_else(|| ApiError::not_found("Merge request"))?.get("item"))
}

pub async fn list(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let state =
        params.one_of("state", &["opened", "closed", "locked", "merged", "all"])?.filter(|state| state != "all");
    let (source, target) = (params.text("source_branch")?, params.text("target_branch")?);
    let (author, search) = (params.text("author_username")?, params.text("search")?);
    let order = match params.one_of("order_by", &["created_at", "updated_at", "title", "merged_at"])?.as_deref() {
        Some("updated_at") => "m.updated_at",
        Some("title") => "m.title",
        Some("merged_at") => "m.merged_at",
        _ => "m.id",
    };
    let direction = params.one_of("sort", &["asc", "desc"])?.unwrap_or_else(|| "desc".to_owned());
    let sql = format!(
        "SELECT forge_merge_request(m) AS item FROM merge_requests m JOIN users u ON u.id = m.author_id WHERE m.project_id = $1
           AND ($2::text IS NULL OR m.state = $2) AND ($3::text IS NULL OR m.source_branch = $3) AND ($4::text IS NULL OR m.target_branch = $4)
           AND ($5::text IS NULL OR lower(u.username) = lower($5)) AND ($6::text IS NULL OR strpos(lower(m.title || ' ' || m.description), lower($6)) > 0)
         ORDER BY {order} {direction}, m.id DESC"
    );
    Page::of(&params)?.rows(&app, &uri, &sql, &[&project.id, &state, &source, &target, &author, &search]).await
}

pub async fn one(State(app): State<Shared>, Anyone(caller): Anyone, Segments((id, iid)): Two) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let row = find(&app, &project, iid).await?;
    let mut item = show(&app, row.get("id")).await?;
    let level = project.level;
    let (_, merge_level) = access::branch_levels(&app.db, project.id, row.get("target_branch")).await?;
    item["user"] = json!({ "can_merge": level >= merge_level });
    Ok(ok(item))
}

pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let (source, target, title) =
        (params.needed("source_branch")?, params.needed("target_branch")?, params.needed("title")?);
    let description = params.text("description")?.unwrap_or_default();
    check_texts(Some(&title), Some(&description))?;
    if params.number("target_project_id")?.is_some_and(|target| target != project.id) {
        return Err(ApiError::not_found("Target project"));
    }
    let remove = params.flag("remove_source_branch")?.unwrap_or(false);
    let unfit = |text: String| ApiError::conflict(json!([text]));
    if source == target {
        let text = "You can't use same project/branch for source and target";
        return Err(ApiError::message(axum::http::StatusCode::UNPROCESSABLE_ENTITY, json!([text])));
    }
    let repository = app.git.repository(&project.namespace, &project.path);
    let branches = repository.branches().await?;
    let missing =
        |kind: &str, name: &str| ApiError::bad(json!([format!("{kind} branch \"{name}\" does not exist")]).to_string());
    let Some(sha) = branches.get(&source).cloned() else { return Err(missing("Source", &source)) };
    if !branches.contains_key(&target) {
        return Err(missing("Target", &target));
    }
    let shared = Arc::clone(&app);
    let id = to_the_end(async move {
        let mut client = shared.db.client().await?;
        let transaction = client.transaction().await?;
        let row = transaction
            .query_one(
                "WITH number AS (UPDATE projects SET last_mr_iid = last_mr_iid + 1, updated_at = forge_now() WHERE id = $1 RETURNING last_mr_iid AS iid)
                 INSERT INTO merge_requests (project_id, iid, source_branch, target_branch, title, description, author_id, sha, remove_source)
                 SELECT $1, iid, $2, $3, $4, $5, $6, $7, $8 FROM number RETURNING id, iid",
                &[&project.id, &source, &target, &title, &description, &caller.id, &sha, &remove],
            )
            .await;
        let row = match row {
            Ok(row) => row,
            Err(error) if db::is_taken(&error) => {
                drop(transaction);
                let sql = "SELECT iid FROM merge_requests WHERE project_id = $1 AND source_branch = $2 AND target_branch = $3 AND state IN ('opened', 'locked')";
                let iid: i64 = shared.db.row(sql, &[&project.id, &source, &target]).await?.map_or(0, |row| row.get(0));
                return Err(unfit(format!("Another open merge request already exists for this source branch: !{iid}")));
            }
            Err(error) => return Err(error.into()),
        };
        let (id, iid): (i64, i64) = (row.get("id"), row.get("iid"));
        repository.keep(&format!("refs/merge-requests/{iid}/head"), &sha).await?;
        follow::opened(&shared, &transaction, &project, &source, &sha, (id, iid), caller.id).await?;
        transaction.commit().await?;
        shared.work.notify_one();
        // A push may have come between looking at the branch and noting it.
        if repository.branches().await?.get(&source) != Some(&sha) {
            shared.db.change("DELETE FROM branches WHERE project_id = $1 AND name = $2 AND sha <> $3", &[&project.id, &source, &sha]).await?;
            follow::follow(&shared, project.id, Some(caller.id)).await?;
        }
        Ok(id)
    })
    .await?;
    show(&app, id).await.map(created)
}

pub async fn change(State(app): State<Shared>, caller: Caller, Segments((id, iid)): Two, params: Params) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    let row = find(&app, &project, iid).await?;
    let (number, state): (i64, &str) = (row.get("id"), row.get("state"));
    if row.get::<_, i64>("author_id") != caller.id {
        project.needs_writer(DEVELOPER)?;
    }
    let (title, description) = (params.text("title")?, params.text("description")?);
    check_texts(title.as_deref(), description.as_deref())?;
    if title.as_deref().is_some_and(|title| title.trim().is_empty()) {
        return Err(ApiError::field("title", "can't be blank"));
    }
    let remove = params.flag("remove_source_branch")?;
    let event = params.one_of("state_event", &["close", "reopen"])?;
    let known = [
        "title",
        "description",
        "remove_source_branch",
        "state_event",
        "target_branch",
        "assignee_id",
        "labels",
        "squash",
        "reviewer_ids",
    ];
    if !known.iter().any(|name| params.value(name).is_some()) {
        let message = "assignee_id, description, labels, remove_source_branch, reviewer_ids, squash, state_event, target_branch, title are missing, at least one parameter must be provided";
        return Err(ApiError::Refused(axum::http::StatusCode::BAD_REQUEST, json!({ "error": message })));
    }
    let state = match (event.as_deref(), state) {
        (Some("close"), "opened") => Some("closed"),
        (Some("reopen"), "closed") => Some("opened"),
        _ => None,
    };
    let closed = state == Some("closed");
    let changed = app
        .db
        .change(
            "UPDATE merge_requests SET title = coalesce($2, title), description = coalesce($3, description), remove_source = coalesce($4, remove_source),
               state = coalesce($5, state), merge_status = CASE WHEN $5 = 'opened' THEN 'unchecked' ELSE merge_status END, updated_at = forge_now(),
               closed_at = CASE WHEN $6 THEN forge_now() WHEN $5 = 'opened' THEN NULL ELSE closed_at END,
               closed_by = CASE WHEN $6 THEN $7::bigint WHEN $5 = 'opened' THEN NULL ELSE closed_by END
             WHERE id = $1 AND ($5::text IS NULL OR state IN ('opened', 'closed'))",
            &[&number, &title, &description, &remove, &state, &closed, &caller.id],
        )
        .await;
    match changed {
        Err(ApiError::Internal(cause)) if cause.contains("merge_requests_open") => {
            Err(ApiError::conflict(json!(["Another open merge request already exists for this source branch"])))
        }
        Err(error) => Err(error),
        Ok(0) => Err(ApiError::conflict("the merge request is being merged")),
        Ok(_) => {
            app.work.notify_one();
            show(&app, number).await.map(ok)
        }
    }
}

pub async fn merge(State(app): State<Shared>, caller: Caller, Segments((id, iid)): Two, params: Params) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    let row = find(&app, &project, iid).await?;
    let number: i64 = row.get("id");
    let (_, needed) = access::branch_levels(&app.db, project.id, row.get("target_branch")).await?;
    if project.level < needed {
        return Err(ApiError::unauthorized());
    }
    let remove_source = params.flag("should_remove_source_branch")?;
    let later =
        params.flag("merge_when_pipeline_succeeds")?.unwrap_or(false) || params.flag("auto_merge")?.unwrap_or(false);
    let running = matches!(row.get::<_, Option<&str>>("pipeline_status"), Some("created" | "pending" | "running"));
    let order = Order {
        id: number,
        user: (caller.id, caller.name.clone(), caller.email.clone()),
        sha: params.text("sha")?.filter(|sha| !sha.is_empty()),
        message: params.text("merge_commit_message")?,
        remove_source,
    };
    if later && running && matches!(row.get::<_, &str>("detailed"), "mergeable" | "ci_still_running") {
        let head: &str = row.get("sha");
        if order.sha.as_deref().is_some_and(|sha| sha != head) {
            return Err(ApiError::conflict(format!("SHA does not match HEAD of source branch: {head}")));
        }
        let sql = "UPDATE merge_requests SET merge_on_success = true, merged_by = $2, remove_source = coalesce($3, remove_source) WHERE id = $1 AND state = 'opened'";
        app.db.change(sql, &[&number, &caller.id, &remove_source]).await?;
        return show(&app, number).await.map(ok);
    }
    let shared = Arc::clone(&app);
    to_the_end(async move { merge::merge(&shared, &project, order).await }).await?;
    show(&app, number).await.map(ok)
}

pub async fn notes(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, iid)): Two,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let number: i64 = find(&app, &project, iid).await?.get("id");
    let direction = params.one_of("sort", &["asc", "desc"])?.unwrap_or_else(|| "desc".to_owned());
    let sql =
        format!("SELECT forge_note(t) AS item FROM notes t WHERE t.merge_request_id = $1 ORDER BY t.id {direction}");
    Page::of(&params)?.rows(&app, &uri, &sql, &[&number]).await
}

pub async fn note(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments((id, iid, note)): Segments<(String, i64, i64)>,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let number: i64 = find(&app, &project, iid).await?.get("id");
    let sql = "SELECT forge_note(t) AS item FROM notes t WHERE t.merge_request_id = $1 AND t.id = $2";
    Ok(ok(app.db.row(sql, &[&number, &note]).await?.ok_or_else(|| ApiError::not_found("Note"))?.get("item")))
}

pub async fn add_note(State(app): State<Shared>, caller: Caller, Segments((id, iid)): Two, params: Params) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    let number: i64 = find(&app, &project, iid).await?.get("id");
    // Where everybody may read, everybody who is signed in may comment.
    project.needs(REPORTER)?;
    let body = params.needed("body")?;
    check_texts(None, Some(&body))?;
    let sql = "INSERT INTO notes AS t (merge_request_id, author_id, body) VALUES ($1, $2, $3) RETURNING t.id";
    let note: i64 =
        app.db.row(sql, &[&number, &caller.id, &body]).await?.ok_or_else(|| ApiError::not_found("Note"))?.get("id");
    let row = app.db.row("SELECT forge_note(t) AS item FROM notes t WHERE t.id = $1", &[&note]).await?;
    Ok(created(row.ok_or_else(|| ApiError::not_found("Note"))?.get("item")))
}

pub async fn pipelines(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, iid)): Two,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let number: i64 = find(&app, &project, iid).await?.get("id");
    let sql = "SELECT forge_pipeline(p) AS item FROM pipelines p JOIN merge_requests m ON m.id = $1 AND p.project_id = m.project_id
        WHERE p.merge_request_id = m.id OR (p.ref = m.source_branch AND p.sha = m.sha) ORDER BY p.id DESC";
    Page::of(&params)?.rows(&app, &uri, sql, &[&number]).await
}

pub async fn commits(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, iid)): Two,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let row = find(&app, &project, iid).await?;
    let repository = app.git.repository(&project.namespace, &project.path);
    let sha: &str = row.get("sha");
    let range = match base(&repository, &row).await? {
        Some(base) => format!("{base}..{sha}"),
        None => sha.to_owned(),
    };
    let commits = repository.log(&["--max-count=500", &range]).await?;
    let list = commits.iter().map(|commit| commit.json(&url(&app, &project))).collect();
    Ok(Page::of(&params)?.of_list(&app, &uri, list))
}

pub async fn changes(State(app): State<Shared>, Anyone(caller): Anyone, Segments((id, iid)): Two) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let row = find(&app, &project, iid).await?;
    let diffs = differences(&app, &project, &row).await?;
    let mut item = show(&app, row.get("id")).await?;
    item["changes_count"] = json!(diffs.len().to_string());
    item["changes"] = json!(diffs);
    item["overflow"] = json!(false);
    Ok(ok(item))
}

pub async fn diffs(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, iid)): Two,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let row = find(&app, &project, iid).await?;
    Ok(Page::of(&params)?.of_list(&app, &uri, differences(&app, &project, &row).await?))
}

async fn differences(app: &Shared, project: &Project, row: &Row) -> Result<Vec<Value>, ApiError> {
    let repository = app.git.repository(&project.namespace, &project.path);
    let base = base(&repository, row).await?;
    Ok(repository.diff(base.as_deref().unwrap_or(super::repository::EMPTY_TREE), row.get("sha")).await?)
}

/// Where the two branches parted: noted by the merge check, else looked up.
async fn base(repository: &crate::git::Repository, row: &Row) -> Result<Option<String>, ApiError> {
    if let Some(base) = row.get::<_, Option<String>>("base_sha") {
        return Ok(Some(base));
    }
    match repository.branches().await?.remove(row.get::<_, &str>("target_branch")) {
        Some(target) => Ok(repository.merge_base(&target, row.get("sha")).await?),
        None => Ok(None),
    }
}

fn check_texts(title: Option<&str>, body: Option<&str>) -> Result<(), ApiError> {
    if title.is_some_and(|title| title.chars().count() > TITLE) {
        return Err(ApiError::field("title", "is too long (maximum is 255 characters)"));
    }
    if body.is_some_and(|body| body.len() > BODY) {
        return Err(ApiError::field("body", "is too long"));
    }
    Ok(())
}
