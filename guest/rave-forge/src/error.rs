//! What a request is refused with, in GitLab's own shapes: `message` as text, list or map, or `error`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::git::GitError;

/// The answer of a handler.
pub type Answer = Result<Response, ApiError>;

/// A refusal.
#[derive(Debug)]
pub enum ApiError {
    /// The caller is told why.
    Refused(StatusCode, Value),
    /// Git over HTTP wants credentials.
    Credentials,
    /// The database cannot be reached.
    Unavailable(String),
    /// Something here is broken; the cause goes to the log.
    Internal(String),
}

impl ApiError {
    /// A refusal with a `message` of any shape.
    pub fn message(status: StatusCode, message: impl Into<Value>) -> Self {
        Self::Refused(status, json!({ "message": message.into() }))
    }
    /// 401, as for nobody and for a token nobody knows.
    pub fn unauthorized() -> Self {
        Self::message(StatusCode::UNAUTHORIZED, "401 Unauthorized")
    }
    /// 401 for a token that has been valid.
    pub fn invalid_token(description: &str) -> Self {
        Self::Refused(StatusCode::UNAUTHORIZED, json!({ "error": "invalid_token", "error_description": description }))
    }
    /// 403 for a token that may do less.
    pub fn insufficient_scope(needed: &str) -> Self {
        let description = "The request requires higher privileges than provided by the access token.";
        Self::Refused(
            StatusCode::FORBIDDEN,
            json!({ "error": "insufficient_scope", "error_description": description, "scope": needed }),
        )
    }
    /// 403.
    pub fn forbidden() -> Self {
        Self::message(StatusCode::FORBIDDEN, "403 Forbidden")
    }
    /// 403 with the reason.
    pub fn forbidden_because(reason: &str) -> Self {
        Self::message(StatusCode::FORBIDDEN, format!("403 Forbidden - {reason}"))
    }
    /// 404 of a thing: `Project`, `User`.
    pub fn not_found(what: &str) -> Self {
        Self::message(StatusCode::NOT_FOUND, format!("404 {what} Not Found"))
    }
    /// 400 for a parameter that must be there.
    pub fn missing(name: &str) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, json!({ "error": format!("{name} is missing") }))
    }
    /// 400 for a parameter of the wrong kind.
    pub fn invalid(name: &str) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, json!({ "error": format!("{name} is invalid") }))
    }
    /// 400 for a parameter that is none of a list.
    pub fn not_a_valid_value(name: &str) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, json!({ "error": format!("{name} does not have a valid value") }))
    }
    /// 400 with a text.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::message(StatusCode::BAD_REQUEST, message.into())
    }
    /// 400 of a field that does not hold.
    pub fn field(name: &str, why: &str) -> Self {
        Self::message(StatusCode::BAD_REQUEST, json!({ name: [why] }))
    }
    /// 409.
    pub fn conflict(message: impl Into<Value>) -> Self {
        Self::message(StatusCode::CONFLICT, message)
    }
    /// 405.
    pub fn not_allowed() -> Self {
        Self::message(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed")
    }
    /// 500; `cause` is logged, not told.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::Internal(cause.to_string())
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        // 08: connection; 53: too many; 57P: the server is stopped or starting. Without a code the trouble is on this side of the socket: it is
        // the connection, or this program's own mistake.
        let broken = || std::error::Error::source(&error).is_none_or(|source| source.is::<std::io::Error>());
        let away = match error.code() {
            Some(code) => ["08", "53", "57P"].iter().any(|class| code.code().starts_with(class)),
            None => broken(),
        };
        let cause = crate::text::chain(&error);
        if away || error.is_closed() { Self::Unavailable(cause) } else { Self::Internal(cause) }
    }
}

impl From<deadpool_postgres::PoolError> for ApiError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Unavailable(crate::text::chain(&error))
    }
}

impl From<GitError> for ApiError {
    fn from(error: GitError) -> Self {
        Self::Internal(crate::text::chain(&error))
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(status, body) => (status, Json(body)).into_response(),
            Self::Credentials => {
                let text = "HTTP Basic: Access denied. Use a personal access token as the password.\n";
                let mut response = (StatusCode::UNAUTHORIZED, text).into_response();
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"GitLab\""));
                response
            }
            Self::Unavailable(cause) => {
                tracing::warn!("the database is away: {cause}");
                let mut response =
                    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "message": "503 Service Unavailable" })))
                        .into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
                response
            }
            Self::Internal(cause) => {
                tracing::error!("a request failed: {cause}");
                (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": "500 Internal Server Error" })))
                    .into_response()
            }
        }
    }
}
