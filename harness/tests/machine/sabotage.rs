//! Scenarios whose subject is broken on purpose: who notices, and what is said about who does not.

use serde_json::Value;

use crate::run::{nothing_left, project};

const NOTICES: &str = r#"
summary = "x"

[[step]]
name   = "the page is served"
within = "60s"
[step.http]
get    = "/health.json"
status = 200

[[step]]
name = "there is a mark on the disk"
run  = "echo a >/data/mark && cat /data/mark"
stdout = { equals = "a" }

[[step]]
name = "and on a page"
run  = "echo a >/www/mark.json && echo /mark.json"
capture.page = { stdout = true }

[[step]]
name = "that is served"
[step.http]
get    = "{{page}}"
status = 200

[[step]]
name = "the budget holds"
measure = "machine.ready_seconds"
value = { at_most = 600 }

[[step]]
name = "it runs"
run  = "true"
unbreakable = "it would not be a machine"

[[sabotage]]
name   = "the server is stopped"
run    = "killall stunnel; killall httpd"
errors = ["the page is served"]
within = "1s"

[[sabotage]]
name   = "the page is gone"
run    = "rm /www/health.json"
fails  = ["the page is served"]
within = "1s"

[[sabotage]]
name  = "the disk cannot be written"
run   = "mount -o remount,ro /data"
fails = ["there is a mark on the disk"]

[[sabotage]]
name   = "the page is made, and gone again"
before = "that is served"
run    = "rm /www/{{page}}"
fails  = ["that is served"]

[[sabotage]]
name  = "no page can be made"
run   = "rm -r /www"
fails = ["the page is served", "and on a page"]
within = "1s"

[[sabotage]]
name  = "it was slow"
set   = { "machine.ready_seconds" = "601" }
fails = ["the budget holds"]
"#;

const DEAF: &str = r#"
summary = "x"

[[step]]
name   = "it asks nothing"
run    = "true"

[[step]]
name = "nobody looks at it"
run  = "echo a"

[[sabotage]]
name  = "what it should ask about is gone"
run   = "rm /www/health.json"
fails = ["it asks nothing"]

[[sabotage]]
name  = "a sabotage that fails itself"
run   = "echo no >&2; exit 3"
fails = ["it asks nothing"]
"#;

const IMAGE: &str = r#"
summary = "x"

[[step]]
name = "the disk is a qcow2"
host = "head -c 3 '{{image.disk}}'"
stdout = { equals = "QFI" }

[[step]]
name = "the tool is there"
host = "the-tool"

[[sabotage]]
name  = "the disk is something else"
host  = "echo text >'{{scratch.dir}}/disk'"
set   = { "image.disk" = "{{scratch.dir}}/disk" }
fails = ["the disk is a qcow2"]
"#;

#[test]
fn steps_that_notice_and_steps_that_do_not() {
    let broken =
        "summary = 'x'\n[[step]]\nname = 'a'\nrun = 'false'\n[[sabotage]]\nname = 'x'\nrun = 'true'\nfails = ['a']\n";
    let elsewhere = "summary = 'x'\nneeds = ['gitlab']\n[[step]]\nname = 'a'\nrun = 'true'\n[[sabotage]]\nname = 'x'\nrun = 'true'\nfails = ['a']\n";
    let scenarios = [
        ("health/notices", NOTICES),
        ("health/deaf", DEAF),
        ("health/broken", broken),
        ("health/elsewhere", elsewhere),
    ];
    let project = project("ok", &scenarios);
    let ran = project.hermetic(&["sabotage", "--json"]);
    nothing_left(&project);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let all: Value = serde_json::from_str(&ran.stdout).unwrap();
    let scenario = |name: &str| {
        let scenarios = all["scenarios"].as_array().unwrap();
        scenarios.iter().find(|scenario| scenario["name"] == name).unwrap()
    };
    let verdicts = |name: &str| {
        let steps = scenario(name)["steps"].as_array().unwrap();
        steps.iter().map(|step| step["verdict"].as_str().unwrap()).collect::<Vec<_>>()
    };
    let declared = |name: &str| {
        let sabotages = scenario(name)["sabotages"].as_array().unwrap();
        sabotages.iter().map(|sabotage| sabotage["as_declared"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(verdicts("health::notices"), ["seen", "seen", "seen", "seen", "seen", "unbreakable"], "{all:#}");
    assert_eq!(declared("health::notices"), [true; 6]);
    assert_eq!(verdicts("health::deaf"), ["unseen", "unseen"]);
    assert_eq!(declared("health::deaf"), [false, false]);
    let [deaf, failed] = [0, 1].map(|index| &scenario("health::deaf")["sabotages"][index]);
    assert_eq!(deaf["unnoticed"][0], "it asks nothing");
    assert!(failed["reason"].as_str().unwrap().contains("no"), "{failed}");
    assert_eq!(scenario("health::broken")["unbroken"], "failed");
    assert_eq!(scenario("health::elsewhere")["unbroken"], "skipped");
    assert_eq!(all["summary"]["seen"], 5);
    assert_eq!(all["summary"]["unexpected"], 2);
}

#[test]
fn what_needs_no_machine_is_broken_without_one() {
    let project =
        project("ok", &[("image/disk", IMAGE), ("health/none", "summary = 'x'\n[[step]]\nname = 'a'\nrun = 'true'\n")]);
    let tool = project.path("bin");
    std::fs::create_dir(&tool).unwrap();
    std::fs::write(tool.join("the-tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tool.join("the-tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let sabotage = |filter: &str| {
        let mut command = project.command(&["sabotage", filter]);
        crate::support::Ran::from(command.env("PATH", &path).output().unwrap())
    };
    sabotage("image").check(
        101,
        &[
            "  seen         scenarios/image/disk.toml:4: the disk is a qcow2 (after: the disk is something else)",
            "  NEVER SEEN   scenarios/image/disk.toml:9: the tool is there",
            "sensitivity: of 2 steps 1 were seen to fail, 0 cannot, 0 were skipped, 1 never were; 0 of 1 sabotages came otherwise",
        ],
    );
    let file = project.path("scenarios").join("image/disk.toml");
    let more = "[[sabotage]]\nname = 'it is gone'\nenv = { PATH = '/usr/bin:/bin' }\nfails = ['the tool is there']\n";
    std::fs::write(&file, format!("{IMAGE}{more}")).unwrap();
    sabotage("image").check(0, &["2 were seen to fail"]);
    // Nothing is booted for what is never broken.
    let ran = sabotage("none");
    ran.check(101, &["skipped: it has no sabotage", "NEVER SEEN"]);
    assert!(!ran.stderr.contains("machine: booting"), "{}", ran.stderr);
    let only = |part: &str| {
        let mut command = project.command(&["sabotage", "--only", part, "image"]);
        crate::support::Ran::from(command.env("PATH", &path).output().unwrap())
    };
    only("something else").check(0, &["1 were seen to fail"]);
    only("nonsense").check(2, &["no sabotage of these scenarios has `nonsense` in its name"]);
    sabotage("nonsense").check(2, &["no scenario's name contains"]);
}

#[test]
fn a_run_says_in_its_transcript_what_was_seen_to_fail() {
    let run = |scenarios: &[(&str, &str)], code: i32, texts: &[&str]| {
        let project = project("ok", scenarios);
        let mut command = project.command(&["run"]);
        let ran = crate::support::Ran::from(command.env("RAVE_SABOTAGE", "1").output().unwrap());
        ran.check(code, texts);
        nothing_left(&project);
        let transcript = project.artifact(".json");
        project.hermetic(&["verify", transcript.to_str().unwrap()]).check(0, &[]);
        let page = std::fs::read_to_string(project.artifact(".html")).unwrap();
        assert!(page.contains("What was broken, to see whether they notice"));
        (project.transcript(), page)
    };
    let (transcript, page) =
        run(&[("health/notices", NOTICES)], 0, &["SUCCESS", "of 6 steps 5 were seen to fail, 1 cannot"]);
    assert_eq!(transcript["sensitivity"]["summary"]["seen"], 5);
    assert!(!page.contains("not as declared"));
    let both = [("health/notices", NOTICES), ("health/deaf", DEAF)];
    let (transcript, page) =
        run(&both, 101, &["FAILED (not every question was seen to notice: of 8 steps 5", "2 passed"]);
    assert_eq!(transcript["sensitivity"]["summary"]["unseen"], 2);
    assert!(
        page.contains("✗ not as declared:</b> what it should ask about is gone; held all the same: it asks nothing")
    );
}
