//! What is done outside requests: at the start what an earlier life left, then merge checks, removals, silent jobs, and merges that wait for
//! a pipeline. Woken when there is something to do, and every few seconds in case nobody said so.

use std::sync::PoisonError;
use std::time::Duration;

use crate::access;
use crate::app::{App, Shared};
use crate::error::ApiError;
use crate::follow::follow;
use crate::git::Tried;
use crate::merge::{self, Order};
use crate::{ci, setup};

/// How long the worker sleeps if nobody wakes it.
const NAP: Duration = Duration::from_secs(2);

/// Works for ever. Says that the program is ready once what an earlier life left is settled.
pub async fn run(app: Shared) {
    while let Err(error) = start(&app).await {
        say("could not start yet", &error);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    app.set_ready();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready");
    loop {
        for (what, outcome) in [
            ("unfinished merges", merge::settle(&app).await),
            ("moved branches", catch_up(&app).await),
            ("merge checks", check_merges(&app).await),
            ("removals", remove_projects(&app).await),
            ("silent jobs", fail_silent_jobs(&app).await),
            ("waiting merges", merge_on_success(&app).await),
        ] {
            if let Err(error) = outcome {
                say(what, &error);
            }
        }
        let _ = tokio::time::timeout(NAP, app.work.notified()).await;
    }
}

async fn start(app: &App) -> Result<(), ApiError> {
    setup::check_schema(&app.db).await?;
    app.db.change("UPDATE merge_requests SET merge_status = 'unchecked' WHERE merge_status = 'checking'", &[]).await?;
    merge::settle(app).await?;
    for row in app.db.rows("SELECT id FROM projects WHERE NOT deleting ORDER BY id", &[]).await? {
        let id: i64 = row.get("id");
        if let Err(error) = follow(app, id, None).await {
            match error {
                ApiError::Unavailable(_) => return Err(error),
                // One broken repository must not keep all others from being served.
                _ => say(&format!("project {id}"), &error),
            }
        }
    }
    Ok(())
}

/// Does what followed from moved branches and could not be done then.
async fn catch_up(app: &App) -> Result<(), ApiError> {
    let behind = app.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for project in behind {
        follow(app, project, None).await?;
    }
    Ok(())
}

/// Finds out, one by one, which merge requests could be merged.
async fn check_merges(app: &App) -> Result<(), ApiError> {
    loop {
        let taken = app
            .db
            .row(
                "UPDATE merge_requests SET merge_status = 'checking' WHERE id = (SELECT id FROM merge_requests
                   WHERE state = 'opened' AND merge_status = 'unchecked' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
                 RETURNING id, project_id, sha, target_branch",
                &[],
            )
            .await?;
        let Some(row) = taken else { return Ok(()) };
        let (id, project, sha): (i64, i64, &str) = (row.get("id"), row.get("project_id"), row.get("sha"));
        let (status, base) = match check_one(app, project, sha, row.get("target_branch")).await {
            Ok(found) => found,
            Err(error) => {
                app.db.change("UPDATE merge_requests SET merge_status = 'unchecked' WHERE id = $1 AND merge_status = 'checking'", &[&id]).await?;
                return Err(error);
            }
        };
        // If a branch has moved meanwhile, it is unchecked again, and this is of no use.
        app.db
            .change(
                "UPDATE merge_requests SET merge_status = $2, base_sha = $4 WHERE id = $1 AND merge_status = 'checking' AND sha = $3",
                &[&id, &status, &sha, &base],
            )
            .await?;
    }
}

async fn check_one(
    app: &App,
    project: i64,
    sha: &str,
    target: &str,
) -> Result<(&'static str, Option<String>), ApiError> {
    let Some(project) = access::find(&app.db, None, &project.to_string()).await? else {
        return Ok(("cannot_be_merged", None));
    };
    let repository = app.git.repository(&project.namespace, &project.path);
    let Some(target) = repository.branches().await?.remove(target) else { return Ok(("cannot_be_merged", None)) };
    let base = repository.merge_base(&target, sha).await?;
    let status = match repository.try_merge(&target, sha).await? {
        Tried::Clean { .. } => "can_be_merged",
        Tried::Contained => "no_commits",
        Tried::Conflict | Tried::Unrelated => "cannot_be_merged",
    };
    Ok((status, base))
}

/// Removes what was asked to be deleted: first the repository, which nobody can reach any more, then the row.
async fn remove_projects(app: &App) -> Result<(), ApiError> {
    let sql = "SELECT p.id, p.path, n.path AS namespace FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.deleting";
    for row in app.db.rows(sql, &[]).await? {
        let id: i64 = row.get("id");
        let _alone = app.lock(id).await;
        let repository = app.git.repository(row.get("namespace"), row.get("path"));
        match tokio::fs::remove_dir_all(&repository.path).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        app.db.change("DELETE FROM projects WHERE id = $1 AND deleting", &[&id]).await?;
    }
    Ok(())
}

/// A job whose runner says nothing any more, or that runs for far too long, has failed.
async fn fail_silent_jobs(app: &App) -> Result<(), ApiError> {
    let silent = i64::try_from(app.settings.limits.silent_job.as_secs()).unwrap_or(i64::MAX);
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let failed = transaction
        .query(
            "UPDATE jobs SET status = 'failed', failure_reason = 'stuck_or_timeout_failure', finished_at = forge_now(), token_digest = NULL
             WHERE status = 'running' AND (heard_at < forge_now() - $1::bigint * interval '1 second'
                OR started_at < forge_now() - (timeout_seconds + $1::bigint) * interval '1 second') RETURNING pipeline_id",
            &[&silent],
        )
        .await?;
    for row in failed {
        ci::advance(&transaction, row.get(0)).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Merges what was to be merged once its pipeline has succeeded.
async fn merge_on_success(app: &App) -> Result<(), ApiError> {
    let sql = "SELECT m.id, m.project_id, u.id AS user_id, u.name, u.email FROM merge_requests m JOIN users u ON u.id = m.merged_by
               WHERE m.state = 'opened' AND m.merge_on_success AND m.merge_status = 'can_be_merged' AND (forge_head_pipeline(m)).status = 'success'";
    for row in app.db.rows(sql, &[]).await? {
        let (id, project): (i64, i64) = (row.get("id"), row.get("project_id"));
        let Some(project) = access::find(&app.db, None, &project.to_string()).await? else { continue };
        let user = (row.get("user_id"), row.get("name"), row.get("email"));
        let order = Order { id, user, sha: None, message: None, remove_source: None };
        match merge::merge(app, &project, order).await {
            Ok(()) => {}
            Err(ApiError::Refused(..)) => {
                app.db.change("UPDATE merge_requests SET merge_on_success = false WHERE id = $1", &[&id]).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn say(what: &str, error: &ApiError) {
    match error {
        ApiError::Unavailable(cause) => tracing::warn!("{what}: the database is away: {cause}"),
        other => tracing::error!("{what}: {other:?}"),
    }
}
