//! Checks what a scenario file says and makes a [`Scenario`] of it: from as written to as meant.
//!
//! The walk goes on after a mistake, so that one reading reports all of them. What it makes of a file with mistakes is
//! thrown away by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::de::DeTable;

use self::captures::captures;
use self::expectations::expectations;
use self::names::Names;
use self::sabotage::sabotages;
use self::values::{date, duration, header_name, json_value, regex};
use super::accounts::is_of_account;
use super::document::{Document, Item, Table, nearest, unknown_key};
use super::file::Surroundings;
use super::guests::is_of_guest;
use super::model::{
    Allowed, Ask, BUILT_INS, Body, CAPABILITIES, Expectation, Level, On, Phase, Request, Requires, Scenario, Select,
    Skip, Step, Subject, Template, Test,
};

mod captures;
mod expectations;
mod names;
mod sabotage;
mod values;

/// Checks a whole file. `None` or a mistake in the document: there is no such scenario.
pub(super) fn scenario<'a>(
    document: &'a Document,
    root: &'a DeTable<'a>,
    phase: Phase,
    surroundings: &'a Surroundings<'a>,
) -> Option<Scenario> {
    let root = Table::new(document, 1, root);
    root.only(&["summary", "needs", "timeout", "alone", "machine", "secrets", "step", "sabotage"]);
    let timeout = match root.get("timeout") {
        Some(item) => duration(&item),
        None => Some(Duration::from_secs(60)),
    };
    let summary = root.require("summary", "the scenario").and_then(|item| item.one_line());
    let needs = root.get("needs").map(|item| needs(&item)).unwrap_or_default();
    let alone = root.get("alone").map_or(Some(false), |item| item.boolean());
    let machine = root.get("machine").map_or(Some(usual_machine(phase)), |item| machine(&item, phase));
    let tables = step_tables(&root);
    let mut names = Names::new(document, &tables, surroundings);
    let secrets = root.get("secrets").map(|item| names.secrets(&item)).unwrap_or_default();
    let steps: Vec<_> = tables.iter().map(|table| step(table, &mut names)).collect();
    names.report_unused_secrets();
    let sabotages = sabotages(&root, &tables, &names, document);
    let steps = steps.into_iter().collect::<Option<Vec<_>>>()?;
    let waits = steps.iter().filter_map(|step| step.within).fold(Duration::ZERO, Duration::saturating_add);
    Some(Scenario {
        phase,
        name: format!("{}::{}", phase.word(), document.file.file_stem().unwrap_or_default()),
        file: document.file.clone(),
        summary: summary?.to_owned(),
        needs,
        timeout: timeout?.saturating_add(waits),
        alone: alone?,
        machine: machine?,
        secrets,
        steps,
        sabotages,
    })
}

/// How the machine came up is asked of the machine that came up; it is saved for copies when all of that has been asked.
fn usual_machine(phase: Phase) -> On {
    if phase <= Phase::Boot { On::Cold } else { On::Fork }
}

fn machine(item: &Item<'_>, phase: Phase) -> Option<On> {
    match (item.text()?, phase) {
        ("fork", phase) if phase >= Phase::Boot => Some(On::ForkOnly),
        ("fork", _) => {
            item.mistake("there are no forks before the phase `boot`");
            None
        }
        ("cold", phase) if phase <= Phase::Boot => Some(On::Cold),
        ("cold", _) => {
            item.mistake("after the phase `boot` there is no cold machine");
            None
        }
        (word, _) => {
            item.mistake(format!("`machine` must be \"cold\" or \"fork\", not \"{word}\""));
            None
        }
    }
}

fn needs(item: &Item<'_>) -> Vec<String> {
    let mut needs = Vec::new();
    for item in item.list("a list of capabilities").unwrap_or_default() {
        let Some(word) = item.text() else { continue };
        if !CAPABILITIES.contains(&word) {
            item.mistake(format!("unknown capability `{word}`{}", nearest(word, CAPABILITIES.iter().copied())));
        }
        if needs.iter().any(|known| known == word) {
            item.mistake(format!("`{word}` is needed twice"));
        }
        needs.push(word.to_owned());
    }
    needs
}

fn step_tables<'a>(root: &Table<'a>) -> Vec<Table<'a>> {
    const WANTED: &str = "a list of tables, each below `[[step]]`";
    let Some(item) = root.require("step", "the scenario") else { return Vec::new() };
    let items = item.list(WANTED).unwrap_or_default();
    if items.is_empty() && item.elements().is_some() {
        item.mistake("the scenario has no step");
    }
    let tables: Vec<_> = items.iter().filter_map(|item| item.table(WANTED)).collect();
    let mut lines = BTreeMap::new();
    for name in tables.iter().filter_map(|table| table.get("name")) {
        let Some(text) = name.value.as_str() else { continue };
        if let Some(first) = lines.insert(text, name.line) {
            name.mistake(format!("the step in line {first} is called `{text}` as well"));
        }
    }
    tables
}

// Steps.

/// The kinds of question, by the key that asks them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run,
    Host,
    Http,
    Port,
    Measure,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Run, Self::Host, Self::Http, Self::Port, Self::Measure];

    fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Host => "host",
            Self::Http => "http",
            Self::Port => "port",
            Self::Measure => "measure",
        }
    }

    /// The keys that only some kinds of step know, and this one does.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["user", "stdin", "exit", "stdout", "stderr", "allow", "capture"],
            Self::Host => &["stdin", "exit", "stdout", "stderr", "allow", "capture"],
            Self::Http => &[],
            Self::Port => &["send", "answers", "body", "capture"],
            Self::Measure => &["value"],
        }
    }
}

const STEP_KEYS: &[&str] = &["name", "level", "within", "skip", "unbreakable"];
const METHODS: &[&str] = &["get", "post", "put", "patch", "delete", "head", "options"];
const HTTP_KEYS: &[&str] =
    &["query", "headers", "form", "basic", "json", "text", "follow", "status", "header", "body", "capture"];

fn step(table: &Table<'_>, names: &mut Names<'_>) -> Option<Step> {
    names.uses.clear();
    let name = table.require("name", "the step").and_then(|item| item.one_line());
    let level = match table.get("level").map(|item| (item, item.text())) {
        None | Some((_, Some("fail"))) => Level::Fail,
        Some((_, Some("warn"))) => Level::Warn,
        Some((item, other)) => {
            if let Some(word) = other {
                item.mistake(format!("`level` must be \"fail\" or \"warn\", not \"{word}\""));
            }
            Level::Fail
        }
    };
    let within = table.get("within").and_then(|item| duration(&item));
    let skip = table.get("skip").and_then(|item| skip(&item));
    let unbreakable = table.get("unbreakable").and_then(|item| item.one_line()).map(str::to_owned);
    let asked: Vec<_> = Kind::ALL.into_iter().filter(|kind| table.get(kind.word()).is_some()).collect();
    let kind = question(table, &asked);
    step_keys(table, kind);
    let asks: Vec<_> = asked.iter().map(|kind| ask(*kind, table, names)).collect();

    let http = table.get("http").and_then(|item| item.entries());
    let answer = http.as_ref().unwrap_or(table); // where expectations and captures stand
    let mut expectations = expectations(answer, kind, names);
    if matches!(kind, Some(Kind::Run | Kind::Host)) && table.get("exit").is_none() {
        let test = Test::Equals(0.into());
        let line = table.get("run").or(table.get("host")).map_or(table.line, |item| item.line);
        expectations.insert(0, Expectation { line, subject: Subject::Exit, select: Select::Whole, test });
    }
    let allow = table.get("allow").map(|item| allow(&item)).unwrap_or_default();
    if !allow.is_empty() && table.get("stdout").is_none() {
        table.mistake("the step allows lines of stdout, but expects nothing of stdout");
    }
    let captures = answer.get("capture").map(|item| captures(&item, kind, names)).unwrap_or_default();
    let ask = asks.into_iter().next()??;
    Some(Step {
        name: name?.to_owned(),
        line: table.line,
        level,
        within,
        skip,
        unbreakable,
        requires: requires(&ask, &names.uses),
        ask,
        expectations,
        allow,
        captures,
        uses: names.uses.clone(),
    })
}

/// Which kind of question a step asks, if it is one.
fn question(table: &Table<'_>, asked: &[Kind]) -> Option<Kind> {
    match asked {
        [kind] => Some(*kind),
        [] => {
            table.mistake("the step asks nothing: it needs one of `run`, `host`, `http`, `port`, `measure`");
            None
        }
        [first, second, ..] => {
            let second = table.get(second.word())?;
            second.mistake(format!("the step asks by `{}` already; a step asks one question", first.word()));
            None
        }
    }
}

fn step_keys(table: &Table<'_>, kind: Option<Kind>) {
    let questions = Kind::ALL.map(Kind::word);
    let everywhere = || STEP_KEYS.iter().chain(&questions).copied();
    for item in &table.items {
        if everywhere().any(|key| key == item.key) {
            continue;
        }
        let below_http = HTTP_KEYS.contains(&item.key) || METHODS.contains(&item.key);
        match kind {
            Some(kind) if kind.keys().contains(&item.key) => {}
            None if below_http || Kind::ALL.iter().any(|kind| kind.keys().contains(&item.key)) => {}
            Some(Kind::Http) if below_http => item.mistake(format!("`{}` belongs below `[step.http]`", item.key)),
            Some(kind) if below_http || Kind::ALL.iter().any(|kind| kind.keys().contains(&item.key)) => {
                item.mistake(format!("`{}` does not fit a step that asks by `{}`", item.key, kind.word()));
            }
            _ => {
                let own = kind.map(Kind::keys).unwrap_or_default();
                unknown_key(item, &everywhere().chain(own.iter().copied()).collect::<Vec<_>>());
            }
        }
    }
}

fn skip(item: &Item<'_>) -> Option<Skip> {
    let table = item.table("a table with `reason` and `until`")?;
    table.only(&["reason", "until", "tracker"]);
    let reason = table.require("reason", "the skip").and_then(|item| item.some_text());
    let until = table.require("until", "the skip").and_then(|item| date(&item));
    let tracker = table.get("tracker").map_or(Some(""), |item| item.some_text());
    Some(Skip { reason: reason?.to_owned(), until: until?, tracker: tracker?.to_owned() })
}

fn allow(item: &Item<'_>) -> Vec<Allowed> {
    const WANTED: &str = "a list of tables, each below `[[step.allow]]`";
    let entry = |item: Item<'_>| {
        let table = item.table(WANTED)?;
        table.only(&["line", "reason", "until"]);
        let line = table.require("line", "the allowed line").and_then(|item| regex(&item));
        let reason = table.require("reason", "the allowed line").and_then(|item| item.some_text());
        let until = table.require("until", "the allowed line").and_then(|item| date(&item));
        Some(Allowed { line: line?, reason: reason?.to_owned(), until: until?, at: table.line })
    };
    item.list(WANTED).unwrap_or_default().into_iter().filter_map(entry).collect()
}

fn requires(ask: &Ask, uses: &BTreeSet<String>) -> Requires {
    let fact = match ask {
        Ask::Run { .. } | Ask::Http(_) | Ask::Port { .. } => return Requires::Machine,
        Ask::Measure { fact } => Some(fact),
        Ask::Host { .. } => None,
    };
    let built_in = |name: &String| BUILT_INS.iter().find(|(known, ..)| known == name).map(|(_, requires, _)| *requires);
    let needed =
        |name: &String| if is_of_account(name) || is_of_guest(name) { Some(Requires::Machine) } else { built_in(name) };
    uses.iter().chain(fact).filter_map(needed).max().unwrap_or(Requires::Nothing)
}

// Questions.

fn ask(kind: Kind, table: &Table<'_>, names: &mut Names<'_>) -> Option<Ask> {
    let item = table.get(kind.word())?;
    let stdin = table.get("stdin").and_then(|item| stdin(&item, names));
    match kind {
        Kind::Run => {
            let command = names.some_template(&item);
            let user = table.get("user").map_or(Some("root"), |item| user(&item));
            Some(Ask::Run { command: command?, user: user?.to_owned(), stdin })
        }
        Kind::Host => Some(Ask::Host { command: names.some_template(&item)?, stdin }),
        Kind::Http => {
            request(&item.table("a table, below `[step.http]`")?, names).map(|request| Ask::Http(Box::new(request)))
        }
        Kind::Port => {
            let send = table.get("send").map_or(Some(Template(String::new())), |item| names.template(&item));
            let port = item.integer_within(1, i64::from(u16::MAX))?;
            Some(Ask::Port { port: u16::try_from(port).ok()?, send: send? })
        }
        Kind::Measure => {
            let fact = item.text()?;
            if !BUILT_INS.iter().any(|(name, ..)| *name == fact) {
                item.mistake(format!(
                    "the run knows no `{fact}`{}",
                    nearest(fact, BUILT_INS.iter().map(|(name, ..)| *name))
                ));
            }
            Some(Ask::Measure { fact: fact.to_owned() })
        }
    }
}

/// A text, or the text of a file in the folder of the scenarios.
fn stdin(item: &Item<'_>, names: &mut Names<'_>) -> Option<Template> {
    let Some(table) = item.entries() else { return names.template(item) };
    table.only(&["file"]);
    let file = table.require("file", "`stdin`")?;
    let path = names.surroundings.folder.join(file.some_text()?);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(names.template_of(&text, &file)),
        Err(error) => {
            file.mistake(format!("`{path}` cannot be read: {error}"));
            None
        }
    }
}

fn user<'a>(item: &Item<'a>) -> Option<&'a str> {
    let user = item.text()?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if user.is_empty() || user.starts_with('-') || !user.bytes().all(fits) {
        item.mistake(format!("`{user}` cannot be the name of an account"));
    }
    Some(user)
}

fn request(table: &Table<'_>, names: &mut Names<'_>) -> Option<Request> {
    for item in &table.items {
        match item.key {
            key if METHODS.contains(&key) || HTTP_KEYS.contains(&key) => {}
            key if STEP_KEYS.contains(&key) => {
                item.mistake(format!("`{key}` belongs to the step, above `[step.http]`"))
            }
            key if Kind::ALL.iter().any(|kind| kind.keys().contains(&key)) => {
                item.mistake(format!("`{key}` does not fit a step that asks by `http`"));
            }
            _ => unknown_key(item, &[METHODS, HTTP_KEYS].concat()),
        }
    }
    if table.get("status").is_none() {
        table.mistake("the step does not say which `status` it expects");
    }
    let methods: Vec<_> = table.items.iter().filter(|item| METHODS.contains(&item.key)).collect();
    match methods[..] {
        [] => table.mistake(format!("the request has no method: it needs one of `{}`", METHODS.join("`, `"))),
        [first, second, ..] => second.mistake(format!("the request has a method already, `{}`", first.key)),
        [_] => {}
    }
    let urls: Vec<_> = methods.iter().map(|item| url(item, names)).collect();
    let list = |key: &str, names: &mut Names<'_>| table.get(key).map_or_else(Vec::new, |item| pairs(&item, names));
    let query = list("query", names);
    let headers = list("headers", names);
    for item in table.get("headers").and_then(|item| item.entries()).iter().flat_map(|table| &table.items) {
        header_name(item);
    }
    let body = body(table, names);
    let basic = table.get("basic").and_then(|item| basic(&item, names));
    let follow = table.get("follow").map_or(Some(0), |item| item.integer_within(0, 20));
    Some(Request {
        method: methods.first()?.key.to_uppercase(),
        url: urls.into_iter().next()??,
        query,
        headers,
        body: body?,
        basic,
        follow: u32::try_from(follow?).ok()?,
    })
}

fn url(item: &Item<'_>, names: &mut Names<'_>) -> Option<Template> {
    let url = names.some_template(item)?;
    if !["/", "https://", "{{"].iter().any(|start| url.0.starts_with(start)) {
        item.mistake(format!("`{}` must be a path that starts with `/`, or a whole `https://` address", item.key));
    }
    Some(url)
}

/// A table of texts; a list gives one name several times.
fn pairs(item: &Item<'_>, names: &mut Names<'_>) -> Vec<(String, Template)> {
    let mut pairs = Vec::new();
    for entry in item.table("a table of texts").iter().flat_map(|table| &table.items) {
        for value in entry.elements().unwrap_or_else(|| vec![*entry]) {
            pairs.extend(names.template(&value).map(|template| (entry.key.to_owned(), template)));
        }
    }
    pairs
}

fn body(table: &Table<'_>, names: &mut Names<'_>) -> Option<Body> {
    let mut bodies = Vec::new();
    for item in table.items.iter().filter(|item| ["form", "json", "text"].contains(&item.key)) {
        bodies.push((
            item,
            match item.key {
                "form" => Some(Body::Form(pairs(item, names))),
                "json" => json_value(item, names).map(Body::Json),
                _ => names.template(item).map(Body::Text),
            },
        ));
    }
    if let [(first, _), (second, _), ..] = &bodies[..] {
        second.mistake(format!("the request sends `{}` already", first.key));
    }
    bodies.into_iter().next().map_or(Some(Body::Empty), |(_, body)| body)
}

fn basic(item: &Item<'_>, names: &mut Names<'_>) -> Option<(Template, Template)> {
    let table = item.table("a table with `user` and `password`")?;
    table.only(&["user", "password"]);
    let user = table.require("user", "`basic`").and_then(|item| names.template(&item));
    let password = table.require("password", "`basic`").and_then(|item| names.template(&item));
    Some((user?, password?))
}

#[cfg(test)]
mod tests;
