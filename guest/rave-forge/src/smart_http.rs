//! Git over HTTP: `git http-backend` does the talking, this decides who may. Paths are looked up in the database and never used as such.

use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::access::{self, DEVELOPER, GUEST, MAINTAINER, Project, REPORTER};
use crate::app::{App, Shared};
use crate::auth::{self, Caller};
use crate::error::{Answer, ApiError};
use crate::follow::follow;
use crate::git;
use crate::params::Segments;
use crate::text;

/// What a client wants of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Fetch,
    Push,
}

/// Who is at the door.
enum Visitor {
    Nobody,
    User(Caller),
    /// A runner, for the project of its job.
    Job {
        project: i64,
    },
}

/// The three routes of git's smart protocol.
pub fn routes(prefix: &str) -> Router<Shared> {
    let at = |path: &str| format!("{prefix}/{{namespace}}/{{project}}/{path}");
    Router::new()
        .route(&at("info/refs"), get(info_refs))
        .route(&at("git-upload-pack"), post(fetch))
        .route(&at("git-receive-pack"), post(push))
}

type Two = Segments<(String, String)>;

async fn info_refs(State(app): State<Shared>, Segments(names): Two, request: Request) -> Answer {
    let named = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "service");
    let named = named.map(|(_, value)| value.into_owned());
    match named.as_deref() {
        Some("git-upload-pack") => answer(&app, &names, Service::Fetch, "info/refs", request).await,
        Some("git-receive-pack") => answer(&app, &names, Service::Push, "info/refs", request).await,
        _ => Err(ApiError::message(StatusCode::FORBIDDEN, "403 Forbidden - only git's smart protocol is spoken here")),
    }
}

async fn fetch(State(app): State<Shared>, Segments(names): Two, request: Request) -> Answer {
    answer(&app, &names, Service::Fetch, "git-upload-pack", request).await
}

async fn push(State(app): State<Shared>, Segments(names): Two, request: Request) -> Answer {
    answer(&app, &names, Service::Push, "git-receive-pack", request).await
}

async fn answer(
    app: &Shared,
    (namespace, project): &(String, String),
    service: Service,
    what: &str,
    request: Request,
) -> Answer {
    let Some(name) = project.strip_suffix(".git") else { return Err(ApiError::not_found("Project")) };
    let visitor = visitor(app, request.headers(), service).await?;
    let (project, user) = enter(app, &visitor, &format!("{namespace}/{name}"), service).await?;
    let turn = Arc::clone(&app.transfers).acquire_owned().await.map_err(ApiError::internal)?;

    let (parts, body) = request.into_parts();
    let repository = app.git.repository(&project.namespace, &project.path);
    let mut command = git::clean("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", app.git.folder())
        .env("PATH_INFO", format!("/{}.git/{what}", project.full_path()))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", if parts.method == Method::POST { "POST" } else { "GET" })
        .env("QUERY_STRING", if what == "info/refs" { query(service) } else { "" })
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .current_dir(&repository.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some((_, username)) = &user {
        command.env("REMOTE_USER", username);
    }
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) =
            parts.headers.get(header).and_then(|value| value.to_str().ok()).filter(|value| value.len() <= 200)
        {
            command.env(variable, value);
        }
    }
    refuse_branches(app, &mut command, &project).await?;
    let mut child = command.spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ApiError::internal("no pipes"));
    };
    let exchange = Exchange {
        child,
        project: project.id,
        pushed: (service == Service::Push && what != "info/refs").then(|| user.map(|(id, _)| id)),
    };
    run(Arc::clone(app), exchange, stdin, stdout, body, turn).await
}

fn query(service: Service) -> &'static str {
    match service {
        Service::Fetch => "service=git-upload-pack",
        Service::Push => "service=git-receive-pack",
    }
}

/// The branches that this visitor may not move are hidden from the push, and so git itself refuses to move them.
async fn refuse_branches(app: &App, command: &mut Command, project: &Project) -> Result<(), ApiError> {
    let mut settings = vec![
        ("safe.directory".to_owned(), "*".to_owned()),
        ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
        ("receive.hideRefs".to_owned(), "refs/merge-requests".to_owned()),
        ("receive.fsckObjects".to_owned(), "true".to_owned()),
        ("receive.maxInputSize".to_owned(), app.settings.limits.push_bytes.to_string()),
    ];
    if project.level < MAINTAINER {
        let sql = "SELECT name FROM protected_branches WHERE project_id = $1 AND push_level > $2";
        for row in app.db.rows(sql, &[&project.id, &project.level]).await? {
            settings.push(("receive.hideRefs".to_owned(), format!("refs/heads/{}", row.get::<_, &str>("name"))));
        }
    }
    for (number, (key, value)) in settings.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    Ok(())
}

async fn visitor(app: &App, headers: &HeaderMap, service: Service) -> Result<Visitor, ApiError> {
    let Some((name, password)) = auth::basic(headers) else {
        return if headers.contains_key(header::AUTHORIZATION) {
            Err(ApiError::Credentials)
        } else {
            Ok(Visitor::Nobody)
        };
    };
    if name == "gitlab-ci-token" {
        let sql = "SELECT p.project_id FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id WHERE j.token_digest = $1 AND j.status = 'running'";
        let row = app.db.row(sql, &[&text::sha256(&password)]).await?.ok_or(ApiError::Credentials)?;
        return Ok(Visitor::Job { project: row.get(0) });
    }
    let caller = match auth::known(&app.db, &password).await {
        Ok(caller) => caller,
        // Git's clients know one answer only to a wrong password.
        Err(ApiError::Refused(StatusCode::UNAUTHORIZED, _)) => return Err(ApiError::Credentials),
        Err(other) => return Err(other),
    };
    let scopes: &[&str] = match service {
        Service::Fetch => &["api", "read_repository", "write_repository"],
        Service::Push => &["api", "write_repository"],
    };
    if caller.has_scope(scopes) {
        Ok(Visitor::User(caller))
    } else {
        Err(ApiError::forbidden_because("the token has no scope for this"))
    }
}

/// The project, if the visitor may do this there. To whom it must not be seen, it is not there; nobody is asked for credentials first.
async fn enter(
    app: &App,
    visitor: &Visitor,
    path: &str,
    service: Service,
) -> Result<(Project, Option<(i64, String)>), ApiError> {
    match visitor {
        Visitor::Nobody => {
            let project = access::project(&app.db, None, path).await;
            match (project, service) {
                (Ok(project), Service::Fetch) => Ok((project, None)),
                (Err(error @ ApiError::Unavailable(_)), _) => Err(error),
                _ => Err(ApiError::Credentials),
            }
        }
        Visitor::Job { project } => match (access::find(&app.db, None, path).await?, service) {
            (Some(found), Service::Fetch) if found.id == *project => Ok((found, None)),
            (Some(found), Service::Push) if found.id == *project => Err(ApiError::forbidden()),
            _ => Err(ApiError::not_found("Project")),
        },
        Visitor::User(caller) => {
            let project = access::project(&app.db, Some(caller), path).await?;
            match service {
                Service::Fetch => project.needs(REPORTER)?,
                Service::Push if project.level < GUEST && project.visibility == "private" => {
                    return Err(ApiError::not_found("Project"));
                }
                Service::Push => project
                    .needs_writer(DEVELOPER)
                    .map_err(|_| ApiError::forbidden_because("You are not allowed to push code to this project."))?,
            }
            Ok((project, Some((caller.id, caller.username.clone()))))
        }
    }
}

/// One conversation with git.
struct Exchange {
    child: Child,
    project: i64,
    /// Set for a push: who pushed.
    pushed: Option<Option<i64>>,
}

/// Lets the request's body and git's answer flow, in a task of its own: a push is followed up even if the client goes away, and before the
/// client sees the end of the answer.
async fn run(
    app: Shared,
    mut exchange: Exchange,
    stdin: ChildStdin,
    stdout: ChildStdout,
    body: Body,
    turn: impl Send + 'static,
) -> Answer {
    let limit = app.settings.limits.push_bytes;
    let patience = app.settings.limits.transfer;
    let mut reader = BufReader::new(stdout);
    let (send, receive) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let (tell_head, head) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _turn = turn;
        let talk = async {
            let feed = feed(body, stdin, limit);
            let relay = async {
                let head = read_head(&mut reader).await;
                let sound = head.is_ok();
                let _ = tell_head.send(head);
                if sound {
                    relay(&mut reader, &send).await;
                }
            };
            tokio::join!(feed, relay);
            let _ = exchange.child.wait().await;
        };
        if tokio::time::timeout(patience, talk).await.is_err() {
            let _ = exchange.child.kill().await;
        }
        if let Some(user) = exchange.pushed
            && let Err(error) = follow(&app, exchange.project, user).await
        {
            tracing::warn!("what follows from a push comes later: {error:?}");
        }
        drop(send);
    });
    let (status, headers) = head.await.map_err(|_| ApiError::internal("git http-backend gave no answer"))??;
    let stream = futures_util::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    let mut response = (status, Body::from_stream(stream)).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

async fn feed(mut body: Body, mut stdin: ChildStdin, limit: u64) {
    let mut total = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        total += data.len() as u64;
        if total > limit || stdin.write_all(&data).await.is_err() {
            break;
        }
    }
    let _ = stdin.shutdown().await;
}

/// A client that went away does not stop git: it reads on, so that a push ends as if the client were there.
async fn relay(reader: &mut BufReader<ChildStdout>, send: &mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let _ = send.send(Ok(Bytes::copy_from_slice(&buffer[..length]))).await;
    }
}

type Head = (StatusCode, Vec<(HeaderName, HeaderValue)>);

/// Reads the head of a CGI program's answer.
async fn read_head(reader: &mut BufReader<ChildStdout>) -> Result<Head, ApiError> {
    let broken = || ApiError::internal("git http-backend gave an answer that cannot be read");
    let mut head = (StatusCode::OK, Vec::new());
    for _ in 0..32 {
        let mut line = Vec::new();
        let mut bounded = (&mut *reader).take(8192);
        bounded.read_until(b'\n', &mut line).await?;
        let line = std::str::from_utf8(&line).map_err(|_| broken())?;
        if !line.ends_with('\n') {
            return Err(broken());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(head);
        }
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        if name.eq_ignore_ascii_case("status") {
            head.0 = value
                .trim()
                .split(' ')
                .next()
                .and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok())
                .ok_or_else(broken)?;
        } else if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.trim()))
        {
            head.1.push((name, value));
        }
    }
    Err(broken())
}
