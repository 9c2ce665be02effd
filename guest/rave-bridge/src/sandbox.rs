//! The sandbox daemon, over its socket.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::{self, Answered};
use crate::reply::tame;
use crate::settings;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The way to the daemon.
#[derive(Debug)]
pub struct Sandboxes {
    client: reqwest::Client,
}

/// A sandbox.
#[derive(Debug, Clone, Deserialize)]
pub struct Sandbox {
    /// Its name.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// Why it is there.
    pub reason: Option<String>,
    /// The project whose code is in it.
    pub project: String,
    /// The merge request.
    pub mr: u64,
    /// Who asked for it.
    pub requested_by: String,
    /// Where it answers.
    pub address: String,
    /// … to SSH …
    pub ssh_port: u16,
    /// … and to a browser.
    pub web_port: u16,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// When it ends by itself.
    pub expires_at: jiff::Timestamp,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It boots.
    Starting,
    /// It answers.
    Ready,
    /// It ends.
    Stopping,
    /// It never answered, or no longer does.
    Failed,
}

/// What a sandbox is to be.
#[derive(Debug, Serialize)]
pub struct Wanted<'a> {
    /// The project's full path.
    pub project: &'a str,
    /// Its number.
    pub project_id: u64,
    /// The merge request.
    pub mr: u64,
    /// The commit at its head.
    pub sha: &'a str,
    /// Where git finds the project.
    pub repository: &'a str,
    /// Who may enter.
    pub authorized_keys: &'a [String],
    /// The account that asked.
    pub requested_by: &'a str,
    /// How long it lives.
    pub ttl_seconds: u64,
}

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It does not answer, or not as it should.
    #[error("the sandbox daemon does not answer: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("the sandbox daemon refused ({error}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// The kind of refusal.
        error: String,
        /// The reason.
        message: String,
    },
}

#[derive(Deserialize)]
struct List {
    sandboxes: Vec<Sandbox>,
}

impl Sandbox {
    /// Where it is, as addresses: the same in every place that names it.
    #[must_use]
    pub fn links(&self) -> [String; 2] {
        let Self { address, ssh_port, web_port, .. } = self;
        [format!("ssh://{address}:{ssh_port}"), format!("http://{address}:{web_port}/")]
    }
}

impl Sandboxes {
    /// Prepares the way; nothing is asked yet.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn new(settings: &settings::Sandbox) -> Result<Self, reqwest::Error> {
        Ok(Self { client: http::client(PATIENCE).unix_socket(settings.socket.as_path()).build()? })
    }

    /// All there are.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn list(&self) -> Result<Vec<Sandbox>, SandboxError> {
        let List { sandboxes } = read(self.call(Method::GET, "sandboxes", &Value::Null).await?)?;
        Ok(sandboxes)
    }

    /// One by its name.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn find(&self, id: &str) -> Result<Option<Sandbox>, SandboxError> {
        match self.call(Method::GET, &format!("sandboxes/{}", http::segment(id)), &Value::Null).await {
            Ok(body) => read(body).map(Some),
            Err(SandboxError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts one.
    ///
    /// # Errors
    /// If the daemon does not answer or refuses.
    pub async fn start(&self, wanted: &Wanted<'_>) -> Result<Sandbox, SandboxError> {
        let body = serde_json::to_value(wanted).map_err(|error| SandboxError::Unavailable(error.to_string()))?;
        read(self.call(Method::POST, "sandboxes", &body).await?)
    }

    /// Ends one. One that is gone is ended.
    ///
    /// # Errors
    /// If the daemon does not answer or refuses.
    pub async fn stop(&self, id: &str) -> Result<(), SandboxError> {
        match self.call(Method::DELETE, &format!("sandboxes/{}", http::segment(id)), &Value::Null).await {
            Ok(_) | Err(SandboxError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, SandboxError> {
        let mut request = self.client.request(method, format!("http://sandbox/{path}"));
        if !body.is_null() {
            request = request.json(body);
        }
        let Answered { status, body } = http::send(request).await.map_err(SandboxError::Unavailable)?;
        let text = |field: &str| tame(body[field].as_str().unwrap_or_default());
        match status {
            200..=299 => Ok(body),
            400..=499 | 503 => Err(SandboxError::Refused { status, error: text("error"), message: text("message") }),
            _ => Err(SandboxError::Unavailable(format!("status {status}"))),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<T, SandboxError> {
    serde_json::from_value(body)
        .map_err(|error| SandboxError::Unavailable(format!("an answer of another shape: {error}")))
}
