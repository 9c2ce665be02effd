//! Pipelines.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{created, ok};
use crate::access::{self, DEVELOPER, Project, REPORTER};
use crate::app::Shared;
use crate::auth::{Anyone, Caller};
use crate::ci::{self, Event, Refusal};
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};

type Two = Segments<(String, i64)>;

pub(super) async fn readable(app: &Shared, caller: Option<&Caller>, id: &str) -> Result<Project, ApiError> {
    let project = access::project(&app.db, caller, id).await?;
    project.needs(REPORTER)?;
    Ok(project)
}

async fn show(app: &Shared, project: &Project, id: i64) -> Result<Value, ApiError> {
    let sql = "SELECT forge_pipeline_whole(p) AS item FROM pipelines p WHERE p.project_id = $1 AND p.id = $2";
    Ok(app.db.row(sql, &[&project.id, &id]).await?.ok_or_else(|| ApiError::not_found("Pipeline"))?.get("item"))
}

pub async fn list(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let (sha, name, source) = (params.text("sha")?, params.text("ref")?, params.text("source")?);
    let statuses = [
        "created",
        "waiting_for_resource",
        "preparing",
        "pending",
        "running",
        "success",
        "failed",
        "canceling",
        "canceled",
        "skipped",
        "manual",
        "scheduled",
    ];
    let status = params.one_of("status", &statuses)?;
    let direction = params.one_of("sort", &["asc", "desc"])?.unwrap_or_else(|| "desc".to_owned());
    let sql = format!(
        "SELECT forge_pipeline(p) AS item FROM pipelines p WHERE p.project_id = $1 AND ($2::text IS NULL OR p.sha = $2) AND ($3::text IS NULL OR p.ref = $3)
           AND ($4::text IS NULL OR p.source = $4) AND ($5::text IS NULL OR p.status = $5) ORDER BY p.id {direction}"
    );
    Page::of(&params)?.rows(&app, &uri, &sql, &[&project.id, &sha, &name, &source, &status]).await
}

pub async fn one(State(app): State<Shared>, Anyone(caller): Anyone, Segments((id, pipeline)): Two) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    show(&app, &project, pipeline).await.map(ok)
}

pub async fn latest(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let name = params.text("ref")?.or_else(|| project.default_branch.clone());
    let sql = "SELECT id FROM pipelines WHERE project_id = $1 AND ref = $2 ORDER BY id DESC LIMIT 1";
    let row = app.db.row(sql, &[&project.id, &name]).await?.ok_or_else(|| ApiError::not_found("Pipeline"))?;
    show(&app, &project, row.get("id")).await.map(ok)
}

pub async fn jobs(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, pipeline)): Two,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    show(&app, &project, pipeline).await?;
    let scope = params.list("scope")?;
    let retried = params.flag("include_retried")?.unwrap_or(false);
    let sql = "SELECT forge_job(j) AS item FROM jobs j WHERE j.pipeline_id = $1 AND ($2 OR NOT j.retried) AND ($3::text[] IS NULL OR j.status = ANY ($3))
        ORDER BY j.id DESC";
    Page::of(&params)?.rows(&app, &uri, sql, &[&pipeline, &retried, &scope]).await
}

pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let name = params.needed("ref")?;
    let variables = variables(params.value("variables"))?;
    let refused = |text: &str| ApiError::message(axum::http::StatusCode::BAD_REQUEST, json!({ "base": [text] }));
    let repository = app.git.repository(&project.namespace, &project.path);
    let Some(sha) = repository.branches().await?.remove(&name) else { return Err(refused("Reference not found")) };
    let event = Event {
        source: "api",
        branch: &name,
        sha: &sha,
        before: crate::git::NOTHING,
        user: Some(caller.id),
        merge_request: None,
        variables,
    };
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let made = ci::create(&transaction, &repository, &project, app.settings.limits.job.as_secs(), &event).await;
    let pipeline = made.map_err(|refusal| match refusal {
        Refusal::NoFile => refused("Missing CI config file"),
        Refusal::NoJobs => refused("Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."),
        Refusal::Wrong(why) => refused(&why),
        Refusal::Error(error) => error,
    })?;
    transaction.commit().await?;
    show(&app, &project, pipeline).await.map(created)
}

pub async fn cancel(State(app): State<Shared>, caller: Caller, Segments((id, pipeline)): Two) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    show(&app, &project, pipeline).await?;
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    ci::cancel(&transaction, pipeline).await?;
    transaction.commit().await?;
    show(&app, &project, pipeline).await.map(created)
}

/// What failed or was canceled runs again, and what was skipped because of it.
pub async fn retry(State(app): State<Shared>, caller: Caller, Segments((id, pipeline)): Two) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    show(&app, &project, pipeline).await?;
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    transaction.execute("SELECT 1 FROM pipelines WHERE id = $1 FOR UPDATE", &[&pipeline]).await?;
    transaction
        .execute(
            "WITH old AS (UPDATE jobs SET retried = true WHERE pipeline_id = $1 AND NOT retried AND status IN ('failed', 'canceled', 'skipped')
               RETURNING pipeline_id, name, stage, stage_index, starts, allow_failure, tags, script, variables, timeout_seconds)
             INSERT INTO jobs (pipeline_id, name, stage, stage_index, starts, allow_failure, tags, script, variables, timeout_seconds) SELECT * FROM old",
            &[&pipeline],
        )
        .await?;
    ci::advance(&transaction, pipeline).await?;
    transaction.commit().await?;
    show(&app, &project, pipeline).await.map(created)
}

/// `[{"key": …, "value": …}]`
fn variables(value: Option<&Value>) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let list = value.as_array().filter(|list| list.len() <= 50).ok_or_else(|| ApiError::invalid("variables"))?;
    let pair = |entry: &Value| {
        let (key, value) = (entry.get("key")?.as_str()?, entry.get("value")?.as_str()?);
        ci::is_variable(key).then(|| (key.to_owned(), value.to_owned()))
    };
    list.iter().map(pair).collect::<Option<_>>().ok_or_else(|| ApiError::invalid("variables"))
}
