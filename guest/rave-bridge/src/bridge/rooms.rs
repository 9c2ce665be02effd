//! Which rooms the bridge is in: those it was invited to by people it knows, with nobody of another server in them, and, where a list
//! is set, on that list. An account of the own server that is not linked may sit there; it only gets `not_linked`.

use std::time::Duration;

use super::{Bridge, locked, record};
use crate::audit::{Decision, Durability, Record};
use crate::intake::is_foreign;
use crate::matrix::MatrixError;
use crate::people::Standing;
use crate::reply::Code;
use crate::wait::Pauses;

/// How long an invitation waits for the services that say who invites.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);

impl Bridge {
    /// Whether the bridge may act in a room. If not, it leaves.
    ///
    /// # Errors
    /// If the homeserver does not say who is there.
    pub(super) async fn may_be_in(&self, room: &str) -> Result<bool, MatrixError> {
        if !self.is_listed(room) {
            self.leave(room, "not on the list of rooms").await;
            return Ok(false);
        }
        if locked(&self.good_rooms).contains(room) {
            return Ok(true);
        }
        let members = match self.matrix.members(room).await {
            Ok(members) => members,
            Err(MatrixError::Refused { .. }) => return Ok(false), // the bridge is not in it
            Err(error) => return Err(error),
        };
        if members.iter().any(|member| is_foreign(member, &self.own())) {
            self.leave(room, "somebody of another server is in it").await;
            return Ok(false);
        }
        locked(&self.good_rooms).insert(room.to_owned());
        Ok(true)
    }

    /// Follows an invitation, or turns it down.
    pub(super) async fn invited(&self, event_id: &str, room: &str, sender: &str, recovered: bool) {
        if recovered {
            self.wait_for_services(sender).await;
        }
        let (code, reason) = match self.standing_of_host(room, sender).await {
            Ok(()) => self.join(event_id, room, sender).await,
            Err((code, reason)) => {
                self.leave(room, reason).await;
                (code, reason)
            }
        };
        let ended = Record {
            code: Some(code),
            reason: Some(reason.to_owned()),
            ..record(Decision::Ended, event_id, room, sender)
        };
        self.note(vec![ended, record(Decision::Replied, event_id, room, sender)]).await;
    }

    async fn join(&self, event_id: &str, room: &str, sender: &str) -> (Code, &'static str) {
        self.note(vec![record(Decision::Started, event_id, room, sender)]).await;
        let mut pauses = Pauses::within(PATIENCE, PAUSE);
        loop {
            match self.matrix.join(room).await {
                Ok(()) => break,
                Err(MatrixError::Refused { .. }) => return (Code::Failed, "the homeserver refused the join"),
                Err(MatrixError::Unavailable(_)) if pauses.next().await => {}
                Err(MatrixError::Unavailable(_)) => {
                    return (Code::BackendUnavailable, "the homeserver does not answer");
                }
            }
        }
        match self.may_be_in(room).await {
            Ok(true) => (Code::Ok, "joined"),
            Ok(false) => (Code::Denied, "not a room for the bridge"),
            // The members are looked at again before the first command.
            Err(_) => (Code::Ok, "joined, and not looked into yet"),
        }
    }

    /// Whether an invitation may be followed, or why not.
    async fn standing_of_host(&self, room: &str, sender: &str) -> Result<(), (Code, &'static str)> {
        if !self.is_listed(room) {
            return Err((Code::Denied, "not on the list of rooms"));
        }
        match self.standing(sender).await {
            Some(Standing::Linked(_)) => Ok(()),
            Some(_) => Err((Code::NotLinked, "invited by somebody who is not linked")),
            None => Err((Code::BackendUnavailable, "it cannot be said who invites")),
        }
    }

    async fn standing(&self, sender: &str) -> Option<Standing> {
        let mut pauses = Pauses::within(PATIENCE, PAUSE);
        loop {
            match self.people.find(&self.forge, sender).await {
                Ok(standing) => return Some(standing),
                Err(_) if pauses.next().await => {}
                Err(_) => return None,
            }
        }
    }

    async fn leave(&self, room: &str, reason: &str) {
        let left =
            Record { room: Some(room.to_owned()), reason: Some(reason.to_owned()), ..Record::new(Decision::Left) };
        self.note(vec![left]).await;
        locked(&self.good_rooms).remove(room);
        let mut pauses = Pauses::within(PATIENCE, PAUSE);
        while let Err(MatrixError::Unavailable(error)) = self.matrix.leave(room).await {
            tracing::warn!(error, "a room cannot be left yet");
            if !pauses.next().await {
                return;
            }
        }
    }

    fn is_listed(&self, room: &str) -> bool {
        self.settings.rooms.is_empty() || self.settings.rooms.iter().any(|listed| listed == room)
    }

    async fn note(&self, records: Vec<Record>) {
        if let Err(error) = self.log.write(records, Durability::Synced).await {
            tracing::error!(%error, "a decision about a room could not be written down");
        }
    }
}
