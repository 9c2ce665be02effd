//! The runner's way to the forge: HTTP on this machine.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer.
const LARGEST: usize = 1 << 20;

/// Speaks for one runner.
#[derive(Clone)]
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

/// A job as it is handed out.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: u64,
    /// The token for everything about it.
    pub token: String,
    /// Where its files are.
    pub git_info: GitInfo,
    /// Its time limit.
    pub runner_info: RunnerInfo,
    /// Its environment.
    pub variables: Vec<Variable>,
    /// What it does.
    pub steps: Vec<Step>,
}

/// Where a job's files are.
#[derive(Debug, Clone, Deserialize)]
pub struct GitInfo {
    /// The repository, as users see it.
    pub repo_url: String,
    /// The commit.
    pub sha: String,
}

/// Its time limit.
#[derive(Debug, Clone, Deserialize)]
pub struct RunnerInfo {
    /// Seconds.
    pub timeout: u64,
}

/// A variable of its environment.
#[derive(Debug, Clone, Deserialize)]
pub struct Variable {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A list of lines for a shell.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// The lines.
    pub script: Vec<String>,
}

/// How a piece of the log was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The forge has this many bytes now.
    UpTo(usize),
    /// The job is not wanted any more.
    Over,
    /// The forge is away; try again.
    Later,
}

/// What the forge says to how a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It knows now.
    Yes,
    /// It is away; try again.
    Later,
}

impl Client {
    /// Speaks to a forge with a runner's token.
    #[must_use]
    pub fn new(url: &str, token: &str) -> Self {
        Self { http: Http::builder(TokioExecutor::new()).build_http(), url: url.to_owned(), token: token.to_owned() }
    }

    /// Asks for a job.
    ///
    /// # Errors
    /// If the forge is away or refuses the runner.
    pub async fn request(&self) -> anyhow::Result<Option<Job>> {
        let body = json!({ "token": self.token, "info": { "name": "rave-forge", "version": env!("CARGO_PKG_VERSION"), "platform": "linux" } });
        let (status, body) = self
            .send(
                Method::POST,
                "jobs/request",
                &[(header::CONTENT_TYPE.as_str(), "application/json")],
                body.to_string(),
            )
            .await?;
        match status {
            StatusCode::CREATED => Ok(Some(serde_json::from_slice(&body)?)),
            StatusCode::NO_CONTENT => Ok(None),
            other => anyhow::bail!("the forge answers {other}"),
        }
    }

    /// Sends a piece of the log that begins at `start`.
    pub async fn append(&self, job: &Job, start: usize, piece: &[u8]) -> Taken {
        let range = format!("{start}-{}", (start + piece.len()).saturating_sub(1));
        let headers = [
            ("job-token", job.token.as_str()),
            (header::CONTENT_RANGE.as_str(), &range),
            (header::CONTENT_TYPE.as_str(), "text/plain"),
        ];
        match self.exchange(Method::PATCH, &format!("jobs/{}/trace", job.id), &headers, piece.to_vec()).await {
            Ok((StatusCode::ACCEPTED | StatusCode::RANGE_NOT_SATISFIABLE, end, _)) => Taken::UpTo(end),
            Ok((StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, ..)) => Taken::Over,
            Ok(_) | Err(_) => Taken::Later,
        }
    }

    /// Says how a job ended.
    pub async fn finish(&self, job: &Job, outcome: Result<(), &str>) -> Heard {
        let body = match outcome {
            Ok(()) => json!({ "token": job.token, "state": "success" }),
            Err(reason) => json!({ "token": job.token, "state": "failed", "failure_reason": reason }),
        };
        let headers = [(header::CONTENT_TYPE.as_str(), "application/json")];
        match self.send(Method::PUT, &format!("jobs/{}", job.id), &headers, body.to_string()).await {
            Ok((status, _)) if !status.is_server_error() => Heard::Yes,
            Ok(_) | Err(_) => Heard::Later,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let (status, _, body) = self.exchange(method, path, headers, body.into_bytes()).await?;
        Ok((status, body))
    }

    /// Status, the end of `Range: 0-<end>`, body.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, usize, Bytes)> {
        let mut request = Request::builder().method(method).uri(format!("{}/api/v4/{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let talk = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let range = response
                .headers()
                .get(header::RANGE)
                .and_then(|range| range.to_str().ok()?.split_once('-')?.1.parse().ok());
            let body = Limited::new(response.into_body(), LARGEST)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok((status, range.unwrap_or(0), body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, talk).await?
    }
}
