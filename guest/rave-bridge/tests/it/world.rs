//! A bridge in a world of its own: its services, its settings, its process, and what a test does with them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::directory;
use crate::fakes::{self, AS_TOKEN, FORGE_TOKEN, HS_TOKEN, Services, Shared};

pub const ROOM: &str = "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM";
/// Whatever takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub folder: tempfile::TempDir,
    pub state: Shared,
    pub address: String,
    client: reqwest::Client,
    process: Option<Child>,
    log: std::sync::Arc<Mutex<Vec<String>>>,
    events: AtomicUsize,
    transactions: AtomicUsize,
}

/// What is changed in a world's settings.
#[derive(Clone)]
pub struct Options {
    pub limits: &'static str,
    pub rooms: &'static str,
}

pub const GENEROUS: Options = Options {
    limits: "sender_per_minute = 60000\nsender_burst = 1000\nroom_per_minute = 60000\ndenials = 1000\nignore_seconds = 300\nrole_cache_seconds = 0",
    rooms: "[]",
};
pub const STRICT: Options = Options {
    limits: "sender_per_minute = 30\nsender_burst = 5\nroom_per_minute = 60\ndenials = 5\nignore_seconds = 300\nrole_cache_seconds = 30",
    rooms: "[]",
};

impl World {
    pub async fn new() -> Self {
        Self::with(GENEROUS).await
    }

    pub async fn with(options: Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default(); // another test may have
        let folder = tempfile::tempdir().unwrap();
        let state = Shared::default();
        populate(&mut state.lock().unwrap());
        directory::serve(folder.path(), state.clone()).await;
        let (homeserver, forge) = fakes::serve(&folder.path().join("sandbox.sock"), &state).await;
        let place = folder.path().display();
        for (name, value) in [
            ("as", AS_TOKEN),
            ("hs", HS_TOKEN),
            ("audit", "audit-key-0123456789abcdef0123456789abcdef"),
            ("forge", FORGE_TOKEN),
        ] {
            fs::write(folder.path().join(name), value).unwrap();
            fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o400)).unwrap();
        }
        let Options { limits, rooms } = options;
        let settings = format!(
            r#"listen = "127.0.0.1:0"
server_name = "rave.local"
user = "rave"
audit = "{place}/audit.jsonl"
systemctl = "{place}/systemctl"
[secrets]
as_token = "{place}/as"
hs_token = "{place}/hs"
audit_key = "{place}/audit"
forge_token = "{place}/forge"
[homeserver]
url = "{homeserver}"
appservice = "rave"
[forge]
url = "{forge}"
group = "rave"
[directory]
database = "host={place} user=rave_bridge dbname=synapse"
provider = "oidc-gitlab"
[sandbox]
socket = "{place}/sandbox.sock"
life_seconds = 1800
ready_seconds = 20
watch_seconds = 1
[limits]
{limits}
[rooms]
allowed = {rooms}
"#
        );
        fs::write(folder.path().join("bridge.toml"), settings).unwrap();
        let systemctl = format!(
            "#!/bin/sh\n# What was asked, one call a line, words apart by unit separators.\nIFS=$(printf '\\037')\nprintf '%s\\n' \"$*\" >>{place}/argv\n\
             unset IFS\ncase $2 in\nlist-units) cd \"{place}\" && for unit in rave-agent@*; do [ ! -e \"$unit\" ] || echo \"$unit loaded active running Agent\"; done ;;\n\
             start) : >\"{place}/$3\" ;;\nstop) rm -f \"{place}/$3\" ;;\nesac\n"
        );
        fs::write(folder.path().join("systemctl"), systemctl).unwrap();
        fs::set_permissions(folder.path().join("systemctl"), Permissions::from_mode(0o755)).unwrap();
        let mut world = Self {
            folder,
            state,
            address: String::new(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            process: None,
            log: Default::default(),
            events: AtomicUsize::new(0),
            transactions: AtomicUsize::new(0),
        };
        world.start().await;
        world
    }

    /// Starts the bridge and waits until it serves.
    pub async fn start(&mut self) {
        let mut process = self.command(&["serve"]).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut address = None;
        while address.is_none() {
            let line = tokio::time::timeout(PATIENCE, lines.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap_or_else(|| panic!("no start: {:?}", self.log.lock().unwrap()));
            address = line.split_once("serving listen=").map(|(_, address)| format!("http://{address}"));
            self.log.lock().unwrap().push(line);
        }
        self.address = address.unwrap();
        let log = self.log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push(line);
            }
        });
        self.process = Some(process);
    }

    /// SIGKILL, in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().await.unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.process.as_mut().unwrap().wait()).await.unwrap().unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id().unwrap()
    }

    /// Runs the program to its end.
    pub async fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().await.unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rave-bridge"));
        command.args(words).arg("--config").arg(self.path("bridge.toml")).env_remove("NOTIFY_SOCKET");
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn services(&self) -> std::sync::MutexGuard<'_, Services> {
        self.state.lock().unwrap()
    }

    /// A new event id.
    pub fn event_id(&self) -> String {
        format!("$event-{}", self.events.fetch_add(1, Ordering::Relaxed))
    }

    pub fn message(&self, sender: &str, room: &str, body: &str) -> Value {
        json!({ "type": "m.room.message", "sender": sender, "room_id": room, "event_id": self.event_id(), "origin_server_ts": 1,
            "content": { "msgtype": "m.text", "body": body } })
    }

    /// Delivers events in a transaction of their own, as the homeserver does.
    pub async fn deliver(&self, events: &[Value]) {
        let txn = self.transactions.fetch_add(1, Ordering::Relaxed).to_string();
        self.deliver_as(&txn, events).await;
    }

    pub async fn deliver_as(&self, txn: &str, events: &[Value]) {
        let body = json!({ "events": events }).to_string();
        assert_eq!(self.put(txn, body.into_bytes()).await, (200, json!({})));
    }

    pub async fn put(&self, txn: &str, body: Vec<u8>) -> (u16, Value) {
        let request = self.request(reqwest::Method::PUT, &format!("transactions/{txn}")).bearer_auth(HS_TOKEN);
        answered(request.header("content-type", "application/json").body(body)).await
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}/_matrix/app/v1/{path}", self.address))
    }

    /// Says something in a room; returns the event's id.
    pub async fn say_in(&self, room: &str, user: &str, body: &str) -> String {
        let event = self.message(&mxid(user), room, body);
        self.deliver(std::slice::from_ref(&event)).await;
        event["event_id"].as_str().unwrap().to_owned()
    }

    pub async fn say(&self, user: &str, body: &str) -> String {
        self.say_in(ROOM, user, body).await
    }

    /// Says something and waits for what it leads to.
    pub async fn ask(&self, user: &str, body: &str) -> Reply {
        let id = self.say(user, body).await;
        self.reply(&id).await
    }

    /// Asks, and expects a code.
    pub async fn check(&self, user: &str, body: &str, code: &str) -> Reply {
        let reply = self.ask(user, body).await;
        assert_eq!(reply.code, code, "{user}: {body}: {}", reply.text);
        reply
    }

    /// The terminal reply to an event.
    pub async fn reply(&self, event_id: &str) -> Reply {
        self.until(&format!("a reply to {event_id}"), || {
            self.replies(event_id).into_iter().find(|reply| reply.code != "accepted")
        })
        .await
    }

    /// Every reply to an event so far.
    pub fn replies(&self, event_id: &str) -> Vec<Reply> {
        let of = |sent: &fakes::Sent| sent.content["m.relates_to"]["m.in_reply_to"]["event_id"] == event_id;
        self.services().sent.iter().filter(|sent| of(sent)).map(|sent| Reply::of(&sent.room, &sent.content)).collect()
    }

    /// Waits until it holds.
    pub async fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = probe() {
                return value;
            }
            assert!(Instant::now() < deadline, "no {what}; the bridge said:\n{}", self.log.lock().unwrap().join("\n"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The records of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("audit.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The decisions about an event.
    pub fn decisions(&self, event_id: &str) -> Vec<String> {
        let about = |record: &&Value| record["event_id"] == event_id;
        self.audit().iter().filter(about).map(|record| record["decision"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until these are the decisions about an event: the last is written down after the reply is sent.
    pub async fn decided(&self, event_id: &str, expected: &[&str]) {
        self.until(&format!("{expected:?}"), || (self.decisions(event_id) == expected).then_some(())).await;
    }

    /// The log holds together, no secret is in it or in what the bridge said.
    pub async fn verify(&self) {
        let output = self.run(&["audit", "verify"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = self.log.lock().unwrap().join("\n") + &fs::read_to_string(self.path("audit.jsonl")).unwrap();
        for secret in [AS_TOKEN, HS_TOKEN, FORGE_TOKEN] {
            assert!(!said.contains(secret));
        }
    }

    /// The calls of `systemctl`, word by word.
    pub fn argv(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.path("argv")).unwrap_or_default();
        text.lines().map(|line| line.split('\u{1f}').map(str::to_owned).collect()).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub room: String,
    pub code: String,
    pub verb: String,
    pub text: String,
    pub links: Vec<String>,
    pub content: Value,
}

impl Reply {
    fn of(room: &str, content: &Value) -> Self {
        let reply = &content["org.rave.reply"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            room: room.to_owned(),
            code: text(&reply["code"]),
            verb: text(&reply["verb"]),
            text: text(&content["body"]),
            links: reply["links"].as_array().map(|links| links.iter().map(text).collect()).unwrap_or_default(),
            content: content.clone(),
        }
    }
}

pub fn mxid(user: &str) -> String {
    if user.starts_with('@') { user.to_owned() } else { format!("@{user}:rave.local") }
}

pub async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

fn populate(state: &mut Services) {
    for (id, name, level, condition) in [
        (1, "mara", Some(40), "active"),
        (2, "dana", Some(30), "active"),
        (3, "vera", Some(20), "active"),
        (4, "gus", Some(10), "active"),
        (5, "otto", None, "active"),
        (6, "bob", Some(40), "blocked"),
        (7, "dirk", Some(30), "active"),
    ] {
        state.users.insert(id, (name.to_owned(), condition.to_owned()));
        state.external.insert(mxid(name), id.to_string());
        if let Some(level) = level {
            state.levels.insert(id, level);
        }
    }
    state.keys.insert(2, vec!["ssh-ed25519 AAAA dana".to_owned()]);
    state.members.insert(ROOM.to_owned(), vec![mxid("rave"), mxid("dana"), mxid("mara"), mxid("eve")]);
}
