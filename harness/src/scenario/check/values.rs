//! Checks single values: times, days, patterns, paths, JSON.

use std::time::Duration;

use jiff::civil::Date;
use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;
use toml::de::DeValue;

use super::names::Names;
use crate::scenario::document::Item;
use crate::scenario::model::{Piece, pieces};

/// A time such as `60s`, `2m` or `1m 30s`; longer than none.
pub(super) fn duration(item: &Item<'_>) -> Option<Duration> {
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

pub(super) fn date(item: &Item<'_>) -> Option<Date> {
    let text = item.text()?;
    let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text);
    if date.is_none() {
        item.mistake(format!("`{}` must be a day such as \"2027-01-31\", not \"{text}\"", item.key));
    }
    date
}

pub(super) fn regex(item: &Item<'_>) -> Option<Regex> {
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

pub(super) fn json_path(item: &Item<'_>) -> Option<JsonPath> {
    let text = item.some_text()?;
    not_a_template(item, text)?;
    let path = JsonPath::parse(text);
    if let Err(error) = &path {
        item.mistake(format!("`{}` is not a JSON path (RFC 9535): {error}", item.key));
    }
    path.ok()
}

pub(super) fn css_selector(item: &Item<'_>) -> Option<String> {
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

pub(super) fn header_name(item: &Item<'_>) {
    if !is_header(item.key) {
        item.mistake(format!("`{}` cannot be the name of a header", item.key));
    }
}

pub(super) fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Any TOML value that JSON has as well, templates in its texts.
pub(super) fn json_value(item: &Item<'_>, names: &mut Names<'_>) -> Option<Value> {
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
