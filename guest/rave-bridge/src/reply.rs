//! What the bridge says: a notice that people can read, with the same in a form for programs.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a command ended, or how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Answered.
    Ok,
    /// Begun; another reply follows.
    Accepted,
    /// Begun, and ended well.
    Done,
    /// Begun, and not ended well.
    Failed,
    /// Must be confirmed first.
    Confirm,
    /// The sender may not.
    Denied,
    /// The sender has no account.
    NotLinked,
    /// No such command.
    UnknownCommand,
    /// Not how the command is used.
    BadArguments,
    /// The message is too long.
    TooLong,
    /// Too many commands.
    RateLimited,
    /// Not there, or not for the sender to see.
    NotFound,
    /// There already, or no room for more.
    Conflict,
    /// A service the answer depends on is away.
    BackendUnavailable,
    /// The bridge itself is at fault.
    Internal,
}

/// An answer to a command, before it is tied to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// How it ended.
    pub code: Code,
    /// The text for people.
    pub text: String,
    /// When it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// What it is about: addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub links: Vec<String>,
}

impl Answer {
    /// An answer without links.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), retry_after_ms: None, links: vec![] }
    }

    /// The same with links.
    #[must_use]
    pub fn with_links(self, links: Vec<String>) -> Self {
        Self { links, ..self }
    }

    /// What the sender is told when a service is away.
    #[must_use]
    pub fn unavailable(service: &str) -> Self {
        Self::new(
            Code::BackendUnavailable,
            format!("The {service} cannot be reached. Nothing was done; try again later."),
        )
    }
}

/// The content of the notice that answers the command `command_id`.
#[must_use]
pub fn content(command_id: &str, verb: &str, answer: &Answer) -> Value {
    let Answer { code, text, retry_after_ms, links } = answer;
    let mut reply = json!({ "schema": 1, "command_id": command_id, "verb": verb, "code": code, "links": links });
    if let (Some(delay), Some(reply)) = (retry_after_ms, reply.as_object_mut()) {
        reply.insert("retry_after_ms".to_owned(), json!(delay));
    }
    json!({
        "msgtype": "m.notice",
        "body": text,
        "m.mentions": {},
        "m.relates_to": { "m.in_reply_to": { "event_id": command_id } },
        "org.rave.reply": reply,
    })
}

/// The content of a notice that answers nobody.
#[must_use]
pub fn notice(text: &str) -> Value {
    json!({ "msgtype": "m.notice", "body": text, "m.mentions": {} })
}

/// Text that another service wrote, fit to be shown: printable ASCII, and not much of it.
#[must_use]
pub fn tame(text: &str) -> String {
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { ' ' }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_notice_tied_to_its_command() {
        let answer = Answer { retry_after_ms: Some(1500), ..Answer::new(Code::RateLimited, "Slower.") };
        let expected = json!({
            "msgtype": "m.notice",
            "body": "Slower.",
            "m.mentions": {},
            "m.relates_to": { "m.in_reply_to": { "event_id": "$a" } },
            "org.rave.reply": { "schema": 1, "command_id": "$a", "verb": "status", "code": "rate_limited", "retry_after_ms": 1500, "links": [] },
        });
        assert_eq!(content("$a", "status", &answer), expected);
    }

    #[test]
    fn foreign_text_is_tamed() {
        assert_eq!(tame("a\u{202e}b\nc"), "a b c");
        assert_eq!(tame(&"x".repeat(999)).len(), 200);
    }
}
