//! The morning after a crash: what the log remembers as open is taken up where it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::job::{Ask, Job};
use super::{Bridge, Work};
use crate::audit::{Open, Record};
use crate::command::{self, Parsed};
use crate::people::Person;
use crate::reply::{Answer, Code};

impl Bridge {
    pub(super) fn recover(self: &Arc<Self>, open: Vec<Open>, untold: BTreeMap<String, Record>) {
        if !open.is_empty() || !untold.is_empty() {
            tracing::info!(commands = open.len(), sandboxes = untold.len(), "taking up what was left open");
        }
        for open in open {
            if let Some(ended) = open.ended {
                let bridge = Arc::clone(self);
                tokio::spawn(async move { bridge.deliver_answer(ended).await });
            } else if let Some((sender, work)) = work(open) {
                self.enqueue(sender, work);
            }
        }
        for (_, ended) in untold {
            let bridge = Arc::clone(self);
            tokio::spawn(async move { bridge.deliver_sandbox_end(ended).await });
        }
    }
}

fn work(open: Open) -> Option<(String, Work)> {
    let Open { received, started, effects, ended: _ } = open;
    let (event_id, room, sender) = (received.event_id?, received.room?, received.sender?);
    if received.reason.as_deref() == Some("invitation") {
        return Some((sender.clone(), Work::Invitation { event_id, room, sender, recovered: true }));
    }
    let ask = match (received.reply, received.verb) {
        (Some(answer), _) => Ask::Answered(answer),
        (None, verb) => {
            let words = [&[verb.unwrap_or_default()][..], &received.args].concat().join(" ");
            match command::parse(&format!("!rave {words}")) {
                Parsed::Command(command) => Ask::Command(command),
                // Written by another version of the bridge.
                _ => Ask::Answered(Answer::new(
                    Code::Failed,
                    "The bridge was started anew and no longer knows this command.",
                )),
            }
        }
    };
    let begun = started.as_ref().map(|started| started.time);
    let mut known = BTreeMap::new();
    let mut person = None;
    if let Some(started) = started {
        known.extend(started.effects);
        if let (Some(id), Some(username), Some(role)) = (started.external_id, started.user, started.role) {
            person = Some(Person { id, username, role });
        }
    }
    known.extend(effects);
    let job = Job { person, recovered: true, begun, effects: known, ..Job::new(event_id, room, sender.clone(), ask) };
    Some((sender, Work::Command(Box::new(job))))
}
