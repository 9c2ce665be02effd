//! The REST API, version 4: a file for each kind of thing.

mod files;
mod groups;
mod jobs;
mod members;
mod merge_requests;
mod pipelines;
mod projects;
mod repository;
mod runner;
mod runners;
mod tokens;
mod users;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use serde_json::{Value, json};

use crate::app::Shared;
use crate::auth::Caller;

/// Which version of GitLab's API is spoken.
const VERSION: &str = "17.11.0";

/// All routes below `<prefix>/api/v4`.
pub fn routes(prefix: &str) -> Router<Shared> {
    let at = |path: &str| format!("{prefix}/api/v4{path}");
    let project = |path: &str| format!("{prefix}/api/v4/projects/{{id}}{path}");
    let members = |kind: &str, path: &str| format!("{prefix}/api/v4/{kind}/{{id}}/members{path}");
    Router::new()
        .route(&at("/version"), get(version))
        .route(&at("/metadata"), get(version))
        .route(&at("/user"), get(users::own))
        .route(&at("/user/keys"), get(users::own_keys).post(users::add_key))
        .route(&at("/user/keys/{key}"), get(users::key).delete(users::remove_key))
        .route(&at("/user/runners"), post(runners::create))
        .route(&at("/users"), get(users::list).post(users::create))
        .route(&at("/users/{id}"), get(users::one))
        .route(&at("/users/{id}/keys"), get(users::keys))
        .route(&at("/users/{id}/block"), post(users::block))
        .route(&at("/users/{id}/unblock"), post(users::unblock))
        .route(&at("/users/{id}/projects"), get(projects::of_user))
        .route(&at("/users/{id}/personal_access_tokens"), post(tokens::create))
        .route(&at("/personal_access_tokens"), get(tokens::list))
        .route(&at("/personal_access_tokens/self"), get(tokens::own).delete(tokens::revoke_own))
        .route(&at("/personal_access_tokens/{id}"), delete(tokens::revoke))
        .route(&at("/namespaces"), get(groups::namespaces))
        .route(&at("/namespaces/{id}"), get(groups::namespace))
        .route(&at("/groups"), get(groups::list).post(groups::create))
        .route(&at("/groups/{id}"), get(groups::one))
        .route(&at("/groups/{id}/projects"), get(projects::of_group))
        .route(&members("groups", ""), get(members::of_group).post(members::add_to_group))
        .route(&members("groups", "/all"), get(members::of_group))
        .route(
            &members("groups", "/{user}"),
            get(members::one_of_group).put(members::change_in_group).delete(members::remove_from_group),
        )
        .route(&members("groups", "/all/{user}"), get(members::one_of_group))
        .route(&members("projects", ""), get(members::of_project).post(members::add_to_project))
        .route(&members("projects", "/all"), get(members::all_of_project))
        .route(
            &members("projects", "/{user}"),
            get(members::one_of_project).put(members::change_in_project).delete(members::remove_from_project),
        )
        .route(&members("projects", "/all/{user}"), get(members::any_of_project))
        .route(&at("/projects"), get(projects::list).post(projects::create))
        .route(&project(""), get(projects::one).put(projects::change).delete(projects::remove))
        .route(&project("/protected_branches"), get(repository::protected))
        .route(&project("/repository/branches"), get(repository::branches).post(repository::create_branch))
        .route(&project("/repository/branches/{branch}"), get(repository::branch).delete(repository::remove_branch))
        .route(&project("/repository/commits"), get(repository::commits).post(files::commit))
        .route(&project("/repository/commits/{sha}"), get(repository::commit))
        .route(&project("/repository/commits/{sha}/diff"), get(repository::commit_diff))
        .route(&project("/repository/tree"), get(repository::tree))
        .route(&project("/repository/compare"), get(repository::compare))
        .route(
            &project("/repository/files/{path}"),
            get(files::one).post(files::create).put(files::change).delete(files::remove),
        )
        .route(&project("/repository/files/{path}/raw"), get(files::raw))
        .route(&project("/merge_requests"), get(merge_requests::list).post(merge_requests::create))
        .route(&project("/merge_requests/{iid}"), get(merge_requests::one).put(merge_requests::change))
        .route(&project("/merge_requests/{iid}/merge"), put(merge_requests::merge))
        .route(&project("/merge_requests/{iid}/notes"), get(merge_requests::notes).post(merge_requests::add_note))
        .route(&project("/merge_requests/{iid}/notes/{note}"), get(merge_requests::note))
        .route(&project("/merge_requests/{iid}/pipelines"), get(merge_requests::pipelines))
        .route(&project("/merge_requests/{iid}/commits"), get(merge_requests::commits))
        .route(&project("/merge_requests/{iid}/changes"), get(merge_requests::changes))
        .route(&project("/merge_requests/{iid}/diffs"), get(merge_requests::diffs))
        .route(&project("/pipeline"), post(pipelines::create))
        .route(&project("/pipelines"), get(pipelines::list))
        .route(&project("/pipelines/latest"), get(pipelines::latest))
        .route(&project("/pipelines/{pipeline}"), get(pipelines::one))
        .route(&project("/pipelines/{pipeline}/jobs"), get(pipelines::jobs))
        .route(&project("/pipelines/{pipeline}/cancel"), post(pipelines::cancel))
        .route(&project("/pipelines/{pipeline}/retry"), post(pipelines::retry))
        .route(&project("/jobs"), get(jobs::list))
        .route(&project("/jobs/{job}"), get(jobs::one))
        .route(&project("/jobs/{job}/trace"), get(jobs::trace))
        .route(&project("/jobs/{job}/play"), post(jobs::play))
        .route(&at("/runners"), get(runners::list))
        .route(&at("/runners/all"), get(runners::list))
        .route(&at("/runners/verify"), post(runner::verify))
        .route(&at("/runners/{id}"), get(runners::one).put(runners::change).delete(runners::remove))
        .route(&at("/jobs/request"), post(runner::request))
        .route(&at("/jobs/{job}"), put(runner::update))
        .route(&at("/jobs/{job}/trace"), axum::routing::patch(runner::append))
}

async fn version(_: Caller) -> Response {
    let revision = concat!("rave-forge-", env!("CARGO_PKG_VERSION"));
    ok(
        json!({ "version": VERSION, "revision": revision, "enterprise": false, "kas": { "enabled": false, "externalUrl": null, "version": null } }),
    )
}

fn ok(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn created(value: Value) -> Response {
    (StatusCode::CREATED, axum::Json(value)).into_response()
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
