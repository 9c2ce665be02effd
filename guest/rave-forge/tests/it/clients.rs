//! Clients that nobody here wrote drive the forge: python-gitlab always, glab where the machine has it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::forge::Forge;

#[test]
fn python_gitlab_drives_a_project() {
    let mut forge = Forge::start();
    forge.start_runner();
    let url = format!("http://{}/gitlab", forge.addr);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-I").arg(script).arg(url).stdin(Stdio::null());
    for user in ["root", "mara", "dana", "vera", "otto"] {
        command.env(user.to_uppercase(), Forge::token(user));
    }
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("done"), "{said}\n{}", forge.log());
    assert!(!forge.log().contains("ERROR"), "{}", forge.log());
}

#[test]
fn glab_reads_a_project() {
    if Command::new("glab").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("glab is not installed here");
        return;
    }
    let forge = Forge::start();
    let project = forge.project("glab");
    assert_eq!(forge.commit("dana", project, "feature", &[("a", "a")]).status, 201);
    forge.merge_request("dana", project, "feature");
    let home = tempfile::tempdir().unwrap();
    let host = format!("{}/gitlab", forge.addr);
    let glab = |arguments: &[&str]| {
        let output = Command::new("glab")
            .args(arguments)
            .current_dir(home.path())
            .env_clear()
            .envs([
                ("PATH", "/usr/local/bin:/usr/bin:/bin"),
                ("HOME", home.path().to_str().unwrap()),
                ("GITLAB_TOKEN", &Forge::token("dana")),
            ])
            .envs([
                ("GITLAB_URI", forge.url().as_str()),
                ("GITLAB_HOST", &host),
                ("API_PROTOCOL", "http"),
                ("NO_PROMPT", "1"),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    glab(&["config", "set", "--global", "api_protocol", "http"]);
    let said = glab(&["api", &format!("projects/{project}/merge_requests")]);
    assert!(said.contains("\"source_branch\":\"feature\""), "{said}");
    assert_eq!(json!(project), forge.get("dana", "/projects/rave%2Fglab").json()["id"]);
}
