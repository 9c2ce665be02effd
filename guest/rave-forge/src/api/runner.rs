//! The runner's side of the API: a runner asks for a job, sends its log piece by piece, and says how it ended.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{created, ok};
use crate::app::Shared;
use crate::ci;
use crate::error::{Answer, ApiError};
use crate::params::{Params, Segments};
use crate::text;

/// Whose token it is.
async fn runner(app: &Shared, params: &Params) -> Result<Row, ApiError> {
    let token = params.needed("token")?;
    let sql = "UPDATE runners SET contacted_at = forge_now() WHERE token_digest = $1 RETURNING id, tag_list, run_untagged, paused";
    app.db.row(sql, &[&text::sha256(&token)]).await?.ok_or_else(ApiError::forbidden)
}

pub async fn verify(State(app): State<Shared>, params: Params) -> Answer {
    let found = runner(&app, &params).await?;
    Ok(ok(json!({ "id": found.get::<_, i64>("id"), "token": params.needed("token")?, "token_expires_at": null })))
}

/// Hands out the oldest job that fits the runner: 201, or 204 if there is none.
pub async fn request(State(app): State<Shared>, params: Params) -> Answer {
    let found = runner(&app, &params).await?;
    let (runner, tags, untagged): (i64, Vec<String>, bool) =
        (found.get("id"), found.get("tag_list"), found.get("run_untagged"));
    if found.get("paused") {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let token = text::token("glcbt-")?;
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let taken = transaction
        .query_opt(
            "UPDATE jobs SET status = 'running', runner_id = $1, token_digest = $4, started_at = forge_now(), heard_at = forge_now()
             WHERE id = (SELECT j.id FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id JOIN projects r ON r.id = p.project_id
               WHERE j.status = 'pending' AND NOT r.deleting AND j.tags <@ $2 AND ($3 OR j.tags <> '{}') ORDER BY j.id LIMIT 1 FOR UPDATE OF j SKIP LOCKED)
             RETURNING id, pipeline_id",
            &[&runner, &tags, &untagged, &text::sha256(&token)],
        )
        .await?;
    let Some(taken) = taken else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let (job, pipeline): (i64, i64) = (taken.get("id"), taken.get("pipeline_id"));
    ci::advance(&transaction, pipeline).await?;
    let row = transaction
        .query_one(
            "SELECT j.name, j.stage, j.script, j.variables, j.timeout_seconds, j.allow_failure, p.ref, p.sha, p.before_sha, p.iid, r.id AS project_id,
                    r.name AS project_name, n.path || '/' || r.path AS project_path
             FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id JOIN projects r ON r.id = p.project_id JOIN namespaces n ON n.id = r.namespace_id
             WHERE j.id = $1",
            &[&job],
        )
        .await?;
    transaction.commit().await?;
    Ok(created(payload(&app, job, pipeline, &token, &row)))
}

fn payload(app: &Shared, job: i64, pipeline: i64, token: &str, row: &Row) -> Value {
    let mut variables: Value = row.get("variables");
    variables["CI_JOB_ID"] = json!(job.to_string());
    variables["CI_JOB_NAME"] = json!(row.get::<_, &str>("name"));
    variables["CI_JOB_STAGE"] = json!(row.get::<_, &str>("stage"));
    variables["CI_PIPELINE_ID"] = json!(pipeline.to_string());
    variables["CI_PIPELINE_IID"] = json!(row.get::<_, i64>("iid").to_string());
    variables["CI_SERVER_URL"] = json!(app.settings.url);
    let listed: Vec<Value> = variables
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| json!({ "key": key, "value": value, "public": true, "masked": false }))
        .collect();
    let timeout: i32 = row.get("timeout_seconds");
    let (reference, path): (&str, &str) = (row.get("ref"), row.get("project_path"));
    json!({
        "id": job, "token": token, "allow_git_fetch": true,
        "job_info": { "name": row.get::<_, &str>("name"), "stage": row.get::<_, &str>("stage"),
            "project_id": row.get::<_, i64>("project_id"), "project_name": row.get::<_, &str>("project_name") },
        "git_info": { "repo_url": format!("{}/{path}.git", app.settings.url), "ref": reference, "sha": row.get::<_, &str>("sha"),
            "before_sha": row.get::<_, &str>("before_sha"), "ref_type": "branch" },
        "runner_info": { "timeout": timeout },
        "variables": listed,
        "steps": [{ "name": "script", "script": row.get::<_, Vec<String>>("script"), "timeout": timeout, "when": "on_success",
            "allow_failure": row.get::<_, bool>("allow_failure") }],
    })
}

/// Takes a piece of the log: `Content-Range: 0-99`. The answer says how far it has come and whether the job is still wanted.
pub async fn append(
    State(app): State<Shared>,
    Segments(job): Segments<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let token = headers.get("job-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    let start = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.split('-').next()?.trim().parse::<i32>().ok());
    let Some(start) = start else { return Err(ApiError::bad("400 Bad request - Missing header Content-Range")) };
    let sql = "UPDATE jobs SET heard_at = forge_now() WHERE id = $1 AND token_digest = $2 RETURNING octet_length(trace) AS size, status";
    let digest = text::sha256(token);
    let Some(row) = app.db.row(sql, &[&job, &digest]).await? else { return gone(&app, job).await };
    let size: i32 = row.get("size");
    if start != size {
        return Ok(answer(StatusCode::RANGE_NOT_SATISFIABLE, "running", size));
    }
    let limit = i32::try_from(app.settings.limits.trace_bytes).unwrap_or(i32::MAX);
    // What is too much is left out, and the log says so once.
    let room = usize::try_from((limit - size).max(0)).unwrap_or(0);
    let mut piece = body.get(..room.min(body.len())).unwrap_or_default().to_vec();
    if room > 0 && piece.len() < body.len() {
        piece.extend_from_slice(b"\n[the log is too long: the rest is left out]\n");
        piece.truncate(body.len());
    }
    let sql = "UPDATE jobs SET trace = trace || $3 WHERE id = $1 AND token_digest = $2 AND octet_length(trace) = $4 RETURNING octet_length(trace) AS size";
    let size = app.db.row(sql, &[&job, &digest, &piece, &size]).await?.map_or(size, |row| row.get("size"));
    Ok(answer(StatusCode::ACCEPTED, "running", size))
}

/// Takes the end of a job. Said twice, it is the same end.
pub async fn update(State(app): State<Shared>, Segments(job): Segments<i64>, params: Params) -> Answer {
    let token = params.needed("token")?;
    let state =
        params.one_of("state", &["pending", "running", "success", "failed"])?.unwrap_or_else(|| "running".to_owned());
    let reason = params.text("failure_reason")?;
    let digest = text::sha256(&token);
    let mut client = app.db.client().await?;
    let transaction = client.transaction().await?;
    let ended = matches!(state.as_str(), "success" | "failed");
    let failed = (state == "failed").then(|| reason.unwrap_or_else(|| "script_failure".to_owned()));
    let row = transaction
        .query_opt(
            "UPDATE jobs SET heard_at = forge_now(), status = CASE WHEN $3 THEN $4 ELSE status END, failure_reason = $5,
               finished_at = CASE WHEN $3 THEN forge_now() END, token_digest = CASE WHEN $3 THEN NULL ELSE token_digest END
             WHERE id = $1 AND token_digest = $2 AND status = 'running' RETURNING pipeline_id",
            &[&job, &digest, &ended, &state, &failed],
        )
        .await?;
    let Some(row) = row else {
        drop(transaction);
        return gone(&app, job).await;
    };
    ci::advance(&transaction, row.get(0)).await?;
    transaction.commit().await?;
    app.work.notify_one();
    let mut response = ok(Value::Null);
    set_status(&mut response, &state);
    Ok(response)
}

/// The job has ended meanwhile, or was never this token's: 403, with how it ended.
async fn gone(app: &Shared, job: i64) -> Answer {
    let row = app.db.row("SELECT status FROM jobs WHERE id = $1", &[&job]).await?;
    let status = row.map_or_else(|| "canceled".to_owned(), |row| row.get::<_, String>("status"));
    let mut response = ApiError::forbidden_because("Job is not running").into_response();
    set_status(&mut response, &status);
    Ok(response)
}

fn answer(code: StatusCode, status: &str, size: i32) -> Response {
    let mut response = (code, format!("{}\n", code.as_u16())).into_response();
    set_status(&mut response, status);
    if let Ok(range) = HeaderValue::from_str(&format!("0-{size}")) {
        response.headers_mut().insert(header::RANGE, range);
    }
    response
}

fn set_status(response: &mut Response, status: &str) {
    if let Ok(value) = HeaderValue::from_str(status) {
        response.headers_mut().insert("job-status", value);
    }
}
