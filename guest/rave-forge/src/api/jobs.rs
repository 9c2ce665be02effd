//! Jobs and their logs, as users see them.

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::IntoResponse as _;
use serde_json::Value;

use super::ok;
use super::pipelines::readable;
use crate::access::{DEVELOPER, Project};
use crate::app::Shared;
use crate::auth::{Anyone, Caller};
use crate::ci;
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};

type Two = Segments<(String, i64)>;

async fn show(app: &Shared, project: &Project, job: i64) -> Result<Value, ApiError> {
    let sql = "SELECT forge_job(j) AS item FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id WHERE p.project_id = $1 AND j.id = $2";
    Ok(app.db.row(sql, &[&project.id, &job]).await?.ok_or_else(|| ApiError::not_found("Job"))?.get("item"))
}

pub async fn list(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let scope = params.list("scope")?;
    let sql = "SELECT forge_job(j) AS item FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id
        WHERE p.project_id = $1 AND ($2::text[] IS NULL OR j.status = ANY ($2)) ORDER BY j.id DESC";
    Page::of(&params)?.rows(&app, &uri, sql, &[&project.id, &scope]).await
}

pub async fn one(State(app): State<Shared>, Anyone(caller): Anyone, Segments((id, job)): Two) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    show(&app, &project, job).await.map(ok)
}

pub async fn trace(State(app): State<Shared>, Anyone(caller): Anyone, Segments((id, job)): Two) -> Answer {
    let project = readable(&app, caller.as_ref(), &id).await?;
    let sql =
        "SELECT j.trace FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id WHERE p.project_id = $1 AND j.id = $2";
    let trace: Vec<u8> = app.db.row(sql, &[&project.id, &job]).await?.ok_or_else(|| ApiError::not_found("Job"))?.get(0);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], trace).into_response())
}

pub async fn play(State(app): State<Shared>, caller: Caller, Segments((id, job)): Two) -> Answer {
    let project = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    show(&app, &project, job).await?;
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let sql = "UPDATE jobs SET status = 'pending' WHERE id = $1 AND status = 'manual' RETURNING pipeline_id";
    let row = transaction.query_opt(sql, &[&job]).await?.ok_or_else(|| ApiError::bad("Unplayable Job"))?;
    ci::advance(&transaction, row.get(0)).await?;
    transaction.commit().await?;
    show(&app, &project, job).await.map(ok)
}
