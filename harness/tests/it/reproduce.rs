//! A run is made again from its transcript, where no machine is needed: the same, another, missing, forged, wrongly asked for.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Project, Ran};

const ANSWERS: &str = "summary = 'x'\n[[step]]\nname = 'says a word'\nhost = 'cat word'\nstdout = { matches = '^w' }\n";
const FAILS: &str = "summary = 'x'\n[[step]]\nname = 'is one'\nhost = 'echo 2'\nstdout = { equals = '1' }\n";
const IMAGE: &str =
    "summary = 'x'\n[[step]]\nname = 'its format'\nmeasure = 'image.format'\nvalue = { equals = 'qcow2' }\n";

/// A run of these scenarios, and its transcript in a folder of its own.
fn recorded(project: &Project, code: i32) -> PathBuf {
    project.hermetic(&["run"]).check(code, &[]);
    let folder = project.path("recorded");
    std::fs::rename(project.path("artifacts"), &folder).unwrap();
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut json: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    json.remove(0)
}

fn reproduce(project: &Project, transcript: &std::path::Path, arguments: &[&str]) -> Ran {
    project.hermetic(&[&["reproduce", transcript.to_str().unwrap()], arguments].concat())
}

#[test]
fn what_is_the_same_and_what_differs_is_said() {
    let project = Project::new(&[("config/answers", ANSWERS), ("config/fails", FAILS)]);
    std::fs::write(project.path("word"), "word").unwrap();
    let transcript = recorded(&project, 101);
    // What failed fails again: that is the same.
    let again = reproduce(&project, &transcript, &[]);
    again.check(
        0,
        &[
            "config::answers: passed, as recorded; 1 of 1 answers are the same",
            "config::fails: failed, as recorded; 1 of 1 answers are the same",
            "REPRODUCED: 2 of 2 verdicts are as recorded",
        ],
    );
    assert!(!again.stdout.contains("differs"), "{}", again.stdout);
    project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &["verified: FAILED"]);
    // Another answer, the same verdict.
    std::fs::write(project.path("word"), "walrus").unwrap();
    reproduce(&project, &transcript, &["config::answers"]).check(
        0,
        &[
            "config::answers: passed, as recorded; 0 of 1 answers are the same",
            r#"step `says a word`: stdout differs: "word" → "walrus""#,
            "REPRODUCED: 1 of 1",
        ],
    );
    // Another verdict, and another question.
    std::fs::write(project.path("word"), "none").unwrap();
    let file = project.path("scenarios/config/fails.toml");
    std::fs::write(file, FAILS.replace("'1'", "'2'")).unwrap();
    let project = project.set("SAFE_MODE", "0");
    reproduce(&project, &transcript, &[]).check(
        101,
        &[
            "differs: setting SAFE_MODE: 1 → 0",
            "differs: questions: as recorded → others in ",
            "config/fails.toml",
            "config::answers: passed → failed",
            "config::fails: failed → passed",
            "NOT REPRODUCED: 0 of 2 verdicts are as recorded",
        ],
    );
}

#[test]
fn what_cannot_be_made_again_is_refused_with_the_reason() {
    let project = Project::new(&[("config/fails", FAILS)]);
    let transcript = recorded(&project, 101);
    let hermetic = |arguments: &[&str]| reproduce(&project, &transcript, arguments);
    hermetic(&["config::fail"]).check(2, &["has no scenario `config::fail`; the nearest is `config::fails`"]);
    hermetic(&["--shell"]).check(2, &["--shell goes with one scenario"]);
    hermetic(&["config::fails", "--shell"]).check(2, &["`config::fails` was asked without a machine"]);
    hermetic(&["--key", "nowhere.pub"]).check(1, &["could not read the key `nowhere.pub`"]);
    std::fs::rename(project.path("scenarios/config/fails.toml"), project.path("scenarios/config/other.toml")).unwrap();
    hermetic(&[]).check(1, &["missing: the scenario `config::fails` in `", "set RAVE_SCENARIOS to"]);
    assert!(!project.path("artifacts").exists(), "nothing of that was run");
    let text = std::fs::read_to_string(&transcript).unwrap();
    std::fs::write(&transcript, text.replace("\"failed\":1", "\"failed\":0")).unwrap();
    hermetic(&[]).check(3, &["the detached signature does not verify"]);
    hermetic(&["nonsense", "nonsense"]).check(2, &["unexpected argument"]);
}

#[test]
fn the_image_is_found_by_its_digest_or_said_to_be_missing() {
    let project = Project::new(&[("image/format", IMAGE)]);
    let image = project.path("cache/rave-hermetic/reference-0123456789abcdef");
    std::fs::create_dir_all(&image).unwrap();
    let create = |path: &std::path::Path, size: &str| {
        let mut create = Command::new("qemu-img");
        assert!(create.args(["create", "-q", "-f", "qcow2"]).arg(path).arg(size).status().expect("qemu-img").success());
    };
    let disk = project.path("disk.qcow2");
    create(&disk, "4M");
    let recording = project.set("RAVE_IMAGE", &disk);
    let transcript = recorded(&recording, 0);
    reproduce(&recording, &transcript, &[]).check(0, &["REPRODUCED: 1 of 1"]);
    let project = recording.without("RAVE_IMAGE");
    reproduce(&project, &transcript, &[]).check(0, &["it is the one that the transcript is about", "REPRODUCED"]);
    // It is elsewhere, under another name.
    std::fs::rename(&disk, image.join("other.qcow2")).unwrap();
    let manifest = r#"{"schema":1,"name":"x","version":"1","disk":"other.qcow2","disk_format":"qcow2"}"#;
    std::fs::write(image.join("image.json"), manifest).unwrap();
    reproduce(&project, &transcript, &[]).check(0, &["reference-0123456789abcdef/other.qcow2 (path), sha256:"]);
    // It is gone.
    std::fs::remove_dir_all(&image).unwrap();
    let missing = ["missing: the image sha256:", "disk.qcow2 (not there)", "no recipe is recorded that could build it"];
    reproduce(&project, &transcript, &[]).check(1, &missing);
    reproduce(&project, &transcript, &["--build"]).check(1, &missing);
    // Another one is there.
    create(&disk, "8M");
    reproduce(&project, &transcript, &[]).check(1, &["disk.qcow2 (its disk "]);
    let project = project.set("RAVE_IMAGE", &disk);
    reproduce(&project, &transcript, &[]).check(0, &["differs: image: sha256:", "REPRODUCED: 1 of 1"]);
}
