//! Grafana's routes, cookies and JSON: those that have to do with who one is.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use openidconnect::{CsrfToken, PkceCodeVerifier};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::cookie;
use crate::login::{LoginError, Ties};
use crate::provider::Provider;
use crate::sessions::{self, Sessions};
use crate::settings::Settings;
use crate::user::User;

const SESSION: &str = "grafana_session";
const STATE: &str = "oauth_state";
const VERIFIER: &str = "oauth_code_verifier";
const ERROR: &str = "login_error";
/// How long a login may be on its way, and how long its error is shown.
const LOGIN_SECONDS: u32 = 600;
const ERROR_SECONDS: u32 = 60;

/// Everything a request needs.
pub struct App {
    settings: Settings,
    provider: Provider,
    ties: Ties,
    sessions: Sessions,
}

impl App {
    /// With nobody signed in.
    pub fn new(settings: Settings, provider: Provider) -> Self {
        Self { settings, provider, ties: Ties::new(), sessions: Sessions::default() }
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        cookie::of(headers, SESSION).and_then(|identifier| self.sessions.find(identifier))
    }

    fn set(&self, name: &str, value: &str, seconds: u32) -> HeaderValue {
        cookie::set(name, value, &self.settings.path, seconds)
    }

    fn redirect(&self, to: &str, cookies: &[HeaderValue]) -> Response {
        let mut response =
            (StatusCode::FOUND, [(header::LOCATION, to), (header::CACHE_CONTROL, "no-store")]).into_response();
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie.clone());
        }
        response
    }
}

/// All routes, below the path of the settings.
pub fn router(app: Arc<App>) -> Router {
    let below = Router::new()
        .route("/", get(home))
        .route("/login", get(login_page).post(password_login))
        .route("/login/gitlab", get(login_gitlab))
        .route("/logout", get(logout))
        .route("/api/health", get(health))
        .route("/api/login/ping", get(ping))
        .route("/api/user", get(api_user))
        .route("/api/user/orgs", get(api_orgs))
        .fallback(missing);
    let path = app.settings.path.clone();
    Router::new()
        .route(&format!("{path}/"), get(home))
        .nest(&path, below)
        .fallback(missing)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// As Grafana's `serve_from_sub_path`: a request without the path is sent to the one with it. A name and a password are never right.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let asked = request.uri().path();
    let below = asked.strip_prefix(&app.settings.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !below {
        let rest = request.uri().path_and_query().map_or("/", |found| found.as_str()).trim_start_matches('/');
        return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("{}{rest}", app.settings.root_url))])
            .into_response();
    }
    let basic =
        |value: &HeaderValue| value.as_bytes().get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case(b"basic "));
    if request.headers().get(header::AUTHORIZATION).is_some_and(basic) {
        return refused("Invalid username or password", "password-auth.failed");
    }
    next.run(request).await
}

async fn home(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.user(&headers) {
        None => app.redirect(&format!("{}/login", app.settings.path), &[]),
        Some(user) => page(&format!(
            "<h1>Grafana (stand-in)</h1><p>Signed in as <strong id=\"login\">{}</strong>.</p><p><a href=\"{}/logout\">Sign out</a></p>",
            escape(&user.login),
            app.settings.path
        )),
    }
}

async fn login_page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.user(&headers).is_some() {
        return app.redirect(app.settings.root_url.path(), &[]);
    }
    let error = cookie::of(&headers, ERROR).unwrap_or_default();
    let alert =
        if error.is_empty() { String::new() } else { format!("<p role=\"alert\">Login failed: {}</p>", escape(error)) };
    let link = format!("<p><a href=\"{}/login/gitlab\">Sign in with GitLab</a></p>", app.settings.path);
    let mut response = page(&format!("<h1>Grafana (stand-in)</h1>{alert}{link}"));
    if !error.is_empty() {
        response.headers_mut().append(header::SET_COOKIE, app.set(ERROR, "", 0));
    }
    response
}

/// There are no passwords here.
async fn password_login() -> Response {
    refused("Invalid username or password", "password-auth.failed")
}

/// What the provider sends the browser back with.
#[derive(Deserialize)]
struct Answer {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Begins a login, or ends it when the provider has answered.
async fn login_gitlab(State(app): State<Arc<App>>, Query(answer): Query<Answer>, headers: HeaderMap) -> Response {
    let result = match answer {
        Answer { code: None, error: None, .. } => begin(&app).await,
        Answer { code, state, error } => end(&app, &headers, code, state, error).await,
    };
    result.unwrap_or_else(|error| {
        warn!("login refused: {error}");
        let cookies = [app.set(ERROR, error.code(), ERROR_SECONDS), app.set(STATE, "", 0), app.set(VERIFIER, "", 0)];
        app.redirect(&format!("{}/login", app.settings.path), &cookies)
    })
}

async fn begin(app: &App) -> Result<Response, LoginError> {
    let state = CsrfToken::new_random_len(32);
    let begun = app.provider.begin(state.clone(), app.ties.nonce(&state)).await?;
    let cookies = [
        app.set(STATE, &app.ties.cookie(&state), LOGIN_SECONDS),
        app.set(VERIFIER, begun.verifier.secret(), LOGIN_SECONDS),
    ];
    Ok(app.redirect(begun.url.as_str(), &cookies))
}

async fn end(
    app: &App,
    headers: &HeaderMap,
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
) -> Result<Response, LoginError> {
    let state = CsrfToken::new(state.unwrap_or_default());
    app.ties.check(&state, cookie::of(headers, STATE))?;
    if let Some(error) = error {
        return Err(LoginError::Refused(
            error.chars().filter(|letter| letter.is_ascii_lowercase() || *letter == '_').take(64).collect(),
        ));
    }
    let verifier = cookie::of(headers, VERIFIER).filter(|found| !found.is_empty()).ok_or(LoginError::NoState)?;
    let claims = app
        .provider
        .finish(code.unwrap_or_default(), PkceCodeVerifier::new(verifier.to_owned()), &app.ties.nonce(&state))
        .await?;
    let user = User::judge(claims, &app.settings.group)?;
    info!("login: account {} as {:?}", user.subject, user.role);
    let identifier = app.sessions.start(user);
    let seconds = sessions::LIFETIME.as_secs().try_into().unwrap_or(u32::MAX);
    Ok(app.redirect(
        app.settings.root_url.path(),
        &[app.set(SESSION, &identifier, seconds), app.set(STATE, "", 0), app.set(VERIFIER, "", 0)],
    ))
}

async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(user) = cookie::of(&headers, SESSION).and_then(|identifier| app.sessions.end(identifier)) {
        info!("logout: account {}", user.subject);
    }
    app.redirect(&format!("{}/login", app.settings.path), &[app.set(SESSION, "", 0)])
}

/// Grafana's shape. There is no database behind this one, which `standIn` says.
async fn health() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(
        json!({ "commit": "stand-in", "database": "ok", "version": version, "standIn": "rave-grafana; sessions in memory, no database" }),
    )
}

async fn ping(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.user(&headers) {
        Some(_) => Json(json!({ "message": "Logged in" })).into_response(),
        None => unauthorized(),
    }
}

async fn api_user(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Some(User { subject, login, name, email, role: _ }) = app.user(&headers) else { return unauthorized() };
    Json(json!({
        "id": subject.parse::<i64>().unwrap_or_default(), "uid": format!("gitlab-{subject}"), "login": login, "name": name, "email": email, "theme": "", "orgId": 1,
        "isGrafanaAdmin": false, "isDisabled": false, "isExternal": true, "isExternallySynced": true, "authLabels": ["GitLab"],
    }))
    .into_response()
}

async fn api_orgs(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.user(&headers) {
        Some(user) => Json(json!([{ "orgId": 1, "name": "Main Org.", "role": user.role }])).into_response(),
        None => unauthorized(),
    }
}

async fn missing() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "message": "Not found" }))).into_response()
}

fn unauthorized() -> Response {
    refused("Unauthorized", "auth.unauthorized")
}

fn refused(message: &str, identifier: &str) -> Response {
    let body = json!({ "message": message, "messageId": identifier, "statusCode": 401, "traceID": "" });
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

fn page(body: &str) -> Response {
    let policy = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Grafana (stand-in)</title></head><body>{body}</body></html>\n"
    );
    (policy, Html(html)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
