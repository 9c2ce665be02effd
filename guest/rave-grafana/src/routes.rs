//! Grafana's routes, cookies and JSON: those that have to do with who one is.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use openidconnect::url::Url;
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
    /// Our address for browsers, with a slash at its end.
    root_url: Url,
    /// Its path, without.
    path: String,
    group: String,
    provider: Provider,
    ties: Ties,
    sessions: Sessions,
}

impl App {
    /// With nobody signed in.
    pub fn new(settings: Settings, provider: Provider) -> Self {
        let Settings { root_url, path, group, .. } = settings;
        Self { root_url, path, group, provider, ties: Ties::new(), sessions: Sessions::default() }
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        cookie::of(headers, SESSION).and_then(|identifier| self.sessions.find(identifier))
    }

    fn set(&self, name: &str, value: &str, seconds: u32) -> HeaderValue {
        cookie::set(name, value, &self.path, seconds)
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
    let path = app.path.clone();
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
    let below = asked.strip_prefix(&app.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !below {
        let rest = request.uri().path_and_query().map_or("/", |found| found.as_str()).trim_start_matches('/');
        return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("{}{rest}", app.root_url))])
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
        None => app.redirect(&format!("{}/login", app.path), &[]),
        Some(user) => page(&format!(
            "<h1>Grafana (stand-in)</h1><p>Signed in as <strong id=\"login\">{}</strong>.</p><p><a href=\"{}/logout\">Sign out</a></p>",
            escape(&user.login),
            app.path
        )),
    }
}

async fn login_page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.user(&headers).is_some() {
        return app.redirect(app.root_url.path(), &[]);
    }
    let error = cookie::of(&headers, ERROR).unwrap_or_default();
    let alert =
        if error.is_empty() { String::new() } else { format!("<p role=\"alert\">Login failed: {}</p>", escape(error)) };
    let link = format!("<p><a href=\"{}/login/gitlab\">Sign in with GitLab</a></p>", app.path);
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
        app.redirect(&format!("{}/login", app.path), &cookies)
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
    let user = User::judge(claims, &app.group)?;
    info!("login: account {} as {:?}", user.subject, user.role);
    let identifier = app.sessions.start(user);
    let seconds = sessions::LIFETIME.as_secs().try_into().unwrap_or(u32::MAX);
    Ok(app.redirect(
        app.root_url.path(),
        &[app.set(SESSION, &identifier, seconds), app.set(STATE, "", 0), app.set(VERIFIER, "", 0)],
    ))
}

async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(user) = cookie::of(&headers, SESSION).and_then(|identifier| app.sessions.end(identifier)) {
        info!("logout: account {}", user.subject);
    }
    app.redirect(&format!("{}/login", app.path), &[app.set(SESSION, "", 0)])
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

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;
    use crate::user::Role;

    fn app() -> Arc<App> {
        Arc::new(App {
            root_url: Url::parse("https://rave.local:3002/grafana/").unwrap(),
            path: "/grafana".to_owned(),
            group: "rave".to_owned(),
            provider: Provider::away(),
            ties: Ties::new(),
            sessions: Sessions::default(),
        })
    }

    /// Status, location, cookies that were set, and body.
    async fn ask(app: &Arc<App>, path: &str, header: Option<(&str, &str)>) -> (u16, String, String, String) {
        let mut request = Request::builder().uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = router(app.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let all =
            |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("\n");
        let body = to_bytes(response.into_body(), 65_536).await.unwrap();
        (status, all(header::LOCATION), all(header::SET_COOKIE), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_request_without_the_path_goes_to_the_one_with_it() {
        let check = async |path: &str, status: u16, location: &str| {
            let found = ask(&app(), path, None).await;
            assert_eq!((found.0, found.1.as_str()), (status, location), "{path}");
        };
        check("/", 301, "https://rave.local:3002/grafana/").await;
        check("/login?a=b", 301, "https://rave.local:3002/grafana/login?a=b").await;
        check("//evil.example/", 301, "https://rave.local:3002/grafana/evil.example/").await;
        check("/grafanaX", 301, "https://rave.local:3002/grafana/grafanaX").await;
        check("/grafana/", 302, "/grafana/login").await;
        check("/grafana", 302, "/grafana/login").await;
        check("/grafana/nope", 404, "").await;
    }

    #[tokio::test]
    async fn nobody_is_let_in_without_a_session() {
        for path in ["/grafana/api/user", "/grafana/api/user/orgs", "/grafana/api/login/ping"] {
            for header in
                [None, Some(("cookie", "grafana_session=x")), Some(("authorization", "Basic YWRtaW46YWRtaW4="))]
            {
                let (status, _, _, body) = ask(&app(), path, header).await;
                assert_eq!(status, 401, "{path}");
                assert!(body.contains("\"statusCode\":401"), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn a_session_says_who_one_is_until_it_ends() {
        let app = app();
        let user = User {
            subject: "41".into(),
            login: "dana".into(),
            name: "<Dana>".into(),
            email: "dana@rave.local".into(),
            role: Role::Editor,
        };
        let cookie = format!("grafana_session={}", app.sessions.start(user));
        let header = Some(("cookie", cookie.as_str()));
        let found: Value = serde_json::from_str(&ask(&app, "/grafana/api/user", header).await.3).unwrap();
        assert_eq!(
            (&found["login"], &found["authLabels"], &found["isGrafanaAdmin"]),
            (&json!("dana"), &json!(["GitLab"]), &json!(false))
        );
        assert_eq!(
            ask(&app, "/grafana/api/user/orgs", header).await.3,
            r#"[{"name":"Main Org.","orgId":1,"role":"Editor"}]"#
        );
        assert_eq!(ask(&app, "/grafana/login", header).await.1, "/grafana/");
        let (status, location, cookies, _) = ask(&app, "/grafana/logout", header).await;
        assert_eq!((status, location.as_str()), (302, "/grafana/login"));
        assert_eq!(cookies, "grafana_session=; Path=/grafana; Max-Age=0; HttpOnly; Secure; SameSite=Lax");
        assert_eq!(ask(&app, "/grafana/api/user", header).await.0, 401);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_on_the_login_page() {
        let check = async |query: &str, expected: &str| {
            let (status, location, cookies, _) = ask(&app(), &format!("/grafana/login/gitlab{query}"), None).await;
            assert_eq!((status, location.as_str()), (302, "/grafana/login"), "{query}");
            assert!(
                cookies.contains(&format!("login_error={expected}; Path=/grafana; Max-Age=60;")),
                "{query}: {cookies}"
            );
        };
        check("", "provider_unavailable").await;
        check("?code=x&state=y", "missing_saved_state").await;
        check("?error=access_denied", "missing_saved_state").await;
        let (_, _, cookies, page) = ask(&app(), "/grafana/login", Some(("cookie", "login_error=<b>"))).await;
        assert!(page.contains("Login failed: &lt;b&gt;") && cookies.starts_with("login_error=; "), "{page} {cookies}");
    }
}
