//! The bridge's port: the appservice API for the homeserver, and nothing for anybody else. Nothing of a request is read before its token.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::audit::BodyDigest;
use crate::bridge::Bridge;
use crate::intake::{self, BadTransaction};

/// The longest body.
const LONGEST: usize = 1024 * 1024;
/// The longest body of a transaction that comes again after it was too long: a hundred events of 64 KiB, which the homeserver may
/// put together when the bridge was away. Refused for ever, it would keep back everything after it.
const LONGEST_AGAIN: usize = 8 * 1024 * 1024;
/// How much of a body is taken, though it is too long.
const MOST_TAKEN: usize = 16 * 1024 * 1024;
/// How many transactions that were too long are remembered.
const TOO_LONG: usize = 16;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many refusals are written down in a minute; of the others only their number.
const REFUSALS: u32 = 60;

struct Door {
    bridge: Arc<Bridge>,
    too_long: Mutex<VecDeque<String>>,
    refusals: Mutex<Refusals>,
}

struct Refusals {
    since: Instant,
    count: u32,
}

/// The routes of the port.
pub fn router(bridge: Arc<Bridge>) -> Router {
    let refusals = Mutex::new(Refusals { since: Instant::now(), count: 0 });
    let door = Arc::new(Door { bridge, too_long: Mutex::default(), refusals });
    Router::new()
        .route("/_matrix/app/v1/transactions/{txn}", put(transaction))
        .route("/_matrix/app/v1/ping", post(ping))
        .route("/_matrix/app/v1/users/{id}", get(async || refusal(StatusCode::NOT_FOUND, "M_NOT_FOUND")))
        .route("/_matrix/app/v1/rooms/{alias}", get(async || refusal(StatusCode::NOT_FOUND, "M_NOT_FOUND")))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), only_the_homeserver))
        .with_state(door)
}

async fn only_the_homeserver(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let token = door.bridge.settings().hs_token.expose();
    let in_query = request.uri().query().is_some_and(|query| query.contains("access_token"));
    let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
    let (status, code, reason) = match (given.next(), given.next()) {
        _ if in_query => (StatusCode::FORBIDDEN, "M_FORBIDDEN", "a token in the query"),
        (None, _) => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "no token"),
        (Some(_), Some(_)) => (StatusCode::FORBIDDEN, "M_FORBIDDEN", "two tokens"),
        (Some(given), None) if is_right(given, token) => return next.run(request).await,
        (Some(_), None) => (StatusCode::FORBIDDEN, "M_FORBIDDEN", "a wrong token"),
    };
    door.write_down(status, reason, None).await;
    refusal(status, code)
}

fn is_right(given: &HeaderValue, token: &str) -> bool {
    given.as_bytes().strip_prefix(b"Bearer ").is_some_and(|given| given.ct_eq(token.as_bytes()).into())
}

async fn ping() -> Response {
    axum::Json(json!({})).into_response()
}

async fn transaction(State(door): State<Arc<Door>>, Path(txn): Path<String>, request: Request) -> Response {
    if txn.len() > 255 || !txn.chars().all(|character| character.is_ascii_graphic()) {
        return refusal(StatusCode::BAD_REQUEST, "M_INVALID_PARAM");
    }
    let bytes = match door.body(&txn, request.into_body()).await {
        Ok(bytes) => bytes,
        Err((status, code, reason)) => {
            door.write_down(status, reason, None).await;
            return refusal(status, code);
        }
    };
    let read = intake::read(&bytes, &door.bridge.own());
    let transaction = match read {
        Ok(transaction) => transaction,
        Err(bad) => {
            let (code, reason) = match bad {
                BadTransaction::NotJson => ("M_NOT_JSON", "a body that is no JSON"),
                BadTransaction::BadJson => ("M_BAD_JSON", "a body without a list of events"),
            };
            door.write_down(StatusCode::BAD_REQUEST, reason, Some(BodyDigest::of(&bytes))).await;
            return refusal(StatusCode::BAD_REQUEST, code);
        }
    };
    drop(bytes);
    match door.bridge.take_in(&txn, transaction).await {
        Ok(()) => axum::Json(json!({})).into_response(),
        Err(error) => {
            tracing::error!(%error, "a transaction could not be taken in");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN")
        }
    }
}

impl Door {
    async fn body(&self, txn: &str, body: Body) -> Result<Vec<u8>, (StatusCode, &'static str, &'static str)> {
        let limit = if self.was_too_long(txn) { LONGEST_AGAIN } else { LONGEST };
        match tokio::time::timeout(PATIENCE, read(body, limit)).await {
            Err(_) | Ok(Read::Broken) => Err((StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "a body that did not arrive")),
            Ok(Read::Whole(bytes)) => Ok(bytes),
            Ok(Read::TooLong) => {
                self.remember_too_long(txn);
                Err((StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", "a body that is too long"))
            }
        }
    }

    fn remember_too_long(&self, txn: &str) {
        let mut known = self.too_long.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|other| other == txn) {
            known.push_back(txn.to_owned());
        }
        if known.len() > TOO_LONG {
            known.pop_front();
        }
    }

    fn was_too_long(&self, txn: &str) -> bool {
        self.too_long.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|other| other == txn)
    }

    async fn write_down(&self, status: StatusCode, reason: &str, body: Option<BodyDigest>) {
        let more = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            let mut more = 0;
            if refusals.since.elapsed() > Duration::from_secs(60) {
                more = refusals.count.saturating_sub(REFUSALS);
                *refusals = Refusals { since: Instant::now(), count: 0 };
            }
            refusals.count = refusals.count.saturating_add(1);
            if refusals.count > REFUSALS {
                return;
            }
            more
        };
        let reason = if more == 0 {
            reason.to_owned()
        } else {
            format!("{reason}; {more} more before it were not written down")
        };
        if let Err(error) = self.bridge.refused_at_the_door(status.as_u16(), reason, body).await {
            tracing::error!(%error, "a refusal could not be written down");
        }
    }
}

enum Read {
    Whole(Vec<u8>),
    TooLong,
    Broken,
}

/// Reads a body. Of one that is too long nothing is kept, but most senders hear an answer only when all is sent, so some of it is taken.
async fn read(mut body: Body, limit: usize) -> Read {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut taken = 0;
    let mut bytes = vec![];
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(frame) = frame else { return Read::Broken };
        let Ok(data) = frame.into_data() else { continue };
        taken += data.len();
        if taken > limit || announced > limit {
            bytes = vec![];
            if taken > MOST_TAKEN {
                return Read::TooLong;
            }
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if taken > limit { Read::TooLong } else { Read::Whole(bytes) }
}

fn refusal(status: StatusCode, code: &str) -> Response {
    let code = if status == StatusCode::UNAUTHORIZED { "ORG.RAVE.MISSING_TOKEN" } else { code };
    (status, axum::Json(json!({ "errcode": code, "error": status.canonical_reason().unwrap_or_default() })))
        .into_response()
}
