//! Moving a pipeline on: which jobs may start, and what its own status is, as a function of its jobs.

use tokio_postgres::{Error, Transaction};

/// A job as this module sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    id: i64,
    stage: i32,
    status: String,
    starts: String,
    may_fail: bool,
}

/// Looks at a pipeline's jobs, starts what may start, and writes down what the pipeline is. Call it whenever a job's status has changed.
///
/// # Errors
/// If the database is away.
pub async fn advance(transaction: &Transaction<'_>, pipeline: i64) -> Result<(), Error> {
    transaction.execute("SELECT 1 FROM pipelines WHERE id = $1 FOR UPDATE", &[&pipeline]).await?;
    let rows = transaction
        .query(
            "SELECT id, stage_index, status, starts, allow_failure FROM jobs WHERE pipeline_id = $1 AND NOT retried ORDER BY stage_index, id",
            &[&pipeline],
        )
        .await?;
    let mut jobs: Vec<Seen> = rows
        .iter()
        .map(|row| Seen {
            id: row.get(0),
            stage: row.get(1),
            status: row.get(2),
            starts: row.get(3),
            may_fail: row.get(4),
        })
        .collect();
    if jobs.is_empty() {
        return Ok(());
    }
    for (id, status) in next(&mut jobs) {
        let finished = status == "skipped";
        transaction
            .execute(
                "UPDATE jobs SET status = $2, finished_at = CASE WHEN $3 THEN forge_now() END WHERE id = $1",
                &[&id, &status, &finished],
            )
            .await?;
    }
    let status = overall(&jobs);
    let ended = is_final(status);
    transaction
        .execute(
            "UPDATE pipelines SET status = $2, updated_at = forge_now(),
               started_at = coalesce(started_at, CASE WHEN $2 IN ('running', 'success', 'failed') THEN forge_now() END),
               finished_at = CASE WHEN $3 THEN coalesce(finished_at, forge_now()) END
             WHERE id = $1 AND (status <> $2 OR $3 <> (finished_at IS NOT NULL))",
            &[&pipeline, &status, &ended],
        )
        .await?;
    Ok(())
}

/// Cancels what has not ended of a pipeline.
///
/// # Errors
/// If the database is away.
pub async fn cancel(transaction: &Transaction<'_>, pipeline: i64) -> Result<(), Error> {
    transaction.execute("SELECT 1 FROM pipelines WHERE id = $1 FOR UPDATE", &[&pipeline]).await?;
    transaction
        .execute(
            "UPDATE jobs SET status = 'canceled', finished_at = forge_now(), token_digest = NULL
             WHERE pipeline_id = $1 AND status IN ('created', 'pending', 'running', 'manual')",
            &[&pipeline],
        )
        .await?;
    advance(transaction, pipeline).await
}

/// Whether nothing more happens to what has this status.
fn is_final(status: &str) -> bool {
    matches!(status, "success" | "failed" | "canceled" | "skipped")
}

/// The jobs whose status changes now, stage by stage; applied to `jobs` too.
fn next(jobs: &mut [Seen]) -> Vec<(i64, &'static str)> {
    let mut changes = Vec::new();
    let stages: std::collections::BTreeSet<i32> = jobs.iter().map(|job| job.stage).collect();
    let mut failed = false;
    for stage in stages {
        for job in jobs.iter_mut().filter(|job| job.stage == stage && job.status == "created") {
            let status = match job.starts.as_str() {
                "manual" if !failed => "manual",
                "always" => "pending",
                "on_failure" if failed => "pending",
                "on_success" if !failed => "pending",
                _ => "skipped",
            };
            status.clone_into(&mut job.status);
            changes.push((job.id, status));
        }
        let here = || jobs.iter().filter(|job| job.stage == stage);
        let waits = |job: &Seen| !(is_final(&job.status) || (job.status == "manual" && job.may_fail));
        if here().any(waits) {
            break;
        }
        failed |= here().any(|job| !job.may_fail && matches!(job.status.as_str(), "failed" | "canceled"));
    }
    changes
}

/// What the pipeline is, given its jobs.
fn overall(jobs: &[Seen]) -> &'static str {
    let any = |status: &str| jobs.iter().any(|job| job.status == status);
    let blocked = jobs.iter().any(|job| job.status == "manual" && !job.may_fail);
    if any("running") {
        "running"
    } else if any("pending") {
        if jobs.iter().any(|job| matches!(job.status.as_str(), "success" | "failed")) { "running" } else { "pending" }
    } else if blocked {
        "manual"
    } else if any("created") {
        if any("success") { "running" } else { "created" }
    } else if jobs.iter().any(|job| job.status == "failed" && !job.may_fail) {
        "failed"
    } else if any("canceled") {
        "canceled"
    } else if any("success") || any("failed") {
        "success"
    } else if any("manual") {
        "manual"
    } else {
        "skipped"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `stage status[!][/starts]`: an exclamation mark means that it may fail.
    fn check(given: &[&str], jobs_after: &[&str], pipeline: &str) {
        let job = |(id, text): (usize, &&str)| {
            let (stage, rest) = text.split_once(' ').unwrap();
            let (status, starts) = rest.split_once('/').unwrap_or((rest, "on_success"));
            Seen {
                id: i64::try_from(id).unwrap(),
                stage: stage.parse().unwrap(),
                status: status.trim_end_matches('!').to_owned(),
                starts: starts.to_owned(),
                may_fail: status.ends_with('!'),
            }
        };
        let mut jobs: Vec<Seen> = given.iter().enumerate().map(job).collect();
        next(&mut jobs);
        let found: Vec<&str> = jobs.iter().map(|job| job.status.as_str()).collect();
        assert_eq!(found, jobs_after, "{given:?}");
        assert_eq!(overall(&jobs), pipeline, "{given:?}");
    }

    #[test]
    fn stages_follow_each_other() {
        check(&["1 created", "2 created"], &["pending", "created"], "pending");
        check(&["1 running", "2 created"], &["running", "created"], "running");
        check(&["1 success", "2 created"], &["success", "pending"], "running");
        check(&["1 success", "2 success"], &["success", "success"], "success");
        check(&["1 failed", "2 created"], &["failed", "skipped"], "failed");
        check(&["1 failed!", "2 created"], &["failed", "pending"], "running");
        check(&["1 failed!"], &["failed"], "success");
        check(&["1 failed", "2 created/on_failure", "3 created/always"], &["failed", "pending", "created"], "running");
        check(&["1 failed", "1 running", "2 created"], &["failed", "running", "created"], "running");
        check(&["1 canceled", "2 created"], &["canceled", "skipped"], "canceled");
        check(&["1 created!/manual", "2 created"], &["manual", "pending"], "pending");
        check(&["1 created/manual", "2 created"], &["manual", "created"], "manual");
        check(&["1 success", "2 created/on_failure"], &["success", "skipped"], "success");
    }
}
