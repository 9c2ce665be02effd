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
        let words = ["list-units", "--all", "--plain", "--no-legend", "--full", AgentType::UNITS];
        let listed = self.systemctl(&words).await?;
        // A unit that never ran is not loaded, and not listed. To ask for each by its name would load them all, which takes seconds
        // where the machine is emulated.
        let state = |agent: &AgentType| {
            let line = listed.lines().find(|line| line.split_whitespace().next() == Some(&agent.unit()));
            line.map_or(Some("inactive"), |line| line.split_whitespace().nth(2)).map(tame)
        };
        let states: Option<Vec<String>> = agents.iter().map(state).collect();
        states.ok_or_else(|| AgentError("the service manager gave no state".to_owned()))
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
