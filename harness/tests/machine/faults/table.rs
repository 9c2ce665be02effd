//! The table of faults.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;

use super::control::{Control, GARBAGE, UNKNOWN};
use super::rig::{AS_ALWAYS, End, Given, Rig, Start};
use super::{At, Done, Ends, Fault, Guest};

const TRUE: &str = "summary = 'x'\n[[step]]\nname = 'true'\nrun = 'true'\n";
/// Says that it is being asked, and has no answer before the fault.
const ASKED: &str =
    "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'asked'\nrun = 'echo now-asked >/dev/console; sleep 10000'\n";
/// Says that it is being asked, and has an answer some seconds later.
const ANSWERS: &str = "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'answers'\nrun = 'echo now-asked >/dev/console; sleep 4; echo here'\nstdout = { equals = 'here' }\n";
/// Writes much to the disk, once it was said that it will.
const WRITES: &str = "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'writes'\nrun = 'echo now-asked >/dev/console; until dd if=/dev/urandom of=/data/file bs=1M count=8 && sync && test -e /tmp/never; do sleep 1; done'\n";
/// Writes much to the memory, likewise.
const GROWS: &str = "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'grows'\nrun = 'echo now-asked >/dev/console; sleep 4; dd if=/dev/urandom of=/dev/shm/file bs=1M count=200; echo here'\n";
const PANICS: &str =
    "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'panics'\nrun = 'echo c >/proc/sysrq-trigger; sleep 10000'\n";
const EATS: &str = "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'eats'\nrun = 'tail /dev/zero'\n";
const EATS_AND_PANICS: &str = "summary = 'x'\ntimeout = '300s'\n[[step]]\nname = 'eats'\nrun = 'echo 1 >/proc/sys/vm/panic_on_oom; tail /dev/zero'\n";
const NO_MACHINE: &str = "summary = 'x'\n[[step]]\nname = 'here'\nhost = 'true'\n";

const COLD: &[(&str, &str)] = &[("boot/true", TRUE), ("health/true", TRUE)];
const COLD_ASKED: &[(&str, &str)] = &[("boot/asked", ASKED), ("health/true", TRUE)];
const COLD_ANSWERS: &[(&str, &str)] = &[("boot/answers", ANSWERS)];

fn around(name: &'static str, at: At, how: &'static str, given: Given, act: fn(&Rig), wanted: Ends) -> Fault {
    Fault { name, at, how, quick: false, done: Done::Around { given, act, wanted } }
}

/// Nothing is done while it runs: all was done before.
const NOTHING: fn(&Rig) = |_| {};

fn failed(passed: &'static [&'static str], says: &'static str) -> Ends {
    Ends { end: End::Code(101), status: Some("FAILED"), passed, says }
}

/// There was no machine to ask.
fn could_not_run(says: &'static str) -> Ends {
    Ends { end: End::Code(1), status: Some("FAILED"), passed: &[], says }
}

fn aborted(passed: &'static [&'static str], says: &'static str) -> Ends {
    Ends { end: End::Code(1), status: Some("ABORTED"), passed, says }
}

fn without_transcript(end: End, says: &'static str) -> Ends {
    Ends { end, status: None, passed: &[], says }
}

/// It does no harm.
fn passes(passed: &'static [&'static str], says: &'static str) -> Ends {
    Ends { end: End::Code(0), status: Some("SUCCESS"), passed, says }
}

fn inside(
    name: &'static str,
    at: At,
    how: &'static str,
    guest: Guest,
    steps: &'static str,
    outcome: &'static str,
    says: &'static str,
) -> Fault {
    Fault { name, at, how, quick: false, done: Done::Inside { guest, steps, outcome, says } }
}

/// Among those that `make test` tries.
fn quick(fault: Fault) -> Fault {
    Fault { quick: true, ..fault }
}

/// All of them.
pub fn faults() -> Vec<Fault> {
    [host(), qemu(), qmp(), guest(), services(), harness()].into_iter().flatten().collect()
}

fn host() -> Vec<Fault> {
    let on_small = |at, mib, scenarios| Given { scenarios, start: Start::OnSmallDisk { at, mib }, ..AS_ALWAYS };
    vec![
        quick(around(
            "no room for the machine's memory",
            At::Host,
            "TMPDIR is a disk of 64 MiB",
            on_small("tmp", 64, COLD),
            NOTHING,
            could_not_run("MiB free; the machine's memory and disk may need"),
        )),
        around(
            "the disk fills up under the machine's memory",
            At::Host,
            "TMPDIR has 1 MiB left when a guest that is being asked begins to use its memory",
            on_small("tmp", 9000, &[("boot/grows", GROWS), ("health/true", TRUE)]),
            |rig| {
                rig.console("now-asked");
                rig.shrink_disk("tmp", 1024);
            },
            failed(&[], "the machine was lost: QEMU ended with killed by signal 7"),
        ),
        around(
            "the disk fills up under a fork's disk",
            At::Host,
            "the disk of its overlay has 256 KiB left when a guest that is being asked writes to it",
            Given {
                // The overlay alone lies there, by a link.
                qemu_img: Some(
                    "if [ \"$1\" = create ]; then for last; do :; done; ln -s \"$PWD/small/$$\" \"$last\"; fi",
                ),
                ..on_small("small", 64, &[("boot/true", TRUE), ("health/writes", WRITES)])
            },
            |rig| {
                rig.console("now-asked");
                rig.shrink_disk("small", 256);
            },
            failed(
                &["boot::true"],
                "the machine was lost: QEMU could not write the machine's disk on the host: No space left on device",
            ),
        ),
        around(
            "the disk fills up under the artifacts",
            At::Host,
            "RAVE_ARTIFACTS has no space left when a guest is being asked",
            on_small("artifacts", 64, COLD_ANSWERS),
            |rig| {
                rig.console("now-asked");
                rig.shrink_disk("artifacts", 0);
            },
            without_transcript(End::Code(1), "No space left on device"),
        ),
        quick(around(
            "nowhere to put the artifacts",
            At::Host,
            "a file is where RAVE_ARTIFACTS is to be",
            Given { scenarios: COLD, before: |project| fs::write(project.path("artifacts"), "").unwrap(), ..AS_ALWAYS },
            NOTHING,
            without_transcript(End::Code(1), "could not write"),
        )),
        quick(around(
            "no folder for machines",
            At::Host,
            "TMPDIR is not there",
            Given { scenarios: COLD, settings: &[("TMPDIR", "/nonexistent")], ..AS_ALWAYS },
            NOTHING,
            could_not_run("could not make a folder for the machine in `/nonexistent`"),
        )),
        quick(around(
            "half of the image",
            At::Host,
            "the disk file is cut in two before the run",
            Given {
                scenarios: COLD,
                before: |project| {
                    let disk = fs::File::options().write(true).open(project.path("image/disk.qcow2")).unwrap();
                    disk.set_len(disk.metadata().unwrap().len() / 2).unwrap();
                },
                ..AS_ALWAYS
            },
            NOTHING,
            could_not_run("is damaged"),
        )),
        around(
            "the image changes during the run",
            At::Host,
            "a byte is added to the kernel's file while the guest is asked",
            Given { scenarios: COLD_ANSWERS, ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                let mut kernel = fs::File::options().append(true).open(rig.project.path("image/vmlinuz")).unwrap();
                kernel.write_all(b"x").unwrap();
            },
            failed(&["boot::answers"], "the image is not the same after the run as before"),
        ),
        around(
            "the saved machine is damaged",
            At::Host,
            "its state is overwritten between one fork and the next",
            Given { scenarios: &[("health/answers", ANSWERS), ("security/true", TRUE)], ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                fs::write(rig.machine_file("state"), "nonsense").unwrap();
            },
            failed(&["health::answers"], "there is no fork: QEMU did not take up the saved machine"),
        ),
        quick(around(
            "no overlay over the image",
            At::Host,
            "qemu-img says that there is no space, and fails",
            Given {
                scenarios: COLD,
                qemu_img: Some("[ \"$1\" != create ] || { echo 'No space left' >&2; exit 1; }"),
                ..AS_ALWAYS
            },
            NOTHING,
            could_not_run("could not make an overlay over image"),
        )),
    ]
}

fn qemu() -> Vec<Fault> {
    let asked = Given { scenarios: COLD_ASKED, ..AS_ALWAYS };
    let hangs = Given { word: "hang", scenarios: COLD, ..AS_ALWAYS };
    let instead = |script| Given { scenarios: COLD, qemu: Some(script), ..AS_ALWAYS };
    vec![
        quick(around(
            "QEMU is killed while the guest boots",
            At::Qemu,
            "SIGKILL when the guest's kernel speaks",
            hangs,
            |rig| {
                rig.console("Linux version");
                rig.qemu_signal(Signal::KILL);
            },
            failed(&[], "the guest did not get ready: QEMU ended with killed by signal 9"),
        )),
        around(
            "QEMU is killed while the guest is asked",
            At::Qemu,
            "SIGKILL",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.qemu_signal(Signal::KILL);
            },
            failed(&[], "the machine was lost: QEMU ended with killed by signal 9"),
        ),
        around(
            "a fork's QEMU is killed while it is asked",
            At::Qemu,
            "SIGKILL; other forks are none the worse for it",
            Given { scenarios: &[("boot/true", TRUE), ("health/asked", ASKED), ("security/true", TRUE)], ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                rig.qemu_signal(Signal::KILL);
            },
            failed(&["boot::true", "security::true"], "the machine was lost: QEMU ended with killed by signal 9"),
        ),
        around(
            "QEMU is stopped while the guest boots",
            At::Qemu,
            "SIGSTOP when the guest's kernel speaks",
            hangs,
            |rig| {
                rig.console("Linux version");
                rig.qemu_signal(Signal::STOP);
            },
            failed(&[], "the guest did not get ready: QEMU is silent: no answer to `query-status`"),
        ),
        around(
            "QEMU is stopped while the guest is asked",
            At::Qemu,
            "SIGSTOP",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.qemu_signal(Signal::STOP);
            },
            failed(&[], "the machine was lost: QEMU is silent: no answer to `query-status`"),
        ),
        around(
            "QEMU is stopped for a while",
            At::Qemu,
            "SIGSTOP, and SIGCONT after 8 s",
            Given { scenarios: COLD_ANSWERS, ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                rig.qemu_signal(Signal::STOP);
                rig.stands_still(Duration::from_secs(8));
                rig.qemu_signal(Signal::CONT);
            },
            passes(&["boot::answers"], "test boot::answers ... ok"),
        ),
        quick(around(
            "QEMU has too little memory to start",
            At::Qemu,
            "an address space of 1 GB",
            instead("ulimit -v 1000000"),
            NOTHING,
            could_not_run("there is no machine: QEMU ended at once with"),
        )),
        around(
            "QEMU gets no more memory",
            At::Qemu,
            "no address space beyond what it has, and the guest writes to its disk",
            Given { scenarios: &[("boot/writes", WRITES), ("health/true", TRUE)], ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                let pid = rig.qemu().as_raw_nonzero().to_string();
                let mut prlimit = std::process::Command::new("prlimit");
                assert!(
                    prlimit
                        .args(["--pid", &pid, "--as=4096"])
                        .status()
                        .expect("prlimit (package util-linux)")
                        .success()
                );
            },
            failed(&[], "the machine was lost: QEMU ended with"),
        ),
        quick(around(
            "QEMU refuses its arguments",
            At::Qemu,
            "it prints a line and ends with 1",
            instead("echo 'qemu-system-x86_64: no such device' >&2; exit 1"),
            NOTHING,
            could_not_run(
                "there is no machine: QEMU ended at once with exit status 1: qemu-system-x86_64: no such device",
            ),
        )),
        around(
            "QEMU never connects",
            At::Qemu,
            "it sleeps instead",
            instead("exec sleep 10000"),
            NOTHING,
            could_not_run("there is no machine: QEMU did not answer within 60 s of its start"),
        ),
    ]
}

fn qmp() -> Vec<Fault> {
    let boots = |control| Given { scenarios: COLD, control: Some(control), ..AS_ALWAYS };
    let asked = Given { scenarios: COLD_ASKED, control: Some(Control::Whole), ..AS_ALWAYS };
    let answers = Given { scenarios: COLD_ANSWERS, control: Some(Control::Whole), ..AS_ALWAYS };
    vec![
        around(
            "the control connection ends at once",
            At::Qmp,
            "closed before QEMU's greeting",
            boots(Control::Closed),
            NOTHING,
            could_not_run("could not set up the control connection"),
        ),
        around(
            "garbage instead of a greeting",
            At::Qmp,
            "a line of HTTP",
            boots(Control::Garbage),
            NOTHING,
            could_not_run("could not set up the control connection"),
        ),
        quick(around(
            "garbage on the control connection",
            At::Qmp,
            "a line of HTTP while the guest is asked",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.control().say(GARBAGE);
            },
            failed(
                &[],
                "the machine was lost: QEMU runs and cannot be controlled any more: it said \"HTTP/1.1 400 Bad Request\", which is no QMP",
            ),
        )),
        around(
            "the control socket goes away",
            At::Qmp,
            "closed while the guest is asked; QEMU runs on",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.control().hang_up();
            },
            failed(&[], "the machine was lost: QEMU runs and cannot be controlled any more: it closed the connection"),
        ),
        around(
            "the control connection goes silent",
            At::Qmp,
            "nothing is passed on any more while the guest is asked",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.control().fall_silent();
            },
            failed(&[], "the machine was lost: QEMU is silent: no answer to `query-status`"),
        ),
        around(
            "an event that nobody knows",
            At::Qmp,
            "before every line of QEMU's, the greeting included",
            Given { scenarios: &[("boot/true", TRUE), ("health/true", TRUE)], ..boots(Control::Unknown) },
            NOTHING,
            passes(&["boot::true", "health::true"], "forks: by x-ignore-shared"),
        ),
        around(
            "an answer that nobody asked for",
            At::Qmp,
            "an empty answer while the guest is asked",
            answers,
            |rig| {
                rig.console("now-asked");
                rig.control().say(r#"{"return": {}}"#);
                rig.control().say(UNKNOWN);
            },
            passes(&["boot::answers"], "test boot::answers ... ok"),
        ),
        around(
            "news of a panic",
            At::Qmp,
            "the event, from a guest that runs: it is believed",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.control().say(r#"{"event":"GUEST_PANICKED","data":{"action":"pause"},"timestamp":{"seconds":1,"microseconds":2}}"#);
            },
            failed(&[], "the machine was lost: the guest's kernel panicked"),
        ),
        around(
            "the guest may not run",
            At::Qmp,
            "`cont` is refused",
            boots(Control::Refuses("cont")),
            NOTHING,
            could_not_run("QEMU refused `cont`: refused on purpose"),
        ),
        around(
            "the machine cannot be saved",
            At::Qmp,
            "`migrate` is refused: scenarios share the machine, and that is said",
            boots(Control::Refuses("migrate")),
            NOTHING,
            passes(
                &["boot::true", "health::true"],
                "forks: none; all scenarios are asked on one machine (not x-ignore-shared: ",
            ),
        ),
    ]
}

fn guest() -> Vec<Fault> {
    let boots = |word| Given { word, scenarios: COLD, ..AS_ALWAYS };
    let boot_fails = |name, how, word, says| around(name, At::Guest, how, boots(word), NOTHING, failed(&[], says));
    let inside = |name, how, steps, outcome, says| inside(name, At::Guest, how, Guest::Micro, steps, outcome, says);
    let on_reference =
        |name, how, steps, outcome, says| self::inside(name, At::Guest, how, Guest::Reference, steps, outcome, says);
    vec![
        boot_fails(
            "the kernel panics at boot",
            "the guest's own panic",
            "panic",
            "the guest did not get ready: the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash",
        ),
        quick(boot_fails(
            "nobody can log in",
            "it gets ready without an SSH server",
            "no-sshd",
            "the machine booted and could not be entered: ",
        )),
        boot_fails(
            "it boots again and again",
            "it resets itself before it is ready",
            "reset",
            "the guest did not get ready: the guest reset itself",
        ),
        boot_fails(
            "it powers off at boot",
            "`poweroff`",
            "poweroff",
            "the guest did not get ready: the guest powered itself off",
        ),
        boot_fails(
            "its initial file system gives up",
            "a prompt",
            "initramfs-hang",
            "the guest did not get ready: it is stuck in the initial file system",
        ),
        around(
            "it hangs at boot",
            At::Guest,
            "it never says that it is ready; VALIDATION_TIMEOUT is 20 s",
            Given { settings: &[("VALIDATION_TIMEOUT", "20")], ..boots("hang") },
            NOTHING,
            aborted(&[], "VALIDATION_TIMEOUT: 20 s are over"),
        ),
        around(
            "it hangs while it is asked",
            At::Guest,
            "a command that does not end",
            Given {
                scenarios: &[
                    ("boot/asked", "summary = 'x'\ntimeout = '4s'\n[[step]]\nname = 'asked'\nrun = 'sleep 10000'\n"),
                    ("health/true", TRUE),
                ],
                ..AS_ALWAYS
            },
            NOTHING,
            failed(&["health::true"], "the command did not end within"),
        ),
        quick(around(
            "the kernel panics while it is asked",
            At::Guest,
            "sysrq c",
            Given { scenarios: &[("boot/panics", PANICS), ("health/true", TRUE)], ..AS_ALWAYS },
            NOTHING,
            failed(&[], "the machine was lost: the guest's kernel panicked"),
        )),
        around(
            "it runs out of memory",
            At::Guest,
            "a command that eats all of its 256 MB is killed",
            Given { word: "ok mem=256M", scenarios: &[("boot/eats", EATS), ("health/true", TRUE)], ..AS_ALWAYS },
            NOTHING,
            failed(&["health::true"], "KILL"),
        ),
        around(
            "it runs out of memory and panics",
            At::Guest,
            "panic_on_oom",
            Given {
                word: "ok mem=256M",
                scenarios: &[("boot/eats", EATS_AND_PANICS), ("health/true", TRUE)],
                ..AS_ALWAYS
            },
            NOTHING,
            failed(&[], "the guest's kernel panicked: Kernel panic - not syncing: Out of memory"),
        ),
        inside(
            "its disk is full",
            "zeros until nothing more fits",
            "[[step]]\nname = 'writes'\nrun = 'cat /dev/zero >/data/fill 2>/dev/null; dd if=/dev/zero of=/data/more bs=1M count=1'\n",
            "failed",
            "No space left on device",
        ),
        inside(
            "its disk is read-only",
            "remounted",
            "[[step]]\nname = 'writes'\nrun = 'mount -o remount,ro /data; echo more >/data/more'\n",
            "failed",
            "Read-only file system",
        ),
        inside(
            "it powers off while it is asked",
            "`poweroff -f`",
            "timeout = '60s'\n[[step]]\nname = 'off'\nrun = 'poweroff -f; sleep 10000'\n",
            "errored",
            "the machine was lost: the guest powered itself off",
        ),
        inside(
            "it reboots while it is asked",
            "`reboot -f`",
            "timeout = '60s'\n[[step]]\nname = 'again'\nrun = 'reboot -f; sleep 10000'\n",
            "errored",
            "the machine was lost: the guest reset itself",
        ),
        inside(
            "its clock jumps",
            "ten years ahead and back: what is measured goes by the host's clock",
            "[[step]]\nname = 'ahead'\nrun = 'date -u -s 2036-01-01 >/dev/null; sleep 1; date -u +%Y'\nstdout = { equals = '2036' }\n\
             [[step]]\nname = 'the page is there'\nwithin = '30s'\n[step.http]\nget = '/health.json'\nstatus = 200\n\
             [[step]]\nname = 'back'\nrun = 'date -u -s 1999-01-01 >/dev/null; date -u +%Y'\nstdout = { equals = '1999' }\n",
            "passed",
            "",
        ),
        inside(
            "sshd is gone",
            "all of it is killed",
            "timeout = '20s'\n[[step]]\nname = 'kills it'\nrun = '(usleep 2000000; killall -9 sshd; echo {} >/www/done.json) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'it is done'\nwithin = '10s'\n[step.http]\nget = '/done.json'\nstatus = 200\n[[step]]\nname = 'asks again'\nrun = 'true'\n",
            "errored",
            "closed the connection before introducing itself",
        ),
        inside(
            "sshd hangs",
            "SIGSTOP to its listener, and the connection ends",
            "timeout = '20s'\n[[step]]\nname = 'stops it'\nrun = 'kill -STOP $(cat /run/sshd.pid); (usleep 2000000; kill -9 $PPID; echo {} >/www/done.json) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'it is done'\nwithin = '10s'\n[step.http]\nget = '/done.json'\nstatus = 200\n[[step]]\nname = 'asks again'\nrun = 'true'\n",
            "errored",
            "said nothing within",
        ),
        inside(
            "sshd is slow",
            "it stands still for 4 s, and is waited for",
            "[[step]]\nname = 'stops it'\nrun = 'kill -STOP $(cat /run/sshd.pid); (sleep 4; kill -CONT $(cat /run/sshd.pid)) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'knocks'\nport = 22\nanswers = true\nwithin = '60s'\nbody = { contains = 'SSH-2.0' }\n",
            "passed",
            "",
        ),
        inside(
            "its host key changes",
            "a new key, a new sshd, and the connection ends",
            "timeout = '30s'\n[[step]]\nname = 'changes it'\nrun = '''rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key; kill -HUP $(cat /run/sshd.pid)\n(usleep 2000000; kill -9 $PPID; echo {} >/www/done.json) >/dev/null 2>&1 &'''\n\
             [[step]]\nname = 'it is done'\nwithin = '10s'\n[step.http]\nget = '/done.json'\nstatus = 200\n[[step]]\nname = 'asks again'\nrun = 'true'\n",
            "errored",
            "shows host key",
        ),
        inside(
            "its network goes down",
            "the link, from within",
            "timeout = '5s'\n[[step]]\nname = 'down'\nrun = 'ip link set eth0 down; sleep 10000'\n",
            "errored",
            "the command did not end within",
        ),
        inside(
            "its network goes down for a while",
            "the link, for 4 s: what waits holds",
            "[[step]]\nname = 'down and up'\nrun = '(usleep 500000; ip link set eth0 down; sleep 4; ip link set eth0 up; ip route add default via 10.0.2.2) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'the page is there'\nwithin = '60s'\n[step.http]\nget = '/health.json'\nstatus = 200\n",
            "passed",
            "",
        ),
        inside(
            "a command that never stops talking",
            "`yes`",
            "timeout = '120s'\n[[step]]\nname = 'yes'\nrun = 'yes'\n",
            "errored",
            "the command wrote more than",
        ),
        inside(
            "its journal overflows",
            "four million bytes in one line",
            "timeout = '120s'\n[[step]]\nname = 'talks'\nrun = \"dd if=/dev/zero bs=4000 count=1000 2>/dev/null | tr '\\\\0' x >/run/journal; echo >/run/journal; echo here\"\nstdout = { equals = 'here' }\n",
            "passed",
            "",
        ),
        on_reference(
            "its root is read-only",
            "remounted by force",
            "timeout = '60s'\n[[step]]\nname = 'writes'\nrun = 'echo u >/proc/sysrq-trigger; until grep -q \" / .* ro[, ]\" /proc/mounts; do sleep 0.2; done; echo more >/root/more'\n",
            "failed",
            "Read-only file system",
        ),
        on_reference(
            "its disk and PostgreSQL's is full",
            "nothing more fits anywhere",
            "timeout = '120s'\n[[step]]\nname = 'fills'\nrun = 'for size in 1G 100M 10M 1M 100K 4K; do while fallocate -l $size /var/tmp/fill-$size-$((n += 1)) 2>/dev/null; do :; done; done; df --output=avail / | tail -n 1'\nstdout = { equals = 0 }\n\
             [[step]]\nname = 'PostgreSQL writes'\nrun = \"sudo -u postgres psql -XAtqc 'create table full_disk as select generate_series(1, 500000)' || { echo PostgreSQL cannot write; exit 1; }\"\n",
            "failed",
            "PostgreSQL cannot write",
        ),
        on_reference(
            "its journal is full",
            "there is no room for a line more, and the asking for one shows it",
            "timeout = '60s'\n[[step]]\nname = 'a line is kept'\nrun = 'mkdir -p /var/log/journal /run/log/journal; for folder in /var/log/journal /run/log/journal; do mount -t tmpfs -o size=64k full $folder; done; systemctl restart systemd-journald; logger -t full last-line; journalctl --sync; journalctl -t full -o cat -n 1 | grep -x last-line'\n",
            "failed",
            "exit 1",
        ),
    ]
}

/// A step that kills all of a unit, which may not start again.
macro_rules! killed_for_good {
    ($unit:literal) => {
        concat!(
            "[[step]]\nname = 'kills it'\nrun = 'mkdir -p /run/systemd/system/",
            $unit,
            ".d; printf \"[Service]\\\\nRestart=no\\\\n\" >/run/systemd/system/",
            $unit,
            ".d/dead.conf; systemctl daemon-reload; systemctl kill -s KILL ",
            $unit,
            "; until systemctl is-failed -q ",
            $unit,
            "; do sleep 0.2; done'\n"
        )
    };
}

fn services() -> Vec<Fault> {
    let inside =
        |name, how, steps, outcome, says| inside(name, At::Service, how, Guest::Reference, steps, outcome, says);
    vec![
        inside(
            "PostgreSQL is dead",
            "SIGKILL to all of it, and it may not start again",
            concat!(
                "timeout = '60s'\n",
                killed_for_good!("postgresql.service"),
                "[[step]]\nname = 'accepts connections'\nrun = 'pg_isready -h /run/postgresql -t 3'\n"
            ),
            "failed",
            "no response",
        ),
        inside(
            "PostgreSQL hangs",
            "SIGSTOP to all of it",
            "timeout = '10s'\n[[step]]\nname = 'stops it'\nrun = 'systemctl kill -s STOP postgresql.service'\n\
             [[step]]\nname = 'answers'\nrun = \"sudo -u postgres psql -XAtqc 'select 1'\"\nstdout = { equals = '1' }\n",
            "errored",
            "the command did not end within",
        ),
        inside(
            "PostgreSQL is slow",
            "somebody holds a lock for 5 s: the answer comes, and late",
            "timeout = '60s'\n[[step]]\nname = 'takes a lock'\nrun = \"sudo -u postgres psql -XAtqc 'create table slow (x int)'; (sudo -u postgres psql -XAtq -c 'begin' -c 'lock table slow' -c 'select pg_sleep(5)' -c 'commit') >/dev/null 2>&1 & until sudo -u postgres psql -XAtqc \\\"select count(*) from pg_locks where relation = 'slow'::regclass and granted\\\" | grep -qx 1; do sleep 0.2; done\"\n\
             [[step]]\nname = 'answers'\nrun = \"sudo -u postgres psql -XAtqc 'select count(*) from slow'\"\nstdout = { equals = '0' }\n",
            "passed",
            "",
        ),
        inside(
            "PostgreSQL restarts",
            "while it is waited for",
            "timeout = '60s'\n[[step]]\nname = 'restarts it'\nrun = 'systemctl restart --no-block postgresql.service'\n\
             [[step]]\nname = 'answers'\nwithin = '60s'\nrun = \"sudo -u postgres psql -XAtqc 'select 1'\"\nstdout = { equals = '1' }\n",
            "passed",
            "",
        ),
        inside(
            "Synapse is dead",
            "SIGKILL, and it may not start again",
            concat!(
                "timeout = '60s'\n",
                killed_for_good!("matrix-synapse.service"),
                "[[step]]\nname = 'answers'\n[step.http]\nget = '/_matrix/client/versions'\nstatus = 200\n"
            ),
            "failed",
            "502",
        ),
        inside(
            "Synapse hangs",
            "SIGSTOP",
            "timeout = '10s'\n[[step]]\nname = 'stops it'\nrun = 'systemctl kill -s STOP matrix-synapse.service'\n\
             [[step]]\nname = 'answers'\n[step.http]\nget = '/_matrix/client/versions'\nstatus = 200\n",
            "errored",
            "imed out",
        ),
        inside(
            "Synapse is slow",
            "it stands still for 8 s: the answer comes, and late",
            "timeout = '60s'\n[[step]]\nname = 'stops it'\nrun = '(systemctl kill -s STOP matrix-synapse.service; sleep 8; systemctl kill -s CONT matrix-synapse.service) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'answers'\n[step.http]\nget = '/_matrix/client/versions'\nstatus = 200\n",
            "passed",
            "",
        ),
        inside(
            "Synapse restarts",
            "while it is waited for",
            "timeout = '120s'\n[[step]]\nname = 'restarts it'\nrun = 'systemctl restart --no-block matrix-synapse.service; until ! systemctl is-active -q matrix-synapse.service; do sleep 0.1; done'\n\
             [[step]]\nname = 'answers'\nwithin = '200s'\n[step.http]\nget = '/_matrix/client/versions'\nstatus = 200\n",
            "passed",
            "",
        ),
        inside(
            "nginx is dead",
            "SIGKILL, and it may not start again",
            concat!(
                "timeout = '60s'\n",
                killed_for_good!("nginx.service"),
                "[[step]]\nname = 'answers'\n[step.http]\nget = '/'\nstatus = 200\n"
            ),
            "errored",
            "no answer",
        ),
        inside(
            "nginx hangs",
            "SIGSTOP to all of it",
            "timeout = '10s'\n[[step]]\nname = 'stops it'\nrun = 'systemctl kill -s STOP nginx.service'\n\
             [[step]]\nname = 'answers'\n[step.http]\nget = '/'\nstatus = 200\n",
            "errored",
            "imed out",
        ),
        inside(
            "nginx is slow",
            "it stands still for 5 s, which is waited for",
            "timeout = '60s'\n[[step]]\nname = 'stops it'\nrun = '(systemctl kill -s STOP nginx.service; sleep 5; systemctl kill -s CONT nginx.service) >/dev/null 2>&1 &'\n\
             [[step]]\nname = 'answers'\nwithin = '60s'\n[step.http]\nget = '/'\nstatus = 200\n",
            "passed",
            "",
        ),
        inside(
            "nginx restarts",
            "while it is waited for",
            "timeout = '60s'\n[[step]]\nname = 'restarts it'\nrun = 'systemctl restart --no-block nginx.service'\n\
             [[step]]\nname = 'answers'\nwithin = '60s'\n[step.http]\nget = '/'\nstatus = 200\n",
            "passed",
            "",
        ),
    ]
}

fn harness() -> Vec<Fault> {
    let asked = Given { scenarios: COLD_ASKED, ..AS_ALWAYS };
    let answers = Given { scenarios: COLD_ANSWERS, ..AS_ALWAYS };
    let at_random = |name, signal| Fault {
        name,
        at: At::Harness,
        how: "at a random moment of a whole run, every other one with a machine that was kept",
        quick: false,
        done: Done::AtRandom { signal, times: 40 },
    };
    vec![
        quick(around(
            "SIGINT while the guest is asked",
            At::Harness,
            "^C",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.signal(Signal::INT);
            },
            aborted(&[], "SIGINT"),
        )),
        quick(around(
            "SIGTERM while the guest boots",
            At::Harness,
            "when its kernel speaks",
            Given { word: "hang", scenarios: COLD, ..AS_ALWAYS },
            |rig| {
                rig.console("Linux version");
                rig.signal(Signal::TERM);
            },
            aborted(&[], "SIGTERM"),
        )),
        around(
            "SIGHUP while a fork is asked",
            At::Harness,
            "the terminal is closed; what passed before has passed",
            Given { scenarios: &[("boot/true", TRUE), ("health/asked", ASKED), ("security/true", TRUE)], ..AS_ALWAYS },
            |rig| {
                rig.console("now-asked");
                rig.signal(Signal::HUP);
            },
            aborted(&["boot::true"], "SIGHUP"),
        ),
        around(
            "SIGINT twice",
            At::Harness,
            "the second while the machine, which is stopped, is being ended",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.qemu_signal(Signal::STOP);
                rig.signal(Signal::INT);
                rig.says("SIGINT: ending the machine");
                rig.signal(Signal::INT);
            },
            without_transcript(End::Code(1), "SIGINT again: giving up at once, without a transcript"),
        ),
        quick(around(
            "SIGKILL while the guest is asked",
            At::Harness,
            "nothing can be done about it",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.signal(Signal::KILL);
            },
            without_transcript(End::Killed(9), ""),
        )),
        around(
            "SIGQUIT while the guest is asked",
            At::Harness,
            "^\\",
            asked,
            |rig| {
                rig.console("now-asked");
                rig.signal(Signal::QUIT);
            },
            aborted(&[], "SIGQUIT"),
        ),
        around(
            "the harness is stopped for a while",
            At::Harness,
            "SIGSTOP, and SIGCONT after 8 s",
            answers,
            |rig| {
                rig.console("now-asked");
                rig.signal(Signal::STOP);
                rig.stands_still(Duration::from_secs(8));
                rig.signal(Signal::CONT);
            },
            passes(&["boot::answers"], "test boot::answers ... ok"),
        ),
        around(
            "nobody reads what it says",
            At::Harness,
            "the other end of its output is closed",
            Given { start: Start::Unread, scenarios: COLD, ..AS_ALWAYS },
            NOTHING,
            failed(&[], "nothing was asked"),
        ),
        around(
            "few files may be open",
            At::Harness,
            "24 file descriptors: too few for forks, so that scenarios share the machine, and that is said",
            Given { start: Start::After("ulimit -n 24"), scenarios: COLD, ..AS_ALWAYS },
            NOTHING,
            passes(&["boot::true", "health::true"], "Too many open files"),
        ),
        around(
            "the time of the run is over while the guest is asked",
            At::Harness,
            "VALIDATION_TIMEOUT is 60 s",
            Given { settings: &[("VALIDATION_TIMEOUT", "60")], ..asked },
            NOTHING,
            aborted(&[], "VALIDATION_TIMEOUT: 60 s are over"),
        ),
        quick(around(
            "QEMU is not there",
            At::Harness,
            "what needs no machine is asked as well: nothing is, before all tools are there",
            Given {
                scenarios: &[("config/here", NO_MACHINE), ("health/true", TRUE)],
                settings: &[("PATH", "/nonexistent")],
                ..AS_ALWAYS
            },
            NOTHING,
            without_transcript(End::Code(1), "`qemu-system-x86_64` is not installed"),
        )),
        at_random("SIGINT at any moment", Signal::INT),
        at_random("SIGTERM at any moment", Signal::TERM),
        at_random("SIGHUP at any moment", Signal::HUP),
        at_random("SIGQUIT at any moment", Signal::QUIT),
        at_random("SIGKILL at any moment", Signal::KILL),
    ]
}
