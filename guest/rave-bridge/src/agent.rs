//! Agents: which there are, and the process behind each. Today it does nothing but live, which is shown by a heartbeat that the service
//! manager watches and anybody can read.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// How often the heart beats where no watchdog says so.
const BEAT: Duration = Duration::from_secs(5);

/// The agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AgentType {
    Orchestrator,
    Planner,
    Coder,
    Reviewer,
    Tester,
    Documenter,
    Security,
    Deployer,
    Monitor,
}

impl AgentType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Orchestrator,
        Self::Planner,
        Self::Coder,
        Self::Reviewer,
        Self::Tester,
        Self::Documenter,
        Self::Security,
        Self::Deployer,
        Self::Monitor,
    ];

    /// The name in commands and units.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Planner => "planner",
            Self::Coder => "coder",
            Self::Reviewer => "reviewer",
            Self::Tester => "tester",
            Self::Documenter => "documenter",
            Self::Security => "security",
            Self::Deployer => "deployer",
            Self::Monitor => "monitor",
        }
    }

    /// The units of all agents, as a pattern of `systemctl`.
    pub const UNITS: &'static str = "rave-agent@*.service";

    /// The agent of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|agent| agent.name() == name)
    }

    /// The unit that runs it.
    #[must_use]
    pub fn unit(self) -> String {
        format!("rave-agent@{}.service", self.name())
    }
}

#[derive(Serialize)]
struct Heartbeat {
    agent: &'static str,
    pid: u32,
    beat: u64,
    time: jiff::Timestamp,
}

/// Lives until told to stop. The heartbeat is a file in `folder`, replaced whole at each beat.
///
/// # Errors
/// If the heartbeat cannot be written: an agent that cannot show that it lives does not.
pub async fn live(agent: AgentType, folder: &Path) -> io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut beats = tokio::time::interval(sd_notify::watchdog_enabled().map_or(BEAT, |limit| limit / 3));
    for beat in 1.. {
        tokio::select! {
            _ = beats.tick() => {}
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
        }
        let heartbeat = Heartbeat { agent: agent.name(), pid: std::process::id(), beat, time: jiff::Timestamp::now() };
        let new = folder.join(".heartbeat.json");
        fs::write(&new, serde_json::to_vec(&heartbeat)?)?;
        fs::rename(&new, folder.join("heartbeat.json"))?;
        sd_notify::notify(if beat == 1 {
            &[NotifyState::Ready, NotifyState::Watchdog]
        } else {
            &[NotifyState::Watchdog]
        })?;
    }
    sd_notify::notify(&[NotifyState::Stopping])
}
