//! One job from its checkout to its end, and the loop around it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use rave_guest::Secret;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::client::{Client, Heard, Job, Taken};
use super::executor::{Executor, UNIT};
use crate::ci;
use crate::git;
use crate::settings::Settings;
use crate::text;

/// How often the log is sent, and the forge hears that the job lives.
const BEAT: Duration = Duration::from_millis(500);
/// How often an idle job is heard.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long the forge may be away before a job's end is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a checkout may take.
const CHECKOUT: Duration = Duration::from_secs(120);

/// Asks for jobs and runs them until told to end.
///
/// # Errors
/// If the token cannot be read or the builds' folder cannot be made.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let token = Secret::read(&settings.runner.token)?;
    let client = Client::new(&settings.runner.url, token.expose());
    let executor = Executor::of(&settings.runner);
    let builds = &settings.runner.builds;
    prepare(builds, &executor).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("asking {} for jobs", settings.runner.url);
    let work = async {
        let pause = Duration::from_millis(settings.runner.poll_ms.max(20));
        let mut away = false;
        loop {
            match client.request().await {
                Ok(Some(job)) => {
                    tracing::info!("job {} begins", job.id);
                    one(settings, &client, &executor, &job).await;
                    continue;
                }
                Ok(None) => away = false,
                Err(error) if !away => {
                    tracing::warn!("no jobs: {error:#}");
                    away = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = work => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if matches!(executor, Executor::Systemd { .. }) {
        stop_units().await;
    }
    Ok(())
}

/// Ends and removes what an earlier life left.
async fn prepare(builds: &Path, executor: &Executor) -> anyhow::Result<()> {
    if matches!(executor, Executor::Systemd { .. }) {
        stop_units().await;
    }
    std::fs::create_dir_all(builds).with_context(|| format!("could not make `{}`", builds.display()))?;
    std::fs::set_permissions(builds, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(builds)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNIT) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

async fn stop_units() {
    let _ = Command::new("systemctl")
        .args(["--quiet", "--no-ask-password", "stop", &format!("{UNIT}*.service")])
        .stdin(Stdio::null())
        .status()
        .await;
}

/// Runs one job and says how it ended. Whatever goes wrong here is a failure of the job.
async fn one(settings: &Settings, client: &Client, executor: &Executor, job: &Job) {
    let mut log = Log::new(client, job);
    let outcome = match attempt(settings, executor, job, &mut log).await {
        Ok(outcome) => outcome,
        Err(error) => {
            log.say(&format!("ERROR: {error:#}\n"));
            Err("runner_system_failure")
        }
    };
    if log.over {
        tracing::info!("job {} was not wanted any more", job.id);
        return;
    }
    log.say(match outcome {
        Ok(()) => "Job succeeded\n",
        Err("job_execution_timeout") => "ERROR: Job failed: it took longer than it may\n",
        Err(_) => "ERROR: Job failed\n",
    });
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if log.send().await && client.finish(job, outcome).await == Heard::Yes {
            tracing::info!("job {} ended: {}", job.id, outcome.err().unwrap_or("success"));
            return;
        }
        tokio::time::sleep(BEAT).await;
    }
    tracing::warn!("job {} ended, but nobody would hear it", job.id);
}

type Outcome = Result<(), &'static str>;

async fn attempt(settings: &Settings, executor: &Executor, job: &Job, log: &mut Log<'_>) -> anyhow::Result<Outcome> {
    let work = tempfile::Builder::new().prefix(&format!("{UNIT}{}-", job.id)).tempdir_in(&settings.runner.builds)?;
    log.say(&format!("Running with {}\n", settings.runner.description));
    log.say(&format!("Checking out {}\n", job.git_info.sha.get(..8).unwrap_or_default()));
    log.send().await;
    let source = work.path().join("source");
    let unpacked = work.path().join("unpacked");
    std::fs::create_dir(&source)?;
    std::fs::create_dir(&unpacked)?;
    checkout(settings, job, &source.join("project")).await?;
    std::fs::write(source.join("job.sh"), script(job)?)?;
    execute(executor, job, &source, &unpacked, log).await
}

/// Clones with the job's token, which lies in the environment of this process's child and nowhere else.
async fn checkout(settings: &Settings, job: &Job, project: &Path) -> anyhow::Result<()> {
    // The forge names itself as users see it; from here it is next door.
    let path =
        job.git_info.repo_url.strip_prefix(settings.url.as_str()).context("the repository is none of this forge")?;
    if !text::is_commit(&job.git_info.sha) {
        bail!("the job names no commit");
    }
    let url = format!("{}{path}", settings.runner.url);
    let login = base64::engine::general_purpose::STANDARD.encode(format!("gitlab-ci-token:{}", job.token));
    std::fs::create_dir(project)?;
    let git = |arguments: &[&str]| {
        let mut command = git::clean("git");
        command
            .args(arguments)
            .current_dir(project)
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {login}"))
            .env("GIT_CONFIG_KEY_1", "protocol.allow")
            .env("GIT_CONFIG_VALUE_1", if url.starts_with("http://") { "always" } else { "never" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let sha = job.git_info.sha.as_str();
    let name = url.clone();
    for arguments in [
        ["init", "--quiet", "--template="].as_slice(),
        &[
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=50",
            &name,
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/merge-requests/*:refs/remotes/mr/*",
        ],
        &["-c", "core.symlinks=true", "checkout", "--quiet", "--detach", sha],
    ] {
        let output = tokio::time::timeout(CHECKOUT, git(arguments).output()).await.context("git took too long")??;
        if !output.status.success() {
            bail!("git {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// The script of a job: its environment, then its lines, each shown before it runs.
fn script(job: &Job) -> anyhow::Result<String> {
    let mut script = "set -eo pipefail\nexport HOME=\"$PWD\" LANG=C.UTF-8\nexport CI_PROJECT_DIR=\"$PWD\"\n".to_owned();
    for variable in &job.variables {
        if !ci::is_variable(&variable.key) {
            bail!("a variable has a name that cannot be one");
        }
        script.push_str(&format!("export {}={}\n", variable.key, quote(&variable.value)));
    }
    for line in job.steps.iter().flat_map(|step| &step.script) {
        script.push_str(&format!("printf '%s\\n' {}\n{line}\n", quote(&format!("$ {line}"))));
    }
    Ok(script)
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

async fn execute(
    executor: &Executor,
    job: &Job,
    source: &Path,
    unpacked: &Path,
    log: &mut Log<'_>,
) -> anyhow::Result<Outcome> {
    let archive = source.with_extension("tar");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(source)
        .arg("-cf")
        .arg(&archive)
        .args(["project", "job.sh"])
        .stdin(Stdio::null())
        .status()
        .await?;
    if !packed.success() {
        bail!("tar ended with {packed}");
    }
    let timeout = job.runner_info.timeout.max(1);
    let mut child = executor
        .command(job.id, timeout, unpacked)
        .stdin(std::fs::File::open(&archive)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the job could not be started")?;
    let group = child.id();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let mut beat = tokio::time::interval(BEAT);
    let mut heard = Instant::now();
    let (mut out, mut err) = (vec![0; 8 << 10], vec![0; 8 << 10]);
    let status = loop {
        tokio::select! {
            read = read_some(&mut stdout, &mut out) => log.take(&out[..read]),
            read = read_some(&mut stderr, &mut err) => log.take(&err[..read]),
            status = child.wait(), if stdout.is_none() && stderr.is_none() => break Some(status?),
            _ = beat.tick() => {
                if log.waiting() || heard.elapsed() > KEEPALIVE {
                    log.send().await;
                    heard = Instant::now();
                }
            }
            () = tokio::time::sleep_until(deadline) => break None,
        }
        if log.over {
            break None;
        }
    };
    let Some(status) = status else {
        end(executor, job, group).await;
        let _ = child.kill().await;
        return Ok(Err("job_execution_timeout"));
    };
    // A unit that ran out of time is killed by systemd a moment before this loop would.
    let late = Instant::now() + Duration::from_secs(1) >= deadline;
    Ok(match status.code() {
        Some(0) => Ok(()),
        _ if late => Err("job_execution_timeout"),
        _ => Err("script_failure"),
    })
}

async fn end(executor: &Executor, job: &Job, group: Option<u32>) {
    let mut command = match (executor, group) {
        (Executor::Systemd { .. }, _) => {
            let mut command = Command::new("systemctl");
            command.args(["--quiet", "--no-ask-password", "stop", &format!("{UNIT}{}.service", job.id)]);
            command
        }
        (Executor::Direct, Some(group)) => {
            let mut command = Command::new("kill");
            command.args(["-KILL", "--", &format!("-{group}")]);
            command
        }
        (Executor::Direct, None) => return,
    };
    let _ = command.stdin(Stdio::null()).stderr(Stdio::null()).status().await;
}

/// Reads what there is; at the end the source becomes nothing, and is waited for no longer.
async fn read_some<R: AsyncRead + Unpin>(source: &mut Option<R>, buffer: &mut [u8]) -> usize {
    match source {
        None => std::future::pending().await,
        Some(reader) => {
            let read = reader.read(buffer).await.unwrap_or(0);
            if read == 0 {
                *source = None;
            }
            read
        }
    }
}

/// A job's log: what the forge has not got yet is kept.
struct Log<'a> {
    client: &'a Client,
    job: &'a Job,
    kept: Vec<u8>,
    sent: usize,
    /// The forge wants to hear no more of this job.
    over: bool,
}

/// The most that is kept of a log.
const LOG: usize = 2 << 20;
/// The most that is sent of it at once.
const PIECE: usize = 32 << 10;

impl<'a> Log<'a> {
    fn new(client: &'a Client, job: &'a Job) -> Self {
        Self { client, job, kept: Vec::new(), sent: 0, over: false }
    }

    fn say(&mut self, text: &str) {
        self.take(text.as_bytes());
    }

    fn take(&mut self, piece: &[u8]) {
        let room = LOG.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece[..room]);
    }

    fn waiting(&self) -> bool {
        self.sent < self.kept.len()
    }

    /// Sends what is new, or a sign of life; whether the forge has it all now.
    async fn send(&mut self) -> bool {
        for _ in 0..=LOG / PIECE {
            let end = self.kept.len().min(self.sent + PIECE);
            let piece = self.kept.get(self.sent..end).unwrap_or_default();
            match self.client.append(self.job, self.sent, piece).await {
                Taken::UpTo(end) if end >= self.kept.len() || (end <= self.sent && !piece.is_empty() && end != 0) => {
                    // The forge has all, or takes no more of a log that is too long.
                    self.sent = self.kept.len();
                    return true;
                }
                Taken::UpTo(end) => self.sent = end,
                Taken::Over => {
                    self.over = true;
                    return true;
                }
                Taken::Later => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_a_value() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
