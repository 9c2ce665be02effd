//! A forge of a test's own: database, repositories, accounts, `serve`, and if wanted a runner. All of it ends with the value.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rave_forge::settings::Settings;
use rave_forge::text;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::Postgres;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The accounts: name, administrator, level in the group.
const ACCOUNTS: [(&str, bool, Option<i32>); 7] = [
    ("root", true, None),
    ("mara", false, Some(40)),
    ("dana", false, Some(30)),
    ("dirk", false, Some(30)),
    ("vera", false, Some(20)),
    ("gus", false, Some(10)),
    ("otto", false, None),
];
/// The bot's token, which the bridge would have.
const BOT: &str = "glpat-bot-0123456789abcdef0123456789";
/// The runner's token.
const RUNNER: &str = "glrt-runner-0123456789abcdef01234567";

/// Fields drop in this order: programs end before what they work on goes.
pub struct Forge {
    serve: Option<Process>,
    runner: Option<Process>,
    pub postgres: Postgres,
    pub folder: TempDir,
    pub addr: SocketAddr,
}

/// A program that is killed with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a request was answered with.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Forge {
    /// A forge that answers, with its accounts.
    pub fn start() -> Self {
        let mut forge = Self::prepared();
        forge.up();
        forge
    }

    /// A forge that is set up, and not started.
    pub fn prepared() -> Self {
        let postgres = Postgres::start();
        let folder = tempfile::Builder::new().prefix("forge-").tempdir_in("/tmp").unwrap();
        // The port is free now; whoever takes it in between makes the start fail, loudly.
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let forge = Self { serve: None, runner: None, postgres, folder, addr };
        forge.write_files();
        forge.run("setup");
        forge.run("setup");
        forge.run("accounts");
        forge.run("accounts");
        forge
    }

    /// Starts `serve` and waits until it answers.
    pub fn up(&mut self) {
        self.launch();
        until("rave-forge answers", || (self.get("mara", "/version").status == 200).then_some(()));
    }

    /// Starts `serve`.
    pub fn launch(&mut self) {
        self.serve = Some(Process(self.command("serve").spawn().unwrap()));
    }

    /// Ends the runner without a chance to say good-bye.
    pub fn stop_runner(&mut self) {
        self.runner = None;
    }

    /// Ends `serve` without a chance to say good-bye.
    pub fn kill(&mut self) {
        self.serve = None;
    }

    /// Starts a runner.
    pub fn start_runner(&mut self) {
        self.runner = Some(Process(self.command("runner").spawn().unwrap()));
    }

    pub fn url(&self) -> String {
        format!("http://{}/gitlab", self.addr)
    }

    pub fn token(user: &str) -> String {
        if user == "rave-bot" { BOT.to_owned() } else { format!("glpat-{user}-0123456789abcdefghij") }
    }

    pub fn repositories(&self) -> PathBuf {
        self.folder.path().join("repositories")
    }

    pub fn get(&self, user: &str, path: &str) -> Reply {
        self.send(user, "GET", path, None)
    }

    pub fn post(&self, user: &str, path: &str, body: Value) -> Reply {
        self.send(user, "POST", path, Some(body))
    }

    pub fn put(&self, user: &str, path: &str, body: Value) -> Reply {
        self.send(user, "PUT", path, Some(body))
    }

    pub fn delete(&self, user: &str, path: &str) -> Reply {
        self.send(user, "DELETE", path, None)
    }

    /// Asks by curl. An answer that does not come is status 0.
    pub fn send(&self, user: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
        let mut command = self.curl(method, &format!("/api/v4{path}"));
        if !user.is_empty() {
            command.args(["--header", &format!("PRIVATE-TOKEN: {}", Self::token(user))]);
        }
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data-raw", &body.to_string()]);
        }
        reply(&mut command)
    }

    pub fn curl(&self, method: &str, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--path-as-is",
            "--max-time",
            "60",
            "--request",
            method,
            "--write-out",
            "\n%{http_code}",
        ]);
        command.arg(format!("{}{path}", self.url()));
        command
    }

    /// Runs git as a user against this forge; returns whether it worked, and what it said.
    pub fn git(&self, user: &str, folder: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_AUTHOR_NAME", user),
            ("GIT_AUTHOR_EMAIL", "a@rave.local"),
            ("GIT_COMMITTER_NAME", user),
            ("GIT_COMMITTER_EMAIL", "a@rave.local"),
        ] {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    }

    /// The address that a user clones from.
    pub fn clone_url(&self, user: &str, project: &str) -> String {
        format!("http://oauth2:{}@{}/gitlab/{project}.git", Self::token(user), self.addr)
    }

    /// A project of the group with a file, made by the bot.
    pub fn project(&self, name: &str) -> i64 {
        let group = self.get("rave-bot", "/namespaces/rave").json()["id"].clone();
        let made = self.post(
            "rave-bot",
            "/projects",
            json!({ "name": name, "namespace_id": group, "initialize_with_readme": true }),
        );
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_i64().unwrap()
    }

    /// Commits files to a new branch, as a user.
    pub fn commit(&self, user: &str, project: i64, branch: &str, files: &[(&str, &str)]) -> Reply {
        let actions: Vec<Value> = files
            .iter()
            .map(|(path, content)| json!({ "action": "create", "file_path": path, "content": content }))
            .collect();
        let body =
            json!({ "branch": branch, "start_branch": "main", "commit_message": "A change", "actions": actions });
        self.post(user, &format!("/projects/{project}/repository/commits"), body)
    }

    /// Opens a merge request to main; returns its number.
    pub fn merge_request(&self, user: &str, project: i64, branch: &str) -> i64 {
        let body = json!({ "source_branch": branch, "target_branch": "main", "title": format!("Merge {branch}") });
        let made = self.post(user, &format!("/projects/{project}/merge_requests"), body);
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["iid"].as_i64().unwrap()
    }

    /// Waits until a merge request has one of some statuses.
    pub fn merge_status(&self, project: i64, iid: i64, wanted: &str) -> Value {
        until(wanted, || {
            let found = self.get("mara", &format!("/projects/{project}/merge_requests/{iid}")).json();
            (found["detailed_merge_status"] == wanted).then_some(found)
        })
    }

    pub fn settings(&self) -> Settings {
        Settings::read(&self.config()).unwrap()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("forge.toml")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rave-forge"));
        command
            .arg(name)
            .arg("--config")
            .arg(self.config())
            .env("CREDENTIALS_DIRECTORY", self.folder.path())
            .stdin(Stdio::null());
        command
            .stderr(std::fs::File::options().append(true).create(true).open(self.folder.path().join("log")).unwrap());
        command
    }

    fn run(&self, name: &str) {
        let status = self.command(name).status().unwrap();
        assert!(status.success(), "{name}: {}", self.log());
    }

    /// What the programs have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn write_files(&self) {
        let write = |name: &str, content: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        };
        let digest = text::sha256("a client's secret");
        write("clients.json", &json!({ "synapse": digest, "grafana": digest }).to_string());
        write("bot.sha256", &text::sha256(BOT));
        write("runner.sha256", &text::sha256(RUNNER));
        write("runner", RUNNER);
        let account = |(name, admin, level): &(&str, bool, Option<i32>)| {
            let mut account = json!({ "username": name, "name": name, "email": format!("{name}@rave.local"), "admin": admin,
                "password": format!("password of {name}"), "token": Self::token(name) });
            if let Some(level) = level {
                account["access_level"] = json!(level);
            }
            account
        };
        let accounts: Vec<Value> = ACCOUNTS.iter().map(account).collect();
        write("rave.accounts", &json!({ "schema": 1, "group": "rave", "accounts": accounts }).to_string());
        let folder = self.folder.path().display();
        let config = format!(
            "listen = \"{addr}\"\nurl = \"http://{addr}/gitlab\"\nrepositories = \"{folder}/repositories\"\n\
             [database]\nsocket = \"{socket}\"\nuser = \"{user}\"\nname = \"postgres\"\n\
             [secrets]\nbot_token_digest = \"{folder}/bot.sha256\"\nclients = \"{folder}/clients.json\"\nrunner_token_digest = \"{folder}/runner.sha256\"\n\
             [limits]\nbody_kib = 64\ntrace_kib = 64\nsilent_job_secs = 3\n\
             [runner]\nurl = \"http://{addr}/gitlab\"\ntoken = \"{folder}/runner\"\nbuilds = \"{folder}/builds\"\n\
             description = \"test runner (direct executor, no walls)\"\ntags = [\"linux\"]\nmemory_mib = 256\npoll_ms = 50\n",
            addr = self.addr,
            socket = self.postgres.socket().display(),
            user = self.postgres.user,
        );
        write("forge.toml", &config);
    }
}

/// Runs curl.
pub fn reply(command: &mut Command) -> Reply {
    let output = command.stdin(Stdio::null()).output().expect("these tests need curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    Reply { status: status.parse().unwrap_or(0), body: body.to_owned() }
}

/// Asks again until there is an answer.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: did not come");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
