//! The program is killed in the middle, the database goes away: nothing happens twice, and nothing is lost.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::forge::{Forge, until};

#[test]
fn a_merge_that_was_killed_is_done_once_or_not_at_all() {
    let mut forge = Forge::start();
    let project = forge.project("killed");
    let mut merged = 0;
    for round in 0..6 {
        let branch = format!("b{round}");
        assert_eq!(
            forge
                .commit("dana", project, &branch, &[(&format!("{branch}.txt"), "x"), (&format!("ci{round}"), "y")])
                .status,
            201
        );
        let iid = forge.merge_request("dana", project, &branch);
        let head = forge.merge_status(project, iid, "mergeable")["sha"].as_str().unwrap().to_owned();
        let path = format!("/projects/{project}/merge_requests/{iid}/merge");
        let mut asking = forge
            .curl("PUT", &format!("/api/v4{path}"))
            .args(["--header", &format!("PRIVATE-TOKEN: {}", Forge::token("mara"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Another moment each round; whichever it hits, what is checked below must hold.
        std::thread::sleep(std::time::Duration::from_millis(7 * round));
        forge.kill();
        asking.wait().unwrap();
        forge.up();
        let found = forge.get("mara", &format!("/projects/{project}/merge_requests/{iid}")).json();
        let state = found["state"].as_str().unwrap();
        assert!(["opened", "merged"].contains(&state), "{found}");
        if state == "opened" {
            forge.merge_status(project, iid, "mergeable");
            let again = forge.put("mara", &path, json!({ "sha": head }));
            assert_eq!(again.status, 200, "{again:?}");
        }
        assert_eq!(forge.put("mara", &path, json!({ "sha": head })).status, 405);
        merged += 1;
        let repository = forge.repositories().join("rave/killed.git");
        let log =
            forge.git("", &repository, &["-c", "safe.directory=*", "log", "--first-parent", "--format=%s", "main"]).1;
        assert_eq!(log.lines().filter(|line| line.starts_with("Merge branch")).count(), merged, "{log}");
    }
    assert!(!forge.log().contains("ERROR"), "{}", forge.log());
}

#[test]
fn a_push_before_a_kill_gets_its_pipeline_once() {
    let mut forge = Forge::start();
    let project = forge.project("pushed");
    assert_eq!(forge.commit("dana", project, "one", &[(".gitlab-ci.yml", "a:\n  script: echo a\n")]).status, 201);
    // As if the program had ended between git's push and what follows.
    forge.kill();
    let repository = forge.repositories().join("rave/pushed.git");
    assert!(
        forge.git("", &repository, &["-c", "safe.directory=*", "update-ref", "refs/heads/two", "refs/heads/one"]).0
    );
    for _ in 0..2 {
        forge.up();
        let found = forge.get("dana", &format!("/projects/{project}/pipelines?ref=two")).json();
        assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
        forge.kill();
    }
}

#[test]
fn the_database_may_go_away() {
    let mut forge = Forge::start();
    let project = forge.project("away");
    forge.postgres.down();
    let refused = forge.get("mara", "/version");
    assert_eq!((refused.status, refused.body.contains("503 Service Unavailable")), (503, true), "{refused:?}");
    assert_eq!(forge.get("mara", &format!("/projects/{project}")).status, 503);
    forge.postgres.up();
    until("it is back", || (forge.get("mara", &format!("/projects/{project}")).status == 200).then_some(()));

    // Away at the start: it waits, says 503, and needs nobody's help.
    forge.kill();
    forge.postgres.down();
    forge.launch();
    until("it says 503", || (forge.get("mara", "/version").status == 503).then_some(()));
    forge.postgres.up();
    until("it answers", || (forge.get("mara", "/version").status == 200).then_some(()));
}

#[test]
fn a_job_whose_runner_died_has_failed() {
    let mut forge = Forge::start();
    let project = forge.project("silent");
    forge.start_runner();
    assert_eq!(
        forge
            .commit(
                "dana",
                project,
                "one",
                &[(".gitlab-ci.yml", "a:\n  script: [\"echo begun\", \"sleep 600\"]\n  timeout: 1h\n")]
            )
            .status,
        201
    );
    let job = until("the job runs", || {
        let jobs = forge.get("dana", &format!("/projects/{project}/jobs")).json();
        let trace = forge.get("dana", &format!("/projects/{project}/jobs/{}/trace", jobs[0]["id"])).body;
        (jobs[0]["status"] == "running" && trace.contains("\nbegun\n")).then(|| jobs[0]["id"].as_i64().unwrap())
    });
    // Canceled: the runner hears it and ends the process.
    let pipeline = forge.get("dana", &format!("/projects/{project}/pipelines")).json()[0]["id"].clone();
    assert_eq!(forge.post("dana", &format!("/projects/{project}/pipelines/{pipeline}/cancel"), json!({})).status, 201);
    until("the process ends", || (!sleeping(&forge)).then_some(()));
    assert_eq!(forge.get("dana", &format!("/projects/{project}/jobs/{job}")).json()["status"], "canceled");

    // A runner that says nothing any more.
    let token = "glrt-runner-0123456789abcdef01234567";
    forge.stop_runner();
    assert_eq!(forge.post("dana", &format!("/projects/{project}/pipelines/{pipeline}/retry"), json!({})).status, 201);
    assert_eq!(forge.post("", "/jobs/request", json!({ "token": "glrt-nobody" })).status, 403);
    let taken = forge.post("", "/jobs/request", json!({ "token": token })).json();
    let failed = until("the job has failed", || {
        let found = forge.get("dana", &format!("/projects/{project}/jobs/{}", taken["id"])).json();
        (found["status"] == "failed").then_some(found)
    });
    assert_eq!(failed["failure_reason"], "stuck_or_timeout_failure");
    let late = forge.put("", &format!("/jobs/{}", taken["id"]), json!({ "token": taken["token"], "state": "success" }));
    assert_eq!(late.status, 403, "{late:?}");
}

/// Whether a process works in the runner's folder.
fn sleeping(forge: &Forge) -> bool {
    let output = Command::new("sh").args(["-c", "ls -l /proc/[0-9]*/cwd 2>/dev/null"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(&forge.folder.path().join("builds").display().to_string())
}
