//! Files, and commits that change them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::repository::{may_push, must_resolve, readable, url};
use super::{created, no_content, ok};
use crate::access::{DEVELOPER, Project};
use crate::app::{App, Shared, to_the_end};
use crate::auth::{Anyone, Caller};
use crate::error::{Answer, ApiError};
use crate::follow::follow;
use crate::git::{Action, Author, Change, ChangeError, Entry, Moved, NOTHING, Repository};
use crate::params::{Params, Segments};
use crate::text;

/// The most changes of one commit.
const CHANGES: usize = 500;

/// A commit that is to be made.
struct Plan {
    branch: String,
    start: Option<String>,
    message: String,
    author: Author,
    changes: Vec<Change>,
}

pub async fn one(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments((id, path)): Segments<(String, String)>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let name = params.text("ref")?;
    let commit = must_resolve(&project, &repository, name.clone()).await?;
    let (entry, content) = content(&app, &repository, &commit, &path).await?;
    let last = repository.log(&["--max-count=1", &commit, "--", &path]).await?;
    Ok(ok(json!({
        "file_name": path.rsplit('/').next(), "file_path": path, "size": content.len(), "encoding": "base64",
        "content": base64::engine::general_purpose::STANDARD.encode(&content), "content_sha256": text::hex(&Sha256::digest(&content)),
        "ref": name.or(project.default_branch), "blob_id": entry.id, "commit_id": commit, "execute_filemode": entry.mode == "100755",
        "last_commit_id": last.first().map(|commit| commit.id.as_str()),
    })))
}

pub async fn raw(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments((id, path)): Segments<(String, String)>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let commit = must_resolve(&project, &repository, params.text("ref")?).await?;
    let (entry, content) = content(&app, &repository, &commit, &path).await?;
    let kind = if content.contains(&0) { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A browser must not take what lies in a repository for a page of this site.
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    for (name, value) in [("x-gitlab-blob-id", &entry.id), ("x-gitlab-commit-id", &commit)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

async fn content(app: &App, repository: &Repository, commit: &str, path: &str) -> Result<(Entry, Vec<u8>), ApiError> {
    let entry = repository
        .entry(commit, path)
        .await?
        .filter(|entry| entry.kind == "blob")
        .ok_or_else(|| ApiError::not_found("File"))?;
    if repository.size(&entry.id).await? > app.settings.limits.blob_bytes {
        return Err(ApiError::message(
            StatusCode::PAYLOAD_TOO_LARGE,
            "413 Request Entity Too Large - the file is too large for the API; clone it",
        ));
    }
    let content = repository.blob(&entry.id).await?;
    Ok((entry, content))
}

pub async fn commit(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let actions = params.value("actions").ok_or_else(|| ApiError::missing("actions"))?;
    let actions = actions.as_array().ok_or_else(|| ApiError::invalid("actions"))?;
    if actions.len() > CHANGES {
        return Err(ApiError::bad(format!("a commit may have {CHANGES} actions")));
    }
    let changes = actions.iter().map(change_of).collect::<Result<Vec<_>, _>>()?;
    if changes.is_empty() {
        return Err(ApiError::Refused(StatusCode::BAD_REQUEST, json!({ "error": "actions is empty" })));
    }
    let plan = plan(&caller, &params, changes)?;
    let id = run(&app, &caller, &project, &repository, plan).await?;
    let mut item = repository.commit(&id).await?.json(&url(&app, &project));
    item["stats"] = json!({ "additions": null, "deletions": null, "total": null });
    item["status"] = Value::Null;
    item["project_id"] = json!(project.id);
    Ok(created(item))
}

/// `POST …/files/:path`
pub async fn create(
    state: State<Shared>,
    caller: Caller,
    segments: Segments<(String, String)>,
    params: Params,
) -> Answer {
    single(state, caller, segments, params, "create").await.map(created)
}

/// `PUT …/files/:path`
pub async fn change(
    state: State<Shared>,
    caller: Caller,
    segments: Segments<(String, String)>,
    params: Params,
) -> Answer {
    single(state, caller, segments, params, "update").await.map(ok)
}

/// `DELETE …/files/:path`
pub async fn remove(
    state: State<Shared>,
    caller: Caller,
    segments: Segments<(String, String)>,
    params: Params,
) -> Answer {
    single(state, caller, segments, params, "delete").await.map(|_| no_content())
}

async fn single(
    State(app): State<Shared>,
    caller: Caller,
    Segments((id, path)): Segments<(String, String)>,
    params: Params,
    action: &str,
) -> Result<Value, ApiError> {
    let (project, repository) = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let mut fields = json!({ "action": action, "file_path": path, "encoding": params.text("encoding")? });
    if action != "delete" {
        fields["content"] = json!(params.text("content")?.ok_or_else(|| ApiError::missing("content"))?);
    }
    let plan = plan(&caller, &params, vec![change_of(&fields)?])?;
    let branch = plan.branch.clone();
    run(&app, &caller, &project, &repository, plan).await?;
    Ok(json!({ "file_path": path, "branch": branch }))
}

fn plan(caller: &Caller, params: &Params, changes: Vec<Change>) -> Result<Plan, ApiError> {
    let branch = params.needed("branch")?;
    if !text::is_branch(&branch) {
        return Err(ApiError::bad("You can only create or edit files when you are on a branch"));
    }
    let name = params.text("author_name")?.unwrap_or_else(|| caller.name.clone());
    let email = params.text("author_email")?.unwrap_or_else(|| caller.email.clone());
    Ok(Plan {
        branch,
        start: params.text("start_branch")?.map_or_else(|| params.text("start_sha"), |branch| Ok(Some(branch)))?,
        message: params.needed("commit_message")?,
        author: Author::new(&name, &email),
        changes,
    })
}

async fn run(
    app: &Shared,
    caller: &Caller,
    project: &Project,
    repository: &Repository,
    plan: Plan,
) -> Result<String, ApiError> {
    may_push(app, project, &plan.branch).await?;
    let (app, caller, project, repository) = (Arc::clone(app), caller.clone(), project.clone(), repository.clone());
    to_the_end(async move {
        let _alone = app.lock(project.id).await;
        let mut branches = repository.branches().await?;
        let there = branches.remove(&plan.branch);
        let base = match (&there, &plan.start) {
            (Some(commit), None) => Some(commit.clone()),
            (Some(commit), Some(start)) if *start == plan.branch => Some(commit.clone()),
            (Some(_), Some(_)) => {
                let message = format!(
                    "A branch called '{}' already exists. Switch to that branch in order to make changes",
                    plan.branch
                );
                return Err(ApiError::bad(message));
            }
            (None, Some(start)) => {
                let commit = repository.resolve(start).await?;
                Some(commit.ok_or_else(|| ApiError::bad(format!("Cannot find start_branch or start_sha '{start}'")))?)
            }
            // The first commit of all makes the branch.
            (None, None) if branches.is_empty() => None,
            (None, None) => return Err(ApiError::bad("You can only create or edit files when you are on a branch")),
        };
        let tree = repository.changed_tree(base.as_deref(), plan.changes).await.map_err(|error| match error {
            ChangeError::Unfit(why) => ApiError::bad(why),
            other => ApiError::internal(text::chain(&other)),
        })?;
        let parents: Vec<&str> = base.as_deref().into_iter().collect();
        let committer = Author::new(&caller.name, &caller.email);
        let commit = repository.commit_tree(&tree, &parents, &plan.message, &plan.author, &committer).await?;
        let before = there.as_deref().unwrap_or(NOTHING);
        if repository.move_branch(&plan.branch, before, &commit).await? == Moved::No {
            return Err(ApiError::bad("Could not update branch. Please refresh and try again"));
        }
        follow(&app, project.id, Some(caller.id)).await?;
        Ok(commit)
    })
    .await
}

fn change_of(value: &Value) -> Result<Change, ApiError> {
    let fields = value.as_object().ok_or_else(|| ApiError::invalid("actions"))?;
    let path = text_of(fields, "file_path")?.ok_or_else(|| ApiError::missing("actions[0][file_path]"))?;
    let base64 = text_of(fields, "encoding")?.is_some_and(|encoding| encoding == "base64");
    let content = match text_of(fields, "content")? {
        None => None,
        Some(text) if base64 => {
            let plain: String = text.split_whitespace().collect();
            let decoded = base64::engine::general_purpose::STANDARD.decode(plain);
            Some(decoded.map_err(|_| ApiError::bad("400 Bad request - the content is not base64"))?)
        }
        Some(text) => Some(text.into_bytes()),
    };
    let needed = |content: Option<Vec<u8>>| content.ok_or_else(|| ApiError::missing("actions[0][content]"));
    let action = match text_of(fields, "action")?.as_deref() {
        None => return Err(ApiError::missing("actions[0][action]")),
        Some("create") => Action::Create(content.unwrap_or_default()),
        Some("update") => Action::Update(needed(content)?),
        Some("delete") => Action::Delete,
        Some("move") => {
            let from =
                text_of(fields, "previous_path")?.ok_or_else(|| ApiError::bad("You must provide a previous_path"))?;
            Action::Move { from, content }
        }
        Some("chmod") => {
            let executable = fields.get("execute_filemode").and_then(Value::as_bool);
            Action::Mode { executable: executable.ok_or_else(|| ApiError::missing("actions[0][execute_filemode]"))? }
        }
        Some(_) => return Err(ApiError::not_a_valid_value("actions[0][action]")),
    };
    Ok(Change { path: path.trim_start_matches('/').to_owned(), action })
}

fn text_of(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(ApiError::invalid(&format!("actions[0][{name}]"))),
    }
}
