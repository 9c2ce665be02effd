//! A real machine without systemd around it: its disk is made, it boots, its ports answer, nothing leads out, and nothing is left of it. Where
//! that cannot be tried the reason is printed.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rave_sandbox::backend;
use rave_sandbox::console::CONSOLE;
use rave_sandbox::request::Request;
use rave_sandbox::sandbox::Id;
use rave_sandbox::seed;
use rave_sandbox::settings::{self, Choice, Settings};

/// A slow machine may take this long; a broken one need not be waited for longer.
const BOOTS_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn a_machine_under_user_mode_linux() {
    if let Some(why) = cannot() {
        eprintln!("not tried: {why}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (settings, sha) = appliance(folder.path());
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    File::create(home.join(CONSOLE)).unwrap();
    let key = folder.path().join("key");
    run("ssh-keygen", Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let request = request(&settings, &sha, &fs::read_to_string(key.with_extension("pub")).unwrap());
    let host_key = seed::make(&settings, &Id::new(1), &request, &home).unwrap();

    let ports = Ports::free();
    let mut machine = Machine::start(&settings, &home, &ports);
    machine.answers_ssh(ports.ssh);
    fs::write(folder.path().join("known"), format!("[127.0.0.1]:{} {host_key}\n", ports.ssh)).unwrap();
    let ssh = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", folder.path().join("known").display()));
        ssh.arg("-i").arg(&key).args(["-p", &ports.ssh.to_string(), "dev@127.0.0.1", command]);
        ssh.stdin(Stdio::null()).output().unwrap()
    };
    let says = |command: &str, expected: &str| {
        let output = ssh(command);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };

    says("cat /srv/commit", &format!("{sha}\n"));
    says(
        "id -un; . /etc/os-release; echo $NAME; cd /srv/checkout; sh hello.sh; cat left-out",
        "dev\nRAVE sandbox\nhello\nall of it\n",
    );
    says(
        "touch /usr/bin/x 2>/dev/null || echo read-only; cat /srv/seed/host_key 2>/dev/null || echo secret",
        "read-only\nsecret\n",
    );
    // The forwarder's end of the cable is all there is, and nobody is at home there.
    says("ip route", "192.168.127.0/30 dev vec0 scope link  src 192.168.127.2 \n");
    says(
        &format!(
            "nc -w 3 192.168.127.1 {} </dev/null >/dev/null 2>&1 || echo refused; nc -w 3 10.0.2.2 22 </dev/null >/dev/null 2>&1 || echo unreachable",
            ports.outside
        ),
        "refused\nunreachable\n",
    );
    let page = get(ports.web, "/hello.sh");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("echo hello\n"), "{page}");
    let stranger = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-i",
            "/nonexistent",
        ])
        .args(["-p", &ports.ssh.to_string(), "dev@127.0.0.1", "true"])
        .output()
        .unwrap();
    assert!(!stranger.status.success());
    assert!(fs::read_to_string(home.join(CONSOLE)).unwrap().contains("sandbox: sb-0001 runs"));

    drop(machine);
    assert!(TcpListener::bind(("127.0.0.1", ports.ssh)).is_ok() && TcpListener::bind(("127.0.0.1", ports.web)).is_ok());
}

/// Why no machine can be tried here.
fn cannot() -> Option<String> {
    for program in [
        "linux.uml",
        "dropbear",
        "dropbearkey",
        "mke2fs",
        "busybox",
        "ip",
        "setpriv",
        "unshare",
        "ssh",
        "git",
        "chroot",
    ] {
        let found = std::env::split_paths("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .any(|folder| folder.join(program).exists());
        if !found {
            return Some(format!("{program} is not installed"));
        }
    }
    let tap = "ip tuntap add dev sandbox mode tap";
    let output = Command::new("unshare").args(["--user", "--map-root-user", "--net", "sh", "-c", tap]).output().ok()?;
    if !output.status.success() {
        return Some(format!("no tap interface in namespaces: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let root = Command::new("id").arg("-u").output().ok()?.stdout == b"0\n";
    (!root).then(|| "the root disk is made as root".to_owned())
}

/// A root disk, and a repository with one commit.
fn appliance(folder: &Path) -> (Settings, String) {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("root/build");
    run("build", Command::new(build).arg("/").arg(folder));
    let work = folder.join("work");
    fs::create_dir(&work).unwrap();
    let script = "set -e; git init -q -b main .; echo 'echo hello' >hello.sh; echo all of it >left-out; echo 'left-out export-ignore' >.gitattributes; git add .; \
                  git -c user.name=n -c user.email=e@example.org commit -q -m first; git clone -q --bare . \"$1\"; git rev-parse HEAD";
    let repository = folder.join("repositories/rave/hello.git");
    let output = run("git", Command::new("sh").current_dir(&work).args(["-c", script, "sh"]).arg(repository));
    let config = folder.join("sandbox.toml");
    let written = format!(
        "repositories = \"{0}/repositories\"\nstate = \"{0}/state\"\ndisk_mib = 64\ncheckout_max_mib = 16\nmachine_memory_mib = 128\n\
         backend = \"user-mode-linux\"\n[files]\nroot = \"{0}/root.ext4\"\n",
        folder.display()
    );
    fs::write(&config, written).unwrap();
    let settings = settings::read(&config).unwrap();
    assert_eq!(settings.backend, Choice::UserModeLinux);
    (settings, String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn request(settings: &Settings, sha: &str, key: &str) -> Request {
    let sent = serde_json::json!({
        "project": "rave/hello", "project_id": 7, "mr": 1, "sha": sha, "repository": "", "authorized_keys": [key], "requested_by": "dana"
    });
    Request::check(serde_json::from_value(sent).unwrap(), &settings.limits).unwrap()
}

struct Ports {
    ssh: u16,
    web: u16,
    /// Somebody else's, on this side of the cable.
    outside: u16,
    _outside: TcpListener,
}

impl Ports {
    fn free() -> Self {
        let listen = || TcpListener::bind("0.0.0.0:0").unwrap();
        let (ssh, web, outside) = (listen(), listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        Self { ssh: port(&ssh), web: port(&web), outside: port(&outside), _outside: outside }
    }
}

struct Machine {
    process: Child,
    home: PathBuf,
}

impl Machine {
    fn start(settings: &Settings, home: &Path, ports: &Ports) -> Self {
        let backend = backend::choose(settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rave-sandbox"));
        command.arg("machine").arg("--home").arg(home);
        command.arg(format!("--ssh=127.0.0.1:{}", ports.ssh)).arg(format!("--web=127.0.0.1:{}", ports.web)).arg("--");
        command
            .args(backend.command_line(settings, home))
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::null())
            .process_group(0);
        Self { process: command.spawn().unwrap(), home: home.to_owned() }
    }

    fn answers_ssh(&mut self, port: u16) {
        let started = Instant::now();
        let mut pause = Duration::from_millis(20);
        while started.elapsed() < BOOTS_WITHIN && self.process.try_wait().unwrap().is_none() {
            let mut start = [0; 4];
            let answer = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| stream.read_exact(&mut start));
            if answer.is_ok() && &start == b"SSH-" {
                eprintln!("SSH answers after {} ms", started.elapsed().as_millis());
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        panic!(
            "no SSH within {} s; console:\n{}",
            BOOTS_WITHIN.as_secs(),
            fs::read_to_string(self.home.join(CONSOLE)).unwrap()
        );
    }
}

impl Drop for Machine {
    /// Kills all of it, as systemd does: user-mode Linux has helpers that wait for ever for a kernel that is gone.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let disk = self.home.join("disk.img").display().to_string();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let left = running(&disk);
            if left.is_empty() {
                return;
            }
            let _ = Command::new("kill").arg("-KILL").args(left).stderr(Stdio::null()).status();
        }
    }
}

/// The processes that have that in their command line, and are not just being reaped.
fn running(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let has =
        |path: PathBuf| fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text));
    processes.filter(|entry| has(entry.path())).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn run(what: &str, command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
