//! One line of the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::people::Role;
use crate::reply::{Answer, Code};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The bridge started.
    Opened,
    /// The last line before this one was cut off by a crash; `effects` says what is left of it.
    Torn,
    /// A command or an invitation was taken in. What follows names the same event.
    Received,
    /// It may be done, and is now begun.
    Started,
    /// Something was made on the way that outlives a crash; `effects` says what.
    Progress,
    /// It has ended, and this is the answer.
    Ended,
    /// The answer has reached the homeserver, or never will.
    Replied,
    /// It was not taken in: too much was asked, or its sender is ignored for a while.
    Refused,
    /// It is not for the bridge, though it looked so.
    Ignored,
    /// A sandbox has ended, and its room is told so.
    SandboxEnded,
    /// The room has been told.
    SandboxReplied,
    /// The bridge told an encrypted room that it cannot read there.
    Encrypted,
    /// The bridge left a room, or kept out of it.
    Left,
    /// A request to the bridge's own port was refused.
    Http,
}

/// One decision. What does not apply is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the specification, and say it")]
pub struct Record {
    pub seq: u64,
    pub time: Timestamp,
    pub decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub txn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub external_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verb: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Of a body that was refused: never the body itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<BodyDigest>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub effects: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply: Option<Answer>,
    pub prev_hash: String,
}

/// What is kept of a body that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyDigest {
    /// How many bytes it had.
    pub length: usize,
    /// Their SHA-256.
    pub sha256: String,
}

impl Record {
    /// A record that says nothing but the decision. Its place in the chain and its time are set when it is written.
    #[must_use]
    pub fn new(decision: Decision) -> Self {
        Self {
            seq: 0,
            time: Timestamp::UNIX_EPOCH,
            decision,
            txn: None,
            event_id: None,
            room: None,
            sender: None,
            external_id: None,
            user: None,
            role: None,
            verb: None,
            args: vec![],
            code: None,
            reason: None,
            body: None,
            effects: BTreeMap::new(),
            reply: None,
            prev_hash: String::new(),
        }
    }
}

impl BodyDigest {
    /// The digest of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self { length: body.len(), sha256: hex(&Sha256::digest(body)) }
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Effects from their names and values.
pub fn effects<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
