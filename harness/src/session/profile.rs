//! What the guest says about itself in `/etc/rave/profile.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::transcript::model::{ImplementationRecord, ProfileRecord};

/// Where it is in the guest.
pub const PATH: &str = "/etc/rave/profile.json";

/// A guest's profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The version of this format: 1.
    pub schema: u64,
    /// `P6-production`, `P6-reference`, …
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its public origin.
    pub origin: String,
    /// Where its CA certificate is in the guest.
    pub ca: String,
    /// Capability to what stands behind it.
    pub capabilities: BTreeMap<String, Implementation>,
}

/// What stands behind a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Implementation {
    /// Name and version.
    pub implementation: String,
    /// It stands in for the real one.
    pub stand_in: bool,
}

impl Profile {
    /// Reads a profile's text.
    ///
    /// # Errors
    /// If it is not one, with what is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let profile: Self = serde_json::from_slice(text).map_err(|error| format!("{PATH}: {error}"))?;
        if profile.schema == 1 { Ok(profile) } else { Err(format!("{PATH}: schema {} is not 1", profile.schema)) }
    }

    /// As it is recorded.
    pub fn record(&self) -> ProfileRecord {
        let capabilities = self.capabilities.iter().map(|(name, Implementation { implementation, stand_in })| {
            (name.clone(), ImplementationRecord { implementation: implementation.clone(), stand_in: *stand_in })
        });
        ProfileRecord { name: self.name.clone(), version: self.version.clone(), capabilities: capabilities.collect() }
    }

    /// The first of `needs` that is missing.
    pub fn missing<'a>(&self, needs: &'a [String]) -> Option<&'a str> {
        needs.iter().find(|need| !self.capabilities.contains_key(*need)).map(String::as_str)
    }

    /// Who answers for `needs`, and whether one of them is a stand-in.
    pub fn answering(&self, needs: &[String]) -> (Vec<String>, bool) {
        let found = || needs.iter().filter_map(|need| self.capabilities.get_key_value(need));
        let texts = found().map(|(need, found)| {
            let stand_in = if found.stand_in { " (stand-in)" } else { "" };
            format!("{need}: {}{stand_in}", found.implementation)
        });
        (texts.collect(), found().any(|(_, found)| found.stand_in))
    }
}
