//! Measures the way into a guest against a private SSH server on loopback, beside what `ssh` takes for the same.
//! `cargo bench --bench ssh`; needs the packages openssh-server and openssh-client.

#[path = "../tests/it/sshd.rs"]
#[allow(dead_code, reason = "some of it is for tests only")]
mod sshd;

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rave_hermetic::guest::{Connection, Exit, Stop};
use sshd::Sshd;

const CONNECTS: usize = 50;
const COMMANDS: usize = 300;
const BULK: usize = 5;

fn main() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let deadline = || Instant::now() + Duration::from_secs(60);
    let run = |command: &str| {
        let captured = guest.run(&sshd.user, command, None, deadline()).unwrap();
        assert_eq!(captured.exit, Exit::Status(0));
        captured
    };

    println!("measured on loopback, in milliseconds: median (fastest, slowest)");
    let stop = Arc::new(Stop::new().unwrap());
    measure("connect and authenticate", CONNECTS, || {
        drop(Connection::open(&sshd.target(), &stop, deadline(), deadline()).unwrap());
    });
    run("true");
    measure("`true` on an open connection", COMMANDS, || drop(run("true")));
    measure("16 MiB of output on an open connection", BULK, || {
        assert_eq!(run("head -c 16777216 /dev/zero").stdout.len(), 16 << 20);
    });
    println!("{:<52} {} kB peak", "memory of this process", peak_memory_kb());

    measure("ssh: connect, authenticate and run `true`", CONNECTS / 5, || ok(ssh(&sshd, &[], "true")));
    let socket = format!("ControlPath={}", sshd.folder().join("control").display());
    let master = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", &socket];
    ok(ssh(&sshd, &master, "true"));
    measure("ssh with ControlMaster: `true`", COMMANDS / 3, || ok(ssh(&sshd, &master, "true")));
    ok(ssh(&sshd, &["-O", "exit", "-o", &socket], ""));
}

fn measure(what: &str, times: usize, mut once: impl FnMut()) {
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let started = Instant::now();
            once();
            started.elapsed()
        })
        .collect();
    took.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    println!("{what:<52} {:>8.2} ({:.2}, {:.2})", ms(took[times / 2]), ms(took[0]), ms(took[times - 1]));
}

fn ssh(sshd: &Sshd, options: &[&str], command: &str) -> Output {
    let known_hosts = sshd.folder().join("known_hosts");
    let line = format!("[127.0.0.1]:{} {}\n", sshd.addr.port(), sshd.host_key.public_line());
    std::fs::write(&known_hosts, line).unwrap();
    Command::new("ssh")
        .args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .arg("-i")
        .arg(sshd.identity_file())
        .args(["-p", &sshd.addr.port().to_string(), "-l", &sshd.user])
        .args(options)
        .args(["127.0.0.1", command])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn ok(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn peak_memory_kb() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").to_owned()
}
