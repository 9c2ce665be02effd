//! What a failure leaves to be learnt from: all of it, without secrets, in time, and nothing where nothing failed.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::{nothing_left, project, start, wait_for};
use crate::support::{Project, Ran};

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";

/// The secret is on the disk for the test, and wherever it could be gathered: among the processes, in the kernel's messages and on the
/// console, in the journal, in answers.
const LEAKS: &str = r#"
summary = "It leaks everywhere"
secrets = ["password"]

[[step]]
name  = "beside QEMU, where the test finds it"
host  = "cat >'{{session.dir}}/../../the-secret'"
stdin = "{{password}}"

[[step]]
name = "in the guest"
run  = """
p={{password}}
(exec sh -c "sleep 1000; : $p" </dev/null >/dev/null 2>&1) &
echo "$p" >/dev/kmsg
journal "it is $p"
cat /run/credentials/rave.handed-in >/dev/kmsg; cat /run/credentials/rave.handed-in
echo "$p"; head -c 5000 /dev/zero | tr '\\0' x; echo "$p" >&2
exit 3
"""
"#;

const HANGS: &str = "summary = 'x'\ntimeout = '2s'\n[[step]]\nname = 'hangs'\nrun = 'echo begun; sleep 1000'\n";
/// The very session through which it is asked stands still as well.
const MUTE: &str =
    "summary = 'x'\ntimeout = '2s'\n[[step]]\nname = 'silences sshd'\nrun = 'killall -STOP sshd; sleep 1000'\n";
const STOPS: &str = "summary = 'x'\n[[step]]\nname = 'stops QEMU'\nhost = \"kill -STOP $(pgrep -f '^[^ ]*qemu-system.*{{machine.console}}') && false\"\n";
const PANICS: &str = "summary = 'x'\n[[step]]\nname = 'panics'\nrun = 'echo c >/proc/sysrq-trigger; sleep 1000'\n";

/// Of the one session: the folder of a scenario.
fn folder(project: &Project, scenario: &str) -> PathBuf {
    let session = project.transcript()["test_session_id"].as_str().unwrap().to_owned();
    project.path("artifacts").join(session).join(scenario)
}

/// The file's text, which must be there.
#[track_caller]
fn text(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), readme(folder)));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn readme(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("README.txt")).unwrap()
}

/// Seconds that gathering took, and bytes of all that lies there.
#[track_caller]
fn cost(folder: &Path) -> (f64, u64) {
    let readme = readme(folder);
    let took = readme.split("Gathered in ").nth(1).expect(&readme).split(' ').next().unwrap();
    let files = std::fs::read_dir(folder.join("diagnostics")).unwrap();
    let bytes = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let cost = (took.parse().unwrap(), bytes);
    eprintln!("{}: gathered in {} s, {} KiB", folder.file_name().unwrap().display(), cost.0, cost.1 / 1024);
    assert!(cost.0 < 10.0 && cost.1 < 16 << 20, "{cost:?}");
    cost
}

/// A command of the README, as a shell runs it.
fn command(project: &Project, readme: &str, after: &str) -> Ran {
    let mut lines = readme.lines().skip_while(|line| !line.contains(after)).skip(1);
    let line = lines.next().unwrap_or_else(|| panic!("no {after} in {readme}"));
    let variable =
        |name| project.command(&[]).get_envs().find(|(known, _)| *known == name).unwrap().1.unwrap().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("TMPDIR", variable("TMPDIR")).env("XDG_CACHE_HOME", variable("XDG_CACHE_HOME"));
    Ran::from(shell.output().unwrap())
}

#[test]
fn a_failure_leaves_all_there_is_to_see_without_secrets_and_a_pass_leaves_nothing() {
    let project = project("ok", &[("health/leaks", LEAKS), ("security/true", TRUE)]);
    let credentials = project.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("rave.handed-in"), "# a comment\nHANDED-IN-KEY-0123456789\n").unwrap();
    let project = project.set("RAVE_CREDENTIALS", &credentials);
    let ran = project.hermetic(&["run"]);
    ran.check(101, &["health::leaks: what there is to see, and what to do next: "]);
    nothing_left(&project);
    let leaks = folder(&project, "health/leaks");
    assert!(text(&leaks, "diagnostics/console.txt").contains("Linux version "));
    assert!(text(&leaks, "diagnostics/journal.txt").contains("ready after"));
    assert!(text(&leaks, "diagnostics/journal.txt").contains("it is [masked]"));
    assert!(text(&leaks, "diagnostics/guest-processes.txt").contains(": [masked]"));
    assert!(text(&leaks, "diagnostics/guest-kernel.txt").contains("[masked]"));
    for (file, expected) in [
        ("guest-units.txt", "systemctl"),
        ("guest-sockets.txt", ":22 "),
        ("guest-disk.txt", "/data"),
        ("guest-memory.txt", "MemAvailable"),
        ("guest-state.txt", "load average"),
        ("qemu.txt", "VM status: running"),
        ("host.txt", "VmRSS:"),
        ("qmp.log", "screendump"),
        ("command.txt", "-machine pc-q35"),
    ] {
        let text = text(&leaks, &format!("diagnostics/{file}"));
        assert!(text.contains(expected), "{file}:\n{text}");
    }
    assert!(std::fs::read(leaks.join("diagnostics/screenshot.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(text(&leaks, "result.json").contains("health::leaks"));
    assert!(text(&leaks, "02-stdout").starts_with("# a comment\n[masked]\n[masked]\n"));
    cost(&leaks);

    let secret = std::fs::read_to_string(project.path("the-secret")).unwrap();
    assert!(secret.len() >= 32);
    let mut grep = Command::new("grep");
    let found =
        grep.args(["-rl", "-e", &secret, "-e", "HANDED-IN-KEY"]).arg(project.path("artifacts")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(!ran.stdout.contains(&secret) && !ran.stderr.contains(&secret));

    // Nothing of that for what passed.
    let passed = folder(&project, "security/true");
    assert!(passed.join("machine/qmp.log").exists());
    assert!(!passed.join("diagnostics").exists() && !passed.join("README.txt").exists());

    let readme = readme(&leaks);
    assert!(readme.contains("step `in the guest`: exit does not match"), "{readme}");
    assert!(!readme.contains("NOT THERE"), "{readme}");
    command(&project, &readme, "ask this scenario again").check(101, &["health::leaks ... FAILED", "1 failed"]);
    nothing_left(&project);
}

#[test]
fn a_guest_that_does_not_answer_holds_nothing_up() {
    let scenarios =
        [("health/hangs", HANGS), ("health/mute", MUTE), ("health/panics", PANICS), ("health/stops", STOPS)];
    let project = project("ok", &scenarios);
    project.hermetic(&["run"]).check(101, &["4 failed; 0 ignored", "1 failed, 3 errored"]);
    nothing_left(&project);
    // The scenario's time was over, and the guest is well.
    let hangs = folder(&project, "health/hangs");
    assert!(text(&hangs, "diagnostics/guest-processes.txt").contains("sshd"));
    assert!(!readme(&hangs).contains("NOT THERE"), "{}", readme(&hangs));
    // The guest says nothing, QEMU does.
    let mute = folder(&project, "health/mute");
    assert!(text(&mute, "diagnostics/qemu.txt").contains("VM status: running"));
    assert!(mute.join("diagnostics/screenshot.png").exists() && mute.join("diagnostics/journal.txt").exists());
    // So it is with a kernel that panicked.
    let panics = folder(&project, "health/panics");
    assert!(text(&panics, "diagnostics/console.txt").contains("Kernel panic - not syncing"));
    assert!(text(&panics, "diagnostics/qemu.txt").contains("VM status: "));
    // Nobody says anything; logs and host are there all the same.
    let stops = folder(&project, "health/stops");
    assert!(text(&stops, "diagnostics/host.txt").contains("T (stopped)"));
    assert!(text(&stops, "diagnostics/console.txt").contains("Linux version "));
    assert!(readme(&stops).contains("screenshot.png       NOT THERE: no answer to `screendump`"), "{}", readme(&stops));
    for folder in [&mute, &panics, &stops] {
        assert!(readme(folder).contains("diagnostics/guest-*.txt          NOT THERE: "), "{}", readme(folder));
    }
    for folder in [hangs, mute, panics, stops] {
        cost(&folder);
    }
}

#[test]
fn a_machine_that_is_shared_and_one_that_does_not_come_up_are_looked_at_too() {
    let fails = TRUE.replace("run = 'true'", "run = 'false'");
    let shared = project("ok", &[("health/fails", &fails)]).set("RAVE_FORKS", "0");
    shared.hermetic(&["run"]).check(101, &["1 failed"]);
    let fails = folder(&shared, "health/fails");
    cost(&fails);
    assert!(text(&fails, "diagnostics/guest-processes.txt").contains("sshd"));
    assert!(readme(&fails).contains("  ../../machine/ "), "{}", readme(&fails));
    let project = project("panic", &[("boot/true", TRUE)]);
    project.hermetic(&["run"]).check(101, &["machine: ", "files about it are in "]);
    let machine = folder(&project, "machine");
    assert!(text(&machine, "diagnostics/qemu.txt").contains("VM status: "));
    assert!(readme(&folder(&project, "boot/true")).contains("Nothing was asked."));
    nothing_left(&project);
}

#[test]
fn what_hung_when_the_run_was_cut_short_is_looked_at() {
    let sleeps = HANGS.replace("2s", "100s");
    let project = project("ok", &[("boot/sleeps", &sleeps), ("health/true", TRUE)]);
    let run = start(&project, &["run"]);
    wait_for(&project, "guest: microguest");
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    Ran::from(run.wait_with_output().unwrap()).check(1, &["1 ignored"]);
    nothing_left(&project);
    let sleeps = folder(&project, "boot/sleeps");
    let (took, _) = cost(&sleeps);
    assert!(took < 7.0, "{took}");
    assert!(text(&sleeps, "diagnostics/guest-state.txt").contains("load average"));
    assert!(!folder(&project, "health/true").join("README.txt").exists());
}
