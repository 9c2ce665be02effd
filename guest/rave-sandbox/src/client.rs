//! The command line's way to the daemon.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// How often a state is asked for while somebody waits for it.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A daemon at its socket.
#[derive(Debug)]
pub struct Daemon {
    client: Client,
    socket: PathBuf,
}

/// What the daemon answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it did what it was asked for.
    pub done: bool,
    /// What it said.
    pub body: Value,
}

impl Daemon {
    /// The daemon that listens at a socket.
    ///
    /// # Errors
    /// If there can be no client.
    pub fn at(socket: &Path) -> anyhow::Result<Self> {
        // reqwest wants one even for a socket without TLS, if another program of the workspace has it with TLS. A second call does nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().unix_socket(socket).timeout(Duration::from_secs(60)).build()?;
        Ok(Self { client, socket: socket.to_owned() })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut request = self.client.request(method, format!("http://rave-sandbox{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("no answer at {}", self.socket.display()))?;
        let done = response.status().is_success();
        let gone = response.status() == StatusCode::NO_CONTENT;
        let body = if gone { Value::Null } else { response.json().await.context("the answer is no JSON")? };
        Ok(Answer { done, body })
    }

    /// Asks for a sandbox until `enough` says so, or it is no more.
    ///
    /// # Errors
    /// If the daemon does not answer, or it takes too long.
    pub async fn wait(&self, id: &str, within: Duration, enough: impl Fn(&Value) -> bool) -> anyhow::Result<Answer> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.ask(Method::GET, &format!("/sandboxes/{id}"), None).await?;
            if !answer.done || enough(&answer.body) {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("{id} is still {} after {} s", answer.body["state"], within.as_secs());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
