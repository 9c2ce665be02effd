//! The run as a whole, on a real machine: pass, fail, lost machine, interrupted, killed, two at once.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rave_hermetic::wait::{Probe, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::microguest::microguest;
use crate::support::{Project, Ran};

const ANSWERS: &str = r#"
summary = "The guest answers in every way there is"
needs   = ["ssh"]
timeout = "120s"
secrets = ["password"]

[[step]]
name   = "over SSH"
run    = "cat; echo error >&2"
stdin  = "{{password}}"
stdout = { equals = "{{password}}" }
stderr = { equals = "error" }

[[step]]
name = "over HTTPS, with its own CA"
within = "30s"
[step.http]
get    = "/health.json"
status = 200

[[step]]
name = "on an open port"
port = 22
answers = true
body = { contains = "SSH-2.0" }

[[step]]
name = "not on a closed port"
port = 9100
answers = false

[[step]]
name = "from the host"
host = "ssh-keyscan -T 60 -t ed25519 -p {{machine.ssh_port}} {{machine.address}} 2>&1"
stdout = { contains = "ssh-ed25519" }
"#;

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";
const FALSE: &str = "summary = 'x'\n[[step]]\nname = 'is one'\nrun = 'echo 2'\nstdout = { equals = '1' }\n";
const NEEDS: &str = "summary = 'x'\nneeds = ['gitlab']\n[[step]]\nname = 'true'\nrun = 'true'\n";

/// A project whose image is the microguest, with `word` on its kernel's command line, and a folder of its own for what
/// machines leave.
pub fn project(word: &str, scenarios: &[(&str, &str)]) -> Project {
    let project = Project::new(scenarios);
    let image = project.path("image");
    std::fs::create_dir(&image).unwrap();
    std::fs::create_dir(project.path("tmp")).unwrap();
    for entry in std::fs::read_dir(microguest().folder()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), image.join(entry.file_name())).unwrap();
    }
    let manifest = std::fs::read_to_string(image.join("image.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["cmdline"] = format!("{} micro={word}", manifest["cmdline"].as_str().unwrap()).into();
    std::fs::write(image.join("image.json"), manifest.to_string()).unwrap();
    let tmp = project.path("tmp");
    project.set("RAVE_IMAGE", image).set("RAVE_ACCEL", "tcg").set("TMPDIR", tmp)
}

/// Nothing is left of a run's machines, a moment after it has ended.
pub fn nothing_left(project: &Project) {
    let deadline = Instant::now() + Duration::from_secs(60);
    until(deadline, || {
        let files: Vec<PathBuf> =
            std::fs::read_dir(project.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
        // All of them have files in the project's folder among their arguments.
        let folder = project.path("");
        let processes = Command::new("pgrep").arg("-f").arg(&folder).output().expect("pgrep (package procps)").stdout;
        let processes = String::from_utf8(processes).unwrap();
        let left = format!("files {files:?}, processes {processes:?}");
        Ok::<_, String>(if files.is_empty() && processes.is_empty() { Probe::Ready(()) } else { Probe::NotYet(left) })
    })
    .unwrap();
}

/// Waits until the run's stderr, which goes to a file, says `text`.
pub fn wait_for(project: &Project, text: &str) {
    let path = project.path("stderr");
    let deadline = Instant::now() + Duration::from_secs(180);
    until(deadline, || {
        let said = std::fs::read_to_string(&path).unwrap();
        Ok::<_, String>(if said.contains(text) { Probe::Ready(()) } else { Probe::NotYet(said) })
    })
    .unwrap();
}

pub fn start(project: &Project, arguments: &[&str]) -> Child {
    let stderr = std::fs::File::create(project.path("stderr")).unwrap();
    let mut command = project.command(arguments);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(stderr).spawn().unwrap()
}

#[test]
fn a_machine_is_asked_in_every_way_and_nothing_is_left() {
    let project = project("ok", &[("boot/answers", ANSWERS), ("health/false", FALSE), ("health/needs", NEEDS)]);
    let ran = project.hermetic(&["run"]);
    ran.check(101, &["test boot::answers ... ok", "`microguest` has no `gitlab`"]);
    ran.check(
        101,
        &[
            "false.toml:5: step `is one`: stdout does not match",
            "FAILED: 1 passed, 1 failed, 1 skipped; microguest sha256:",
        ],
    );
    nothing_left(&project);
    let transcript = project.transcript();
    assert_eq!(transcript["rave_version"], "microguest");
    assert_eq!(transcript["image"]["unchanged_after_run"], true);
    assert_eq!(transcript["machine"]["accelerator"], "tcg");
    // Asked on a fork of a machine that this session booted and saved; what the fork itself said is beside its answers.
    assert_eq!(transcript["validation_results"][0]["machine"], "cold");
    let health = transcript["service_health"].as_array().unwrap();
    let health = health.iter().find(|record| record["name"] == "health::false").unwrap();
    assert_eq!(health["machine"], "fork");
    assert_eq!(health["fork"]["of"], transcript["machine"]["forks"]["saved"]["id"]);
    assert_eq!(transcript["machine"]["forks"]["method"], "x-ignore-shared");
    let id = transcript["machine"]["forks"]["saved"]["id"].as_str().unwrap();
    assert!(id.starts_with(transcript["test_session_id"].as_str().unwrap()), "{id}");
    let session = project.path("artifacts").join(transcript["test_session_id"].as_str().unwrap());
    assert!(session.join("health/false/machine/qmp.log").exists());
    let own = std::fs::read_to_string(session.join("health/false/machine/console.log")).unwrap();
    assert!(!own.contains("Linux version ") && own.contains("crng reseeded due to virtual machine fork"), "{own}");
    assert!(transcript["machine"]["ready_ms"].as_u64().unwrap() > 0);
    assert!(transcript["validation_results"][0]["answered_by"][0].as_str().unwrap().starts_with("ssh: "));
    let path = project.artifact(".json");
    project.hermetic(&["verify", path.to_str().unwrap()]).check(0, &["verified: FAILED"]);
    let minisign =
        Command::new("minisign").arg("-Vm").arg(&path).arg("-p").arg(project.artifact(".pub")).output().unwrap();
    assert!(minisign.status.success());
}

const GIVEN_TEXT: &str = "AGE-SECRET-KEY-GIVEN\n";
const GIVEN_BYTES: &[u8] = b"\0\x01\xff\n\0";
const GIVEN: &str = r#"
summary = "The guest has what was given, and nobody else"
needs   = ["ssh"]
timeout = "120s"

# As systemd looks for it: a string of the firmware for each file.
[[step]]
name   = "each file is a credential of its name"
run    = "cat /sys/firmware/dmi/entries/11-*/raw | tr '\\0' '\\n' | grep -o 'io.systemd.credential.binary:given[^=]*=' | sort"
stdout = { lines = ["io.systemd.credential.binary:given.bytes=", "io.systemd.credential.binary:given.text="] }

[[step]]
name   = "byte for byte"
run    = "cd /run/credentials && sha256sum given.bytes given.text"
stdout = { lines = [
    "17f752cd41dd2c66a7944e664435da6af16fe5cc8c35f3df86714f4d74f344f1  given.bytes",
    "11d09db611a579838e2b7759b21456f5012c1873d5d2eafa558c93a5450a41ff  given.text",
] }

# Nor as the string that it becomes.
[[step]]
name   = "in no argument or environment of a process here"
host   = "exec 3<&0; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -caF --file=/dev/fd/3"
stdin  = "AGE-SECRET-KEY-GIVEN\nQUdFLVNFQ1JFVC1LRVktR0lWRU4K"
exit   = 1
stdout = { equals = 0 }
"#;

#[test]
fn a_folder_of_credentials_arrives_in_the_guest() {
    let project = project("ok", &[("boot/given", GIVEN)]);
    let folder = project.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("given.text"), GIVEN_TEXT).unwrap();
    std::fs::write(folder.join("given.bytes"), GIVEN_BYTES).unwrap();
    let project = project.set("RAVE_CREDENTIALS", &folder);
    project.hermetic(&["run"]).check(0, &["test boot::given ... ok", "SUCCESS: 1 passed"]);
    nothing_left(&project);
    assert_eq!(project.transcript()["harness"]["settings"]["RAVE_CREDENTIALS"], folder.to_str().unwrap());
}

const WRITES: &str = "summary = 'x'\nalone = true\n[[step]]\nname = 'nobody was here'\nrun = 'ls /data | grep -c mark; touch /data/mark /tmp/mark; sleep 3'\nstdout = { equals = 0 }\n";
const FORK: &str = include_str!("../../../scenarios/boot/fork.toml");

#[test]
fn every_scenario_has_a_machine_to_itself() {
    // What is not of systemd in the scenario that is asked of every guest.
    let steps: Vec<_> = FORK.split("\n[[step]]").collect();
    let fork = [steps[0], steps[1], steps[3], steps[4], steps[5]].join("\n[[step]]");
    let scenarios = [
        ("boot/cold", TRUE),
        ("boot/fork", &fork),
        ("health/one", WRITES),
        ("health/two", WRITES),
        (
            "security/lost",
            "summary = 'x'\n[[step]]\nname = 'kill it'\nrun = 'echo c >/proc/sysrq-trigger; sleep 1000'\n",
        ),
        ("security/one", WRITES),
    ];
    let project = project("ok", &scenarios);
    let ran = project.hermetic(&["run"]);
    ran.check(
        101,
        &["boot::fork     ... ok", "health::one    ... ok", "health::two    ... ok", "security::one  ... ok"],
    );
    ran.check(
        101,
        &["security::lost ... FAILED", "the machine was lost: the guest's kernel panicked", "5 passed, 1 errored"],
    );
    nothing_left(&project);
    let transcript = project.transcript();
    assert_eq!(transcript["machine"]["failure"], serde_json::Value::Null);
    assert_eq!(transcript["validation_results"][1]["machine"], "fork");
    project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &["verified: FAILED"]);
}

#[test]
fn a_guest_that_cannot_be_forked_is_shared_and_that_is_said() {
    let forks_only = "summary = 'x'\nmachine = 'fork'\n[[step]]\nname = 'true'\nrun = 'true'\n";
    let project = project("no-wake", &[("boot/fork", forks_only), ("health/true", TRUE), ("security/true", TRUE)]);
    let ran = project.hermetic(&["run"]);
    ran.check(
        0,
        &["forks: none; all scenarios are asked on one machine (the guest did not answer on its port `rave.wake`"],
    );
    ran.check(0, &["health::true   ... ok", "2 passed, 1 skipped"]);
    let transcript = project.transcript();
    assert_eq!(transcript["service_health"][0]["machine"], "shared");
    assert_eq!(transcript["machine"]["forks"]["method"], "none");
    project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &["verified: SUCCESS"]);
    nothing_left(&project);
}

#[test]
fn a_machine_with_a_device_that_cannot_be_saved_is_shared_and_that_is_said() {
    let project = project("ok", &[("health/true", TRUE), ("security/true", TRUE)]);
    let qemu = which::which("qemu-system-x86_64").unwrap();
    let bin = project.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let wrapper = bin.join("qemu-system-x86_64");
    // Its migration is blocked in QEMU itself. A machine without an identity is a question about QEMU.
    let script = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" = -name ] && set -- \"$@\" -device nvme,serial=1 && break; done\nexec {} \"$@\"\n",
        qemu.display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ran = Ran::from(project.command(&["run"]).env("PATH", path).output().unwrap());
    ran.check(0, &["forks: none; all scenarios are asked on one machine (not x-ignore-shared: ", "nvme", "2 passed"]);
    assert_eq!(project.transcript()["machine"]["forks"]["method"], "none");
    nothing_left(&project);
}

#[test]
fn a_run_that_is_killed_while_it_saves_or_forks_leaves_nothing() {
    let project = project("ok", &[("health/true", TRUE)]).set("DEBUG", "1");
    for moment in ["\"execute\":\"migrate\"", "\"execute\":\"migrate-incoming\""] {
        let mut run = start(&project, &["run"]);
        wait_for(&project, moment);
        kill_process(Pid::from_child(&run), Signal::KILL).unwrap();
        run.wait().unwrap();
        nothing_left(&project);
    }
    // Neither of them left a transcript, nor anything that hinders the next.
    project.hermetic(&["run"]).check(0, &["SUCCESS: 1 passed"]);
    nothing_left(&project);
    assert_eq!(project.transcript()["overall_status"], "SUCCESS");
}

#[test]
fn a_guest_that_does_not_come_up_is_diagnosed_once_and_nothing_passes() {
    let project = project("panic", &[("boot/true", TRUE), ("health/true", TRUE)]);
    let ran = project.hermetic(&["run"]);
    ran.check(
        101,
        &["the guest did not get ready: ", "panicked", "the console's last lines:", "to see it by hand: ", "2 errored"],
    );
    assert_eq!(ran.stderr.matches("to see it by hand: ").count(), 1);
    nothing_left(&project);
}

#[test]
fn two_runs_at_once_both_work() {
    let projects = [project("ok", &[("boot/answers", ANSWERS)]), project("ok", &[("boot/answers", ANSWERS)])];
    let runs = projects.each_ref().map(|project| project.start(&["run"]));
    for (project, run) in projects.iter().zip(runs) {
        Ran::from(run.wait_with_output().unwrap()).check(0, &["test boot::answers ... ok", "SUCCESS: 1 passed"]);
        nothing_left(project);
    }
}

#[test]
fn a_kvm_that_is_unusable_is_an_error_where_it_is_asked_for() {
    let project = project("ok", &[("boot/true", TRUE)]).set("RAVE_ACCEL", "kvm");
    let ran = project.hermetic(&["run"]);
    // With a usable KVM this is simply a run that passes.
    if ran.code != Some(0) {
        ran.check(1, &["kvm"]);
    }
    nothing_left(&project);
}
