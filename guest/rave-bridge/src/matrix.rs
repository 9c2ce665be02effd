//! The calls of the homeserver's client API that the bridge makes as its own user.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{self, Answered};
use crate::reply::tame;
use crate::settings::Settings;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The way to the homeserver.
#[derive(Debug)]
pub struct Matrix {
    client: reqwest::Client,
    url: String,
    authorization: HeaderValue,
    appservice: String,
}

/// Why the homeserver did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// It does not answer, or asks to wait.
    #[error("the homeserver does not answer: {0}")]
    Unavailable(String),
    /// It refused; asking again does not help.
    #[error("the homeserver refused ({status} {code})")]
    Refused {
        /// The status.
        status: u16,
        /// Its error code.
        code: String,
    },
}

#[derive(Deserialize)]
struct Members {
    chunk: Vec<MemberEvent>,
}

#[derive(Deserialize)]
struct MemberEvent {
    state_key: String,
    content: MemberContent,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: String,
}

impl Matrix {
    /// Prepares the way; nothing is asked yet.
    ///
    /// # Errors
    /// If the token cannot be sent.
    pub fn new(settings: &Settings) -> Result<Self, anyhow::Error> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", settings.as_token.expose()))?;
        authorization.set_sensitive(true);
        let (url, appservice) = (settings.homeserver.url.clone(), settings.homeserver.appservice.clone());
        Ok(Self { client: http::client(PATIENCE).build()?, url, authorization, appservice })
    }

    /// Joins a room.
    ///
    /// # Errors
    /// If the homeserver does not answer or refuses.
    pub async fn join(&self, room: &str) -> Result<(), MatrixError> {
        self.call(Method::POST, &format!("v3/join/{}", http::segment(room)), &json!({})).await.map(drop)
    }

    /// Leaves a room, or turns an invitation down.
    ///
    /// # Errors
    /// If the homeserver does not answer or refuses.
    pub async fn leave(&self, room: &str) -> Result<(), MatrixError> {
        self.call(Method::POST, &format!("v3/rooms/{}/leave", http::segment(room)), &json!({})).await.map(drop)
    }

    /// Everybody who is in a room, or invited to it.
    ///
    /// # Errors
    /// If the homeserver does not answer or refuses.
    pub async fn members(&self, room: &str) -> Result<Vec<String>, MatrixError> {
        let path = format!("v3/rooms/{}/members?not_membership=leave", http::segment(room));
        let body = self.call(Method::GET, &path, &Value::Null).await?;
        let Members { chunk } =
            serde_json::from_value(body).map_err(|error| MatrixError::Unavailable(error.to_string()))?;
        let comes = |event: &MemberEvent| matches!(event.content.membership.as_str(), "join" | "invite" | "knock");
        Ok(chunk.into_iter().filter(comes).map(|event| event.state_key).collect())
    }

    /// Sends a message. The same transaction name sends it once.
    ///
    /// # Errors
    /// If the homeserver does not answer or refuses.
    pub async fn send(&self, room: &str, transaction: &str, content: &Value) -> Result<(), MatrixError> {
        let path = format!("v3/rooms/{}/send/m.room.message/{}", http::segment(room), http::segment(transaction));
        self.call(Method::PUT, &path, content).await.map(drop)
    }

    /// Asks the homeserver to reach the bridge; if it does, it delivers at once what it has kept.
    ///
    /// # Errors
    /// If the homeserver does not answer or refuses.
    pub async fn ping(&self) -> Result<(), MatrixError> {
        self.call(Method::POST, &format!("v1/appservice/{}/ping", http::segment(&self.appservice)), &json!({}))
            .await
            .map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, MatrixError> {
        let mut request = self.client.request(method, format!("{}/_matrix/client/{path}", self.url));
        request = request.header(reqwest::header::AUTHORIZATION, self.authorization.clone());
        if !body.is_null() {
            request = request.json(body);
        }
        let Answered { status, body } = http::send(request).await.map_err(MatrixError::Unavailable)?;
        let code = tame(body["errcode"].as_str().unwrap_or_default());
        match status {
            200..=299 => Ok(body),
            // A homeserver that does not know the bridge yet, or has no time, will.
            401 | 408 | 429 | 500.. => Err(MatrixError::Unavailable(format!("status {status} {code}"))),
            _ => Err(MatrixError::Refused { status, code }),
        }
    }
}
