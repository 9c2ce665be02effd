//! Agents as the service manager sees them. Every call is a list of words for `systemctl`, all of them from the bridge itself.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::agent::AgentType;
use crate::reply::tame;

/// How long `systemctl` may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The way to the service manager.
#[derive(Debug)]
pub struct Agents {
    systemctl: PathBuf,
}

/// Why the service manager did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AgentError(String);

impl Agents {
    /// Through this program.
    #[must_use]
    pub fn new(systemctl: PathBuf) -> Self {
        Self { systemctl }
    }

    /// Starts an agent, and returns once it says it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(&self, agent: AgentType) -> Result<(), AgentError> {
        self.systemctl(&["start", &agent.unit()]).await.map(drop)
    }

    /// Stops an agent.
    ///
    /// # Errors
    /// If it cannot be stopped.
    pub async fn stop(&self, agent: AgentType) -> Result<(), AgentError> {
        self.systemctl(&["stop", &agent.unit()]).await.map(drop)
    }

    /// The state of each agent (`active`, `inactive`, `failed` …), in the order asked for.
    ///
    /// # Errors
    /// If the service manager does not say.
    pub async fn states(&self, agents: &[AgentType]) -> Result<Vec<String>, AgentError> {
        let units: Vec<String> = agents.iter().map(|agent| agent.unit()).collect();
        let mut words = vec!["show", "--property=ActiveState"];
        words.extend(units.iter().map(String::as_str));
        let shown = self.systemctl(&words).await?;
        let states: Vec<String> =
            shown.lines().filter_map(|line| line.strip_prefix("ActiveState=")).map(tame).collect();
        if states.len() == agents.len() {
            Ok(states)
        } else {
            Err(AgentError("the service manager gave no state".to_owned()))
        }
    }

    async fn systemctl(&self, words: &[&str]) -> Result<String, AgentError> {
        let mut command = Command::new(&self.systemctl);
        command
            .arg("--no-ask-password")
            .args(words)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .map_err(|_| AgentError(format!("the service manager did not answer within {} s", PATIENCE.as_secs())))?
            .map_err(|error| AgentError(format!("could not run `{}`: {error}", self.systemctl.display())))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(AgentError(tame(String::from_utf8_lossy(&output.stderr).trim())))
        }
    }
}
