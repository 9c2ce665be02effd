//! The grammar of `!rave`: from the text of a message to a command, or to why it is none. Pure, and total: any text has an answer.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

use crate::agent::AgentType;
use crate::reply::Code;

/// The longest message that is looked at, in bytes.
pub const LONGEST: usize = 1000;
/// What every command begins with.
const PREFIX: &str = "!rave";
/// The longest word.
const LONGEST_WORD: usize = 50;

/// What a sender asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What can be asked, or how one verb is used.
    Help(Option<String>),
    /// Who the sender is to the forge.
    Whoami,
    /// How the services are.
    Status,
    /// Make a project from the template.
    ProjectCreate(String),
    /// How a project is.
    ProjectStatus(String),
    /// What sandboxes there are.
    SandboxList,
    /// Start a sandbox for a merge request of a project.
    SandboxStart(String, u64),
    /// Stop a sandbox.
    SandboxStop(String),
    /// How all agents are.
    AgentList,
    /// How an agent is.
    AgentStatus(AgentType),
    /// Start an agent.
    AgentStart(AgentType),
    /// Stop an agent.
    AgentStop(AgentType),
    /// Ask to deploy a project.
    Deploy(String),
    /// Do what was asked for, by its nonce.
    Confirm(String),
}

/// What a message is to the bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not addressed to the bridge.
    NotForUs,
    /// Addressed to the bridge, and wrong.
    Refused {
        /// How.
        code: Code,
        /// What would be right.
        text: String,
    },
    /// A command.
    Command(Command),
}

/// Every verb, how it is used, and what it does.
pub const USAGE: [(&str, &str, &str); 14] = [
    ("help", "help [verb]", "this list"),
    ("whoami", "whoami", "your account and role"),
    ("status", "status", "how the services are"),
    ("project create", "project create <name>", "a new project from the template, with a merge request"),
    ("project status", "project status <name>", "a project, its merge requests and its last pipeline"),
    ("sandbox list", "sandbox list", "running sandboxes"),
    ("sandbox start", "sandbox start <project> <merge request>", "a machine with the merge request's code in it"),
    ("sandbox stop", "sandbox stop <id>", "end a sandbox: its owner, or a maintainer"),
    ("agent list", "agent list", "all agents"),
    ("agent status", "agent status <type>", "one agent"),
    ("agent start", "agent start <type>", "start an agent"),
    ("agent stop", "agent stop <type>", "stop an agent"),
    ("deploy", "deploy <project>", "run the default branch's pipeline; to be confirmed"),
    ("confirm", "confirm <nonce>", "confirm within a minute what was asked for"),
];

/// Whether the text is addressed to the bridge at all.
#[must_use]
pub fn is_addressed(body: &str) -> bool {
    body.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Reads the text of a message.
#[must_use]
pub fn parse(body: &str) -> Parsed {
    if !is_addressed(body) {
        return Parsed::NotForUs;
    }
    let refused = |code, text: &str| Parsed::Refused { code, text: text.to_owned() };
    if body.len() > LONGEST {
        return refused(Code::TooLong, "A command has at most 1000 bytes.");
    }
    let Some(words) = words(body) else {
        return refused(
            Code::BadArguments,
            "A command is one line of words of a-z, 0-9 and `-`, with spaces between them. `!rave help` lists them.",
        );
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = match words.as_slice() {
        ["help"] => Command::Help(None),
        ["help", about @ ..] if about.len() <= 2 => Command::Help(Some(about.join(" "))),
        ["whoami"] => Command::Whoami,
        ["status"] => Command::Status,
        ["project", "create", name] | ["create", "project", name] => Command::ProjectCreate((*name).to_owned()),
        ["project", "status", name] => Command::ProjectStatus((*name).to_owned()),
        ["sandbox", "list"] => Command::SandboxList,
        ["sandbox", "start", project, number] => match merge_request(number) {
            Some(number) => Command::SandboxStart((*project).to_owned(), number),
            None => return refused(Code::BadArguments, "A merge request is named by its number."),
        },
        ["sandbox", "stop", id] => Command::SandboxStop((*id).to_owned()),
        ["agent", "list"] => Command::AgentList,
        ["agent", verb @ ("status" | "start" | "stop"), name] => match (AgentType::parse(name), *verb) {
            (None, _) => {
                return refused(
                    Code::BadArguments,
                    &format!("Agents are: {}.", AgentType::ALL.map(AgentType::name).join(", ")),
                );
            }
            (Some(agent), "status") => Command::AgentStatus(agent),
            (Some(agent), "start") => Command::AgentStart(agent),
            (Some(agent), _) => Command::AgentStop(agent),
        },
        ["deploy", project] => Command::Deploy((*project).to_owned()),
        ["confirm", nonce] => Command::Confirm((*nonce).to_owned()),
        words => return misused(words),
    };
    Parsed::Command(command)
}

/// What to say to words that are no command: how a known verb is used, or that there is no such verb.
fn misused(words: &[&str]) -> Parsed {
    let same = |verb: &str| {
        verb.split(' ').zip(words).all(|(wanted, word)| wanted == *word) && verb.split(' ').count() <= words.len()
    };
    if let Some((_, usage, _)) = USAGE.iter().find(|(verb, ..)| same(verb)) {
        return Parsed::Refused { code: Code::BadArguments, text: format!("Usage: !rave {usage}") };
    }
    if words.starts_with(&["create", "project"]) {
        return Parsed::Refused { code: Code::BadArguments, text: "Usage: !rave project create <name>".to_owned() };
    }
    let text = "There is no such command. `!rave help` lists those there are.".to_owned();
    Parsed::Refused { code: Code::UnknownCommand, text }
}

/// The words after the prefix: at least one, each in the alphabet of words, nothing but spaces between and nothing after them.
fn words(body: &str) -> Option<Vec<String>> {
    let normal: String = body.nfc().collect();
    if !normal.chars().all(|character| (' '..='~').contains(&character)) || normal.ends_with(' ') {
        return None;
    }
    let words: Vec<String> =
        normal.strip_prefix(PREFIX)?.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    (!words.is_empty() && words.iter().all(|word| is_word(word))).then_some(words)
}

/// `[a-z0-9][a-z0-9-]{0,49}`
fn is_word(word: &str) -> bool {
    let simple = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    word.len() <= LONGEST_WORD
        && word.as_bytes().first().is_some_and(simple)
        && word.as_bytes().iter().all(|byte| simple(byte) || *byte == b'-')
}

fn merge_request(word: &str) -> Option<u64> {
    (word.len() <= 9 && !word.starts_with('0')).then(|| word.parse().ok()).flatten()
}

impl Command {
    /// The verb, as in [`USAGE`].
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Help(_) => "help",
            Self::Whoami => "whoami",
            Self::Status => "status",
            Self::ProjectCreate(_) => "project create",
            Self::ProjectStatus(_) => "project status",
            Self::SandboxList => "sandbox list",
            Self::SandboxStart(..) => "sandbox start",
            Self::SandboxStop(_) => "sandbox stop",
            Self::AgentList => "agent list",
            Self::AgentStatus(_) => "agent status",
            Self::AgentStart(_) => "agent start",
            Self::AgentStop(_) => "agent stop",
            Self::Deploy(_) => "deploy",
            Self::Confirm(_) => "confirm",
        }
    }

    /// The words after the verb.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Help(None) | Self::Whoami | Self::Status | Self::SandboxList | Self::AgentList => vec![],
            Self::Help(Some(about)) => about.split(' ').map(str::to_owned).collect(),
            Self::SandboxStart(project, number) => vec![project.clone(), number.to_string()],
            Self::AgentStatus(agent) | Self::AgentStart(agent) | Self::AgentStop(agent) => {
                vec![agent.name().to_owned()]
            }
            Self::ProjectCreate(word)
            | Self::ProjectStatus(word)
            | Self::SandboxStop(word)
            | Self::Deploy(word)
            | Self::Confirm(word) => vec![word.clone()],
        }
    }
}

/// The command as it is written in a message.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX} {}", self.verb())?;
        self.arguments().iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &Command) {
        assert_eq!(parse(body), Parsed::Command(expected.clone()), "{body:?}");
        assert_eq!(parse(&expected.to_string()), Parsed::Command(expected.clone()), "written again");
    }

    fn refused(body: &str, expected: Code) {
        let Parsed::Refused { code, text } = parse(body) else { panic!("{body:?} was taken") };
        assert_eq!(code, expected, "{body:?}: {text}");
    }

    #[test]
    fn commands() {
        let word = str::to_owned;
        check("!rave help", &Command::Help(None));
        check("!rave help project create", &Command::Help(Some(word("project create"))));
        check("!rave   whoami", &Command::Whoami);
        check("!rave status", &Command::Status);
        check("!rave project create hello-1", &Command::ProjectCreate(word("hello-1")));
        check("!rave create project hello", &Command::ProjectCreate(word("hello")));
        check("!rave project status hello", &Command::ProjectStatus(word("hello")));
        check("!rave sandbox list", &Command::SandboxList);
        check("!rave sandbox start hello 12", &Command::SandboxStart(word("hello"), 12));
        check("!rave sandbox stop sb-1a2b", &Command::SandboxStop(word("sb-1a2b")));
        check("!rave agent list", &Command::AgentList);
        check("!rave agent status coder", &Command::AgentStatus(AgentType::Coder));
        check("!rave agent start monitor", &Command::AgentStart(AgentType::Monitor));
        check("!rave agent  stop  monitor", &Command::AgentStop(AgentType::Monitor));
        check("!rave deploy hello", &Command::Deploy(word("hello")));
        check("!rave confirm a1b2c3d4e5", &Command::Confirm(word("a1b2c3d4e5")));
        check(&format!("!rave deploy {}", "a".repeat(50)), &Command::Deploy("a".repeat(50)));
    }

    #[test]
    fn not_addressed() {
        for body in [
            "",
            "hello",
            "!raven help",
            " !rave help",
            "!RAVE help",
            "!rave\thelp",
            "!rave\nhelp",
            "> !rave help",
            "\u{200f}!rave help",
            "!\u{200b}rave help",
        ] {
            assert_eq!(parse(body), Parsed::NotForUs, "{body:?}");
        }
    }

    #[test]
    fn misuse() {
        refused("!rave", Code::BadArguments);
        refused("!rave ", Code::BadArguments);
        refused("!rave help ", Code::BadArguments);
        refused("!rave project create", Code::BadArguments);
        refused("!rave project create a b", Code::BadArguments);
        refused("!rave create project", Code::BadArguments);
        refused("!rave sandbox start hello", Code::BadArguments);
        for number in ["0", "01", "x1", "1234567890"] {
            refused(&format!("!rave sandbox start hello {number}"), Code::BadArguments);
        }
        refused("!rave agent start boss", Code::BadArguments);
        refused("!rave pm plan", Code::UnknownCommand);
        refused("!rave reboot", Code::UnknownCommand);
        refused("!rave project", Code::UnknownCommand);
        refused("!rave project delete hello", Code::UnknownCommand);
        refused("!rave status now", Code::BadArguments);
        refused("!rave help a b c", Code::BadArguments);
        refused(&format!("!rave deploy {}", "a".repeat(51)), Code::BadArguments);
        refused(&format!("!rave {}", "a ".repeat(600)), Code::TooLong);
        refused(&format!("!rave deploy {}", "a".repeat(LONGEST - 12)), Code::TooLong);
    }

    /// What is pasted by whoever hopes for a shell, a path, an option or a careless reader.
    pub const INJECTIONS: [&str; 30] = [
        "a;reboot",
        "a; reboot",
        "$(reboot)",
        "`reboot`",
        "a|reboot",
        "a&&reboot",
        "a>/tmp/canary",
        "../a",
        "%2e%2e",
        "a\rb",
        "a\nb",
        "a\0b",
        "--force",
        "-a",
        "-",
        "a=b",
        "a/b",
        "a\\b",
        "'a'",
        "\"a\"",
        "~root",
        "*",
        "{a,b}",
        "аgent",
        "a\u{202e}b",
        "a\u{200b}b",
        "<b>a</b>",
        "A",
        "a\tb",
        "ａ",
    ];

    #[test]
    fn nothing_slips_through_the_alphabet() {
        for word in INJECTIONS {
            refused(&format!("!rave project create {word}"), Code::BadArguments);
            refused(&format!("!rave agent start {word}"), Code::BadArguments);
            refused(&format!("!rave {word}"), Code::BadArguments);
        }
    }

    #[test]
    fn every_verb_has_its_usage() {
        for (verb, usage, _) in USAGE {
            assert!(usage.starts_with(verb));
            assert!(
                !matches!(
                    misused(&verb.split(' ').collect::<Vec<_>>()),
                    Parsed::Refused { code: Code::UnknownCommand, .. }
                ),
                "{verb}"
            );
        }
    }
}
