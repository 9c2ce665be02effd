//! Old sessions are thrown away on request, with all that is theirs and nothing else.

use std::process::Command;

use crate::support::{Project, Ran};

const PASSES: &str = "summary = 'x'\n[[step]]\nname = 'x'\nhost = 'true'\n";
const FAILS: &str = "summary = 'x'\n[[step]]\nname = 'x'\nhost = 'false'\n";

fn names(project: &Project) -> Vec<String> {
    let entries = std::fs::read_dir(project.path("artifacts")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_latest_sessions_stay() {
    let project = Project::new(&[("config/passes", PASSES)]);
    let transcripts = (0..3).map(|_| {
        let ran = project.hermetic(&["run"]);
        ran.check(0, &[]);
        let path = ran.stderr.split("transcript: ").nth(1).unwrap().lines().next().unwrap();
        path.rsplit('/').next().unwrap().to_owned()
    });
    let transcripts: Vec<_> = transcripts.collect();
    std::fs::write(project.path("artifacts/notes.txt"), "mine").unwrap();
    let before = names(&project);
    let prune = |arguments: &[&str]| project.hermetic(&[&["prune"], arguments].concat());
    prune(&["--keep", "1", "--dry-run"]).check(0, &["2 sessions would be thrown away", "1 sessions stay"]);
    assert_eq!(names(&project), before);
    prune(&["--keep", "5"]).check(0, &["0 sessions are thrown away", "3 sessions stay"]);
    prune(&["--keep", "2", "--folders-only"]).check(0, &["1 folders of sessions are thrown away"]);
    let (oldest, latest) = (&transcripts[0], &transcripts[2]);
    assert!(names(&project).contains(oldest) && names(&project).len() == before.len() - 1, "{:?}", names(&project));
    prune(&["--keep", "1"]).check(0, &["2 sessions are thrown away"]);
    let left = names(&project);
    assert_eq!(left.len(), 7, "{left:?}");
    assert!(left.contains(&"notes.txt".to_owned()) && left.contains(latest), "{left:?}");
    let transcript = project.artifact(".json");
    project.hermetic(&["verify", transcript.to_str().unwrap()]).check(0, &["verified"]);
    prune(&[]).check(2, &["--keep <N>"]);
    prune(&["--keep", "some"]).check(2, &["invalid value 'some' for '--keep <N>'"]);
    let none = project.set("RAVE_ARTIFACTS", "nowhere");
    none.hermetic(&["prune", "--keep", "1"]).check(1, &["could not read `", "nowhere"]);
}

#[test]
fn a_failure_that_needs_no_machine_says_how_to_go_on() {
    let project = Project::new(&[("config/fails", FAILS), ("config/passes", PASSES)]);
    project.hermetic(&["run"]).check(101, &["config::fails: what there is to see, and what to do next: "]);
    let session = project.transcript()["test_session_id"].as_str().unwrap().to_owned();
    let session = project.path("artifacts").join(session);
    assert!(!session.join("config/passes").exists());
    let readme = std::fs::read_to_string(session.join("config/fails/README.txt")).unwrap();
    assert!(readme.contains("fails.toml:4: step `x`: exit does not match"), "{readme}");
    assert!(std::fs::read_to_string(session.join("config/fails/result.json")).unwrap().contains("config::fails"));
    let line = readme.lines().skip_while(|line| !line.contains("ask this scenario again")).nth(1).unwrap();
    let again =
        Ran::from(Command::new("sh").args(["-c", line]).env("XDG_CACHE_HOME", project.path("c")).output().unwrap());
    again.check(101, &["1 failed; 0 ignored; 0 measured; 1 filtered out"]);
}
