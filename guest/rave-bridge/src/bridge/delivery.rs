//! Bringing notices to their rooms: each once, however often it takes to get one through.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Bridge, Job};
use crate::audit::{BodyDigest, Decision, Durability, Record};
use crate::matrix::MatrixError;
use crate::reply::{self, Answer};
use crate::wait::Pauses;

/// How long the homeserver is left alone when it does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A notice on its way.
#[derive(Debug)]
struct Delivery {
    room: String,
    /// The homeserver takes a notice of this name once.
    name: String,
    content: Value,
    /// What is written down when it has arrived.
    record: Option<Record>,
}

impl Bridge {
    /// Delivers the answer in a record of an ended command.
    pub(super) async fn deliver_answer(self: &Arc<Self>, ended: Record) {
        self.deliver_recorded(ended, "ended", Decision::Replied).await;
    }

    /// Delivers the notice in the record of a sandbox's end.
    pub(super) async fn deliver_sandbox_end(self: &Arc<Self>, ended: Record) {
        self.deliver_recorded(ended, "sandbox-ended", Decision::SandboxReplied).await;
    }

    /// Says that a command was accepted. If that does not get through at once, the answer will tell.
    pub(super) async fn accepted(&self, job: &Job, text: &str) {
        let answer = Answer::new(reply::Code::Accepted, text);
        let content = reply::content(&job.event_id, job.verb(), &answer);
        if let Err(error) = self.matrix.send(&job.room, &name(&job.event_id, "accepted"), &content).await {
            tracing::warn!(%error, "could not say that a command was accepted");
        }
    }

    pub(super) async fn tell_encrypted(self: Arc<Self>, room: String) {
        let text = "This room is encrypted, and the bridge cannot read here. Use a room without encryption.";
        self.deliver(Delivery { name: name(&room, "encrypted"), content: reply::notice(text), record: None, room })
            .await;
    }

    async fn deliver_recorded(self: &Arc<Self>, ended: Record, step: &str, then: Decision) {
        let (Some(event_id), Some(room)) = (&ended.event_id, &ended.room) else { return };
        let content = ended
            .reply
            .as_ref()
            .map(|answer| reply::content(event_id, ended.verb.as_deref().unwrap_or_default(), answer));
        let record = Record {
            event_id: ended.event_id.clone(),
            room: ended.room.clone(),
            effects: ended
                .effects
                .iter()
                .filter(|(name, _)| *name == "sandbox")
                .map(|(name, id)| (name.clone(), id.clone()))
                .collect(),
            ..Record::new(then)
        };
        match content {
            None => self.arrived(record).await,
            Some(content) => {
                let delivery =
                    Delivery { room: room.clone(), name: name(event_id, step), content, record: Some(record) };
                Arc::clone(self).deliver(delivery).await;
            }
        }
    }

    /// The first try is waited for, so that notices keep their order; the others are made on the side.
    async fn deliver(self: Arc<Self>, delivery: Delivery) {
        if let Err(delivery) = self.try_to_deliver(delivery).await {
            tokio::spawn(async move {
                let mut pauses = Pauses::without_end(LONGEST_PAUSE);
                let mut waiting = *delivery;
                loop {
                    pauses.next().await;
                    match self.try_to_deliver(waiting).await {
                        Ok(()) => return,
                        Err(delivery) => waiting = *delivery,
                    }
                }
            });
        }
    }

    async fn try_to_deliver(&self, delivery: Delivery) -> Result<(), Box<Delivery>> {
        let reason = match self.matrix.send(&delivery.room, &delivery.name, &delivery.content).await {
            Ok(()) => None,
            Err(error @ MatrixError::Refused { .. }) => Some(error.to_string()),
            Err(error @ MatrixError::Unavailable(_)) => {
                tracing::warn!(%error, "a notice waits");
                return Err(Box::new(delivery));
            }
        };
        if let Some(record) = delivery.record {
            self.arrived(Record { reason, ..record }).await;
        }
        Ok(())
    }

    /// If this is lost in a crash, the notice is sent again under the same name.
    async fn arrived(&self, record: Record) {
        if let Err(error) = self.log.write(vec![record], Durability::Buffered).await {
            tracing::error!(%error, "a reply could not be written down");
        }
    }
}

/// The transaction name of a notice about an event: the same in every run.
fn name(about: &str, step: &str) -> String {
    format!("rave-{}-{step}", &BodyDigest::of(about.as_bytes()).sha256[..32])
}
