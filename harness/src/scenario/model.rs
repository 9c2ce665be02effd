//! A scenario as meant: checked, with no question left that later code must ask about the file it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::Utf8PathBuf;
use regex::Regex;
use serde_json_path::JsonPath;

/// The parts of a run, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The scenario files, the tools and the settings.
    Config,
    /// The image file before it is booted.
    Image,
    /// How the machine came up.
    Boot,
    /// Every service answers.
    Health,
    /// Login through the OpenID provider.
    Oidc,
    /// `!rave` commands.
    AgentControl,
    /// Sandbox machines for merge requests.
    Sandbox,
    /// The whole hello-world project.
    E2e,
    /// Budgets of time and memory.
    Performance,
    /// What must not be possible is tried.
    Security,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 10] = [
        Self::Config,
        Self::Image,
        Self::Boot,
        Self::Health,
        Self::Oidc,
        Self::AgentControl,
        Self::Sandbox,
        Self::E2e,
        Self::Performance,
        Self::Security,
    ];

    /// The word used for the folder and in names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Image => "image",
            Self::Boot => "boot",
            Self::Health => "health",
            Self::Oidc => "oidc",
            Self::AgentControl => "agent_control",
            Self::Sandbox => "sandbox",
            Self::E2e => "e2e",
            Self::Performance => "performance",
            Self::Security => "security",
        }
    }

    /// The phase called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }
}

/// One trial in the test output: one file `scenarios/<phase>/<name>.toml`.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The phase, from the folder.
    pub phase: Phase,
    /// `phase::name`.
    pub name: String,
    /// The file, as given on the way in (relative paths stay relative).
    pub file: Utf8PathBuf,
    /// One sentence: what holds if it passes.
    pub summary: String,
    /// Capabilities the guest's profile must have, else the scenario is skipped.
    pub needs: Vec<String>,
    /// The longest the whole scenario may take on a machine with KVM, scaled under TCG: the file's `timeout` and, on top of
    /// it, every `within`, since waiting is not what a `timeout` is about.
    pub timeout: Duration,
    /// It changes the machine, so nothing else runs at the same time where the machine is shared.
    pub alone: bool,
    /// The machine it is asked on, if it needs one.
    pub machine: On,
    /// Names of secrets that the run makes; each is a variable, and masked wherever it appears.
    pub secrets: Vec<String>,
    /// The questions, in order; at least one.
    pub steps: Vec<Step>,
    /// What is broken to see whether the steps notice.
    pub sabotages: Vec<Sabotage>,
}

/// Something that is broken before a scenario is asked or on the way, on a machine or in a copy that nobody else uses.
#[derive(Debug, Clone)]
pub struct Sabotage {
    /// What is broken, in the author's words.
    pub name: String,
    /// The line of `[[sabotage]]` in the file, from 1.
    pub line: u64,
    /// Whether commands of `host` are run in a copy of the project's folder.
    pub tree: Tree,
    /// A command on the machine that runs the harness, first of all.
    pub host: Option<Template>,
    /// A command in the guest, as root, last of all.
    pub run: Option<Template>,
    /// The index of the step before which `run` is carried out.
    pub before: usize,
    /// Variables of the run that have another value.
    pub set: Vec<(String, Template)>,
    /// Variables of the environment of `host` commands.
    pub env: Vec<(String, Template)>,
    /// Steps that must then fail, or warn.
    pub fails: Vec<String>,
    /// Steps that then cannot be asked.
    pub errors: Vec<String>,
    /// How long steps that wait may wait then; `None`: somewhat longer than they needed when nothing was broken.
    pub within: Option<Duration>,
}

impl Sabotage {
    /// Whether it says that this step must notice.
    pub fn names(&self, step: &str) -> bool {
        self.fails.iter().chain(&self.errors).any(|named| named == step)
    }
}

/// The folder in which `host` commands are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// The project's.
    Project,
    /// A copy of what git knows of it.
    Copy,
}

/// The variable that names the folder a sabotage may write to; only known there.
pub const SCRATCH: &str = "scratch.dir";

/// The machine a scenario is asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// The one that was booted, before it is saved.
    Cold,
    /// A copy of it, for this scenario alone. Where there can be no copies, the one that was booted.
    Fork,
    /// A copy, or it is not asked: it is about copies.
    ForkOnly,
}

/// What has to be there before a scenario can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requires {
    /// Nothing but this checkout.
    Nothing,
    /// The image file.
    Image,
    /// A booted machine.
    Machine,
}

impl Scenario {
    /// What this scenario needs, over all its steps.
    pub fn requires(&self) -> Requires {
        if !self.needs.is_empty() {
            return Requires::Machine;
        }
        self.steps.iter().map(|step| step.requires).max().unwrap_or(Requires::Nothing)
    }
}

/// One question inside a scenario.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is asked, in the author's words.
    pub name: String,
    /// The line of `[[step]]` in the file, from 1.
    pub line: u64,
    /// Whether a wrong answer fails or warns.
    pub level: Level,
    /// Ask again until it holds, for this long at most (scaled under TCG); `None`: ask once.
    pub within: Option<Duration>,
    /// Taken out for now.
    pub skip: Option<Skip>,
    /// Why no sabotage can make it fail.
    pub unbreakable: Option<String>,
    /// The question.
    pub ask: Ask,
    /// What the answer must be.
    pub expectations: Vec<Expectation>,
    /// Lines of stdout that are known and removed before the expectations are looked at.
    pub allow: Vec<Allowed>,
    /// Values taken from the answer for later steps.
    pub captures: Vec<Capture>,
    /// The variables it uses: built-ins, secrets and values captured by earlier steps.
    pub uses: BTreeSet<String>,
    /// What has to be there, from the kind of question and the variables it uses.
    pub requires: Requires,
}

/// What a wrong answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The scenario fails.
    Fail,
    /// The scenario warns.
    Warn,
}

/// A step taken out, with the date on which it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Why.
    pub reason: String,
    /// From this day on (UTC) the step is asked again.
    pub until: jiff::civil::Date,
    /// Where it is being worked on; may be empty.
    pub tracker: String,
}

impl Skip {
    /// Whether the step is still taken out on this day (UTC).
    pub fn holds(&self, today: jiff::civil::Date) -> bool {
        today < self.until
    }
}

/// A known line of output.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Matches the whole or a part of the line.
    pub line: Regex,
    /// Why it may be there.
    pub reason: String,
    /// From this day on (UTC) it is no longer allowed.
    pub until: jiff::civil::Date,
    /// The line of this entry in the file, from 1.
    pub at: u64,
}

impl Allowed {
    /// Whether the line is still allowed on this day (UTC).
    pub fn holds(&self, today: jiff::civil::Date) -> bool {
        today < self.until
    }
}

/// A text with `{{name}}` in it. Every name is known to be a built-in, a secret or an earlier capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub String);

impl Template {
    /// The text with every `{{name}}` replaced. What is put in is not looked at again; a name without a value stays as it is.
    pub fn fill(&self, variables: &Variables) -> String {
        fill(&self.0, variables)
    }
}

/// The same for all texts inside a JSON value.
pub fn fill_json(value: &serde_json::Value, variables: &Variables) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(fill(text, variables)),
        Value::Array(items) => items.iter().map(|item| fill_json(item, variables)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), fill_json(value, variables))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// See [`Template::fill`].
pub(super) fn fill(text: &str, variables: &Variables) -> String {
    let value = |piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Name(name) => variables.get(name).cloned().unwrap_or_else(|| format!("{{{{{name}}}}}")),
    };
    pieces(text).into_iter().map(value).collect()
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stays as it is.
    Text(&'a str),
    /// What stands between `{{` and `}}`.
    Name(&'a str),
}

/// The parts of a template. A name has no brace inside, so that JSON and shell texts such as `{{a,b},c}` stay as they are.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut plain = 0; // where the text begins that is in no piece yet
    let mut from = 0; // where the search for the next name goes on
    while let Some(open) = text[from..].find("{{").map(|at| from + at) {
        let inside = open + 2;
        let end = text[inside..].find(['{', '}']).map_or(text.len(), |at| inside + at);
        if !text[end..].starts_with("}}") {
            from = open + 1;
            continue;
        }
        pieces.extend((plain < open).then(|| Piece::Text(&text[plain..open])));
        pieces.push(Piece::Name(&text[inside..end]));
        (plain, from) = (end + 2, end + 2);
    }
    pieces.extend((plain < text.len()).then(|| Piece::Text(&text[plain..])));
    pieces
}

/// The five kinds of question.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A command in the guest, over SSH.
    Run {
        /// Given to the user's login shell.
        command: Template,
        /// The account; root unless the file says otherwise.
        user: String,
        /// Sent to the command's standard input.
        stdin: Option<Template>,
    },
    /// A command on the machine that runs the harness (`/bin/sh -c`), in the project's folder.
    Host {
        /// The command.
        command: Template,
        /// Sent to its standard input.
        stdin: Option<Template>,
    },
    /// A request from outside the guest to its public address.
    Http(Box<Request>),
    /// A connection from outside to a guest port that is not forwarded otherwise: what answers there?
    Port {
        /// The TCP port in the guest.
        port: u16,
        /// Sent after connecting.
        send: Template,
    },
    /// A number or text that the run itself knows (see [`BUILT_INS`]).
    Measure {
        /// The built-in's name.
        fact: String,
    },
}

/// An HTTP request as the author wrote it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// A path below the guest's origin, or a whole URL.
    pub url: Template,
    /// Added to the URL's query.
    pub query: Vec<(String, Template)>,
    /// Sent as they are.
    pub headers: Vec<(String, Template)>,
    /// What is sent.
    pub body: Body,
    /// User and password for basic authentication.
    pub basic: Option<(Template, Template)>,
    /// Redirects followed at most; none unless the file says so.
    pub follow: u32,
}

/// What a request sends.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing.
    Empty,
    /// `application/x-www-form-urlencoded`.
    Form(Vec<(String, Template)>),
    /// `application/json`; templates inside strings are filled in.
    Json(serde_json::Value),
    /// Bytes as they are.
    Text(Template),
}

/// What one part of an answer must be.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The line in the file, from 1.
    pub line: u64,
    /// The part of the answer.
    pub subject: Subject,
    /// Which value inside that part.
    pub select: Select,
    /// What must hold of it.
    pub test: Test,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The exit status of a command.
    Exit,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The HTTP status.
    Status,
    /// An HTTP header (lower case); several of one name are joined by newlines.
    Header(String),
    /// The HTTP body, or what a port answered.
    Body,
    /// Whether anything answered on a port.
    Answers,
    /// A measured value.
    Value,
}

/// A value inside a text.
#[derive(Debug, Clone)]
pub enum Select {
    /// The text itself; one final newline is not part of it.
    Whole,
    /// The values an RFC 9535 path selects in a JSON text.
    Json(JsonPath),
    /// The elements a CSS selector selects in an HTML text: an attribute, or else their text.
    Html {
        /// The selector, known to parse.
        selector: String,
        /// The attribute whose value is taken.
        attribute: Option<String>,
    },
}

/// What must hold of a value. Strings may contain `{{name}}`.
#[derive(Debug, Clone)]
pub enum Test {
    /// Is exactly this.
    Equals(serde_json::Value),
    /// Is not this.
    NotEquals(serde_json::Value),
    /// Has this inside: a text in a text, an element in a list of selected values.
    Contains(serde_json::Value),
    /// Has this nowhere inside.
    NotContains(serde_json::Value),
    /// A regular expression finds a match.
    Matches(Regex),
    /// A regular expression finds no match.
    NotMatches(Regex),
    /// Is a number, not above this. Integers only.
    AtMost(i64),
    /// Is a number, not below this.
    AtLeast(i64),
    /// Its lines are exactly these, in this order.
    Lines(Vec<String>),
    /// Has this many lines (of a text) or selected values (of JSON or HTML).
    Count(u64),
    /// Every line matches.
    EveryLine(Regex),
    /// Is empty (true), or is not (false).
    Empty(bool),
}

/// A value taken from an answer.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The variable's name.
    pub name: String,
    /// The line in the file, from 1.
    pub line: u64,
    /// The part of the answer.
    pub subject: Subject,
    /// Which value inside it.
    pub select: Select,
    /// If given, the first group (or the whole match) of it.
    pub matches: Option<Regex>,
    /// Masked from now on wherever it is written.
    pub secret: bool,
}

/// Words a profile may have, and a scenario may need.
pub const CAPABILITIES: &[&str] = &[
    "postgresql",
    "matrix",
    "nginx",
    "prometheus",
    "node_exporter",
    "nftables",
    "ssh",
    "gitlab",
    "gitlab_faults",
    "glab",
    "grafana",
    "bridge",
    "sandbox",
    "element",
    "libvirt",
    "https",
    "busybox",
];

/// Variables the run itself provides: name, what it needs, meaning and unit.
pub const BUILT_INS: &[(&str, Requires, &str)] = &[
    ("session.id", Requires::Nothing, "the session's id"),
    ("session.dir", Requires::Nothing, "the session's folder under the artifacts"),
    ("harness.scenarios", Requires::Nothing, "the folder of the scenario files"),
    ("harness.rss_mib", Requires::Nothing, "resident memory of the harness, its peak, MiB"),
    ("settings.safe_mode", Requires::Nothing, "1 or 0"),
    (
        "baseline.above",
        Requires::Nothing,
        "values of this run so far that are above the band of the transcripts in RAVE_BASELINE, a line each, the worst first; not known without such",
    ),
    ("image.provider", Requires::Image, "nix, reference or path"),
    ("image.disk", Requires::Image, "path of the disk file"),
    ("image.format", Requires::Image, "qcow2 or raw"),
    ("image.digest", Requires::Image, "sha256:… of the disk file, taken before anything was booted"),
    ("image.dir", Requires::Image, "folder of the image's files"),
    ("image.bytes", Requires::Image, "bytes of all files of the image on the host's disk"),
    ("image.built_seconds", Requires::Image, "seconds its build took; of a cached image, when it was built"),
    ("image.packages", Requires::Image, "path of the package list; not known where there is none"),
    ("machine.address", Requires::Machine, "loopback address of the machine's own"),
    ("machine.ssh_port", Requires::Machine, "port of the guest's SSH server at that address"),
    ("machine.console", Requires::Machine, "path of the serial console's log"),
    ("machine.journal", Requires::Machine, "path of the journal, one JSON object a line"),
    ("machine.accelerator", Requires::Machine, "kvm or tcg"),
    ("machine.memory_mib", Requires::Machine, "memory given to the guest, MiB"),
    ("machine.ready_seconds", Requires::Machine, "seconds from the start of QEMU to the guest's readiness event"),
    ("machine.state", Requires::Machine, "what the guest's service manager said when it was ready: running, degraded"),
    (
        "machine.health_seconds",
        Requires::Machine,
        "how long the guest had been ready, in its own seconds, when the last health scenario held; not known before one did",
    ),
    (
        "machine.rss_mib",
        Requires::Machine,
        "resident memory of QEMU now, MiB; on a fork, not less than that of the booted machine when it was saved",
    ),
    ("machine.random", Requires::Machine, "random bytes that this fork gave first, hexadecimal"),
    ("machine.twin_random", Requires::Machine, "those of one more fork, made for the comparison"),
    ("guest.ca", Requires::Machine, "path of the guest's CA certificate, fetched over SSH"),
];

/// Values of variables by name.
pub type Variables = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let variables: Variables = [("user", "anna"), ("session.id", "{{user}}")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(Template(text.to_owned()).fill(&variables), expected);
    }

    #[test]
    fn templates_are_filled_once() {
        check("", "");
        check("a {{user}}{{user}} b", "a annaanna b");
        check("{{session.id}}", "{{user}}");
        check("{{unknown}} {{ user }}", "{{unknown}} {{ user }}");
        check("{{{user}}}", "{anna}");
        check("{{a,b},{c}} {{user}} {{user} {{", "{{a,b},{c}} anna {{user} {{");
        check("{\"a\": {\"b\": \"{{user}}\"}}", "{\"a\": {\"b\": \"anna\"}}");
        check("é{{user}}é", "éannaé");
    }

    #[test]
    fn texts_in_json_are_filled() {
        let variables: Variables = [("user".to_owned(), "anna".to_owned())].into();
        let filled = fill_json(&serde_json::json!({"{{user}}": ["{{user}}", 1, null, true]}), &variables);
        assert_eq!(filled, serde_json::json!({"{{user}}": ["anna", 1, null, true]}));
    }

    #[test]
    fn a_skip_ends_on_its_day() {
        let skip = Skip { reason: String::new(), until: "2027-01-31".parse().unwrap(), tracker: String::new() };
        assert!(skip.holds("2027-01-30".parse().unwrap()));
        assert!(!skip.holds("2027-01-31".parse().unwrap()));
    }

    #[test]
    fn phases_have_one_word_each() {
        assert!(Phase::ALL.into_iter().all(|phase| Phase::from_word(phase.word()) == Some(phase)));
        assert_eq!(Phase::from_word("Boot"), None);
    }
}
