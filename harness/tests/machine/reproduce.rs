//! A run with a machine is made again from its transcript.

use std::io::Write as _;
use std::process::Stdio;

use crate::run::{nothing_left, project};
use crate::support::Ran;

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";
const FAILS: &str = "summary = 'x'\n[[step]]\nname = 'leaves a mark'\nrun = 'echo mark >/tmp/mark; cat /proc/uptime'\n[[step]]\nname = 'is one'\nrun = 'echo 2'\nstdout = { equals = '1' }\n";

#[test]
fn a_failure_is_made_again_and_its_machine_entered() {
    let project = project("ok", &[("boot/true", TRUE), ("health/fails", FAILS)]);
    project.hermetic(&["run"]).check(101, &["1 passed, 1 failed"]);
    std::fs::rename(project.path("artifacts"), project.path("recorded")).unwrap();
    let recorded = std::fs::read_dir(project.path("recorded")).unwrap().map(|entry| entry.unwrap().path());
    let transcript = recorded.filter(|path| path.extension().is_some_and(|end| end == "json")).last().unwrap();
    let transcript = transcript.to_str().unwrap();
    // Neither image nor accelerator is named: both are in the transcript. Only one scenario is asked, on a fork as before.
    let project = project.without("RAVE_IMAGE").without("RAVE_ACCEL");
    let mut again = project.command(&["reproduce", transcript, "health::fails", "--shell"]);
    let mut again = again.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    again.stdin.take().unwrap().write_all(b"cat /tmp/mark\n").unwrap();
    let again = Ran::from(again.wait_with_output().unwrap());
    again.check(
        0,
        &[
            "health::fails: failed, as recorded; 1 of 2 answers are the same",
            "  step `leaves a mark`: stdout differs: ",
            "REPRODUCED: 1 of 1 verdicts are as recorded\nmark\n",
        ],
    );
    let same = again.stdout.lines().find(|line| line.starts_with("  the same: ")).unwrap();
    for input in ["image", "guest", "QEMU", "accelerator", "machine's origin", "QEMU's arguments", "questions"] {
        assert!(same.contains(input), "{input}: {}", again.stdout);
    }
    nothing_left(&project);
    std::fs::remove_dir_all(project.path("artifacts")).unwrap();
    // Mended in the meantime.
    let file = project.path("scenarios/health/fails.toml");
    std::fs::write(file, FAILS.replace("echo 2", "echo 1")).unwrap();
    project
        .hermetic(&["reproduce", transcript])
        .check(101, &["boot::true: passed, as recorded", "health::fails: failed → passed", "NOT REPRODUCED: 1 of 2"]);
    nothing_left(&project);
    // On a machine where the image is not.
    std::fs::rename(project.path("image"), project.path("elsewhere")).unwrap();
    let missing = ["missing: the image sha256:", "/image/disk.qcow2 (not there)", "set RAVE_IMAGE to it"];
    project.hermetic(&["reproduce", transcript]).check(1, &missing);
    let project = {
        let elsewhere = project.path("elsewhere");
        project.set("RAVE_IMAGE", elsewhere)
    };
    project.hermetic(&["reproduce", transcript, "boot::true"]).check(0, &["REPRODUCED: 1 of 1"]);
    nothing_left(&project);
}
