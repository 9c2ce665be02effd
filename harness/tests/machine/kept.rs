//! Machines that one run saves and later ones use.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::{nothing_left, project, start, wait_for};
use crate::support::{Project, Ran};

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";
const SLEEPS: &str = "summary = 'x'\ntimeout = '100s'\n[[step]]\nname = 'sleeps'\nrun = 'sleep 1000'\n";

fn keeping(scenarios: &[(&str, &str)]) -> Project {
    project("ok", scenarios).set("RAVE_KEEP_SAVED", "1")
}

/// The folders of kept machines.
fn kept(project: &Project) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project.path("cache/rave-hermetic/machines")).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_dir());
    paths
}

/// Runs one, and removes its artifacts, so that the next leaves the only ones.
fn run(project: &Project, arguments: &[&str], code: i32, texts: &[&str]) -> (Ran, serde_json::Value) {
    let ran = project.hermetic(&[&["run"], arguments].concat());
    ran.check(code, texts);
    let transcript = project.transcript();
    project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &[]);
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    (ran, transcript)
}

#[test]
fn a_run_with_a_filter_boots_nothing_the_second_time() {
    let project = keeping(&[("boot/true", TRUE), ("health/true", TRUE), ("security/true", TRUE)]);
    let (first, cold) = run(&project, &["health"], 0, &["machine: booting"]);
    assert!(!first.stderr.contains("nothing is booted"), "{}", first.stderr);
    let begun = std::time::Instant::now();
    let (second, warm) = run(&project, &["security"], 0, &["ago; nothing is booted", "security::true ... ok"]);
    eprintln!("one scenario on a kept machine, from command to verdict: {:?}", begun.elapsed());
    assert!(!second.stderr.contains("machine: booting"), "{}", second.stderr);
    assert_eq!(warm["machine"]["origin"], "saved");
    let id = |transcript: &serde_json::Value| transcript["machine"]["forks"]["saved"]["id"].clone();
    assert_eq!(id(&warm), id(&cold));
    assert_eq!(warm["security_validation"][0]["fork"]["of"], id(&cold));
    // What is asked of a machine that has just been booted, and a full run, boot one.
    let (_, boot) = run(&project, &["true"], 0, &["machine: booting"]);
    assert_eq!(boot["machine"]["origin"], "cold");
    let (_, full) = run(&project, &[], 0, &["machine: booting"]);
    assert_eq!(full["machine"]["origin"], "cold");
    // Later ones use the latest.
    let (_, third) = run(&project, &["health"], 0, &["nothing is booted"]);
    assert_eq!(id(&third), id(&full));
    nothing_left(&project);
    let [folder] = &kept(&project)[..] else { panic!("{:?}", kept(&project)) };
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder), mode(folder.parent().unwrap())), (0o700, 0o700));
    for name in ["machine.json", "credential-0"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    project.hermetic(&["image", "--clean"]).check(0, &["of saved machines are thrown away"]);
    assert!(kept(&project).is_empty());
}

#[test]
fn what_is_not_right_any_more_is_thrown_away_with_a_word() {
    let project = keeping(&[("health/true", TRUE)]);
    run(&project, &["health"], 0, &[]);
    let folder = kept(&project).remove(0);
    // Damaged.
    std::fs::write(folder.join("state"), "nonsense").unwrap();
    let (_, transcript) = run(
        &project,
        &["health"],
        0,
        &["machine: one that was saved is thrown away: QEMU did not take", "machine: booting"],
    );
    assert_eq!(transcript["machine"]["origin"], "cold");
    // Of another image.
    let disk = project.path("image/image.json");
    let manifest = std::fs::read_to_string(&disk).unwrap();
    std::fs::write(&disk, manifest.replace("loglevel=7", "loglevel=6")).unwrap();
    run(
        &project,
        &["health"],
        0,
        &["machine: one that was saved is thrown away: the image's content was `", "machine: booting"],
    );
    // Not written to its end.
    std::fs::remove_file(kept(&project)[0].join("machine.json")).unwrap();
    run(&project, &["health"], 0, &["machine: booting"]);
    assert_eq!(kept(&project).len(), 1);
    nothing_left(&project);
}

#[test]
fn two_runs_at_once_boot_one_machine_and_share_it() {
    let project = keeping(&[("health/true", TRUE)]);
    let other = keeping(&[("health/true", TRUE)]);
    let cache = project.path("cache");
    let image = project.path("image");
    let other = other.set("RAVE_IMAGE", &image);
    let runs = [&project, &other].map(|project| {
        let mut command = project.command(&["run", "health"]);
        command.env("XDG_CACHE_HOME", &cache).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    let ran = runs.map(|run| Ran::from(run.wait_with_output().unwrap()));
    ran.iter().for_each(|ran| ran.check(0, &["health::true ... ok"]));
    let booted = ran.iter().filter(|ran| ran.stderr.contains("machine: booting")).count();
    assert_eq!(booted, 1, "{}\n{}", ran[0].stderr, ran[1].stderr);
    nothing_left(&project);
    nothing_left(&other);
}

#[test]
fn a_run_that_is_killed_leaves_a_kept_machine_good_and_nothing_else() {
    let project = keeping(&[("health/sleeps", SLEEPS), ("security/true", TRUE)]);
    let mut first = start(&project, &["run", "sleeps"]);
    wait_for(&project, "forks: by");
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    nothing_left(&project);
    run(&project, &["security"], 0, &["security::true ... ok"]);
    let mut second = start(&project, &["run", "sleeps"]);
    wait_for(&project, "nothing is booted");
    kill_process(Pid::from_child(&second), Signal::KILL).unwrap();
    second.wait().unwrap();
    nothing_left(&project);
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    run(&project, &["security"], 0, &["nothing is booted"]);
    assert_eq!(kept(&project).len(), 1);
}

/// As cargo nextest does it: lists, then starts a process for every scenario, with its exact name.
#[test]
fn a_process_for_every_scenario_and_one_transcript_in_the_end() {
    let project = keeping(&[
        ("config/here", "summary = 'x'\n[[step]]\nname = 'a'\nhost = 'true'\n"),
        ("health/one", TRUE),
        ("security/two", TRUE),
    ]);
    let listed = project.hermetic(&["run", "--list", "--format", "terse"]);
    assert_eq!(listed.stdout, "config::here: test\nhealth::one: test\nsecurity::two: test\n");
    let ignored = project.hermetic(&["run", "--list", "--format", "terse", "--ignored"]);
    assert_eq!((ignored.code, ignored.stdout.as_str()), (Some(0), ""), "{}", ignored.stderr);
    let runs = listed.stdout.lines().map(|line| line.strip_suffix(": test").unwrap());
    let runs: Vec<_> = runs.map(|name| project.start(&["run", "--exact", name, "--nocapture"])).collect();
    let ran: Vec<_> = runs.into_iter().map(|run| Ran::from(run.wait_with_output().unwrap())).collect();
    ran.iter().for_each(|ran| ran.check(0, &["1 passed"]));
    assert_eq!(ran.iter().filter(|ran| ran.stderr.contains("machine: booting")).count(), 1);
    nothing_left(&project);
    let transcripts = || {
        let files = std::fs::read_dir(project.path("artifacts")).unwrap().map(|file| file.unwrap().path());
        let mut json: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        json.sort();
        json
    };
    let parts = transcripts();
    let seal: Vec<_> = ["seal"].into_iter().chain(parts.iter().map(|path| path.to_str().unwrap())).collect();
    project.hermetic(&seal).check(0, &["SUCCESS: 3 passed"]);
    let sealed = transcripts().into_iter().find(|path| !parts.contains(path)).unwrap();
    project.hermetic(&["verify", sealed.to_str().unwrap()]).check(0, &["verified: SUCCESS: 3 passed"]);
    let sealed: serde_json::Value = serde_json::from_slice(&std::fs::read(sealed).unwrap()).unwrap();
    assert_eq!(sealed["parts"].as_array().unwrap().len(), 3);
    // What does not verify, or is there twice, is not joined.
    project.hermetic(&["seal", parts[0].to_str().unwrap(), parts[0].to_str().unwrap()]).check(1, &["is there twice"]);
    let text = std::fs::read_to_string(&parts[0]).unwrap();
    std::fs::write(&parts[0], text.replace("SUCCESS", "WARNING")).unwrap();
    project.hermetic(&seal).check(3, &["does not verify"]);
}

#[test]
fn a_failed_machine_is_kept_and_goes_on_where_it_stood() {
    let fails = "summary = 'x'\n[[step]]\nname = 'leaves a mark and fails'\nrun = 'echo in-memory >/tmp/mark; echo on-disk >/data/mark; false'\n";
    let project = project("ok", &[("health/fails", fails), ("security/true", TRUE)]).set("RAVE_KEEP_VM", "1");
    let ran = project.hermetic(&["run"]);
    ran.check(101, &["the machine of health::fails is kept; enter it with: hermetic shell spinup-"]);
    nothing_left(&project);
    let name = ran.stderr.split("hermetic shell ").nth(1).unwrap().split_whitespace().next().unwrap();
    // Standard input is no terminal: `ssh` gives the commands to the shell.
    let mut shell = project.command(&["shell", name]);
    let mut shell = shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), b"cat /tmp/mark /data/mark\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in-memory\non-disk\n");
    nothing_left(&project);
    project.hermetic(&["shell", "spinup-1/health::fails"]).check(1, &["no machine was kept: could not read"]);
}
