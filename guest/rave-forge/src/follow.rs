//! What follows when branches have moved, whoever moved them: merge requests learn of it and pipelines are made. The table `branches` holds
//! what was followed up; it is written together with what follows, so nothing follows twice and nothing is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use tokio_postgres::Transaction;

use crate::access::{self, Project};
use crate::app::App;
use crate::ci::{self, Event, Refusal};
use crate::error::ApiError;
use crate::git::{NOTHING, Repository};

/// A branch that is not where it was.
struct Step<'a> {
    name: &'a str,
    before: &'a str,
    now: &'a str,
}

/// Looks at a project's branches and does what follows. `user` is who moved them, if that is known. If it cannot be done now, the worker
/// does it later.
///
/// # Errors
/// If the database is away or git cannot be asked.
pub async fn follow(app: &App, project: i64, user: Option<i64>) -> Result<(), ApiError> {
    let behind = || app.behind.lock().unwrap_or_else(PoisonError::into_inner);
    behind().insert(project);
    look(app, project, user).await?;
    behind().remove(&project);
    Ok(())
}

async fn look(app: &App, project: i64, user: Option<i64>) -> Result<(), ApiError> {
    let Some(mut project) = access::find(&app.db, None, &project.to_string()).await? else { return Ok(()) };
    let repository = app.git.repository(&project.namespace, &project.path);
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    // One at a time: what is read of the repository must still hold when it is written down.
    let locked = transaction
        .query_opt("SELECT default_branch FROM projects WHERE id = $1 AND NOT deleting FOR UPDATE", &[&project.id])
        .await?;
    let Some(locked) = locked else { return Ok(()) };
    project.default_branch = locked.get(0);

    let now = repository.branches().await?;
    let rows = transaction.query("SELECT name, sha FROM branches WHERE project_id = $1", &[&project.id]).await?;
    let before: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    if now == before {
        return Ok(());
    }
    choose_default(&transaction, &repository, &mut project, &now).await?;
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    for name in names {
        let at =
            |branches: &BTreeMap<String, String>| branches.get(name).cloned().unwrap_or_else(|| NOTHING.to_owned());
        let (old, new) = (at(&before), at(&now));
        if old != new {
            let step = Step { name, before: &old, now: &new };
            one(app, &transaction, &repository, &project, &step, user).await?;
        }
    }
    transaction.execute("UPDATE projects SET updated_at = forge_now() WHERE id = $1", &[&project.id]).await?;
    transaction.commit().await?;
    app.work.notify_one();
    Ok(())
}

/// The first branch becomes the default one, and protected, as in GitLab.
async fn choose_default(
    transaction: &Transaction<'_>,
    repository: &Repository,
    project: &mut Project,
    now: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    if project.default_branch.is_some() {
        return Ok(());
    }
    let Some(first) = ["main", "master"]
        .into_iter()
        .find(|name| now.contains_key(*name))
        .or_else(|| now.keys().next().map(String::as_str))
    else {
        return Ok(());
    };
    repository.set_head(first).await?;
    transaction.execute("UPDATE projects SET default_branch = $2 WHERE id = $1", &[&project.id, &first]).await?;
    transaction
        .execute(
            "INSERT INTO protected_branches (project_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&project.id, &first],
        )
        .await?;
    project.default_branch = Some(first.to_owned());
    Ok(())
}

async fn one(
    app: &App,
    transaction: &Transaction<'_>,
    repository: &Repository,
    project: &Project,
    step: &Step<'_>,
    user: Option<i64>,
) -> Result<(), ApiError> {
    // What moved on its target may have been merged by hand, or may conflict now.
    let aimed = transaction
        .query(
            "SELECT id, sha FROM merge_requests WHERE project_id = $1 AND target_branch = $2 AND state = 'opened'",
            &[&project.id, &step.name],
        )
        .await?;
    for row in aimed {
        let (id, sha): (i64, String) = (row.get(0), row.get(1));
        let merged = step.before != NOTHING
            && step.now != NOTHING
            && repository.contains(step.now, &sha).await?
            && !repository.contains(step.before, &sha).await?;
        let sql = if merged {
            "UPDATE merge_requests SET state = 'merged', merged_at = forge_now(), merged_by = $2, merge_commit_sha = $3, updated_at = forge_now() WHERE id = $1"
        } else {
            "UPDATE merge_requests SET merge_status = 'unchecked' WHERE id = $1 AND $2::bigint IS NOT DISTINCT FROM $2 AND $3::text IS NOT NULL"
        };
        transaction.execute(sql, &[&id, &user, &step.now]).await?;
    }
    if step.now == NOTHING {
        transaction
            .execute("DELETE FROM branches WHERE project_id = $1 AND name = $2", &[&project.id, &step.name])
            .await?;
        return Ok(());
    }
    transaction
        .execute(
            "INSERT INTO branches (project_id, name, sha) VALUES ($1, $2, $3) ON CONFLICT (project_id, name) DO UPDATE SET sha = excluded.sha",
            &[&project.id, &step.name, &step.now],
        )
        .await?;
    let moved = transaction
        .query(
            "UPDATE merge_requests SET sha = $3, merge_status = 'unchecked', updated_at = forge_now(), merge_on_success = false
             WHERE project_id = $1 AND source_branch = $2 AND state = 'opened' RETURNING id, iid",
            &[&project.id, &step.name, &step.now],
        )
        .await?;
    pipeline(app, transaction, repository, project, step, user, None).await?;
    for row in moved {
        let (id, iid): (i64, i64) = (row.get(0), row.get(1));
        repository.keep(&format!("refs/merge-requests/{iid}/head"), step.now).await?;
        pipeline(app, transaction, repository, project, step, user, Some((id, iid))).await?;
    }
    Ok(())
}

async fn pipeline(
    app: &App,
    transaction: &Transaction<'_>,
    repository: &Repository,
    project: &Project,
    step: &Step<'_>,
    user: Option<i64>,
    merge_request: Option<(i64, i64)>,
) -> Result<(), ApiError> {
    let event = Event {
        source: if merge_request.is_some() { "merge_request_event" } else { "push" },
        branch: step.name,
        sha: step.now,
        before: step.before,
        user,
        merge_request,
        variables: BTreeMap::new(),
    };
    let message = repository.commit(step.now).await?.message.to_ascii_lowercase();
    if message.contains("[ci skip]") || message.contains("[skip ci]") {
        return Ok(());
    }
    match ci::create(transaction, repository, project, app.settings.limits.job.as_secs(), &event).await {
        Ok(_) | Err(Refusal::NoFile | Refusal::NoJobs | Refusal::Wrong(_)) => Ok(()),
        Err(Refusal::Error(error)) => Err(error),
    }
}

/// Makes the pipeline of a merge request that was just opened, if its file has jobs for that.
///
/// # Errors
/// If the database is away or git cannot be asked.
pub async fn opened(
    app: &App,
    transaction: &Transaction<'_>,
    project: &Project,
    branch: &str,
    sha: &str,
    merge_request: (i64, i64),
    user: i64,
) -> Result<(), ApiError> {
    let repository = app.git.repository(&project.namespace, &project.path);
    let step = Step { name: branch, before: NOTHING, now: sha };
    pipeline(app, transaction, &repository, project, &step, Some(user), Some(merge_request)).await
}
