//! The settings file: as written, then as meant.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// What the program needs to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `serve` listens.
    pub listen: SocketAddr,
    /// What stands before every path, as users see it: `https://rave.local:3002/gitlab`.
    pub url: String,
    /// The path of `url`, without a slash at its end.
    pub prefix: String,
    /// Where the bare repositories lie.
    pub repositories: PathBuf,
    /// The folder of PostgreSQL's socket.
    pub database_socket: PathBuf,
    /// The role at the database.
    pub database_user: String,
    /// The database's name.
    pub database_name: String,
    /// The secret files of `setup`.
    pub secrets: Secrets,
    /// Where sizes and times end.
    pub limits: Limits,
    /// The runner's own part.
    pub runner: Runner,
}

/// Files that `setup` and `runner` read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// SHA-256 of the bot's token, hexadecimal.
    pub bot_token_digest: PathBuf,
    /// SHA-256 of the OAuth clients' secrets: `{"synapse": hex, "grafana": hex}`.
    pub clients: PathBuf,
    /// SHA-256 of the runner's token, hexadecimal.
    pub runner_token_digest: PathBuf,
}

/// Where sizes and times end.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body of an API request.
    pub body_bytes: usize,
    /// The largest file the API answers with.
    pub blob_bytes: u64,
    /// The largest body of a push.
    pub push_bytes: u64,
    /// The largest log of a job.
    pub trace_bytes: usize,
    /// How long an API request may take.
    pub request: Duration,
    /// How long a clone or push may take.
    pub transfer: Duration,
    /// How long a job may run that names no time of its own, and the longest it may name.
    pub job: Duration,
    /// After how long without a word from its runner a job has failed.
    pub silent_job: Duration,
    /// How many git programs may run at once.
    pub git_programs: usize,
}

/// The runner's part of the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runner {
    /// Where the runner finds the forge: a plain HTTP address of this machine with the prefix.
    pub url: String,
    /// The file with the runner's token.
    pub token: PathBuf,
    /// Where checkouts are made.
    pub builds: PathBuf,
    /// What is said of the runner.
    pub description: String,
    /// The tags of jobs it takes.
    pub tags: Vec<String>,
    /// The memory of a job, in MiB.
    pub memory_mib: u64,
    /// How often it asks for a job, in milliseconds.
    pub poll_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    listen: SocketAddr,
    url: String,
    repositories: PathBuf,
    database: DatabaseFile,
    secrets: Secrets,
    limits: Option<LimitsFile>,
    runner: Runner,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseFile {
    socket: PathBuf,
    user: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    body_kib: Option<usize>,
    blob_kib: Option<u64>,
    push_kib: Option<u64>,
    trace_kib: Option<usize>,
    request_secs: Option<u64>,
    transfer_secs: Option<u64>,
    job_secs: Option<u64>,
    silent_job_secs: Option<u64>,
    git_programs: Option<usize>,
}

impl Settings {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// If it cannot be read, or a value cannot be meant.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file: SettingsFile = rave_guest::read(path)?;
        let wrong = |key: &str, right: &str| anyhow::anyhow!("{}: `{key}` {right}", path.display());
        let prefix = prefix(&file.url).ok_or_else(|| {
            wrong("url", "must be http:// or https://, a host and a path without a slash at its end: https://rave.local:3002/gitlab")
        })?;
        if prefix_of_loopback(&file.runner.url).is_none() {
            return Err(wrong("runner.url", "must be plain HTTP on a loopback address: http://127.0.0.1:8081/gitlab"));
        }
        if !file.repositories.is_absolute() {
            return Err(wrong("repositories", "must be an absolute path"));
        }
        if !file.database.socket.is_absolute() {
            return Err(wrong(
                "database.socket",
                "must be the absolute path of the folder with PostgreSQL's socket: /run/postgresql",
            ));
        }
        if file.runner.description.contains("direct executor") && !cfg!(debug_assertions) {
            return Err(wrong("runner.description", "must not name the direct executor, which is for tests"));
        }
        Ok(Self {
            listen: file.listen,
            prefix,
            url: file.url,
            repositories: file.repositories,
            database_socket: file.database.socket,
            database_user: file.database.user,
            database_name: file.database.name,
            secrets: file.secrets,
            limits: file.limits.unwrap_or_default().meant(),
            runner: file.runner,
        })
    }
}

impl LimitsFile {
    fn meant(self) -> Limits {
        let seconds = |written: Option<u64>, usual| Duration::from_secs(written.unwrap_or(usual).max(1));
        Limits {
            body_bytes: self.body_kib.unwrap_or(4096) << 10,
            blob_bytes: self.blob_kib.unwrap_or(8192) << 10,
            push_bytes: self.push_kib.unwrap_or(65536) << 10,
            trace_bytes: self.trace_kib.unwrap_or(1024) << 10,
            request: seconds(self.request_secs, 60),
            transfer: seconds(self.transfer_secs, 600),
            job: seconds(self.job_secs, 600),
            silent_job: seconds(self.silent_job_secs, 90),
            git_programs: self.git_programs.unwrap_or(6).max(1),
        }
    }
}

fn prefix(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let slash = rest.find('/')?;
    let (host, path) = rest.split_at(slash);
    let sound =
        !host.is_empty() && path.len() > 1 && !path.ends_with('/') && !path.contains(['?', '#', '{', '}', '%', ' ']);
    sound.then(|| path.to_owned())
}

fn prefix_of_loopback(url: &str) -> Option<String> {
    let host = url.strip_prefix("http://")?;
    (host.starts_with("127.") || host.starts_with("[::1]")).then(|| prefix(url))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_the_path_of_the_url() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(prefix(url).as_deref(), expected, "{url}");
        check("https://rave.local:3002/gitlab", Some("/gitlab"));
        check("http://127.0.0.1:80/a/b", Some("/a/b"));
        check("https://rave.local:3002/gitlab/", None);
        check("https://rave.local:3002", None);
        check("https:///gitlab", None);
        check("rave.local/gitlab", None);
        check("https://rave.local/git?lab", None);
    }
}
