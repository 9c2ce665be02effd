//! The way of a project: made, changed, checked, merged, removed, by the API and by git.

use serde_json::json;

use crate::forge::{Forge, until};

const CI: &str = "stages: [build, test]\nbuild:\n  stage: build\n  tags: [linux]\n  script:\n    - echo \"built $CI_COMMIT_SHORT_SHA\"\n    - test -e README.md\ntest:\n  stage: test\n  script: [\"echo tested $WORD\"]\n  variables: {WORD: \"it's well\"}\n";

#[test]
fn a_project_goes_its_way() {
    let mut forge = Forge::start();
    let project = forge.project("hello");
    let at = |path: &str| format!("/projects/{project}{path}");

    // A commit by the API, seen by git.
    let made = forge.commit("dana", project, "feature", &[(".gitlab-ci.yml", CI), ("src/hello.txt", "hello\n")]);
    assert_eq!(made.status, 201, "{made:?}");
    let sha = made.json()["id"].as_str().unwrap().to_owned();
    let work = tempfile::tempdir().unwrap();
    let (cloned, said) = forge.git(
        "dana",
        work.path(),
        &["clone", "--quiet", "--branch", "feature", &forge.clone_url("dana", "rave/hello"), "hello"],
    );
    assert!(cloned, "{said}\n{}", forge.log());
    let clone = work.path().join("hello");
    assert_eq!(forge.git("dana", &clone, &["rev-parse", "HEAD"]).1.trim(), sha);

    // A merge request: one pipeline, made by the push.
    let iid = forge.merge_request("dana", project, "feature");
    let again = forge.post(
        "dana",
        &at("/merge_requests"),
        json!({ "source_branch": "feature", "target_branch": "main", "title": "x" }),
    );
    assert_eq!(
        (
            again.status,
            again.json()["message"][0].as_str().unwrap().starts_with("Another open merge request already exists")
        ),
        (409, true)
    );
    let pipelines = forge.get("vera", &at(&format!("/merge_requests/{iid}/pipelines"))).json();
    assert_eq!(pipelines.as_array().unwrap().len(), 1, "{pipelines}");
    assert_eq!((pipelines[0]["sha"].as_str(), pipelines[0]["status"].as_str()), (Some(sha.as_str()), Some("pending")));
    let pipeline = pipelines[0]["id"].as_i64().unwrap();

    // Nothing runs without a runner; then jobs end, and the pipeline with them.
    forge.start_runner();
    let ended = until("the pipeline ends", || {
        let found = forge.get("vera", &at(&format!("/pipelines/{pipeline}"))).json();
        ["success", "failed"].contains(&found["status"].as_str().unwrap()).then_some(found)
    });
    let jobs = forge.get("vera", &at(&format!("/pipelines/{pipeline}/jobs"))).json();
    let trace = |name: &str| {
        let job = jobs.as_array().unwrap().iter().find(|job| job["name"] == name).unwrap();
        forge.get("vera", &at(&format!("/jobs/{}/trace", job["id"]))).body
    };
    assert_eq!(ended["status"], "success", "{}\n{}", trace("build"), forge.log());
    assert!(trace("build").contains(&format!("\nbuilt {}\n", &sha[..8])), "{}", trace("build"));
    assert!(trace("test").contains("\ntested it's well\n"), "{}", trace("test"));
    assert!(
        jobs[0]["runner"]["id"].is_i64()
            && jobs[0]["runner"]["description"].as_str().unwrap().contains("direct executor")
    );

    // A push moves the merge request's head.
    std::fs::write(clone.join("more.txt"), "more\n").unwrap();
    assert!(
        forge.git("dana", &clone, &["add", "."]).0 && forge.git("dana", &clone, &["commit", "--quiet", "-m", "More"]).0
    );
    let (pushed, said) = forge.git("dana", &clone, &["push", "--quiet", "origin", "feature"]);
    assert!(pushed, "{said}");
    let head = forge.git("dana", &clone, &["rev-parse", "HEAD"]).1.trim().to_owned();
    let request = forge.merge_status(project, iid, "mergeable");
    assert_eq!(request["sha"], head.as_str());
    assert_eq!(forge.get("vera", &at(&format!("/pipelines?sha={head}"))).json().as_array().unwrap().len(), 1);

    // Merged with the commit that was seen, and not with another; not by a developer.
    let merge = at(&format!("/merge_requests/{iid}/merge"));
    assert_eq!(forge.put("dana", &merge, json!({ "sha": head })).status, 401);
    assert_eq!(forge.put("mara", &merge, json!({ "sha": sha })).status, 409);
    let merged = forge.put("mara", &merge, json!({ "sha": head, "should_remove_source_branch": true }));
    assert_eq!((merged.status, merged.json()["state"].as_str()), (200, Some("merged")), "{merged:?}");
    assert_eq!(forge.put("mara", &merge, json!({ "sha": head })).status, 405);
    let commit = merged.json()["merge_commit_sha"].as_str().unwrap().to_owned();
    let found = forge.get("vera", &at(&format!("/repository/commits/{commit}"))).json();
    assert_eq!(found["parent_ids"][1], head.as_str());
    assert!(found["message"].as_str().unwrap().contains(&format!("See merge request rave/hello!{iid}")));
    assert_eq!(forge.get("vera", &at("/repository/branches/feature")).status, 404);
    assert_eq!(forge.get("vera", &at("/repository/files/more.txt/raw?ref=main")).body, "more\n");

    // Removed: 202, and then it is not there, and its folder neither.
    assert_eq!(forge.delete("mara", &at("")).status, 403);
    assert_eq!(forge.delete("root", &at("")).status, 202);
    assert_eq!(forge.get("root", &at("")).status, 404);
    until("the repository is gone", || (!forge.repositories().join("rave/hello.git").exists()).then_some(()));
    assert!(!forge.log().contains("ERROR"), "{}", forge.log());
}

#[test]
fn what_cannot_be_merged_is_said() {
    let forge = Forge::start();
    let project = forge.project("conflicts");
    let at = |path: &str| format!("/projects/{project}{path}");
    for branch in ["one", "two"] {
        assert_eq!(forge.commit("dana", project, branch, &[("same.txt", branch)]).status, 201);
    }
    let (one, two) = (forge.merge_request("dana", project, "one"), forge.merge_request("dana", project, "two"));
    forge.merge_status(project, one, "mergeable");
    forge.merge_status(project, two, "mergeable");
    assert_eq!(forge.put("mara", &at(&format!("/merge_requests/{one}/merge")), json!({})).status, 200);
    forge.merge_status(project, two, "conflict");
    let refused = forge.put("mara", &at(&format!("/merge_requests/{two}/merge")), json!({}));
    assert_eq!((refused.status, refused.json()["message"].as_str()), (422, Some("Branch cannot be merged")));

    // A pipeline that must pass.
    assert_eq!(forge.put("mara", &at(""), json!({ "only_allow_merge_if_pipeline_succeeds": true })).status, 200);
    assert_eq!(forge.commit("dana", project, "three", &[(".gitlab-ci.yml", "a:\n  script: exit 3\n")]).status, 201);
    let three = forge.merge_request("dana", project, "three");
    forge.merge_status(project, three, "ci_still_running");
    assert_eq!(forge.put("mara", &at(&format!("/merge_requests/{three}/merge")), json!({})).status, 405);
    let pipeline = forge.get("dana", &at("/pipelines?ref=three")).json()[0]["id"].clone();
    assert_eq!(
        forge.post("dana", &at(&format!("/pipelines/{pipeline}/cancel")), json!({})).json()["status"],
        "canceled"
    );
    forge.merge_status(project, three, "ci_must_pass");

    // Drafts, closed ones, and what has nothing to merge.
    assert_eq!(forge.put("mara", &at(""), json!({ "only_allow_merge_if_pipeline_succeeds": false })).status, 200);
    assert_eq!(
        forge.put("dana", &at(&format!("/merge_requests/{three}")), json!({ "title": "Draft: three" })).json()["draft"],
        true
    );
    forge.merge_status(project, three, "draft_status");
    assert_eq!(forge.put("mara", &at(&format!("/merge_requests/{three}/merge")), json!({})).status, 405);
    let closed = forge.put("dana", &at(&format!("/merge_requests/{three}")), json!({ "state_event": "close" })).json();
    assert_eq!(
        (closed["state"].as_str(), closed["detailed_merge_status"].as_str()),
        (Some("closed"), Some("not_open"))
    );
}
