//! A line of the guest's journal as it lies in the machine's folder: a JSON object (systemd.journal-fields(7)).

use serde::Deserialize;

/// The fields of a line that somebody reads.
#[derive(Deserialize)]
pub struct Line {
    /// The message: a text, or the bytes of what is no text.
    #[serde(rename = "MESSAGE")]
    pub message: Option<serde_json::Value>,
    /// What kind of message it is.
    #[serde(rename = "MESSAGE_ID")]
    pub id: Option<String>,
    /// The unit it is about, where systemd wrote it.
    #[serde(rename = "UNIT")]
    pub unit: Option<String>,
    /// From `0`, an emergency, to `7`.
    #[serde(rename = "PRIORITY")]
    pub priority: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    from_unit: Option<String>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<String>,
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    monotonic: Option<String>,
}

impl Line {
    /// When it was written, milliseconds since the guest's boot.
    pub fn at_ms(&self) -> u64 {
        self.monotonic.as_ref().and_then(|at| at.parse::<u64>().ok()).unwrap_or_default() / 1000
    }

    /// The unit that wrote it, or else the program.
    pub fn who(&self) -> &str {
        self.from_unit.as_ref().or(self.identifier.as_ref()).map_or("", String::as_str)
    }
}
