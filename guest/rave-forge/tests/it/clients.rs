//! Clients that nobody here wrote drive the forge: python-gitlab always, glab where the machine has it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::forge::{Forge, until};

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

/// `glab` finds a GitLab below a path by its setting `api_host`; it is told which project, since it reads no remotes with a path and a port.
#[test]
fn glab_drives_a_project() {
    if Command::new("glab").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("glab is not installed here");
        return;
    }
    let mut forge = Forge::start();
    forge.start_runner();
    let addr = forge.addr;
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    std::fs::create_dir_all(home.path().join(".config/glab-cli")).unwrap();
    file(
        ".config/glab-cli/config.yml",
        &format!(
            "check_update: false\nhosts:\n    {addr}:\n        api_host: {addr}/gitlab\n        api_protocol: http\n        git_protocol: http\n"
        ),
    );
    let config = home.path().join(".config/glab-cli/config.yml");
    std::fs::set_permissions(config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let run = |program: &str, user: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(home.path())
            .env_clear()
            .envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home.path().to_str().unwrap())])
            .envs([("GIT_AUTHOR_NAME", "Mara"), ("GIT_AUTHOR_EMAIL", "mara@rave.local")])
            .envs([("GIT_COMMITTER_NAME", "Mara"), ("GIT_COMMITTER_EMAIL", "mara@rave.local")])
            .envs([("GITLAB_HOST", addr.to_string().as_str()), ("GITLAB_TOKEN", &Forge::token(user))])
            .envs([("NO_PROMPT", "1"), ("NO_COLOR", "1"), ("GIT_TERMINAL_PROMPT", "0")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let done = |program: &str, arguments: &[&str]| {
        let (success, said) = run(program, "mara", arguments);
        assert!(success, "{program} {arguments:?}: {said}\n{}", forge.log());
        said
    };
    let (git, glab) = (|words: &[&str]| done("git", words), |words: &[&str]| done("glab", words));
    let of = ["-R", "rave/tool"];
    let with = |words: &[&'static str]| -> Vec<&'static str> { words.iter().copied().chain(of).collect() };

    git(&["init", "-q", "-b", "main"]);
    let made = glab(&["repo", "create", "tool", "--group", "rave", "--private", "--defaultBranch", "main"]);
    assert!(made.contains(&format!("http://{addr}/gitlab/rave/tool")), "{made}");
    let whole = format!("http://mara:{}@{addr}/gitlab/rave/tool.git", Forge::token("mara"));
    file(".gitlab-ci.yml", "test:\n  script:\n    - test -e a && echo it is there\n");
    git(&["add", ".gitlab-ci.yml"]);
    git(&["commit", "-q", "-m", "A job"]);
    git(&["push", "-q", &whole, "main"]);
    git(&["checkout", "-q", "-b", "feature"]);
    file("a", "a");
    git(&["add", "a"]);
    git(&["commit", "-q", "-m", "A file"]);
    git(&["push", "-q", &whole, "feature"]);
    until("the pipeline ends well", || {
        glab(&with(&["ci", "status", "--branch", "feature"])).contains("Pipeline State: success").then_some(())
    });
    let pipelines = glab(&with(&["ci", "list"]));
    assert!(pipelines.contains("Showing 2 pipelines") && pipelines.contains("(failed) • #1"), "{pipelines}");
    let log = glab(&with(&["ci", "trace", "2"]));
    assert!(log.contains("it is there"), "{log}");
    // `glab mr create` wants a remote on this host, and forgets the port of one.
    let request = ["-f", "source_branch=feature", "-f", "target_branch=main", "-f", "title=A file"];
    glab(&[&["api", "-X", "POST", "projects/rave%2Ftool/merge_requests"], &request[..]].concat());
    let open = glab(&with(&["mr", "list"]));
    assert!(open.contains("A file") && open.contains("(main) ← (feature)"), "{open}");
    glab(&with(&["mr", "note", "1", "-m", "Well done"]));
    glab(&with(&["mr", "merge", "1", "--yes"]));
    let merged = glab(&with(&["mr", "view", "1", "--comments"]));
    assert!(merged.contains("merged") && merged.contains("Well done"), "{merged}");
    git(&["fetch", "-q", &whole, "main"]);
    assert_eq!(git(&["show", "FETCH_HEAD:a"]), "a");
    // Only an owner deletes.
    let delete = ["repo", "delete", "rave/tool", "--yes"];
    let (success, said) = run("glab", "mara", &delete);
    assert!(!success && said.contains("403"), "{said}");
    let (success, said) = run("glab", "root", &delete);
    assert!(success, "{said}");
    assert_eq!(forge.get("mara", "/projects/rave%2Ftool").status, 404);
}
