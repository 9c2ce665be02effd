//! A private SSH server on loopback, for tests and measurements.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rave_hermetic::guest::{Guest, HostKey, Identity, Target};
use rave_hermetic::wait::{self, Probe};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// An `sshd` of a test's own. It ends with the value, and with the thread that started it.
pub struct Sshd {
    process: Child,
    folder: TempDir,
    pub addr: SocketAddr,
    pub host_key: HostKey,
    pub identity: Arc<Identity>,
    pub user: String,
}

impl Sshd {
    /// Starts a server with `extra` lines in its configuration.
    ///
    /// # Panics
    /// If there is no `sshd`, or it does not come up.
    pub fn start(extra: &[&str]) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} not found: these tests need the package openssh-server");
        let folder = tempfile::Builder::new().prefix("sshd-").tempdir().unwrap();
        let host_key = HostKey::generate();
        let identity = Arc::new(Identity::generate());
        let user = output("id", &["-un"]);
        if user == "root" {
            std::fs::create_dir_all("/run/sshd").unwrap(); // sshd insists on it
        }
        // The server reads the authorized keys as the user who wants to enter.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        std::fs::write(folder.path().join("authorized_keys"), identity.public_line()).unwrap();
        write_private(folder.path(), "host_key", &host_key.private_pem());
        wait::until(Instant::now() + Duration::from_secs(10), || {
            // The port is free now, and may be taken a moment later: then the next one is tried.
            let addr = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
            write_private(folder.path(), "config", &config(folder.path(), addr, extra));
            let mut process = spawn(folder.path());
            if listens(&mut process, addr) {
                return Ok(Probe::Ready((process, addr)));
            }
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            if log.contains("in use") { Ok(Probe::NotYet(log)) } else { Err(std::io::Error::other(log)) }
        })
        .map(|(process, addr)| Self { process, folder, addr, host_key, identity, user })
        .expect("sshd did not come up")
    }

    /// Where to go, as the user of the test.
    pub fn target(&self) -> Target {
        Target {
            addr: self.addr,
            user: self.user.clone(),
            identity: Arc::clone(&self.identity),
            host_key: self.host_key.public().clone(),
        }
    }

    /// A pool for this server.
    pub fn guest(&self) -> Guest {
        Guest::new(self.addr, Arc::clone(&self.identity), self.host_key.public().clone()).unwrap()
    }

    /// How many logins the server has accepted so far.
    pub fn logins(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Accepted publickey")).count()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The private key to enter with, in a file for `ssh -i`.
    #[allow(dead_code, reason = "used by the measurements only")]
    pub fn identity_file(&self) -> PathBuf {
        write_private(self.folder.path(), "identity", &self.identity.private_pem());
        self.folder.path().join("identity")
    }

    /// The server's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(folder: &Path, addr: SocketAddr, extra: &[&str]) -> String {
    let folder = folder.display();
    let mut config = format!(
        "ListenAddress {addr}\n\
         HostKey {folder}/host_key\n\
         AuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\n\
         StrictModes no\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         SetEnv HOME={folder}\n"
    );
    for line in extra {
        config += line;
        config += "\n";
    }
    config
}

fn spawn(folder: &Path) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", SSHD, "-D", "-f"])
        .arg(folder.join("config"))
        .arg("-E")
        .arg(folder.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the server listens (true) or has ended (false).
fn listens(process: &mut Child, addr: SocketAddr) -> bool {
    wait::until(Instant::now() + Duration::from_secs(10), || {
        if process.try_wait()?.is_some() {
            return Ok(Probe::Ready(false));
        }
        Ok::<_, std::io::Error>(match TcpStream::connect(addr) {
            Ok(_) => Probe::Ready(true),
            Err(error) => Probe::NotYet(error.to_string()),
        })
    })
    .expect("sshd neither listens nor ends")
}

fn write_private(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
