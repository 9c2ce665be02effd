//! Checks what a step expects of its answer.

use serde_json::Value;
use toml::de::DeValue;

use super::Kind;
use super::names::Names;
use super::values::{css_selector, header_name, json_path, json_value, regex};
use crate::scenario::document::{Item, Table, unknown_key};
use crate::scenario::model::{Expectation, Select, Subject, Test};

pub(super) fn expectations(table: &Table<'_>, kind: Option<Kind>, names: &mut Names<'_>) -> Vec<Expectation> {
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
pub(super) const TEST_KEYS: &[&str] = &[
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

pub(super) fn select(table: &Table<'_>) -> Option<Select> {
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
