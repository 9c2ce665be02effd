//! The server: what all handlers share, its routes, its start and its end.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, OwnedMutexGuard, Semaphore};

use crate::db::Db;
use crate::error::ApiError;
use crate::git::Git;
use crate::settings::Settings;
use crate::{api, smart_http, worker};

/// How long requests may go on after the program was told to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub settings: Settings,
    /// The database.
    pub db: Db,
    /// The repositories.
    pub git: Git,
    /// Wakes the worker.
    pub work: Notify,
    /// How many clones and pushes may go on at once.
    pub transfers: Arc<Semaphore>,
    ready: AtomicBool,
    /// Projects whose branches have moved without what follows having been done.
    pub behind: Mutex<BTreeSet<i64>>,
    locks: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<()>>>>,
}

/// The handlers' state.
pub type Shared = Arc<App>;

impl App {
    /// Makes the state; connects to nothing yet.
    ///
    /// # Errors
    /// If the database's pool cannot be made.
    pub fn new(settings: Settings) -> anyhow::Result<Shared> {
        Ok(Arc::new(Self {
            db: Db::new(&settings)?,
            git: Git::new(&settings.repositories, settings.limits.git_programs),
            work: Notify::new(),
            transfers: Arc::new(Semaphore::new(settings.limits.git_programs)),
            ready: AtomicBool::new(false),
            behind: Mutex::new(BTreeSet::new()),
            locks: Mutex::new(HashMap::new()),
            settings,
        }))
    }

    /// From now on requests are answered.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Waits until nobody else of this program moves branches of a project. Pushes do not wait: git itself refuses what came too late.
    pub async fn lock(&self, project: i64) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|id, lock| *id == project || Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(project).or_default())
        };
        lock.lock_owned().await
    }
}

/// Does what must not stop half-way when the client goes away.
///
/// # Errors
/// What the work ends with.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(ApiError::internal)?
}

/// All routes.
pub fn router(app: &Shared) -> Router {
    let api = api::routes(&app.settings.prefix)
        .layer(DefaultBodyLimit::max(app.settings.limits.body_bytes))
        .layer(middleware::from_fn_with_state(Arc::clone(app), bounded));
    let limit = usize::try_from(app.settings.limits.push_bytes).unwrap_or(usize::MAX);
    let git = smart_http::routes(&app.settings.prefix).layer(DefaultBodyLimit::max(limit));
    api.merge(git)
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(app), when_ready))
        .with_state(Arc::clone(app))
}

/// Answers until told to end.
///
/// # Errors
/// If it cannot listen.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| anyhow::anyhow!("could not listen on {}: {error}", settings.listen))?;
    let app = App::new(settings)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!("listening on {}", listener.local_addr()?);

    let work = tokio::spawn(worker::run(Arc::clone(&app)));
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router(&app)).with_graceful_shutdown(async {
        let _ = told.await;
    });
    let mut serving = tokio::spawn(async { serving.await });
    tokio::select! {
        ended = &mut serving => ended??,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = tell.send(());
    let _ = tokio::time::timeout(FAREWELL, serving).await;
    work.abort();
    Ok(())
}

/// Before what an earlier life left is settled, nobody is answered: it would be answered twice.
async fn when_ready(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if app.ready.load(Ordering::Acquire) {
        next.run(request).await
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(serde_json::json!({ "message": "503 Service Unavailable" })))
            .into_response()
    }
}

/// A request ends after its time. What has begun to move a branch goes on: handlers put that in tasks of their own.
async fn bounded(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.settings.limits.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::message(StatusCode::SERVICE_UNAVAILABLE, "503 Service Unavailable - it took too long")
            .into_response(),
    }
}

async fn nothing_here() -> ApiError {
    ApiError::Refused(StatusCode::NOT_FOUND, serde_json::json!({ "error": "404 Not Found" }))
}

async fn not_allowed() -> ApiError {
    ApiError::Refused(StatusCode::METHOD_NOT_ALLOWED, serde_json::json!({ "error": "405 Not Allowed" }))
}
