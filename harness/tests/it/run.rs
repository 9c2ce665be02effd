//! The run as a whole, on scenarios that need no machine: exit codes, output, transcript, verification, keys.

use std::process::Command;

use crate::support::Project;

const PASSES: &str = r#"
summary = "It passes"
[[step]]
name   = "the shell adds"
host   = "echo $((1 + 1))"
stdout = { equals = "2" }
"#;

const FAILS: &str = r#"
summary = "It fails"
[[step]]
name   = "the shell cannot add"
host   = "echo 2"
stdout = { equals = "3" }
[[step]]
name   = "this is never asked"
host   = "touch asked"
"#;

const WARNS: &str = r#"
summary = "It warns"
[[step]]
name   = "there is much space"
level  = "warn"
host   = "echo 1"
stdout = { at_least = 2 }
"#;

const SKIPS: &str = r#"
summary = "It is taken out"
[[step]]
name = "not now"
skip = { reason = "waits for a mended shell", until = "2999-01-01", tracker = "T7" }
host = "false"
"#;

#[test]
fn a_run_that_passes() {
    let project = Project::new(&[("config/passes", PASSES)]);
    project.hermetic(&["run"]).check(0, &["test config::passes ... ok", "1 passed; 0 failed", "SUCCESS: 1 passed"]);
    let transcript = project.transcript();
    assert_eq!(transcript["overall_status"], "SUCCESS");
    assert_eq!(transcript["validation_results"][0]["steps"][0]["answer"]["streams"]["stdout"]["excerpt"], "2\n");
    assert_eq!(transcript["rave_version"], "none");
    assert!(transcript["machine"].is_null() && transcript["image"].is_null());
}

#[test]
fn a_failed_step_fails_the_process_and_points_into_its_file() {
    let project = Project::new(&[("config/fails", FAILS), ("config/passes", PASSES)]);
    let ran = project.hermetic(&["run"]);
    ran.check(101, &["config::fails  ... FAILED", "1 passed; 1 failed", "FAILED: 1 passed, 1 failed"]);
    ran.check(
        101,
        &[
            "fails.toml:6: step `the shell cannot add`: stdout does not match",
            r#"expected: equals "3""#,
            "actual:   2\n",
        ],
    );
    assert!(!project.path("asked").exists());
    assert_eq!(project.transcript()["overall_status"], "FAILED");
    let junit = std::fs::read_to_string(project.artifact(".junit.xml")).unwrap();
    assert!(junit.contains(r#"tests="2" failures="1" errors="0""#), "{junit}");
}

#[test]
fn what_could_not_be_asked_is_not_a_pass() {
    let scenario = "summary = 'x'\ntimeout = '1s'\n[[step]]\nname = 'never ends'\nhost = 'sleep 1000'\n";
    let project = Project::new(&[("config/hangs", scenario)]);
    project
        .hermetic(&["run"])
        .check(101, &["could not be asked: it did not end within 1.0 s and was killed", "1 errored"]);
    assert_eq!(project.transcript()["validation_results"][0]["outcome"], "errored");
}

#[test]
fn a_warning_is_shown_and_does_not_fail() {
    let project = Project::new(&[("config/warns", WARNS)]);
    project
        .hermetic(&["run"])
        .check(0, &["warning: ", "warns.toml:7: step `there is much space`", "WARNING: 1 warned"]);
    assert_eq!(project.transcript()["test_summary"]["warned"], 1);
}

#[test]
fn a_skip_has_a_reason_and_is_counted() {
    let project = Project::new(&[("config/passes", PASSES), ("config/skips", SKIPS)]);
    let reason = "waits for a mended shell, until 2999-01-01 (T7)";
    project.hermetic(&["run"]).check(0, &["1 passed; 0 failed; 1 ignored", reason, "SUCCESS: 1 passed, 1 skipped"]);
    let expired = SKIPS.replace("2999", "2001");
    Project::new(&[("config/skips", &expired)])
        .hermetic(&["run"])
        .check(101, &["skips.toml:6: step `not now`: exit does not match"]);
}

#[test]
fn waiting_asks_again_and_a_deadline_shows_the_last_answer() {
    let never = "summary = 'x'\n[[step]]\nname = 'x'\nwithin = '1s'\nhost = 'echo x >> count; wc -l < count'\nstdout = { at_most = 0 }\n";
    let project = Project::new(&[("config/waits", never)]);
    project.hermetic(&["run"]).check(101, &["waits.toml:6: step `x`: stdout does not match", "times)"]);
    assert!(project.transcript()["validation_results"][0]["steps"][0]["attempts"].as_u64() > Some(1));
    let waits = never.replace("'1s'", "'20s'").replace("at_most = 0", "at_least = 3");
    let project = Project::new(&[("config/waits", &waits)]);
    project.hermetic(&["run"]).check(0, &[]);
    assert_eq!(project.transcript()["validation_results"][0]["steps"][0]["attempts"], 3);
}

#[test]
fn secrets_are_masked_in_all_that_is_left() {
    let scenario = r#"
summary = "A secret is used"
secrets = ["password"]
[[step]]
name   = "it arrives"
host   = "cat > secret; cat secret secret; cat secret >&2; head -c 4000 /dev/zero | tr '\\0' x; test ! -e /nonexistent; false"
stdin  = "{{password}}"
exit   = 0
"#;
    let project = Project::new(&[("config/secret", scenario)]);
    let ran = project.hermetic(&["run"]);
    ran.check(101, &["[masked]"]);
    let secret = std::fs::read_to_string(project.path("secret")).unwrap();
    assert!(secret.len() >= 32, "{secret}");
    let found = Command::new("grep").args(["-rl", &secret]).arg(project.path("artifacts")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(!ran.stdout.contains(&secret) && !ran.stderr.contains(&secret));
}

#[test]
fn filters_choose_by_any_of_their_words() {
    let project = Project::new(&[("config/aa", PASSES), ("config/bb", PASSES), ("config/cc", FAILS)]);
    project.hermetic(&["run", "aa", "bb"]).check(0, &["2 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out"]);
    let project = Project::new(&[("config/aa", PASSES), ("config/aab", FAILS)]);
    project.hermetic(&["run", "--exact", "config::aa"]).check(0, &["1 passed"]);
    let project = Project::new(&[("config/aa", PASSES), ("config/bb", FAILS)]);
    project.hermetic(&["run", "--skip", "bb"]).check(0, &["1 passed"]);
    assert_eq!(project.transcript()["filters"][0], "--skip bb");
}

#[test]
fn nothing_chosen_is_an_error() {
    let project = Project::new(&[("config/passes", PASSES)]);
    project
        .hermetic(&["run", "pases"])
        .check(2, &["no scenario's name contains `pases`; the nearest is `config::passes`"]);
    assert!(!project.path("artifacts").exists());
}

#[test]
fn listing_runs_nothing() {
    let project =
        Project::new(&[("config/aa", PASSES), ("boot/bb", "summary = 'x'\n[[step]]\nname = 'x'\nrun = 'true'\n")]);
    let ran = project.hermetic(&["run", "--list", "--format", "terse"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "config::aa: test\nboot::bb: test\n", "")
    );
    project.hermetic(&["list"]).check(0, &["boot::bb [machine]"]);
    assert!(!project.path("artifacts").exists());
}

#[test]
fn every_mistake_of_every_file_is_reported_before_anything_starts() {
    let project = Project::new(&[
        ("config/aa", "summary = 'x'\n[[step]]\nname = 'x'\nhost = 'touch started'\nstduot = { equals = 'x' }\n"),
        ("boot/bb", "sumary = 'x'\n"),
        ("config/cc", PASSES),
    ]);
    project
        .hermetic(&["run"])
        .check(1, &["aa.toml:5: ", "did you mean `stdout`?", "bb.toml:1: ", "did you mean `summary`?"]);
    assert!(!project.path("started").exists() && !project.path("artifacts").exists());
    Project::new(&[]).set("RAVE_SCENARIOS", "none").hermetic(&["run"]).check(1, &["none"]);
}

#[test]
fn a_wrong_setting_stops_the_run_at_once() {
    let project = || Project::new(&[("config/passes", PASSES)]);
    project().set("SAFE_MODE", "yes").hermetic(&["run"]).check(2, &["SAFE_MODE=yes: must be 1 or 0"]);
    project()
        .set("VALIDATION_TIMEOUT", "-1")
        .hermetic(&["run"])
        .check(2, &["VALIDATION_TIMEOUT=-1: must be a whole number"]);
    project().set("RAVE_IMAGE", "no.qcow2").hermetic(&["run"]).check(2, &["no.qcow2` does not exist"]);
    project().set("RAVE_CREDENTIALS", "none").hermetic(&["run"]).check(2, &["none: is no folder"]);
    project().hermetic(&["run", "--no-such-flag"]).check(2, &["--no-such-flag"]);
}

#[test]
fn artifacts_that_cannot_be_written_are_an_error() {
    let project = Project::new(&[("config/passes", PASSES)]).set("RAVE_ARTIFACTS", "/proc/artifacts");
    project.hermetic(&["run"]).check(1, &["could not write `/proc/artifacts`"]);
}

#[test]
fn images_that_are_none_are_refused() {
    let needs_image = "summary = 'x'\n[[step]]\nname = 'x'\nmeasure = 'image.format'\nvalue = { equals = 'qcow2' }\n";
    let refused = |bytes: &[u8], expected: &str| {
        let project = Project::new(&[("image/format", needs_image)]);
        let file = project.path("disk");
        std::fs::write(&file, bytes).unwrap();
        project.set("RAVE_IMAGE", file).hermetic(&["run"]).check(1, &["no image could be provided", expected]);
    };
    refused(b"not a disk", "is not a disk image: it has 10 bytes, less than one sector");
    refused(&[0; 4096], "is not a disk image: it is neither qcow2 nor a raw disk with a boot sector");
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("whole.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", "preallocation=full"]).arg(&disk).arg("4M");
    assert!(create.status().expect("qemu-img (package qemu-utils)").success());
    let bytes = std::fs::read(&disk).unwrap();
    refused(&bytes[..bytes.len() - 1024 * 1024], "truncated");
    // A fresh one ends in the middle of its last cluster.
    let fresh = folder.path().join("fresh.qcow2");
    assert!(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&fresh)
            .arg("4M")
            .status()
            .unwrap()
            .success()
    );
    for disk in [disk, fresh] {
        let project = Project::new(&[("image/format", needs_image)]).set("RAVE_IMAGE", &disk);
        project.hermetic(&["run"]).check(0, &["1 passed"]);
    }
}

#[test]
fn what_nobody_knows_is_skipped_and_not_measured() {
    let measures = "summary = 'x'\n[[step]]\nname = 'x'\nmeasure = 'image.built_seconds'\nvalue = { at_most = 900 }\n";
    let project = Project::new(&[("image/build", measures)]);
    let disk = project.path("disk");
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&disk, sector).unwrap();
    let ran = project.set("RAVE_IMAGE", disk).hermetic(&["run"]);
    // And where nothing else is asked, that is no pass.
    let expected = ["`image.built_seconds` is not known in this run", "FAILED (nothing was asked): 1 skipped"];
    ran.check(101, &expected);
}

#[test]
fn stock_minisign_agrees_and_a_changed_transcript_does_not_verify() {
    let project = Project::new(&[("config/passes", PASSES)]);
    project.hermetic(&["run"]).check(0, &[]);
    let (transcript, key) = (project.artifact(".json"), project.artifact(".pub"));
    let minisign =
        || Command::new("minisign").arg("-Vm").arg(&transcript).arg("-p").arg(&key).output().expect("minisign");
    let output = minisign();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("status:SUCCESS"), "{text}");
    let verify =
        |arguments: &[&str]| project.hermetic(&[&["verify", transcript.to_str().unwrap()], arguments].concat());
    verify(&["--key", key.to_str().unwrap()]).check(0, &["verified: SUCCESS"]);
    verify(&[]).check(0, &["anybody could have signed it"]);

    let text = std::fs::read_to_string(&transcript).unwrap();
    std::fs::write(&transcript, text.replace("\"passed\":1", "\"passed\":2")).unwrap();
    verify(&["--key", key.to_str().unwrap()]).check(3, &["NOT VERIFIED", "the detached signature does not verify"]);
    assert!(!minisign().status.success());
    std::fs::remove_file(project.artifact(".minisig")).unwrap();
    verify(&[]).check(3, &["is not there"]);
}

#[test]
fn keys_of_ones_own_sign() {
    let project = Project::new(&[("config/passes", PASSES)]);
    std::fs::write(project.path("password"), "correct horse\n").unwrap();
    std::fs::write(project.path("wrong"), "battery\n").unwrap();
    project.hermetic(&["keygen", "release.key", "--password-file", "password"]).check(0, &["public key: release.pub"]);
    project.hermetic(&["keygen", "release.key"]).check(1, &["an existing key is never overwritten"]);
    let project = project.set("RAVE_SIGNING_KEY", "release.key");
    project.hermetic(&["run"]).check(1, &["is encrypted; name the file of its password"]);
    let run = |password: &str| {
        let output = project.command(&["run"]).env("RAVE_SIGNING_KEY_PASSWORD_FILE", password).output().unwrap();
        crate::support::Ran::from(output)
    };
    run("wrong").check(1, &["does not open the signing key"]);
    run("none").check(1, &["could not read the password file"]);
    run("password").check(0, &["1 passed"]);
    assert_eq!(project.transcript()["signing_key"]["ephemeral"], false);
    let transcript = project.artifact(".json");
    project.hermetic(&["verify", transcript.to_str().unwrap(), "--key", "release.pub"]).check(0, &["verified"]);
    project
        .hermetic(&["verify", transcript.to_str().unwrap(), "--key", "none.pub"])
        .check(1, &["could not read the key"]);
}

#[test]
fn keys_of_stock_minisign_sign() {
    let project = Project::new(&[("config/passes", PASSES)]).set("RAVE_SIGNING_KEY", "stock.key");
    let made = project.command(&[]).get_current_dir().map(std::path::Path::to_owned).unwrap();
    let made =
        Command::new("minisign").args(["-G", "-W", "-p", "stock.pub", "-s", "stock.key"]).current_dir(made).output();
    assert!(made.expect("minisign").status.success());
    project.hermetic(&["run"]).check(0, &["1 passed"]);
    let output = Command::new("minisign")
        .arg("-Vm")
        .arg(project.artifact(".json"))
        .arg("-p")
        .arg(project.path("stock.pub"))
        .output();
    assert!(output.unwrap().status.success());
    std::fs::write(project.path("stock.key"), "not a key").unwrap();
    project.hermetic(&["run"]).check(1, &["is not a minisign secret key"]);
}

#[test]
fn two_runs_in_one_second_have_two_names() {
    let project = Project::new(&[("config/passes", PASSES)]);
    let runs: Vec<_> = (0..4).map(|_| project.start(&["run"])).collect();
    for run in runs {
        crate::support::Ran::from(run.wait_with_output().unwrap()).check(0, &["1 passed"]);
    }
    let names = std::fs::read_dir(project.path("artifacts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".json")).count(), 4);
}

#[test]
fn an_interrupted_run_leaves_a_signed_transcript() {
    let scenario = "summary = 'x'\ntimeout = '100s'\n[[step]]\nname = 'waits'\nhost = 'touch started; sleep 1000'\n";
    let project = Project::new(&[("config/aa", scenario), ("config/bb", PASSES)]);
    let run = project.start(&["run", "--test-threads", "1"]);
    let pid = rustix::process::Pid::from_child(&run);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    rave_hermetic::wait::until(deadline, || {
        let started = project.path("started").exists();
        Ok::<_, String>(if started {
            rave_hermetic::wait::Probe::Ready(())
        } else {
            rave_hermetic::wait::Probe::NotYet("no".into())
        })
    })
    .unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ran = crate::support::Ran::from(run.wait_with_output().unwrap());
    ran.check(1, &["SIGTERM: ending the machine and writing the transcript", "ABORTED (SIGTERM): "]);
    let transcript = project.transcript();
    assert_eq!((&transcript["overall_status"], &transcript["reasons"][0]), (&"ABORTED".into(), &"SIGTERM".into()));
    project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &["verified: ABORTED"]);
}

#[test]
fn the_whole_run_has_a_deadline() {
    let scenario = "summary = 'x'\ntimeout = '100s'\n[[step]]\nname = 'waits'\nhost = 'sleep 1000'\n";
    let project = Project::new(&[("config/aa", scenario)]).set("VALIDATION_TIMEOUT", "1");
    project
        .hermetic(&["run"])
        .check(1, &["ABORTED (VALIDATION_TIMEOUT: 1 s are over): ", "the run was cut short: VALIDATION_TIMEOUT"]);
}

#[test]
fn no_qemu_is_an_error_before_anything_starts() {
    let project = Project::new(&[("boot/bb", "summary = 'x'\n[[step]]\nname = 'x'\nrun = 'true'\n")]);
    let output = project.command(&["run"]).env("PATH", project.path("")).output().unwrap();
    crate::support::Ran::from(output).check(1, &["qemu-system-x86_64"]);
    assert!(!project.path("artifacts").exists());
}
