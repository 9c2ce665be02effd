//! The services around the bridge, as far as it uses them, with their state in the open.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};

pub type Shared = Arc<Mutex<Services>>;

pub const AS_TOKEN: &str = "as-token-0123456789abcdef0123456789abcdef";
pub const HS_TOKEN: &str = "hs-token-0123456789abcdef0123456789abcdef";
pub const FORGE_TOKEN: &str = "glpat-forge-0123456789abcdef0123456789abcdef";

/// The state of all services.
#[derive(Default)]
pub struct Services {
    // The homeserver.
    pub homeserver_down: bool,
    pub sent: Vec<Sent>,
    pub joined: Vec<String>,
    pub left: Vec<String>,
    pub members: HashMap<String, Vec<String>>,
    pub pings: usize,
    // Its database.
    pub directory_down: bool,
    pub external: HashMap<String, String>,
    // The forge.
    pub forge_down: bool,
    pub users: BTreeMap<u64, (String, String)>,
    pub levels: BTreeMap<u64, u64>,
    pub keys: BTreeMap<u64, Vec<String>>,
    pub projects: Vec<Project>,
    pub notes: Vec<String>,
    // The sandbox daemon.
    pub sandbox_down: bool,
    pub sandboxes: Vec<Value>,
    pub sandboxes_made: usize,
    pub stay_starting: bool,
    // Where a request is held up.
    pub requests: Vec<String>,
    pub gate: Option<Gate>,
    pub held_up: bool,
}

pub struct Sent {
    pub room: String,
    pub txn: String,
    pub content: Value,
}

#[derive(Default)]
pub struct Project {
    pub id: u64,
    pub name: String,
    pub description: String,
    /// Whether members of the group are members of it.
    pub hidden: bool,
    pub commits: Vec<Value>,
    pub requests: Vec<Value>,
    pub pipelines: Vec<Value>,
}

/// The request number `at` gets no answer: before or after it had its effect.
#[derive(Clone, Copy)]
pub struct Gate {
    pub at: usize,
    pub after: bool,
}

pub async fn serve(socket: &std::path::Path, state: &Shared) -> (String, String) {
    let mut addresses = vec![];
    for service in [homeserver as fn(&mut Services, &Method, &[String], &Value, bool) -> Response, forge] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(axum::serve(listener, router(service, state)).into_future());
    }
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(axum::serve(listener, router(sandbox, state)).into_future());
    let forge = addresses.pop().unwrap();
    (addresses.pop().unwrap(), forge)
}

type Service = fn(&mut Services, &Method, &[String], &Value, bool) -> Response;

fn router(service: Service, state: &Shared) -> Router {
    let answer = move |State(state): State<Shared>, request: Request| async move {
        let (parts, body) = request.into_parts();
        let body: Bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path: Vec<String> = parts.uri.path().trim_start_matches('/').split('/').map(decoded).collect();
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let trusted = header("authorization") == Some(format!("Bearer {AS_TOKEN}"))
            || header("private-token").as_deref() == Some(FORGE_TOKEN);
        service(&mut state.lock().unwrap(), &parts.method, &path, &body, trusted)
    };
    Router::new().fallback(answer).layer(middleware::from_fn_with_state(state.clone(), gate)).with_state(state.clone())
}

async fn gate(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let held = {
        let mut state = state.lock().unwrap();
        let number = state.requests.len();
        state.requests.push(format!("{} {}", request.method(), request.uri()));
        state.gate.filter(|gate| gate.at == number)
    };
    let Some(gate) = held else { return next.run(request).await };
    if gate.after {
        drop(next.run(request).await);
    }
    state.lock().unwrap().held_up = true;
    std::future::pending().await
}

fn decoded(segment: &str) -> String {
    let mut bytes = vec![];
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

fn homeserver(state: &mut Services, method: &Method, path: &[String], body: &Value, trusted: bool) -> Response {
    if state.homeserver_down {
        return answer(503, Value::Null);
    }
    if !trusted {
        return answer(401, json!({ "errcode": "M_UNKNOWN_TOKEN" }));
    }
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (method.as_str(), path.as_slice()) {
        ("POST", ["_matrix", "client", "v1", "appservice", "rave", "ping"]) => {
            state.pings += 1;
            answer(200, json!({ "duration_ms": 1 }))
        }
        ("POST", ["_matrix", "client", "v3", "join", room]) => {
            state.joined.push((*room).to_owned());
            answer(200, json!({ "room_id": room }))
        }
        ("POST", ["_matrix", "client", "v3", "rooms", room, "leave"]) => {
            state.left.push((*room).to_owned());
            answer(200, json!({}))
        }
        ("GET", ["_matrix", "client", "v3", "rooms", room, "members"]) => match state.members.get(*room) {
            None => answer(403, json!({ "errcode": "M_FORBIDDEN" })),
            Some(members) => {
                let chunk: Vec<Value> =
                    members.iter().map(|member| json!({ "type": "m.room.member", "state_key": member, "content": { "membership": "join" } })).collect();
                answer(200, json!({ "chunk": chunk }))
            }
        },
        ("PUT", ["_matrix", "client", "v3", "rooms", room, "send", "m.room.message", txn]) => {
            if !state.sent.iter().any(|sent| sent.room == *room && sent.txn == *txn) {
                state.sent.push(Sent { room: (*room).to_owned(), txn: (*txn).to_owned(), content: body.clone() });
            }
            answer(200, json!({ "event_id": format!("$sent{txn}") }))
        }
        _ => answer(404, json!({ "errcode": "M_UNRECOGNIZED" })),
    }
}

fn forge(state: &mut Services, method: &Method, path: &[String], body: &Value, trusted: bool) -> Response {
    if state.forge_down {
        return answer(502, Value::Null);
    }
    if !trusted {
        return answer(401, json!({ "message": "401 Unauthorized" }));
    }
    let missing = || answer(404, json!({ "message": "404 Not Found" }));
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    match (method.as_str(), path.as_slice()) {
        ("GET", ["version"]) => answer(200, json!({ "version": "1", "revision": "x" })),
        ("GET", ["users", id]) => match state.users.get(&number(id)) {
            Some((name, condition)) => answer(200, json!({ "id": number(id), "username": name, "state": condition })),
            None => missing(),
        },
        ("GET", ["users", id, "keys"]) => {
            let keys = state.keys.get(&number(id)).cloned().unwrap_or_default();
            answer(200, keys.iter().map(|key| json!({ "id": 1, "title": "k", "key": key })).collect())
        }
        ("GET", ["groups", "rave", "members", "all", id]) => match state.levels.get(&number(id)) {
            Some(level) => answer(200, json!({ "id": number(id), "access_level": level })),
            None => missing(),
        },
        ("GET", ["namespaces", "rave"]) => answer(200, json!({ "id": 11, "path": "rave" })),
        ("POST", ["projects"]) => {
            assert_eq!((body["namespace_id"].as_u64(), body["visibility"].as_str()), (Some(11), Some("private")));
            let name = body["path"].as_str().unwrap().to_owned();
            if state.projects.iter().any(|project| project.name == name) {
                return answer(400, json!({ "message": { "path": ["has already been taken"] } }));
            }
            let description = body["description"].as_str().unwrap().to_owned();
            let project = Project { id: 100 + state.projects.len() as u64, name, description, ..Project::default() };
            let shown = shown(&project);
            state.projects.push(project);
            answer(201, shown)
        }
        ("GET", ["projects", path]) => {
            let name = path.strip_prefix("rave/").unwrap();
            state
                .projects
                .iter()
                .find(|project| project.name == name)
                .map_or_else(missing, |project| answer(200, shown(project)))
        }
        (_, ["projects", id, rest @ ..]) => {
            let levels = state.levels.clone();
            let Some(project) = state.projects.iter_mut().find(|project| project.id == number(id)) else {
                return missing();
            };
            match (method.as_str(), rest) {
                ("GET", ["members", "all", user]) => match levels.get(&number(user)) {
                    Some(level) if !project.hidden => answer(200, json!({ "access_level": level })),
                    _ => missing(),
                },
                ("POST", ["repository", "commits"]) => commit(project, body),
                ("GET", ["merge_requests"]) => answer(200, json!(project.requests)),
                ("POST", ["merge_requests"]) => {
                    if !project.requests.is_empty() {
                        return answer(409, json!({ "message": ["Another open merge request already exists"] }));
                    }
                    let request = json!({ "iid": 1, "state": "opened", "sha": "c".repeat(40), "web_url": format!("https://forge/rave/{}/-/merge_requests/1", project.name),
                        "source_branch": body["source_branch"], "target_branch": body["target_branch"] });
                    project.requests.push(request.clone());
                    answer(201, request)
                }
                ("GET", ["merge_requests", iid]) => project
                    .requests
                    .iter()
                    .find(|request| request["iid"] == number(iid))
                    .map_or_else(missing, |request| answer(200, request.clone())),
                ("POST", ["merge_requests", _, "notes"]) => {
                    state.notes.push(body["body"].as_str().unwrap().to_owned());
                    answer(201, json!({ "id": 1 }))
                }
                ("GET", ["pipelines"]) => answer(200, json!(project.pipelines)),
                ("POST", ["pipeline"]) => {
                    assert_eq!(body["ref"], "main");
                    let pipeline = json!({ "id": project.pipelines.len() + 1, "status": "created", "source": "api", "created_at": jiff::Timestamp::now().to_string(), "web_url": "https://forge/p" });
                    project.pipelines.insert(0, pipeline.clone());
                    answer(201, pipeline)
                }
                _ => missing(),
            }
        }
        _ => missing(),
    }
}

fn commit(project: &mut Project, body: &Value) -> Response {
    let branch = body["branch"].as_str().unwrap();
    if project.commits.iter().any(|commit| commit["branch"] == branch) {
        let message = if body["start_branch"].is_null() {
            "A file with this name already exists"
        } else {
            "A branch called 'hello' already exists"
        };
        return answer(400, json!({ "message": message }));
    }
    project.commits.push(body.clone());
    answer(201, json!({ "id": "c".repeat(40) }))
}

fn shown(project: &Project) -> Value {
    let Project { id, name, description, commits, .. } = project;
    let branch = if commits.is_empty() { Value::Null } else { json!("main") };
    json!({ "id": id, "path_with_namespace": format!("rave/{name}"), "web_url": format!("https://forge/rave/{name}"), "description": description,
        "http_url_to_repo": format!("https://forge/rave/{name}.git"), "default_branch": branch })
}

fn sandbox(state: &mut Services, method: &Method, path: &[String], body: &Value, _: bool) -> Response {
    if state.sandbox_down {
        return answer(500, Value::Null);
    }
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (method.as_str(), path.as_slice()) {
        ("GET", ["sandboxes"]) => answer(200, json!({ "sandboxes": state.sandboxes })),
        ("POST", ["sandboxes"]) => {
            let same = |one: &Value| one["project"] == body["project"] && one["mr"] == body["mr"];
            if state.sandboxes.iter().any(same) {
                return answer(409, json!({ "error": "exists", "message": "there is one" }));
            }
            if state.sandboxes.len() >= 2 {
                return answer(409, json!({ "error": "capacity", "message": "two is the most" }));
            }
            state.sandboxes_made += 1;
            let number = state.sandboxes_made as u64;
            let now = jiff::Timestamp::now();
            let ttl = jiff::SignedDuration::from_secs(body["ttl_seconds"].as_i64().unwrap());
            let one = json!({ "id": format!("sb-{number}"), "state": "starting", "backend": "none 1.0", "project": body["project"], "mr": body["mr"], "sha": body["sha"],
                "requested_by": body["requested_by"], "address": "127.0.0.1", "ssh_port": 2199 + number, "web_port": 3099 + number,
                "created_at": now.to_string(), "expires_at": (now + ttl).to_string(), "memory_max_bytes": 1, "cpu_quota_percent": 200 });
            state.sandboxes.push(one.clone());
            answer(201, one)
        }
        (_, ["sandboxes", id]) => {
            let Some(position) = state.sandboxes.iter().position(|one| one["id"] == *id) else {
                return answer(404, json!({ "error": "not_found" }));
            };
            if method == Method::DELETE {
                state.sandboxes.remove(position);
                return answer(202, json!({}));
            }
            let one = state.sandboxes[position].clone();
            if !state.stay_starting {
                state.sandboxes[position]["state"] = json!("ready");
            }
            answer(200, one)
        }
        _ => answer(404, json!({ "error": "not_found" })),
    }
}
