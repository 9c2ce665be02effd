//! Checks what a step takes from its answer.

use super::Kind;
use super::expectations::select;
use super::names::{CAPTURED, Names};
use super::values::{is_header, regex};
use crate::scenario::document::Item;
use crate::scenario::model::{Capture, Subject};

pub(super) const CAPTURE_KEYS: &[&str] =
    &["header", "stdout", "stderr", "body", "json", "html", "attribute", "matches", "secret"];

pub(super) fn captures(item: &Item<'_>, kind: Option<Kind>, names: &mut Names<'_>) -> Vec<Capture> {
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
