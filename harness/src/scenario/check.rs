//! Checks what a scenario file says and makes a [`Scenario`] of it: from as written to as meant.
//!
//! The walk goes on after a mistake, so that one reading reports all of them. What it makes of a file with mistakes is
//! thrown away by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Item, Table, nearest, unknown_key};
use super::model::{
    Allowed, Ask, BUILT_INS, Body, CAPABILITIES, Capture, Expectation, Level, Phase, Piece, Request, Requires,
    Scenario, Select, Skip, Step, Subject, Template, Test, pieces,
};

/// Checks a whole file. `None` or a mistake in the document: there is no such scenario.
pub(super) fn scenario<'a>(document: &'a Document, root: &'a DeTable<'a>, phase: Phase) -> Option<Scenario> {
    let root = Table::new(document, 1, root);
    root.only(&["summary", "needs", "timeout", "alone", "secrets", "step"]);
    let timeout = match root.get("timeout") {
        Some(item) => duration(&item),
        None => Some(Duration::from_secs(60)),
    };
    let summary = root.require("summary", "the scenario").and_then(|item| item.one_line());
    let needs = root.get("needs").map(|item| needs(&item)).unwrap_or_default();
    let alone = root.get("alone").map_or(Some(false), |item| item.boolean());
    let tables = step_tables(&root);
    let mut names = Names::new(document, &tables);
    let secrets = root.get("secrets").map(|item| names.secrets(&item)).unwrap_or_default();
    let steps: Vec<_> = tables.iter().map(|table| step(table, &mut names)).collect();
    names.report_unused_secrets();
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
        secrets,
        steps,
    })
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

const STEP_KEYS: &[&str] = &["name", "level", "within", "skip"];
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
    let asked: Vec<_> = Kind::ALL.into_iter().filter(|kind| table.get(kind.word()).is_some()).collect();
    let kind = question(table, &asked);
    step_keys(table, kind);
    let asks: Vec<_> = asked.iter().map(|kind| ask(*kind, table, names)).collect();

    let http = table.get("http").and_then(|item| item.entries());
    let answer = http.as_ref().unwrap_or(table); // where expectations and captures stand
    let mut expectations = expectations(answer, kind, names);
    if matches!(kind, Some(Kind::Run | Kind::Host)) && table.get("exit").is_none() {
        let test = Test::Equals(Value::from(0));
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
    let needed = |name: &String| BUILT_INS.iter().find(|(known, ..)| known == name).map(|(_, requires, _)| *requires);
    uses.iter().chain(fact).filter_map(needed).max().unwrap_or(Requires::Nothing)
}

// Questions.

fn ask(kind: Kind, table: &Table<'_>, names: &mut Names<'_>) -> Option<Ask> {
    let item = table.get(kind.word())?;
    let stdin = table.get("stdin").and_then(|item| names.template(&item));
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

// Expectations.

fn expectations(table: &Table<'_>, kind: Option<Kind>, names: &mut Names<'_>) -> Vec<Expectation> {
    let mut found = Vec::new();
    for item in &table.items {
        let subject = match item.key {
            "exit" => Subject::Exit,
            "stdout" => Subject::Stdout,
            "stderr" => Subject::Stderr,
            "status" => Subject::Status,
            "answers" => Subject::Answers,
            "body" => Subject::Body,
            "value" => Subject::Value,
            "header" => {
                for header in item.table("a table of headers").iter().flat_map(|table| &table.items) {
                    header_name(header);
                    expectation(Subject::Header(header.key.to_ascii_lowercase()), header, names, &mut found);
                }
                continue;
            }
            _ => continue,
        };
        expectation(subject, item, names, &mut found);
    }
    match kind {
        Some(Kind::Port) => {
            if let (Some(answers), Some(body)) = (table.require("answers", "the step"), table.get("body"))
                && answers.value.as_bool() == Some(false)
            {
                body.mistake("`body` is expected of a port that must not answer");
            }
        }
        Some(Kind::Measure) => {
            table.require("value", "the step");
        }
        _ => {}
    }
    found
}

/// An expectation is a table, or a list of tables; of a number or a truth it may be the value itself.
fn expectation(subject: Subject, item: &Item<'_>, names: &mut Names<'_>, found: &mut Vec<Expectation>) {
    let plain = match (&subject, item.value) {
        (Subject::Answers, _) => item.boolean().map(Value::from),
        (Subject::Exit | Subject::Status, DeValue::Integer(_)) => item.integer().map(Value::from),
        _ => return expectation_tables(&subject, item, names, found),
    };
    found.extend(plain.map(|value| Expectation {
        line: item.line,
        subject,
        select: Select::Whole,
        test: Test::Equals(value),
    }));
}

fn expectation_tables(subject: &Subject, item: &Item<'_>, names: &mut Names<'_>, found: &mut Vec<Expectation>) {
    let wanted = match subject {
        Subject::Exit | Subject::Status => "a whole number or a table such as { not_equals = 0 }",
        _ => "a table such as { contains = \"…\" }",
    };
    if item.elements().is_some_and(|elements| elements.is_empty()) {
        item.mistake(format!("`{}` expects nothing", item.key));
    }
    for element in item.elements().unwrap_or_else(|| vec![*item]) {
        let Some(table) = element.table(wanted) else { continue };
        tests(subject, &element, &table, names, found);
    }
}

const SELECT_KEYS: &[&str] = &["json", "html", "attribute"];
const TEST_KEYS: &[&str] = &[
    "equals",
    "not_equals",
    "contains",
    "not_contains",
    "matches",
    "not_matches",
    "at_most",
    "at_least",
    "lines",
    "count",
    "every_line",
    "empty",
];
const NUMBER_TEST_KEYS: &[&str] = &["equals", "not_equals", "at_most", "at_least"];

fn tests(subject: &Subject, item: &Item<'_>, table: &Table<'_>, names: &mut Names<'_>, found: &mut Vec<Expectation>) {
    let number = matches!(subject, Subject::Exit | Subject::Status);
    let select = select(table);
    let mut any = false;
    for entry in &table.items {
        if TEST_KEYS.contains(&entry.key) {
            any = true;
            if number && !NUMBER_TEST_KEYS.contains(&entry.key) {
                entry.mistake(format!("`{}` does not fit `{}`, which is a number", entry.key, item.key));
                continue;
            }
            let test = match number {
                true => number_test(entry),
                false => text_test(entry, select.as_ref(), names),
            };
            if let (Some(test), Some(select)) = (test, &select) {
                found.push(Expectation { line: entry.line, subject: subject.clone(), select: select.clone(), test });
            }
        } else if !SELECT_KEYS.contains(&entry.key) {
            unknown_key(entry, &[TEST_KEYS, SELECT_KEYS].concat());
        } else if number {
            entry.mistake(format!("`{}` does not fit `{}`, which is a number", entry.key, item.key));
        }
    }
    if !any {
        item.mistake(format!("`{}` expects nothing: it needs one of `{}`", item.key, TEST_KEYS.join("`, `")));
    }
}

fn select(table: &Table<'_>) -> Option<Select> {
    let (json, html, attribute) = (table.get("json"), table.get("html"), table.get("attribute"));
    if let (Some(_), Some(html)) = (json, html) {
        html.mistake("a value is selected by `json` or by `html`, not by both");
    }
    if let (None, Some(attribute)) = (html, attribute) {
        attribute.mistake("`attribute` needs `html` beside it");
    }
    let path = json.map(|item| json_path(&item));
    let html = html.map(|item| {
        let selector = css_selector(&item);
        let attribute = attribute.map(|item| item.some_text().map(str::to_owned));
        Some(Select::Html { selector: selector?, attribute: attribute.map_or(Some(None), |text| text.map(Some))? })
    });
    match (path, html) {
        (Some(path), _) => Some(Select::Json(path?)),
        (None, Some(html)) => html,
        (None, None) => Some(Select::Whole),
    }
}

fn number_test(item: &Item<'_>) -> Option<Test> {
    let number = item.integer()?;
    Some(match item.key {
        "equals" => Test::Equals(number.into()),
        "not_equals" => Test::NotEquals(number.into()),
        "at_most" => Test::AtMost(number),
        _ => Test::AtLeast(number),
    })
}

/// A test of a text, or of the values selected in it.
fn text_test(item: &Item<'_>, select: Option<&Select>, names: &mut Names<'_>) -> Option<Test> {
    Some(match item.key {
        "equals" => Test::Equals(expected(item, select, names)?),
        "not_equals" => Test::NotEquals(expected(item, select, names)?),
        "contains" => Test::Contains(contained(item, select, names)?),
        "not_contains" => Test::NotContains(contained(item, select, names)?),
        "matches" => Test::Matches(regex(item)?),
        "not_matches" => Test::NotMatches(regex(item)?),
        "at_most" => Test::AtMost(item.integer()?),
        "at_least" => Test::AtLeast(item.integer()?),
        "lines" => Test::Lines(lines(item, names)?),
        "count" => Test::Count(u64::try_from(item.integer_within(0, i64::MAX)?).ok()?),
        "every_line" => Test::EveryLine(regex(item)?),
        _ => Test::Empty(item.boolean()?),
    })
}

/// What a value is compared with: of a text a text or a whole number, of HTML also a list of texts, of JSON anything.
fn expected(item: &Item<'_>, select: Option<&Select>, names: &mut Names<'_>) -> Option<Value> {
    match (select, item.value) {
        (Some(Select::Json(_)) | None, _) | (_, DeValue::String(_)) => json_value(item, names),
        (Some(Select::Whole), DeValue::Integer(_)) => json_value(item, names),
        (Some(Select::Whole), _) => {
            item.wrong_kind("a text or a whole number (with `json = \"$\"` beside it, any value)");
            None
        }
        (Some(Select::Html { .. }), DeValue::Array(_)) => {
            let texts: Vec<_> = item.elements()?.iter().map(|item| names.template(item)).collect();
            texts.into_iter().map(|text| text.map(|text| Value::String(text.0))).collect()
        }
        (Some(Select::Html { .. }), _) => {
            item.wrong_kind("a text or a list of texts");
            None
        }
    }
}

fn contained(item: &Item<'_>, select: Option<&Select>, names: &mut Names<'_>) -> Option<Value> {
    if item.value.as_str() == Some("") {
        item.mistake(format!("`{}` says nothing: every text contains the empty one", item.key));
    }
    match (select, item.value) {
        (Some(Select::Json(_)) | None, _) | (_, DeValue::String(_)) => json_value(item, names),
        _ => {
            item.wrong_kind("a text");
            None
        }
    }
}

fn lines(item: &Item<'_>, names: &mut Names<'_>) -> Option<Vec<String>> {
    let lines: Vec<_> = item
        .list("a list of texts")?
        .iter()
        .map(|item| {
            let line = names.template(item)?.0;
            if line.contains('\n') {
                item.mistake(format!("each of `{}` must be one line", item.key));
            }
            Some(line)
        })
        .collect();
    lines.into_iter().collect()
}

// Captures.

const CAPTURE_KEYS: &[&str] = &["header", "stdout", "stderr", "body", "json", "html", "attribute", "matches", "secret"];

fn captures(item: &Item<'_>, kind: Option<Kind>, names: &mut Names<'_>) -> Vec<Capture> {
    let items = item.table("a table of captures").map(|table| table.items).unwrap_or_default();
    let found = items.iter().filter_map(|item| {
        names.add(item.key, item, CAPTURED);
        capture(item, kind)
    });
    found.collect()
}

fn capture(item: &Item<'_>, kind: Option<Kind>) -> Option<Capture> {
    let table = item.table("a table such as { json = \"$.id\" }")?;
    table.only(CAPTURE_KEYS);
    let sources: Vec<_> =
        table.items.iter().filter(|item| ["header", "stdout", "stderr", "body"].contains(&item.key)).collect();
    if let [first, second, ..] = sources[..] {
        second.mistake(format!("the capture takes `{}` already", first.key));
    }
    let subjects: Vec<_> = sources.iter().map(|item| capture_subject(item, kind)).collect();
    let selected = table.get("json").or(table.get("html")).is_some();
    if sources.is_empty() && !selected {
        item.mistake(format!("`{}` takes nothing: it needs one of `{}`", item.key, CAPTURE_KEYS[..6].join("`, `")));
    }
    let select = select(&table);
    let matches = table.get("matches").map(|item| regex(&item));
    let secret = table.get("secret").map_or(Some(false), |item| item.boolean());
    let usual = match kind {
        Some(Kind::Http | Kind::Port) => Subject::Body,
        _ => Subject::Stdout,
    };
    Some(Capture {
        name: item.key.to_owned(),
        line: item.line,
        subject: subjects.into_iter().next().unwrap_or(Some(usual))?,
        select: select?,
        matches: matches.map_or(Some(None), |regex| regex.map(Some))?,
        secret: secret?,
    })
}

fn capture_subject(item: &Item<'_>, kind: Option<Kind>) -> Option<Subject> {
    let fits = match kind {
        None | Some(Kind::Measure) => true, // said elsewhere
        Some(Kind::Run | Kind::Host) => ["stdout", "stderr"].contains(&item.key),
        Some(Kind::Http) => ["header", "body"].contains(&item.key),
        Some(Kind::Port) => item.key == "body",
    };
    if let (false, Some(kind)) = (fits, kind) {
        item.mistake(format!("`{}` does not fit a step that asks by `{}`", item.key, kind.word()));
    }
    if item.key == "header" {
        let name = item.some_text()?;
        if !is_header(name) {
            item.mistake(format!("`{name}` cannot be the name of a header"));
        }
        return Some(Subject::Header(name.to_ascii_lowercase()));
    }
    if !item.boolean()? {
        item.mistake(format!("`{}` is true or left out", item.key));
    }
    Some(match item.key {
        "stdout" => Subject::Stdout,
        "stderr" => Subject::Stderr,
        _ => Subject::Body,
    })
}

// Variables.

/// The variables of a scenario, as far as its steps have been read.
struct Names<'a> {
    document: &'a Document,
    /// Secrets and the captures of earlier steps.
    known: BTreeMap<String, Variable>,
    /// Every capture of the file and its line, for better messages.
    captured: BTreeMap<String, u64>,
    /// What the step at hand uses.
    uses: BTreeSet<String>,
}

const SECRET: &str = "a secret";
const CAPTURED: &str = "a captured value";

struct Variable {
    line: u64,
    is: &'static str,
    used: bool,
}

impl<'a> Names<'a> {
    fn new(document: &'a Document, steps: &[Table<'_>]) -> Self {
        let mut captured = BTreeMap::new();
        for step in steps {
            let http = step.get("http").and_then(|item| item.entries());
            let captures = http.as_ref().unwrap_or(step).get("capture").and_then(|item| item.entries());
            for item in captures.iter().flat_map(|captures| &captures.items) {
                captured.insert(item.key.to_owned(), item.line);
            }
        }
        Self { document, known: BTreeMap::new(), captured, uses: BTreeSet::new() }
    }

    fn secrets(&mut self, item: &Item<'_>) -> Vec<String> {
        let mut secrets = Vec::new();
        for item in item.list("a list of names").unwrap_or_default() {
            let Some(name) = item.text() else { continue };
            self.add(name, &item, SECRET);
            secrets.push(name.to_owned());
        }
        secrets
    }

    fn add(&mut self, name: &str, item: &Item<'_>, is: &'static str) {
        if !is_variable(name) {
            item.mistake(format!("`{name}` cannot be the name of a variable: a-z first, then a-z, 0-9 and _"));
        }
        let variable = Variable { line: item.line, is, used: false };
        if let Some(Variable { line, is, .. }) = self.known.insert(name.to_owned(), variable) {
            item.mistake(format!("`{name}` is {is} already, in line {line}"));
        }
    }

    /// A captured value need not be used: that it is there is worth asking.
    fn report_unused_secrets(&self) {
        for (name, variable) in self.known.iter().filter(|(_, variable)| !variable.used && variable.is == SECRET) {
            self.document.mistake(variable.line, format!("the secret `{name}` is never used"));
        }
    }

    fn template(&mut self, item: &Item<'_>) -> Option<Template> {
        let text = item.text()?;
        for piece in pieces(text) {
            match piece {
                Piece::Name(name) => self.use_name(name, item),
                Piece::Text(text) => self.look_for_unclosed(text, item),
            }
        }
        Some(Template(text.to_owned()))
    }

    fn some_template(&mut self, item: &Item<'_>) -> Option<Template> {
        item.some_text()?;
        self.template(item)
    }

    fn use_name(&mut self, name: &str, item: &Item<'_>) {
        if let Some(variable) = self.known.get_mut(name) {
            variable.used = true;
        } else if !BUILT_INS.iter().any(|(known, ..)| *known == name) {
            let words = BUILT_INS.iter().map(|(known, ..)| *known).chain(self.known.keys().map(String::as_str));
            item.mistake(match self.captured.get(name) {
                Some(line) => format!("`{{{{{name}}}}}` is not known yet: it is captured in line {line}"),
                None => format!("unknown variable `{{{{{name}}}}}`{}", nearest(name, words)),
            });
        }
        self.uses.insert(name.to_owned());
    }

    fn look_for_unclosed(&self, text: &str, item: &Item<'_>) {
        for after in text.split("{{").skip(1) {
            let end = after.find(|c: char| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '.')).unwrap_or(after.len());
            let name = &after[..end];
            if self.known.contains_key(name) || BUILT_INS.iter().any(|(known, ..)| *known == name) {
                item.mistake(format!("`{{{{{name}` is not closed by `}}}}`"));
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

// Single values.

/// A time such as `60s`, `2m` or `1m 30s`; longer than none.
fn duration(item: &Item<'_>) -> Option<Duration> {
    let text = item.text()?;
    let seconds = text.split(' ').try_fold(0_u64, |sum, part| {
        let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
        sum.checked_add(number.checked_mul(unit)?)
    });
    if seconds.is_none_or(|seconds| seconds == 0) {
        item.mistake(format!("`{}` must be a time such as \"60s\", \"2m\" or \"1m 30s\", not \"{text}\"", item.key));
        return None;
    }
    seconds.map(Duration::from_secs)
}

fn date(item: &Item<'_>) -> Option<Date> {
    let text = item.text()?;
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    if date.is_none() {
        item.mistake(format!("`{}` must be a day such as \"2027-01-31\", not \"{text}\"", item.key));
    }
    date
}

fn regex(item: &Item<'_>) -> Option<Regex> {
    let text = item.some_text()?;
    not_a_template(item, text)?;
    let regex = Regex::new(text);
    if let Err(error) = &regex {
        let error = error.to_string();
        let error = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        item.mistake(format!("`{}` is not a regular expression: {error}", item.key));
    }
    regex.ok()
}

fn json_path(item: &Item<'_>) -> Option<JsonPath> {
    let text = item.some_text()?;
    not_a_template(item, text)?;
    let path = JsonPath::parse(text);
    if let Err(error) = &path {
        item.mistake(format!("`{}` is not a JSON path (RFC 9535): {error}", item.key));
    }
    path.ok()
}

fn css_selector(item: &Item<'_>) -> Option<String> {
    let text = item.some_text()?;
    not_a_template(item, text)?;
    let selector = scraper::Selector::parse(text);
    if let Err(error) = &selector {
        item.mistake(format!("`{}` is not a CSS selector: {error}", item.key));
    }
    selector.ok().map(|_| text.to_owned())
}

/// Says so if a text has a `{{name}}` where none is filled in.
fn not_a_template(item: &Item<'_>, text: &str) -> Option<()> {
    let name = pieces(text).into_iter().find_map(|piece| match piece {
        Piece::Name(name) if name.starts_with(|c: char| c.is_ascii_lowercase()) => Some(name),
        _ => None,
    });
    if let Some(name) = name {
        item.mistake(format!("`{{{{{name}}}}}` is not filled in here, in `{}`", item.key));
        return None;
    }
    Some(())
}

fn header_name(item: &Item<'_>) {
    if !is_header(item.key) {
        item.mistake(format!("`{}` cannot be the name of a header", item.key));
    }
}

fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Any TOML value that JSON has as well, templates in its texts.
fn json_value(item: &Item<'_>, names: &mut Names<'_>) -> Option<Value> {
    match item.value {
        DeValue::String(_) => names.template(item).map(|text| Value::String(text.0)),
        DeValue::Integer(_) => item.integer().map(Value::from),
        DeValue::Boolean(boolean) => Some(Value::Bool(*boolean)),
        DeValue::Float(_) => {
            item.mistake(format!("`{}` has a number with a fraction; numbers are whole here", item.key));
            None
        }
        DeValue::Datetime(_) => {
            item.mistake(format!("`{}` has a date without quotes, which JSON does not know", item.key));
            None
        }
        DeValue::Array(_) => {
            let values: Vec<_> = item.elements()?.iter().map(|item| json_value(item, names)).collect();
            values.into_iter().collect()
        }
        DeValue::Table(_) => {
            let entries = item.entries()?.items;
            let values: Vec<_> = entries.iter().map(|item| (item.key.to_owned(), json_value(item, names))).collect();
            values.into_iter().map(|(key, value)| Some((key, value?))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
