//! Making a pipeline of a commit, inside the transaction that notes why.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::file::{self, Config, Job};
use super::{FILE, advance, rules};
use crate::access::Project;
use crate::error::ApiError;
use crate::git::Repository;

/// Why there is to be a pipeline.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// `push`, `api` or `merge_request_event`.
    pub source: &'a str,
    /// The branch.
    pub branch: &'a str,
    /// The commit.
    pub sha: &'a str,
    /// Where the branch was before.
    pub before: &'a str,
    /// Who caused it.
    pub user: Option<i64>,
    /// The merge request's id and number.
    pub merge_request: Option<(i64, i64)>,
    /// Variables that were sent along.
    pub variables: BTreeMap<String, String>,
}

/// Why there is no pipeline.
#[derive(Debug)]
pub enum Refusal {
    /// The commit has no file.
    NoFile,
    /// The file has no job for this event.
    NoJobs,
    /// The file is wrong.
    Wrong(String),
    /// It could not be found out.
    Error(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Makes a pipeline and its jobs; returns its id. With a wrong file and no one to tell (a push), it is a pipeline that has failed.
///
/// # Errors
/// Why there is none.
pub async fn create(
    transaction: &Transaction<'_>,
    repository: &Repository,
    project: &Project,
    limit_seconds: u64,
    event: &Event<'_>,
) -> Result<i64, Refusal> {
    let entry = repository.entry(event.sha, FILE).await?.ok_or(Refusal::NoFile)?;
    let text = String::from_utf8_lossy(&repository.blob(&entry.id).await?).into_owned();
    let planned = match file::read(&text) {
        Ok(config) => Ok(plan(config, project, event)),
        // A merge request's event is one of two; the push has shown the error already.
        Err(why) if event.source == "push" => Err(why),
        Err(why) => return Err(Refusal::Wrong(why)),
    };
    if planned.as_ref().is_ok_and(|(_, jobs)| jobs.is_empty()) {
        return Err(Refusal::NoJobs);
    }
    let (reference, merge_request) = match event.merge_request {
        Some((id, iid)) => (format!("refs/merge-requests/{iid}/head"), Some(id)),
        None => (event.branch.to_owned(), None),
    };
    let wrong = planned.as_ref().err();
    let row = transaction
        .query_one(
            "WITH number AS (UPDATE projects SET last_pipeline_iid = last_pipeline_iid + 1 WHERE id = $1 RETURNING last_pipeline_iid AS iid)
             INSERT INTO pipelines (project_id, iid, ref, sha, before_sha, source, status, user_id, merge_request_id, yaml_errors, finished_at)
             SELECT $1, iid, $2, $3, $4, $5, CASE WHEN $8::text IS NULL THEN 'created' ELSE 'failed' END, $6, $7, $8,
                    CASE WHEN $8::text IS NOT NULL THEN forge_now() END FROM number RETURNING id",
            &[&project.id, &reference, &event.sha, &event.before, &event.source, &event.user, &merge_request, &wrong],
        )
        .await?;
    let id: i64 = row.get("id");
    let Ok((stages, jobs)) = planned else { return Ok(id) };
    for job in jobs {
        let stage_index = stages
            .iter()
            .position(|stage| *stage == job.stage)
            .and_then(|index| i32::try_from(index).ok())
            .unwrap_or(0);
        let timeout = i32::try_from(job.timeout.unwrap_or(limit_seconds).min(limit_seconds)).unwrap_or(i32::MAX);
        let variables = serde_json::json!(job.variables);
        transaction
            .execute(
                "INSERT INTO jobs (pipeline_id, name, stage, stage_index, starts, allow_failure, tags, script, variables, timeout_seconds)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                &[
                    &id, &job.name, &job.stage, &stage_index, &job.starts.word(), &job.allow_failure, &job.tags, &job.script, &variables, &timeout,
                ],
            )
            .await?;
    }
    advance(transaction, id).await?;
    Ok(id)
}

/// The jobs that are in the pipeline of an event, with their variables complete, in the order of their stages.
fn plan(config: Config, project: &Project, event: &Event<'_>) -> (Vec<String>, Vec<Job>) {
    let known = variables(project, event);
    let mut jobs: Vec<Job> = config.jobs.into_iter().filter_map(|job| placed(job, &known, event)).collect();
    jobs.sort_by_key(|job| config.stages.iter().position(|stage| *stage == job.stage));
    (config.stages, jobs)
}

fn placed(mut job: Job, known: &BTreeMap<String, String>, event: &Event<'_>) -> Option<Job> {
    let mut all = job.variables.clone();
    all.extend(event.variables.clone());
    all.extend(known.clone());
    match &job.rules {
        // Without rules a job is one of branches, as in GitLab.
        None if event.merge_request.is_some() => return None,
        None => {}
        Some(rules) => {
            let (starts, may_fail) = rules::decide(rules, &all)?;
            job.starts = starts;
            job.allow_failure = may_fail.unwrap_or(job.allow_failure);
        }
    }
    job.variables = all;
    Some(job)
}

fn variables(project: &Project, event: &Event<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(found.insert(name.to_owned(), value.to_owned()));
    set("CI", "true");
    set("GITLAB_CI", "true");
    set("CI_PIPELINE_SOURCE", event.source);
    set("CI_COMMIT_SHA", event.sha);
    set("CI_COMMIT_SHORT_SHA", event.sha.get(..8).unwrap_or_default());
    set("CI_COMMIT_BEFORE_SHA", event.before);
    set("CI_COMMIT_REF_NAME", event.branch);
    set("CI_PROJECT_ID", &project.id.to_string());
    set("CI_PROJECT_NAME", &project.path);
    set("CI_PROJECT_PATH", &project.full_path());
    set("CI_PROJECT_NAMESPACE", &project.namespace);
    set("CI_DEFAULT_BRANCH", project.default_branch.as_deref().unwrap_or(event.branch));
    match event.merge_request {
        Some((_, iid)) => {
            set("CI_MERGE_REQUEST_IID", &iid.to_string());
            set("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", event.branch);
        }
        None => set("CI_COMMIT_BRANCH", event.branch),
    }
    found
}
