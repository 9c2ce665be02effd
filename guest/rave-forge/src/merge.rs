//! Merging a merge request. The commit is made first, then noted (`locked`), then the branch moves, then it is noted that all is done. A life
//! that ends in between leaves a `locked` one, and the next life looks at the branch to see which of both it is: merged, or open as before.

use serde_json::Value;
use tokio_postgres::Row;

use crate::access::{self, Project};
use crate::app::App;
use crate::error::ApiError;
use crate::follow::follow;
use crate::git::{Author, Moved, NOTHING, Repository, Tried};

/// How often a merge starts anew because the target has moved.
const TRIES: usize = 5;

/// What is to be merged, and for whom.
#[derive(Debug, Clone)]
pub struct Order {
    /// The merge request's id.
    pub id: i64,
    /// Whose merge it is: id, name and address.
    pub user: (i64, String, String),
    /// The commit that the caller has seen.
    pub sha: Option<String>,
    /// Another message.
    pub message: Option<String>,
    /// Whether the source branch goes.
    pub remove_source: Option<bool>,
}

/// Merges; returns when the merge request is merged.
///
/// # Errors
/// 405 if it is not to be merged now, 409 if its commit is another, 422 if git cannot merge it.
pub async fn merge(app: &App, project: &Project, order: Order) -> Result<(), ApiError> {
    let _alone = app.lock(project.id).await;
    let repository = app.git.repository(&project.namespace, &project.path);
    for _ in 0..TRIES {
        let state = app
            .db
            .row("SELECT m.*, forge_merge_status(m) AS detailed FROM merge_requests m WHERE id = $1", &[&order.id])
            .await?
            .ok_or_else(|| ApiError::not_found("Merge request"))?;
        allowed(&state, order.sha.as_deref())?;
        let (source, target): (&str, &str) = (state.get("sha"), state.get("target_branch"));
        let Some(before) = repository.branches().await?.remove(target) else { return Err(unmergeable()) };
        let Tried::Clean { tree } = repository.try_merge(&before, source).await? else { return Err(unmergeable()) };
        let message = order.message.clone().unwrap_or_else(|| message(project, &state));
        let author = Author::new(&order.user.1, &order.user.2);
        let commit = repository.commit_tree(&tree, &[&before, source], &message, &author, &author).await?;
        let noted = app
            .db
            .change(
                "UPDATE merge_requests SET state = 'locked', merge_commit_sha = $2, merged_by = $3, remove_source = coalesce($4, remove_source),
                   base_sha = coalesce($6, base_sha) WHERE id = $1 AND state = 'opened' AND sha = $5",
                &[&order.id, &commit, &order.user.0, &order.remove_source, &source, &repository.merge_base(&before, source).await?],
            )
            .await?;
        if noted == 0 {
            continue; // a push came between
        }
        if repository.move_branch(target, &before, &commit).await? == Moved::Yes {
            finish(app, &repository, order.id).await?;
            return follow(app, project.id, Some(order.user.0)).await;
        }
        reopen(app, order.id).await?;
    }
    Err(unmergeable())
}

/// Settles what was left between two states: by an earlier life, or because the database went away.
///
/// # Errors
/// If the database is away or git cannot be asked.
pub async fn settle(app: &App) -> Result<(), ApiError> {
    let left = app
        .db
        .rows("SELECT id, project_id, target_branch, merge_commit_sha FROM merge_requests WHERE state = 'locked'", &[])
        .await?;
    for row in left {
        let (id, project): (i64, i64) = (row.get("id"), row.get("project_id"));
        let _alone = app.lock(project).await;
        if app.db.row("SELECT 1 FROM merge_requests WHERE id = $1 AND state = 'locked'", &[&id]).await?.is_none() {
            continue; // it was being merged by this life, and now is
        }
        let Some(project) = access::find(&app.db, None, &project.to_string()).await? else { continue };
        let repository = app.git.repository(&project.namespace, &project.path);
        let target = repository.branches().await?.remove(row.get::<_, &str>("target_branch"));
        let done = match (target, row.get::<_, Option<&str>>("merge_commit_sha")) {
            (Some(target), Some(commit)) => repository.contains(&target, commit).await.unwrap_or(false),
            _ => false,
        };
        tracing::info!(
            "merge request {id} was being merged: {}",
            if done { "it is merged" } else { "it is open again" }
        );
        if done { finish(app, &repository, id).await? } else { reopen(app, id).await? }
    }
    Ok(())
}

/// The branch has moved: what is left is to say so. May be done again.
async fn finish(app: &App, repository: &Repository, id: i64) -> Result<(), ApiError> {
    let row = app
        .db
        .row("SELECT m.source_branch, m.sha, m.remove_source, m.project_id, (p.default_branch = m.source_branch) AS is_default
               FROM merge_requests m JOIN projects p ON p.id = m.project_id WHERE m.id = $1", &[&id])
        .await?
        .ok_or_else(|| ApiError::not_found("Merge request"))?;
    if row.get("remove_source") && row.get::<_, Option<bool>>("is_default") != Some(true) {
        // If it has gone on since, it stays.
        repository.move_branch(row.get("source_branch"), row.get("sha"), NOTHING).await?;
    }
    app.db
        .change("UPDATE merge_requests SET state = 'merged', merged_at = forge_now(), updated_at = forge_now(), merge_on_success = false WHERE id = $1 AND state = 'locked'", &[&id])
        .await?;
    Ok(())
}

async fn reopen(app: &App, id: i64) -> Result<(), ApiError> {
    app.db
        .change(
            "UPDATE merge_requests SET state = 'opened', merge_commit_sha = NULL, merged_by = NULL, merge_status = CASE merge_status WHEN 'can_be_merged' THEN merge_status ELSE 'unchecked' END
             WHERE id = $1 AND state = 'locked'",
            &[&id],
        )
        .await?;
    app.work.notify_one();
    Ok(())
}

fn allowed(state: &Row, sha: Option<&str>) -> Result<(), ApiError> {
    match state.get::<_, &str>("detailed") {
        "mergeable" => {}
        "conflict" => return Err(unmergeable()),
        _ => return Err(ApiError::not_allowed()),
    }
    let head: &str = state.get("sha");
    if sha.is_some_and(|sha| sha != head) {
        return Err(ApiError::conflict(Value::String(format!("SHA does not match HEAD of source branch: {head}"))));
    }
    Ok(())
}

fn unmergeable() -> ApiError {
    ApiError::message(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "Branch cannot be merged")
}

fn message(project: &Project, state: &Row) -> String {
    let (source, target, title, iid): (&str, &str, &str, i64) =
        (state.get("source_branch"), state.get("target_branch"), state.get("title"), state.get("iid"));
    format!("Merge branch '{source}' into '{target}'\n\n{title}\n\nSee merge request {}!{iid}\n", project.full_path())
}
