//! Who may not, may not, and is told so as GitLab tells it.

use serde_json::json;

use crate::forge::{Forge, reply};

#[test]
fn whoever_may_not_is_told_so() {
    let forge = Forge::start();
    let project = forge.project("secret");
    let at = |path: &str| format!("/projects/{project}{path}");
    let check = |user: &str, method: &str, path: &str, body: serde_json::Value, status: u16, said: &str| {
        let found = forge.send(user, method, path, (!body.is_null()).then_some(body));
        assert!(
            found.status == status && found.body.contains(said),
            "{user} {method} {path}: {found:?}, expected {status} {said}"
        );
    };
    let none = || json!(null);

    // Nobody, and strangers.
    check("", "GET", "/version", none(), 401, r#"{"message":"401 Unauthorized"}"#);
    check("", "GET", "/user", none(), 401, "401 Unauthorized");
    check("unknown", "GET", "/user", none(), 401, "401 Unauthorized");
    check("", "GET", &at(""), none(), 404, "404 Project Not Found");
    check("otto", "GET", &at(""), none(), 404, r#"{"message":"404 Project Not Found"}"#);
    check("otto", "GET", "/projects/rave%2Fsecret", none(), 404, "404 Project Not Found");
    check("otto", "GET", "/groups/rave", none(), 404, "404 Group Not Found");
    check("otto", "POST", &at("/merge_requests"), json!({}), 404, "404 Project Not Found");
    check("dana", "GET", "/projects/rave%2F..%2F..%2Fetc", none(), 404, "404 Project Not Found");
    check("dana", "GET", "/projects/99999", none(), 404, "404 Project Not Found");

    // Levels.
    check("gus", "GET", &at(""), none(), 200, "rave/secret");
    check("gus", "GET", &at("/repository/tree"), none(), 403, "403 Forbidden");
    check("gus", "GET", &at("/merge_requests"), none(), 403, "403 Forbidden");
    check("vera", "GET", &at("/repository/tree"), none(), 200, "README.md");
    let commit = |branch: &str| json!({ "branch": branch, "start_branch": "main", "commit_message": "m", "actions": [{ "action": "create", "file_path": "f", "content": "" }] });
    check("vera", "POST", &at("/repository/commits"), commit("x"), 403, "403 Forbidden");
    check("dana", "POST", &at("/repository/commits"), commit("x"), 201, "\"short_id\"");
    check("dana", "POST", &at("/repository/commits"), commit("main"), 403, "not allowed to push into this branch");
    check("dana", "POST", &at("/repository/commits"), commit("x"), 400, "A branch called 'x' already exists");
    check("dana", "DELETE", &at("/repository/branches/main"), none(), 405, "Default branch");
    check(
        "vera",
        "POST",
        &at("/merge_requests"),
        json!({ "source_branch": "x", "target_branch": "main", "title": "t" }),
        403,
        "403 Forbidden",
    );
    check("dana", "DELETE", &at(""), none(), 403, "403 Forbidden");
    check("dana", "POST", &at("/members"), json!({ "user_id": 1, "access_level": 30 }), 403, "403 Forbidden");
    check("mara", "POST", &at("/members"), json!({ "user_id": 1, "access_level": 50 }), 403, "403 Forbidden");
    check(
        "mara",
        "POST",
        &at("/members"),
        json!({ "user_id": 1, "access_level": 35 }),
        400,
        "access_level does not have a valid value",
    );
    check("mara", "GET", "/runners/all", none(), 403, "403 Forbidden");
    check(
        "mara",
        "POST",
        "/users",
        json!({ "email": "a@b", "name": "a", "username": "a", "password": "sesame-sesame" }),
        403,
        "403 Forbidden",
    );
    check(
        "vera",
        "POST",
        "/projects",
        json!({ "name": "p", "namespace_id": forge.get("mara", "/groups/rave").json()["id"] }),
        400,
        "is not valid",
    );

    // Parameters.
    check(
        "dana",
        "POST",
        &at("/merge_requests"),
        json!({ "target_branch": "main" }),
        400,
        r#"{"error":"source_branch is missing"}"#,
    );
    check(
        "dana",
        "POST",
        &at("/merge_requests"),
        json!({ "source_branch": "y", "target_branch": "main", "title": "t" }),
        400,
        "does not exist",
    );
    check(
        "dana",
        "POST",
        &at("/repository/branches"),
        json!({ "branch": "n", "ref": "nowhere" }),
        400,
        "Invalid reference name: nowhere",
    );
    check(
        "dana",
        "POST",
        &at("/repository/branches"),
        json!({ "branch": "--upload-pack=x", "ref": "main" }),
        400,
        "Branch name is invalid",
    );
    check("dana", "GET", &at("/repository/files/..%2F..%2Fetc%2Fpasswd/raw"), none(), 404, "404 File Not Found");
    check("dana", "GET", &at("/repository/files/nothing/raw?ref=main"), none(), 404, "404 File Not Found");
    check("dana", "GET", &at("/repository/tree?ref=--help"), none(), 404, "Not Found");
    check("dana", "GET", &at("/merge_requests/7"), none(), 404, "404 Not found");
    check("dana", "GET", "/nothing/here", none(), 404, "404 Not Found");
    check("dana", "POST", "/projects", json!({ "name": "../x" }), 400, "name");
    check("dana", "POST", "/projects", json!({ "name": "x", "path": "a/b" }), 400, "path");
    check(
        "dana",
        "POST",
        &at("/repository/commits"),
        json!({ "branch": "x", "commit_message": "m", "actions": [{ "action": "create", "file_path": "../x" }] }),
        400,
        "valid file path",
    );
    let large = "x".repeat(100 << 10);
    check("dana", "POST", &at("/repository/branches"), json!({ "branch": large }), 413, "");

    // Tokens: scope, expiry, revocation, and a bad CI file.
    forge.postgres.sql("UPDATE personal_access_tokens SET scopes = 'read_api' WHERE user_id = (SELECT id FROM users WHERE username = 'dirk')");
    check("dirk", "GET", &at(""), none(), 200, "rave/secret");
    check(
        "dirk",
        "POST",
        &at("/repository/branches"),
        json!({ "branch": "n", "ref": "main" }),
        403,
        r#""error":"insufficient_scope""#,
    );
    forge.postgres.sql("UPDATE personal_access_tokens SET expires_at = now()::date WHERE user_id = (SELECT id FROM users WHERE username = 'dirk')");
    check("dirk", "GET", &at(""), none(), 401, r#""error":"invalid_token""#);
    check("vera", "DELETE", "/personal_access_tokens/self", none(), 204, "");
    check("vera", "GET", "/user", none(), 401, "Token was revoked");
    assert_eq!(
        forge.commit("dana", project, "bad", &[(".gitlab-ci.yml", "a:\n  script: x\n  image: y\n")]).status,
        201
    );
    let failed = forge.get("dana", &at("/pipelines?ref=bad")).json();
    assert_eq!(failed[0]["status"], "failed");
    check("dana", "GET", &at(&format!("/pipelines/{}", failed[0]["id"])), none(), 200, "contains unknown keys: image");
    check(
        "dana",
        "POST",
        &at("/pipeline"),
        json!({ "ref": "bad" }),
        400,
        r#"{"message":{"base":["jobs:a config contains unknown keys: image"]}}"#,
    );
    check("root", "POST", &format!("/users/{}/block", forge.get("gus", "/user").json()["id"]), json!({}), 201, "true");
    check("gus", "GET", "/user", none(), 403, "Your account has been blocked");
    assert!(!forge.log().contains("ERROR"), "{}", forge.log());
}

#[test]
fn git_is_refused_what_the_api_refuses() {
    let forge = Forge::start();
    forge.project("door");
    let work = tempfile::tempdir().unwrap();
    let (_, said) = forge.git("otto", work.path(), &["clone", &forge.clone_url("otto", "rave/door"), "no"]);
    assert!(said.contains("not found") || said.contains("404"), "{said}");
    let anonymous = format!("http://{}/gitlab/rave/door.git", forge.addr);
    let (_, said) = forge.git("", work.path(), &["clone", &anonymous, "no"]);
    assert!(said.contains("could not read Username"), "{said}");
    let (_, said) = forge.git("gus", work.path(), &["clone", &forge.clone_url("gus", "rave/door"), "no"]);
    assert!(said.contains("403"), "{said}");

    assert!(forge.git("dana", work.path(), &["clone", "--quiet", &forge.clone_url("dana", "rave/door"), "door"]).0);
    let clone = work.path().join("door");
    assert!(forge.git("dana", &clone, &["commit", "--quiet", "--allow-empty", "-m", "x"]).0);
    let (pushed, said) = forge.git("dana", &clone, &["push", "origin", "main"]);
    assert!(!pushed && said.contains("deny updating a hidden ref"), "{said}");
    let (pushed, said) = forge.git("vera", &clone, &["push", &forge.clone_url("vera", "rave/door"), "HEAD:x"]);
    assert!(!pushed && said.contains("403"), "{said}");
    let (pushed, said) = forge.git("dana", &clone, &["push", "origin", "HEAD:refs/merge-requests/1/head"]);
    assert!(!pushed && said.contains("hidden"), "{said}");
    let (pushed, said) = forge.git("dana", &clone, &["push", "origin", "HEAD:y"]);
    assert!(pushed, "{said}");
    let (pushed, said) = forge.git("mara", &clone, &["push", &forge.clone_url("mara", "rave/door"), "HEAD:main"]);
    assert!(pushed, "{said}");

    // Only git's own three paths, and no way out of them.
    let status = |path: &str| reply(&mut forge.curl("GET", path)).status;
    for path in [
        "/rave/door.git/HEAD",
        "/rave/door.git/config",
        "/rave/door.git/objects/info/packs",
        "/rave/..%2f..%2fetc.git/info/refs?service=git-upload-pack",
    ] {
        assert!([401, 404].contains(&status(path)), "{path}: {}", status(path));
    }
    assert_eq!(status("/rave/door.git/info/refs"), 403);
    assert_eq!(status("/rave/door.git/info/refs?service=git-upload-pack"), 401);
    assert_eq!(status("/rave/none.git/info/refs?service=git-upload-pack"), 401);
    assert!([401, 404].contains(&status("/rave/%2e%2e/%2e%2e/etc/passwd")));
}
