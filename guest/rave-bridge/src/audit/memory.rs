//! What the bridge remembers: all of it read from the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::record::{Decision, Record};

/// What a log says about yesterday.
#[derive(Debug, Default)]
pub struct Memory {
    /// Events that were decided upon.
    pub seen: HashSet<u128>,
    /// What was taken in and has not been answered, in the order it came.
    pub open: Vec<Open>,
    /// Sandboxes that were started and not yet said to have ended: by id, how their start ended.
    pub sandboxes: BTreeMap<String, Record>,
    /// Sandboxes whose end was written down, and perhaps not told.
    pub untold: BTreeMap<String, Record>,
    /// Encrypted rooms that were told so.
    pub encrypted: HashSet<String>,
    positions: HashMap<String, usize>,
}

/// A command that is not over.
#[derive(Debug, Clone)]
pub struct Open {
    /// How it came in.
    pub received: Record,
    /// How it was begun, if it was.
    pub started: Option<Record>,
    /// What it has made so far.
    pub effects: BTreeMap<String, String>,
    /// How it ended, if it did; then only the reply is missing.
    pub ended: Option<Record>,
}

/// What is kept of an event's id.
#[must_use]
pub fn fingerprint(event_id: &str) -> u128 {
    let digest = Sha256::digest(event_id.as_bytes());
    digest.iter().take(16).fold(0, |value, byte| value << 8 | u128::from(*byte))
}

impl Memory {
    /// Takes in the next record.
    pub fn learn(&mut self, record: &Record) {
        if record.decision == Decision::Encrypted
            && let Some(room) = &record.room
        {
            self.encrypted.insert(room.clone());
        }
        let Some(event_id) = &record.event_id else { return };
        self.seen.insert(fingerprint(event_id));
        let sandbox = record.effects.get("sandbox");
        match (record.decision, sandbox) {
            (Decision::Received, _) => {
                self.positions.insert(event_id.clone(), self.open.len());
                self.open.push(Open { received: record.clone(), started: None, effects: BTreeMap::new(), ended: None });
            }
            (Decision::Started, _) => self.with(event_id, |open| open.started = Some(record.clone())),
            (Decision::Progress, _) => self.with(event_id, |open| open.effects.extend(record.effects.clone())),
            (Decision::Ended, sandbox) => {
                self.with(event_id, |open| open.ended = Some(record.clone()));
                if let (Some(id), Some("sandbox start")) = (sandbox, record.verb.as_deref()) {
                    self.sandboxes.insert(id.clone(), record.clone());
                }
            }
            (Decision::Replied, _) => self.forget(event_id),
            (Decision::SandboxEnded, Some(id)) => {
                self.sandboxes.remove(id);
                self.untold.insert(id.clone(), record.clone());
            }
            (Decision::SandboxReplied, Some(id)) => {
                self.untold.remove(id);
            }
            _ => {}
        }
    }

    fn with(&mut self, event_id: &str, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.positions.get(event_id).and_then(|position| self.open.get_mut(*position)) {
            change(open);
        }
    }

    fn forget(&mut self, event_id: &str) {
        if let Some(position) = self.positions.remove(event_id) {
            self.open.remove(position);
            self.positions.values_mut().filter(|other| **other > position).for_each(|other| *other -= 1);
        }
    }
}
