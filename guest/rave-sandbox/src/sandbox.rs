//! A sandbox, as it is shown and as it is kept in its folder.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is said of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its name, such as `sb-1a2b`.
    pub id: Id,
    /// Where it is in its life.
    pub state: State,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last lines of its console, if it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
    /// What runs it, with the version.
    pub backend: String,
    /// The project's path.
    pub project: String,
    /// The project's number.
    pub project_id: u64,
    /// The merge request's number.
    pub mr: u64,
    /// The commit that is in it.
    pub sha: String,
    /// Where the project can be cloned from.
    pub repository: String,
    /// Who wanted it.
    pub requested_by: String,
    /// The address of its ports.
    pub address: String,
    /// SSH, as user `dev`.
    pub ssh_port: u16,
    /// HTTP.
    pub web_port: u16,
    /// Its host key, as it stands in a known-hosts file; empty until it is made.
    pub host_key: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// Memory of everything that belongs to it.
    pub memory_max_bytes: u64,
    /// Share of a core; 200 are two cores.
    pub cpu_quota_percent: u32,
}

/// Where a sandbox is in its life. When it has ended it is no more, so there is no state for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its disk is being made, or it boots.
    Starting,
    /// Its SSH server answers.
    Ready,
    /// Somebody ended it.
    Stopping,
    /// It did not start, or ended by itself. All that is left is what is said of it.
    Failed,
}

impl State {
    /// Whether it takes one of the places.
    #[must_use]
    pub fn counts(self) -> bool {
        self != Self::Failed
    }
}

/// The name of a sandbox: `sb-` and four hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// The name with that number.
    #[must_use]
    pub fn new(number: u16) -> Self {
        Self(format!("sb-{number:04x}"))
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sb-")?;
        let right = digits.len() == 4 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its unit.
    #[must_use]
    pub fn unit(&self) -> String {
        format!("rave-sandbox-{}.service", self.0)
    }

    /// The sandbox that a unit belongs to.
    #[must_use]
    pub fn of_unit(unit: &str) -> Option<Self> {
        Self::parse(unit.strip_prefix("rave-sandbox-")?.strip_suffix(".service")?)
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no sandbox's name"))
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_unit() {
        let id = Id::new(0x1a2b);
        assert_eq!(id.as_str(), "sb-1a2b");
        assert_eq!(id.unit(), "rave-sandbox-sb-1a2b.service");
        assert_eq!(Id::of_unit("rave-sandbox-sb-1a2b.service"), Some(id));
        for unit in
            ["rave-sandbox.service", "rave-sandbox-sb-1a2.service", "rave-sandbox-sb-../x.service", "ssh.service"]
        {
            assert_eq!(Id::of_unit(unit), None, "{unit}");
        }
    }
}
