//! A PostgreSQL server of a test's own, on a unix socket in a temporary folder. It refuses to run as root, so it runs as `nobody` then.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The server. It ends with the value.
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    /// The role that owns everything.
    pub user: String,
}

impl Postgres {
    /// Makes and starts a server with the two schemas.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir_in("/tmp").unwrap();
        let user = if is_root() { "nobody".to_owned() } else { output(Command::new("id").arg("-un")) };
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("socket")).unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        if is_root() {
            for name in ["socket", "data"] {
                assert!(Command::new("chown").arg(&user).arg(folder.path().join(name)).status().unwrap().success());
            }
        }
        let server = Self { programs: programs(), folder, user };
        let data = server.data();
        output(
            server
                .command("initdb")
                .args(["--auth=trust", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--pgdata"])
                .arg(&data),
        );
        server.up();
        for schema in ["../identity/schema.sql", "schema.sql"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(schema);
            server.sql(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
        server
    }

    /// Starts the server.
    pub fn up(&self) {
        let socket = self.socket().display().to_string();
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories='{socket}' -c fsync=off -c max_connections=40");
        let log = self.data().join("log");
        output(
            self.command("pg_ctl")
                .args(["--silent", "--wait", "--options", &options, "--log"])
                .arg(log)
                .arg("--pgdata")
                .arg(self.data())
                .arg("start"),
        );
    }

    /// Stops the server, and breaks every connection.
    pub fn down(&self) {
        output(
            self.command("pg_ctl")
                .args(["--silent", "--wait", "--mode=immediate", "--pgdata"])
                .arg(self.data())
                .arg("stop"),
        );
    }

    /// Runs SQL; returns what it selects.
    pub fn sql(&self, sql: &str) -> String {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-U", &self.user, "-c", sql, "-h"])
            .arg(self.socket());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The folder of the socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = Command::new(if is_root() { PathBuf::from("setpriv") } else { program.clone() });
        if is_root() {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
        }
        command.current_dir("/").env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["--silent", "--mode=immediate", "--pgdata"])
            .arg(self.data())
            .arg("stop")
            .stderr(Stdio::null())
            .status();
    }
}

fn programs() -> PathBuf {
    let debian =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("psql").exists();
    let found = debian.filter(complete).max().or_else(|| path.into_iter().find(complete));
    found.expect("no initdb: these tests need the package postgresql")
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0).unwrap_or(false)
}

/// Runs a command that must succeed; returns what it prints.
pub fn output(command: &mut Command) -> String {
    // pg_ctl leaves a server behind that would hold a pipe open: only psql and id are listened to.
    let listens = !command.get_program().to_string_lossy().ends_with("pg_ctl")
        && !command.get_args().any(|argument| argument.to_string_lossy().ends_with("pg_ctl"));
    if !listens {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
        return String::new();
    }
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
