//! The provider `nix`: a real Nix with a store of its own, on the flakes of `tests/flakes/`, which need nothing from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rave_hermetic::wait::{Probe, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{Project, Ran};

const NEEDS_IMAGE: &str = r#"
summary = "Nix made the image"
[[step]]
name    = "by Nix"
measure = "image.provider"
value   = { equals = "nix" }
[[step]]
name    = "a raw disk"
measure = "image.format"
value   = { equals = "raw" }
[[step]]
name    = "and how long that took"
measure = "image.built_seconds"
value   = { at_least = 0 }
"#;

/// A project whose image is this output of one of the flakes.
fn project(flake: &str, attribute: &str) -> Project {
    let project = Project::new(&[("image/format", NEEDS_IMAGE)]);
    let flakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flakes");
    let copied = Command::new("cp").arg("-r").arg(flakes).arg(project.path("flakes")).status();
    assert!(copied.unwrap().success());
    project.set("RAVE_IMAGE", format!("nix:./flakes/{flake}#{attribute}")).with_nix()
}

/// With a program of the test's own as `nix`.
fn with_program(project: Project, script: &str) -> Project {
    let folder = project.path("bin");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("nix"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(folder.join("nix"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.to_str().unwrap(), std::env::var("PATH").unwrap());
    project.set("PATH", path)
}

/// The one log of a build among the artifacts.
fn log(project: &Project) -> String {
    let sessions = fs::read_dir(project.path("artifacts")).unwrap().map(|entry| entry.unwrap().path());
    let log = sessions.map(|session| session.join("image-build.log")).find(|log| log.exists());
    fs::read_to_string(log.expect("a log was kept")).unwrap()
}

/// Provides an image, and everything the transcript says of it holds.
#[track_caller]
fn check_provided(attribute: &str, disk: Option<&str>) -> (Project, Ran, Value) {
    let project = project("images", attribute);
    let ran = project.hermetic(&["run"]);
    ran.check(0, &["1 passed", " (nix), sha256:"]);
    let transcript = project.transcript();
    let image = transcript["image"].clone();
    let store = project.path("nix/store");
    let store_path = Path::new(image["store_path"].as_str().unwrap());
    assert!(store_path.starts_with(&store) && store_path.exists(), "{image:#}");
    let derivation = Path::new(image["derivation"].as_str().unwrap());
    assert!(derivation.starts_with(&store) && derivation.extension().unwrap() == "drv", "{image:#}");
    assert!(image["nar_hash"].as_str().unwrap().starts_with("sha256-"), "{image:#}");
    let digest: String =
        Sha256::digest(fs::read(disk.map_or(store_path.to_owned(), |name| store_path.join(name))).unwrap())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
    assert_eq!(transcript["image_digest"], format!("sha256:{digest}"));
    assert_eq!((&image["provider"], &image["reason"]), (&"nix".into(), &"RAVE_IMAGE asks for it".into()));
    assert!(transcript["nix_version"].as_str().unwrap().starts_with("nix ("), "{transcript:#}");
    (project, ran, image)
}

#[test]
fn a_disk_file_in_the_output_is_the_image() {
    let (project, ran, image) = check_provided("disk", Some("p6.raw"));
    // Line by line while it builds, and all of it in the log.
    ran.check(0, &["image: building '", "image: disk> one line", "image: disk> cores: 2"]);
    assert!(log(&project).contains("disk> one line\ndisk> cores: 2\n"), "{}", log(&project));
    assert!(image["files"][0]["path"].as_str().unwrap().ends_with("/p6.raw"), "{image:#}");
}

#[test]
fn the_output_itself_may_be_the_disk() {
    check_provided("bare", None);
}

#[test]
fn the_output_may_describe_the_image_itself() {
    let (.., image) = check_provided("described", Some("any-name"));
    assert_eq!(image["built_seconds"], 77);
}

#[test]
fn a_store_path_is_an_installable_too() {
    let (project, _, image) = check_provided("disk", Some("p6.raw"));
    let path = image["store_path"].as_str().unwrap().to_owned();
    fs::remove_dir_all(project.path("artifacts")).unwrap();
    let project = project.set("RAVE_IMAGE", format!("nix:{path}"));
    project.hermetic(&["run"]).check(0, &["1 passed"]);
    assert_eq!(project.transcript()["image"]["store_path"], path);
}

#[test]
fn without_safe_mode_nix_takes_what_it_may() {
    let project = project("images", "disk").set("SAFE_MODE", "0");
    project.hermetic(&["run"]).check(0, &["image: disk> cores: 7"]);
}

#[test]
fn nar_hash_and_all_else_is_printed_by_the_image_command() {
    let project = project("images", "disk");
    let ran = project.hermetic(&["image"]);
    ran.check(0, &["provider  nix (RAVE_IMAGE asks for it)", "derivation", "narHash   sha256-", "nix (Nix) "]);
    let store_path = ran.stdout.lines().find_map(|line| line.strip_prefix("store     ")).unwrap();
    let mut verify = Command::new("nix-store");
    let settings = project.command(&[]);
    let settings = settings.get_envs().filter_map(|(name, value)| Some((name, value?)));
    verify.args(["--verify-path", store_path]).envs(settings);
    assert!(verify.status().expect("nix-store (package nix-bin)").success());
}

/// Asks for an image that there is none of: a clear sentence, Nix's own words, and nothing passes.
#[track_caller]
fn check_refused(project: &Project, texts: &[&str]) {
    let ran = project.hermetic(&["run"]);
    ran.check(1, &["no image could be provided: "]);
    ran.check(1, texts);
    assert_eq!(project.transcript()["test_summary"]["passed"], 0);
}

#[test]
fn each_failure_says_what_it_is_with_nixs_own_last_lines() {
    let check = |flake: &str, attribute: &str, texts: &[&str]| {
        let project = project(flake, attribute);
        check_refused(&project, texts);
        assert!(!log(&project).is_empty());
    };
    check(
        "images",
        "none-such",
        &[
            "`nix build ./flakes/images#none-such`: the flake does not provide it: `nix` ended with exit status: 1; its last lines",
            "does not provide attribute 'packages.x86_64-linux.none-such'",
        ],
    );
    check("images", "fails", &["`: a build failed: ", "fails> no such luck", "failed with exit code 3"]);
    check("images", "wrong", &["`: Nix could not evaluate it: ", "this is how it is meant"]);
    check(
        "images",
        "unbuildable",
        &["`: neither this machine nor a remote builder has what the build asks for", "flying"],
    );
    check("none-such", "disk", &["`nix build ./flakes/none-such#disk`: there is no flake there"]);
    check("locked", "disk", &["`: something had to be downloaded and could not be: ", "elsewhere.invalid"]);
    check("unlocked", "disk", &["`: flake.lock is not in step with flake.nix", "requires lock file changes"]);
    check("images", "empty", &["gave no image: `", "has neither image.json nor exactly one .qcow2, .img or .raw file"]);
    check("images", "two", &["gave no image: `", "has neither image.json nor exactly one"]);
    check("images", "no-disk", &["p6.raw` is not a disk image: it has 5 bytes, less than one sector"]);
}

#[test]
fn a_flake_that_is_no_nix_says_where() {
    let project = project("images", "disk");
    fs::write(project.path("flakes/images/flake.nix"), "{\n  outputs = self: { x = 1 }\n}\n").unwrap();
    check_refused(&project, &["`: Nix could not evaluate it: ", "syntax error, unexpected '}'", "flake.nix:2:"]);
}

#[test]
fn a_folder_without_a_flake_is_told_from_one_without_the_attribute() {
    let project = project("images", "disk");
    fs::remove_file(project.path("flakes/images/flake.nix")).unwrap();
    check_refused(&project, &["`: there is no flake there (in a git tree only files that git knows count): "]);
}

#[test]
fn programs_that_are_no_nix_or_an_old_one_are_refused() {
    let check = |script: &str, texts: &[&str]| check_refused(&with_program(project("images", "disk"), script), texts);
    check("echo hello", &["the program `nix` is not Nix: `nix --version` says `hello`"]);
    check("exit 1", &["the program `nix` is not Nix: `nix --version` says ``"]);
    check("echo 'nix (Nix) 2.3.16'", &["`nix (Nix) 2.3.16` knows no flakes; 2.4 or later is needed"]);
    let refuses = "[ $1 = --version ] && exec echo 'nix (Nix) 2.9.1'
        echo \"error: experimental Nix feature 'flakes' is disabled; use '--extra-experimental-features flakes' to override\" >&2
        exit 1";
    check(refuses, &["`: this Nix does not take flakes: ", "error: experimental Nix feature 'flakes' is disabled"]);
    let babbles = "[ $1 = --version ] && exec echo 'nix (Nix) 2.9.1'; echo done";
    check(babbles, &["gave no image: nix printed no JSON: "]);
}

#[test]
fn no_nix_at_all_is_said_as_well() {
    let project = project("images", "disk");
    // What a run looks for before it starts must still be found.
    let folder = project.path("bin");
    fs::create_dir(&folder).unwrap();
    for program in ["sh", "qemu-img", "qemu-system-x86_64", "git", "minisign", "chmod"] {
        if let Ok(found) = which::which(program) {
            std::os::unix::fs::symlink(found, folder.join(program)).unwrap();
        }
    }
    check_refused(&project.set("PATH", folder), &["there is no `nix` program"]);
}

#[test]
fn an_interrupted_build_leaves_no_builder() {
    let project = project("images", "hangs");
    let stderr = project.path("stderr");
    let mut command = project.command(&["run"]);
    let run = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap()).spawn();
    let mut run = run.unwrap();
    wait("it builds", || fs::read_to_string(&stderr).unwrap().contains("hangs> waiting for the end"));
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert_eq!(project.transcript()["overall_status"], "ABORTED");
    let builder = || Command::new("pgrep").args(["-f", "^sleep 7654321$"]).output().expect("pgrep (package procps)");
    wait("no builder is left", || builder().stdout.is_empty());
}

#[track_caller]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    until(Instant::now() + Duration::from_secs(60), || {
        Ok::<_, String>(if holds() { Probe::Ready(()) } else { Probe::NotYet(what.to_owned()) })
    })
    .unwrap();
}
