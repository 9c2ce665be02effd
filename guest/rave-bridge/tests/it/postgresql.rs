//! The bridge's one question, asked of a real PostgreSQL with the roles, rights and doors that the image has.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rave_bridge::directory::Directory;
use rave_bridge::settings;

const RIGHTS: &str = include_str!("../../../reference/parts/bridge/database.sql");

/// A server of its own, which ends with the test.
struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    /// None where PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let programs = fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("bin"))
            .max()?;
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let given = Command::new("chown").arg("postgres:").arg(folder.path()).status().unwrap();
            assert!(given.success());
        }
        let server = Self { folder, programs };
        let (data, socket) = (server.path("data"), server.path(""));
        server.run("initdb", &["--auth", "trust", "--username", "postgres", "--no-sync", "--pgdata", &data]);
        let options = format!("-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off");
        server.run(
            "pg_ctl",
            &["--pgdata", &data, "--wait", "--silent", "--log", &server.path("log"), "--options", &options, "start"],
        );
        Some(server)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn sql(&self, user: &str, database: &str, text: &str) -> Result<String, String> {
        let file = self.folder.path().join("statements.sql");
        fs::write(&file, text).unwrap();
        let output = self
            .command("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &self.path(""), "-U", user, "-d", database, "-f"])
            .arg(&file)
            .output()
            .unwrap();
        let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
    }

    fn run(&self, program: &str, words: &[&str]) {
        let status = self.command(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{program}");
    }

    /// PostgreSQL refuses to be run by root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).process_group(0);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["--pgdata", &self.path("data"), "--mode", "immediate", "--silent", "stop"])
            .status();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(Path::new("/proc/self")).is_ok_and(|metadata| metadata.uid() == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_reads_one_table_and_nothing_else() {
    let Some(server) = Server::start() else {
        eprintln!("PostgreSQL is not installed; not asked");
        return;
    };
    // As Synapse lays the tables out, and as the image's databases are closed.
    server.sql("postgres", "postgres", "CREATE ROLE synapse LOGIN; CREATE DATABASE synapse OWNER synapse; CREATE DATABASE gitlab; REVOKE ALL ON DATABASE synapse, gitlab, postgres FROM PUBLIC;").unwrap();
    let tables = "CREATE TABLE user_external_ids (auth_provider text NOT NULL, external_id text NOT NULL, user_id text NOT NULL, UNIQUE (auth_provider, external_id));
        CREATE TABLE users (name text, password_hash text);
        INSERT INTO user_external_ids VALUES ('oidc-gitlab', '42', '@dana:rave.local'), ('oidc-other', '43', '@dana:rave.local'),
            ('oidc-gitlab', '44', '@twice:rave.local'), ('oidc-gitlab', '45', '@twice:rave.local'), ('oidc-gitlab', 'x', '@letters:rave.local');";
    server.sql("synapse", "synapse", tables).unwrap();
    server.sql("postgres", "postgres", RIGHTS).unwrap();

    let database = format!("host={} user=rave_bridge dbname=synapse", server.path(""));
    let directory = Directory::new(&settings::Directory { database, provider: "oidc-gitlab".to_owned() }).unwrap();
    for (user, expected) in [
        ("@dana:rave.local", Some(42)),
        ("@nobody:rave.local", None),
        ("@twice:rave.local", None),
        ("@letters:rave.local", None),
        ("' OR true --", None),
    ] {
        assert_eq!(directory.external_id(user).await.unwrap(), expected, "{user}");
    }
    for (database, statement) in [
        ("synapse", "SELECT * FROM users"),
        ("synapse", "DELETE FROM user_external_ids"),
        ("synapse", "UPDATE user_external_ids SET external_id = '1'"),
        ("synapse", "CREATE TABLE mine (a int)"),
        ("synapse", "CREATE TEMP TABLE mine (a int)"),
        ("gitlab", "SELECT 1"),
    ] {
        let refused = server.sql("rave_bridge", database, statement).unwrap_err();
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
    // The server goes and comes back; so does the answer.
    server.run("pg_ctl", &["--pgdata", &server.path("data"), "--mode", "fast", "--silent", "--wait", "stop"]);
    assert!(directory.external_id("@dana:rave.local").await.is_err());
    let options = format!("-c listen_addresses= -c unix_socket_directories={}", server.path(""));
    server.run(
        "pg_ctl",
        &[
            "--pgdata",
            &server.path("data"),
            "--wait",
            "--silent",
            "--log",
            &server.path("log"),
            "--options",
            &options,
            "start",
        ],
    );
    assert_eq!(directory.external_id("@dana:rave.local").await.unwrap(), Some(42));
}
