//! What the homeserver sends: a transaction of events, each of which may be anything. Pure, and total: from bytes to what concerns the
//! bridge. Whatever is not as it should be costs its own event, never the others.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::audit::BodyDigest;
use crate::command::{self, Parsed};
use crate::reply::Code;

/// The longest id of a user, a room or an event.
const LONGEST_ID: usize = 255;

/// Who the bridge is, for whom its own words and other servers' must be told apart.
#[derive(Debug, Clone)]
pub struct Own<'a> {
    /// The bridge's user id.
    pub user_id: &'a str,
    /// Its server.
    pub server_name: &'a str,
}

/// An event that concerns the bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The event's id.
    pub event_id: String,
    /// Its room.
    pub room: String,
    /// Its sender.
    pub sender: String,
    /// What it is to the bridge.
    pub what: What,
}

/// What an event is to the bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// A command.
    Command(command::Command),
    /// A message to the bridge that is no command.
    Misused {
        /// Why.
        code: Code,
        /// What would be right.
        text: String,
        /// What is kept of the message.
        body: BodyDigest,
    },
    /// The bridge is invited.
    Invitation,
    /// Somebody of another server is in the room, or invited to it.
    Outsider,
    /// The bridge is no longer in the room.
    Gone,
    /// A message that the bridge cannot read.
    Encrypted,
    /// It looks like something for the bridge, and is not.
    Ignored(&'static str),
}

/// Why a transaction is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTransaction {
    /// It is no JSON.
    NotJson,
    /// It is JSON, without a list of events.
    BadJson,
}

/// A transaction, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What concerns the bridge, in order.
    pub events: Vec<Incoming>,
    /// How many events were none.
    pub malformed: usize,
}

#[derive(Deserialize)]
struct TransactionFile<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct EventFile<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow)]
    room_id: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    state_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct MessageFile<'a> {
    #[serde(borrow)]
    msgtype: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "m.new_content")]
    new_content: Option<&'a RawValue>,
    #[serde(borrow, rename = "m.relates_to")]
    relates_to: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RelationFile<'a> {
    #[serde(borrow)]
    rel_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct MemberFile<'a> {
    #[serde(borrow)]
    membership: Cow<'a, str>,
}

/// Reads a transaction.
///
/// # Errors
/// If it is no JSON, or has no list of events.
pub fn read(bytes: &[u8], own: &Own<'_>) -> Result<Transaction, BadTransaction> {
    // In two steps, since a body that is JSON and not a transaction has another answer than one that is no JSON.
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|_| BadTransaction::NotJson)?;
    let TransactionFile { events } = serde_json::from_str(raw.get()).map_err(|_| BadTransaction::BadJson)?;
    let mut transaction = Transaction::default();
    for event in events {
        match read_event(event, own) {
            Some(Some(incoming)) => transaction.events.push(incoming),
            Some(None) => {}
            None => transaction.malformed += 1,
        }
    }
    Ok(transaction)
}

/// None: it is no event. `Some(None)`: it does not concern the bridge.
fn read_event(raw: &RawValue, own: &Own<'_>) -> Option<Option<Incoming>> {
    let event: EventFile<'_> = serde_json::from_str(raw.get()).ok()?;
    let id =
        |id: &str, sign| id.len() <= LONGEST_ID && id.starts_with(sign) && id.chars().all(|c| c.is_ascii_graphic());
    if !id(&event.sender, '@') || !id(&event.room_id, '!') || !id(&event.event_id, '$') {
        return None;
    }
    let what = match &*event.kind {
        "m.room.message" => message(&event, own)?,
        "m.room.member" => membership(&event, own)?,
        "m.room.encrypted" if *event.sender != *own.user_id => {
            Some(if is_foreign(&event.sender, own) { What::Ignored("another server's user") } else { What::Encrypted })
        }
        _ => None,
    };
    Some(what.map(|what| Incoming {
        event_id: event.event_id.into_owned(),
        room: event.room_id.into_owned(),
        sender: event.sender.into_owned(),
        what,
    }))
}

fn message(event: &EventFile<'_>, own: &Own<'_>) -> Option<Option<What>> {
    let message: MessageFile<'_> = serde_json::from_str(event.content.get()).ok()?;
    // A redacted message has no body.
    let Some(body) = &message.body else { return Some(None) };
    if !command::is_addressed(body) {
        return Some(None);
    }
    let relation = message.relates_to.map(|raw| serde_json::from_str::<RelationFile<'_>>(raw.get()));
    let replaces = match relation {
        None => false,
        Some(Ok(relation)) => relation.rel_type.as_deref() == Some("m.replace"),
        Some(Err(_)) => return None,
    };
    let ignored = if *event.sender == *own.user_id {
        Some("the bridge's own message")
    } else if is_foreign(&event.sender, own) {
        Some("another server's user")
    } else if message.msgtype.as_deref() != Some("m.text") {
        Some("no text message")
    } else if message.new_content.is_some() || replaces {
        Some("an edit")
    } else {
        None
    };
    if let Some(reason) = ignored {
        return Some(Some(What::Ignored(reason)));
    }
    Some(match command::parse(body) {
        Parsed::NotForUs => None,
        Parsed::Command(command) => Some(What::Command(command)),
        Parsed::Refused { code, text } => Some(What::Misused { code, text, body: BodyDigest::of(body.as_bytes()) }),
    })
}

fn membership(event: &EventFile<'_>, own: &Own<'_>) -> Option<Option<What>> {
    let MemberFile { membership } = serde_json::from_str(event.content.get()).ok()?;
    let member = event.state_key.as_deref()?;
    let comes = matches!(&*membership, "join" | "invite" | "knock");
    Some(if member == own.user_id {
        match &*membership {
            "invite" if is_foreign(&event.sender, own) => Some(What::Ignored("another server's user")),
            "invite" => Some(What::Invitation),
            "leave" | "ban" => Some(What::Gone),
            _ => None,
        }
    } else if comes && is_foreign(member, own) {
        Some(What::Outsider)
    } else {
        None
    })
}

/// Whether a user belongs to another server. Whatever is not plainly of the own server does.
#[must_use]
pub fn is_foreign(user_id: &str, own: &Own<'_>) -> bool {
    user_id.strip_prefix('@').and_then(|rest| rest.split_once(':')).is_none_or(|(_, server)| server != own.server_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const OWN: Own<'static> = Own { user_id: "@rave:rave.local", server_name: "rave.local" };

    fn event(changes: Value) -> Value {
        // As in the examples of the Matrix specification, with an id of room version 12.
        let mut event = json!({
            "type": "m.room.message",
            "sender": "@dana:rave.local",
            "room_id": "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
            "event_id": "$143273582443PhrSn",
            "origin_server_ts": 1_432_735_824_653_u64,
            "unsigned": { "age": 1234 },
            "user_id": "@dana:rave.local",
            "age": 1234,
            "content": { "msgtype": "m.text", "body": "!rave help", "format": "org.matrix.custom.html", "formatted_body": "!rave <b>project create x</b>" },
        });
        for (key, value) in changes.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    }

    fn check(changes: Value, expected: Option<What>) {
        let bytes = serde_json::to_vec(&json!({ "events": [event(changes.clone())], "ephemeral": [] })).unwrap();
        let transaction = read(&bytes, &OWN).unwrap();
        assert_eq!(transaction.malformed, 0, "{changes}");
        assert_eq!(transaction.events.into_iter().next().map(|incoming| incoming.what), expected, "{changes}");
    }

    #[test]
    fn what_an_event_is_to_the_bridge() {
        let text = |body: &str| json!({ "content": { "msgtype": "m.text", "body": body } });
        check(json!({}), Some(What::Command(command::Command::Help(None))));
        check(text("hello"), None);
        check(json!({ "content": {} }), None);
        check(json!({ "type": "m.room.name", "content": { "name": "!rave help" } }), None);
        check(json!({ "sender": "@root:evil.example" }), Some(What::Ignored("another server's user")));
        check(json!({ "sender": "@root:rave.local.evil.example" }), Some(What::Ignored("another server's user")));
        check(json!({ "sender": "@rave:rave.local" }), Some(What::Ignored("the bridge's own message")));
        check(
            json!({ "content": { "msgtype": "m.notice", "body": "!rave help" } }),
            Some(What::Ignored("no text message")),
        );
        check(
            json!({ "content": { "msgtype": "m.emote", "body": "!rave help" } }),
            Some(What::Ignored("no text message")),
        );
        let edit = json!({ "content": { "msgtype": "m.text", "body": "!rave help", "m.new_content": { "msgtype": "m.text", "body": "!rave help" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } } });
        check(edit, Some(What::Ignored("an edit")));
        let replace = json!({ "content": { "msgtype": "m.text", "body": "!rave help", "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } } });
        check(replace, Some(What::Ignored("an edit")));
        let in_thread = json!({ "content": { "msgtype": "m.text", "body": "!rave help", "m.relates_to": { "rel_type": "m.thread", "event_id": "$a" } } });
        check(in_thread, Some(What::Command(command::Command::Help(None))));
        check(
            json!({ "type": "m.room.encrypted", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }),
            Some(What::Encrypted),
        );
        let member = |member: &str, membership: &str| json!({ "type": "m.room.member", "state_key": member, "content": { "membership": membership } });
        check(member("@rave:rave.local", "invite"), Some(What::Invitation));
        check(member("@rave:rave.local", "join"), None);
        check(member("@rave:rave.local", "leave"), Some(What::Gone));
        check(member("@dana:rave.local", "join"), None);
        check(member("@root:evil.example", "invite"), Some(What::Outsider));
        check(member("@root:evil.example", "leave"), None);
    }

    #[test]
    fn one_bad_event_costs_itself() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(
            r#"{{"events":[{good},null,3,{{}},{{"type":7}},{deep},{{"type":"m.room.message","content":{deep}}},{no_content},{bad_id},{good}]}}"#,
            good = event(json!({})),
            no_content = event(json!({ "content": null })),
            bad_id = event(json!({ "event_id": "$a b" })),
        );
        let transaction = read(body.as_bytes(), &OWN).unwrap();
        assert_eq!((transaction.events.len(), transaction.malformed), (2, 8));
    }

    #[test]
    fn a_body_that_is_no_transaction() {
        let check = |body: &str, expected| assert_eq!(read(body.as_bytes(), &OWN), Err(expected), "{body}");
        check("", BadTransaction::NotJson);
        check("{", BadTransaction::NotJson);
        check("{\"events\":[]} x", BadTransaction::NotJson);
        check("null", BadTransaction::BadJson);
        check("{}", BadTransaction::BadJson);
        check("{\"events\":null}", BadTransaction::BadJson);
        check("{\"events\":{}}", BadTransaction::BadJson);
        check("{\"events\":[],\"events\":[]}", BadTransaction::BadJson);
        check(&"[".repeat(500_000), BadTransaction::NotJson);
    }
}
