//! The API: HTTP with JSON on a unix socket. Whoever may open the socket may do everything.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use crate::keeper::{Keeper, Refused};
use crate::request::{Request, Sent};
use crate::sandbox::Sandbox;
use crate::settings::Limits;

const LARGEST_BODY: usize = 64 * 1024;

/// The routes, for a keeper.
pub fn router(keeper: Arc<Keeper>, limits: Limits) -> Router {
    Router::new()
        .route("/sandboxes", get(list).post(start))
        .route("/sandboxes/{id}", get(show).delete(stop))
        .fallback(|| async { refused(&Refused::NotFound("there is nothing at this path".to_owned())) })
        .method_not_allowed_fallback(|| async { answer(StatusCode::METHOD_NOT_ALLOWED, "method", "not that way") })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Api { keeper, limits })
}

#[derive(Clone)]
struct Api {
    keeper: Arc<Keeper>,
    limits: Limits,
}

#[derive(Serialize)]
struct All {
    sandboxes: Vec<Sandbox>,
}

async fn list(State(api): State<Api>) -> Response {
    Json(All { sandboxes: api.keeper.list() }).into_response()
}

async fn show(State(api): State<Api>, Path(id): Path<String>) -> Response {
    result(StatusCode::OK, api.keeper.show(&id))
}

async fn start(State(api): State<Api>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return answer(rejection.status(), "bad_request", &rejection.body_text()),
    };
    let sent = serde_json::from_slice::<Sent>(&body).map_err(|error| error.to_string());
    match sent.and_then(|sent| Request::check(sent, &api.limits)) {
        Ok(request) => result(StatusCode::CREATED, off_thread(move || api.keeper.start(request)).await),
        Err(why) => refused(&Refused::BadRequest(why)),
    }
}

async fn stop(State(api): State<Api>, Path(id): Path<String>) -> Response {
    result(StatusCode::ACCEPTED, off_thread(move || api.keeper.stop(&id)).await)
}

/// The keeper runs programs and waits for them.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Refused::System(error.to_string())))
}

fn result(status: StatusCode, result: Result<Sandbox, Refused>) -> Response {
    match result {
        Ok(sandbox) => (status, Json(sandbox)).into_response(),
        Err(why) => refused(&why),
    }
}

fn refused(why: &Refused) -> Response {
    match why {
        Refused::Capacity(message) => answer(StatusCode::CONFLICT, "capacity", message),
        Refused::Exists(message) => answer(StatusCode::CONFLICT, "exists", message),
        Refused::BadRequest(message) => answer(StatusCode::BAD_REQUEST, "bad_request", message),
        Refused::NoBackend(message) => answer(StatusCode::SERVICE_UNAVAILABLE, "no_backend", message),
        Refused::NotFound(message) => answer(StatusCode::NOT_FOUND, "not_found", message),
        Refused::System(message) => answer(StatusCode::INTERNAL_SERVER_ERROR, "system", message),
    }
}

fn answer(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({ "error": error, "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::tests::{Fake, keeper};
    use crate::request::tests::{body, limits};
    use serde_json::Value;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::{Path as FilePath, PathBuf};
    use std::time::Duration;

    /// A daemon in a fake world, on a socket.
    struct Daemon {
        _folder: tempfile::TempDir,
        socket: PathBuf,
        world: Arc<Fake>,
        keeper: Arc<Keeper>,
        _runtime: tokio::runtime::Runtime,
    }

    impl Daemon {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("api.sock");
            let world = Arc::new(Fake::default());
            let keeper = keeper(&world);
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
            let router = router(Arc::clone(&keeper), limits());
            runtime.spawn(async move { axum::serve(listener, router).await });
            Self { _folder: folder, socket, world, keeper, _runtime: runtime }
        }

        fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
            let length = body.len();
            let answer = say(
                &self.socket,
                End::Open,
                format!(
                    "{method} {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            );
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
        }

        fn refuses(&self, method: &str, path: &str, body: &str, status: u16, error: &str) {
            let (found, body) = self.ask(method, path, body);
            assert_eq!((found, body["error"].as_str()), (status, Some(error)), "{method} {path}: {body}");
            assert!(body["message"].is_string());
        }
    }

    /// Whether a client says that it has said all. Only a broken request needs that; the daemon takes it for somebody who has left.
    #[derive(PartialEq)]
    enum End {
        Open,
        Said,
    }

    fn say(socket: &FilePath, end: End, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // It may have heard enough and closed before all was said.
        let _ = stream.write_all(bytes);
        if end == End::Said {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    fn request(mr: u64) -> String {
        let mut body = body();
        body["mr"] = mr.into();
        body.to_string()
    }

    #[test]
    fn a_life_over_the_socket() {
        let daemon = Daemon::start();
        assert_eq!(daemon.ask("GET", "/sandboxes", ""), (200, json!({ "sandboxes": [] })));
        let (status, made) = daemon.ask("POST", "/sandboxes", &request(1));
        assert_eq!(status, 201, "{made}");
        for (key, value) in [
            ("id", json!("sb-0001")),
            ("state", json!("starting")),
            ("backend", json!("user-mode-linux 6.12.113")),
            ("project", json!("rave/hello")),
            ("mr", json!(1)),
            ("requested_by", json!("dana")),
            ("address", json!("127.0.0.1")),
            ("ssh_port", json!(2200)),
            ("web_port", json!(3100)),
            ("created_at", json!("2027-01-15T08:00:00Z")),
            ("expires_at", json!("2027-01-15T08:10:00Z")),
            ("memory_max_bytes", json!(4_294_967_296_u64)),
            ("cpu_quota_percent", json!(200)),
        ] {
            assert_eq!(made[key], value, "{key}");
        }
        daemon.refuses("POST", "/sandboxes", &request(1), 409, "exists");
        assert_eq!(daemon.ask("POST", "/sandboxes", &request(2)).0, 201);
        daemon.refuses("POST", "/sandboxes", &request(3), 409, "capacity");
        assert_eq!(daemon.ask("GET", "/sandboxes", "").1["sandboxes"].as_array().map(Vec::len), Some(2));
        assert_eq!(daemon.ask("GET", "/sandboxes/sb-0002", "").1["mr"], json!(2));
        assert_eq!(daemon.ask("DELETE", "/sandboxes/sb-0002", "").0, 202);
        while daemon.ask("GET", "/sandboxes/sb-0002", "").0 == 200 {
            daemon.keeper.look(true);
        }
        daemon.refuses("DELETE", "/sandboxes/sb-0002", "", 404, "not_found");
        daemon.world.facts().no_commit = true;
        daemon.refuses("POST", "/sandboxes", &request(4), 400, "bad_request");
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_json() {
        let daemon = Daemon::start();
        daemon.refuses("GET", "/", "", 404, "not_found");
        daemon.refuses("GET", "/sandboxes/..%2f..%2fetc", "", 404, "not_found");
        daemon.refuses("DELETE", "/sandboxes/%00", "", 404, "not_found");
        daemon.refuses("PUT", "/sandboxes", "", 405, "method");
        daemon.refuses("POST", "/sandboxes", "", 400, "bad_request");
        daemon.refuses("POST", "/sandboxes", "[]", 400, "bad_request");
        daemon.refuses("POST", "/sandboxes", &"[".repeat(60_000), 400, "bad_request");
        daemon.refuses("POST", "/sandboxes", &" ".repeat(LARGEST_BODY + 1), 413, "bad_request");
    }

    /// Bytes that nobody foresaw: a good request, broken in many ways. The daemon goes on.
    #[test]
    fn broken_requests_break_nothing() {
        let daemon = Daemon::start();
        let body = request(1);
        let head = format!(
            "POST /sandboxes HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let good: Vec<u8> = head.bytes().chain(body.bytes()).collect();
        let mut random = Random(1);
        for _ in 0..2000 {
            let mut broken = good.clone();
            for _ in 0..=random.below(4) {
                random.break_once(&mut broken);
            }
            let answer = say(&daemon.socket, End::Said, &broken);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&broken));
        }
        assert_eq!(daemon.ask("GET", "/sandboxes", "").0, 200);
    }

    /// The same for what is behind the socket, where it costs nothing.
    #[test]
    fn broken_bodies_are_no_requests_or_good_ones() {
        let good = request(1);
        let limits = limits();
        let mut random = Random(2);
        let inputs = std::env::var("FUZZ_INPUTS").ok().map_or(200_000, |text| text.parse().unwrap());
        for _ in 0..inputs {
            let mut broken = good.clone().into_bytes();
            for _ in 0..=random.below(6) {
                random.break_once(&mut broken);
            }
            let Ok(sent) = serde_json::from_slice::<Sent>(&broken) else { continue };
            let Ok(request) = Request::check(sent, &limits) else { continue };
            assert!(!request.project.contains("..") && !request.project.contains('\n'));
            assert!(
                request
                    .authorized_keys
                    .iter()
                    .all(|key| key.starts_with("ssh-") || key.starts_with("ecdsa-") || key.starts_with("sk-"))
            );
        }
    }

    /// Numbers that are the same every time (xorshift).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 11).unwrap_or(0) % limit.max(1)
        }

        fn break_once(&mut self, bytes: &mut Vec<u8>) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap_or(0),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, b"\"{}[]\\\r\n0/.-"[self.below(12)]),
                _ => {
                    let piece = bytes[at..(at + self.below(40)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}
