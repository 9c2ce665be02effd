//! Branches, commits and trees.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{created, no_content, ok};
use crate::access::{self, DEVELOPER, Project, REPORTER};
use crate::app::{App, Shared, to_the_end};
use crate::auth::{Anyone, Caller};
use crate::error::{Answer, ApiError};
use crate::follow::follow;
use crate::git::{Moved, NOTHING, Repository};
use crate::page::Page;
use crate::params::{Params, Segments};
use crate::text;

/// A project whose code the caller may read, and its repository.
pub(super) async fn readable(app: &App, caller: Option<&Caller>, id: &str) -> Result<(Project, Repository), ApiError> {
    let project = access::project(&app.db, caller, id).await?;
    project.needs(REPORTER)?;
    let repository = app.git.repository(&project.namespace, &project.path);
    Ok((project, repository))
}

/// What stands before the path of everything of a project.
pub(super) fn url(app: &App, project: &Project) -> String {
    format!("{}/{}", app.settings.url, project.full_path())
}

/// The commit that a request means: of `ref`, or of the default branch.
pub(super) async fn wanted(
    project: &Project,
    repository: &Repository,
    name: Option<String>,
) -> Result<Option<String>, ApiError> {
    match name.or_else(|| project.default_branch.clone()) {
        Some(name) => Ok(repository.resolve(&name).await?),
        None => Ok(None),
    }
}

/// As [`wanted`], with 404 if there is none.
pub(super) async fn must_resolve(
    project: &Project,
    repository: &Repository,
    name: Option<String>,
) -> Result<String, ApiError> {
    wanted(project, repository, name).await?.ok_or_else(|| ApiError::not_found("Commit"))
}

pub async fn branches(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let search = params.text("search")?.unwrap_or_default();
    let names: Vec<String> = repository.branches().await?.into_keys().filter(|name| name.contains(&search)).collect();
    let page = Page::of(&params)?;
    // Only what is shown is looked up.
    let first = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    let mut list = vec![Value::Null; names.len()];
    for (number, name) in names.iter().enumerate().skip(first).take(100) {
        list[number] = show(&app, &project, &repository, name).await?;
    }
    Ok(page.of_list(&app, &uri, list))
}

pub async fn branch(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments((id, name)): Segments<(String, String)>,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    show(&app, &project, &repository, &name).await.map(ok)
}

pub async fn create_branch(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let (name, from) = (params.needed("branch")?, params.needed("ref")?);
    if !text::is_branch(&name) {
        return Err(ApiError::bad("Branch name is invalid"));
    }
    may_push(&app, &project, &name).await?;
    let commit =
        repository.resolve(&from).await?.ok_or_else(|| ApiError::bad(format!("Invalid reference name: {from}")))?;
    let (shared, place, at, branch) = (Arc::clone(&app), project.clone(), repository.clone(), name.clone());
    to_the_end(async move {
        let _alone = shared.lock(place.id).await;
        if at.branches().await?.contains_key(&branch) {
            return Err(ApiError::bad("Branch already exists"));
        }
        if at.move_branch(&branch, NOTHING, &commit).await? == Moved::No {
            return Err(ApiError::bad(format!("Failed to create branch '{branch}': invalid reference name '{from}'")));
        }
        follow(&shared, place.id, Some(caller.id)).await
    })
    .await?;
    show(&app, &project, &repository, &name).await.map(created)
}

pub async fn remove_branch(
    State(app): State<Shared>,
    caller: Caller,
    Segments((id, name)): Segments<(String, String)>,
) -> Answer {
    let (project, repository) = readable(&app, Some(&caller), &id).await?;
    project.needs_writer(DEVELOPER)?;
    let commit = repository.branches().await?.remove(&name).ok_or_else(|| ApiError::not_found("Branch"))?;
    if project.default_branch.as_deref() == Some(name.as_str()) {
        return Err(ApiError::message(axum::http::StatusCode::METHOD_NOT_ALLOWED, "Default branch cannot be deleted"));
    }
    may_push(&app, &project, &name).await?;
    to_the_end(async move {
        let _alone = app.lock(project.id).await;
        match repository.move_branch(&name, &commit, NOTHING).await? {
            Moved::Yes => follow(&app, project.id, Some(caller.id)).await,
            Moved::No => Err(ApiError::bad("Failed to remove branch")),
        }
    })
    .await?;
    Ok(no_content())
}

/// Whether the caller may move a branch directly.
pub(super) async fn may_push(app: &App, project: &Project, branch: &str) -> Result<(), ApiError> {
    let (needed, _) = access::branch_levels(&app.db, project.id, branch).await?;
    if project.level >= needed {
        Ok(())
    } else {
        Err(ApiError::forbidden_because("You are not allowed to push into this branch"))
    }
}

pub async fn protected(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = access::project(&app.db, Some(&caller), &id).await?;
    project.needs(REPORTER)?;
    let sql =
        "SELECT jsonb_build_object('name', name, 'allow_force_push', false, 'code_owner_approval_required', false,
        'push_access_levels', jsonb_build_array(jsonb_build_object('access_level', push_level)),
        'merge_access_levels', jsonb_build_array(jsonb_build_object('access_level', merge_level))) AS item
        FROM protected_branches WHERE project_id = $1 ORDER BY name";
    Page::of(&params)?.rows(&app, &uri, sql, &[&project.id]).await
}

pub async fn commits(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let page = Page::of(&params)?;
    let Some(start) = wanted(&project, &repository, params.text("ref_name")?).await? else {
        return if params.value("ref_name").is_some() {
            Err(ApiError::not_found("Commit"))
        } else {
            Ok(page.of_list(&app, &uri, Vec::new()))
        };
    };
    let path = params.text("path")?.filter(|path| text::is_file(path));
    let mut selection = vec!["--max-count=10000", start.as_str(), "--"];
    selection.extend(path.as_deref());
    let total = repository.count(&selection).await?;
    let skip = format!("--skip={}", page.offset());
    let mut part = vec!["--max-count=100", skip.as_str(), start.as_str(), "--"];
    part.extend(path.as_deref());
    let found = repository.log(&part).await?;
    let mut list = vec![Value::Null; total];
    let first = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    for (place, commit) in list.iter_mut().skip(first).zip(found) {
        *place = commit.json(&url(&app, &project));
    }
    Ok(page.of_list(&app, &uri, list))
}

pub async fn commit(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments((id, sha)): Segments<(String, String)>,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let sha = must_resolve(&project, &repository, Some(sha)).await?;
    let mut item = repository.commit(&sha).await?.json(&url(&app, &project));
    let sql = "SELECT forge_pipeline(p) AS item, status FROM pipelines p WHERE project_id = $1 AND sha = $2 ORDER BY id DESC LIMIT 1";
    let pipeline = app.db.row(sql, &[&project.id, &sha]).await?;
    item["status"] = json!(pipeline.as_ref().map(|row| row.get::<_, String>("status")));
    item["last_pipeline"] = json!(pipeline.map(|row| row.get::<_, Value>("item")));
    item["project_id"] = json!(project.id);
    Ok(ok(item))
}

pub async fn commit_diff(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments((id, sha)): Segments<(String, String)>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let sha = must_resolve(&project, &repository, Some(sha)).await?;
    let commit = repository.commit(&sha).await?;
    let before = commit.parents.first().map_or(EMPTY_TREE, String::as_str);
    Ok(Page::of(&params)?.of_list(&app, &uri, repository.diff(before, &sha).await?))
}

/// The tree without files, which every repository has.
pub(super) const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

pub async fn tree(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let commit =
        wanted(&project, &repository, params.text("ref")?).await?.ok_or_else(|| ApiError::not_found("Tree"))?;
    let folder = params.text("path")?.unwrap_or_default();
    if !folder.trim_matches('/').is_empty() && !text::is_file(folder.trim_matches('/')) {
        return Err(ApiError::not_found("Tree"));
    }
    let entries = repository.tree(&commit, &folder, params.flag("recursive")?.unwrap_or(false)).await?;
    if entries.is_empty() && !folder.is_empty() {
        return Err(ApiError::message(axum::http::StatusCode::NOT_FOUND, "404 invalid revision or path Not Found"));
    }
    let show = |entry: crate::git::Entry| {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        json!({ "id": entry.id, "name": name, "type": entry.kind, "path": entry.path, "mode": entry.mode })
    };
    Ok(Page::of(&params)?.of_list(&app, &uri, entries.into_iter().map(show).collect()))
}

pub async fn compare(
    State(app): State<Shared>,
    Anyone(caller): Anyone,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let (project, repository) = readable(&app, caller.as_ref(), &id).await?;
    let (from, to) = (params.needed("from")?, params.needed("to")?);
    let missing = || ApiError::not_found("Ref");
    let from = repository.resolve(&from).await?.ok_or_else(missing)?;
    let to = repository.resolve(&to).await?.ok_or_else(missing)?;
    let straight = params.flag("straight")?.unwrap_or(false);
    let base = if straight { Some(from.clone()) } else { repository.merge_base(&from, &to).await? };
    let commits = repository.log(&["--max-count=500", "--reverse", &format!("{from}..{to}")]).await?;
    let commits: Vec<Value> = commits.iter().map(|commit| commit.json(&url(&app, &project))).collect();
    let diffs = repository.diff(base.as_deref().unwrap_or(&from), &to).await?;
    let web = format!("{}/-/compare/{from}...{to}", url(&app, &project));
    Ok(ok(json!({
        "commit": commits.last(), "commits": commits, "diffs": diffs, "compare_timeout": false, "compare_same_ref": from == to, "web_url": web,
    })))
}

async fn show(app: &App, project: &Project, repository: &Repository, name: &str) -> Result<Value, ApiError> {
    let missing = || ApiError::not_found("Branch");
    if !text::is_branch(name) {
        return Err(missing());
    }
    let commit = repository.branches().await?.remove(name).ok_or_else(missing)?;
    let sql = "SELECT push_level FROM protected_branches WHERE project_id = $1 AND name = $2";
    let protected: Option<i32> = app.db.row(sql, &[&project.id, &name]).await?.map(|row| row.get(0));
    let default = project.default_branch.as_deref() == Some(name);
    Ok(json!({
        "name": name, "commit": repository.commit(&commit).await?.json(&url(app, project)), "merged": false, "protected": protected.is_some(),
        "developers_can_push": protected.is_none_or(|level| level <= DEVELOPER), "developers_can_merge": protected.is_none_or(|level| level <= DEVELOPER),
        "can_push": project.level >= protected.unwrap_or(DEVELOPER), "default": default,
        "web_url": format!("{}/-/tree/{}", url(app, project), text::encode(name)),
    }))
}
