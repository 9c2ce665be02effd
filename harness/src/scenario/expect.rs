//! Judges answers: what was expected, what came instead. No input or output of any kind.

use std::borrow::Cow;

use jiff::civil::Date;
use scraper::{Html, Selector};
use serde_json::Value;

use super::model::{Capture, Expectation, Select, Step, Subject, Test, Variables, fill, fill_json};
use crate::guest::{Captured, Exit};

/// What came back from a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// From a command, in the guest or on the host.
    Command(Captured),
    /// From an HTTP request.
    Http {
        /// The status.
        status: u16,
        /// Names and values as they came; a name may come several times.
        headers: Vec<(String, String)>,
        /// The body, whole.
        body: Vec<u8>,
    },
    /// From a port.
    Port {
        /// Whether the connection was accepted.
        answered: bool,
        /// What was sent by the other side.
        body: Vec<u8>,
    },
    /// From the run itself.
    Measure(String),
}

/// An expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The line of the expectation in the file.
    pub line: u64,
    /// The part of the answer, and the value in it: `stdout`, `header location`, `stdout $.state`.
    pub what: String,
    /// What was expected: `contains "6.12"`.
    pub expected: String,
    /// What was there.
    pub actual: String,
}

/// A value taken from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The variable's name.
    pub name: String,
    /// Its value, never empty.
    pub value: String,
    /// Masked wherever it is written.
    pub secret: bool,
}

/// Judges an answer; no mismatch means that all expectations hold.
///
/// Long texts are cut, but never inside the value of a variable or of a capture of this step, so that what has to be masked
/// afterwards is still found.
pub fn judge(step: &Step, answer: &Answer, variables: &Variables, today: Date) -> Vec<Mismatch> {
    let judge = Judge::new(step, answer, variables, today);
    step.expectations.iter().filter_map(|expectation| judge.expectation(expectation)).collect()
}

/// Takes the captures of a step from its answer. Lines that the step allows are still there.
///
/// # Errors
/// The first capture that does not find exactly one value, or an empty one.
pub fn capture(step: &Step, answer: &Answer) -> Result<Vec<Taken>, Mismatch> {
    step.captures.iter().map(|capture| take(capture, answer)).collect()
}

/// The values of the step's secret captures, as far as they are in the answer.
pub fn secrets(step: &Step, answer: &Answer) -> Vec<String> {
    let secret = step.captures.iter().filter(|capture| capture.secret);
    secret.filter_map(|capture| take(capture, answer).ok()).map(|taken| taken.value).collect()
}

impl Expectation {
    /// The expectation in one line, as it could stand in the file.
    pub fn describe(&self) -> String {
        let key = match &self.subject {
            Subject::Header(name) => format!("header.{}", toml_key(name)),
            subject => word(subject).to_owned(),
        };
        if let (Subject::Exit | Subject::Status | Subject::Answers, Test::Equals(value)) = (&self.subject, &self.test) {
            return format!("{key} = {}", toml_value(value));
        }
        let select = match &self.select {
            Select::Whole => String::new(),
            Select::Json(path) => format!("json = {}, ", toml_text(&path.to_string())),
            Select::Html { selector, attribute: None } => format!("html = {}, ", toml_text(selector)),
            Select::Html { selector, attribute: Some(name) } => {
                format!("html = {}, attribute = {}, ", toml_text(selector), toml_text(name))
            }
        };
        let (word, value) = written(&self.test);
        format!("{key} = {{ {select}{word} = {value} }}")
    }
}

/// A test as it stands in the file: key and value.
fn written(test: &Test) -> (&'static str, String) {
    match test {
        Test::Equals(value) => ("equals", toml_value(value)),
        Test::NotEquals(value) => ("not_equals", toml_value(value)),
        Test::Contains(value) => ("contains", toml_value(value)),
        Test::NotContains(value) => ("not_contains", toml_value(value)),
        Test::Matches(regex) => ("matches", toml_text(regex.as_str())),
        Test::NotMatches(regex) => ("not_matches", toml_text(regex.as_str())),
        Test::AtMost(number) => ("at_most", number.to_string()),
        Test::AtLeast(number) => ("at_least", number.to_string()),
        Test::Lines(lines) => ("lines", toml_value(&lines.iter().map(String::as_str).collect())),
        Test::Count(count) => ("count", count.to_string()),
        Test::EveryLine(regex) => ("every_line", toml_text(regex.as_str())),
        Test::Empty(empty) => ("empty", empty.to_string()),
    }
}

/// What is known while one answer is judged.
struct Judge<'a> {
    answer: &'a Answer,
    variables: &'a Variables,
    /// Standard output without the lines that are allowed.
    stdout: Option<String>,
    /// Said with every mismatch of standard output: lines that were allowed once.
    expired: String,
    /// Values that are not cut in two.
    uncut: Vec<String>,
}

impl<'a> Judge<'a> {
    fn new(step: &Step, answer: &'a Answer, variables: &'a Variables, today: Date) -> Self {
        let taken = step.captures.iter().filter_map(|capture| take(capture, answer).ok()).map(|taken| taken.value);
        let uncut = variables.values().cloned().chain(taken).filter(|value| !value.is_empty()).collect();
        let mut judge = Self { answer, variables, stdout: None, expired: String::new(), uncut };
        if let (Answer::Command(captured), false) = (answer, step.allow.is_empty()) {
            let text = text_of(&captured.stdout);
            let lines = |holds: bool| step.allow.iter().filter(move |allowed| allowed.holds(today) == holds);
            let kept: Vec<_> =
                text.lines().filter(|line| !lines(true).any(|allowed| allowed.line.is_match(line))).collect();
            for allowed in lines(false).filter(|allowed| kept.iter().any(|line| allowed.line.is_match(line))) {
                let (at, until) = (allowed.at, allowed.until);
                judge.expired += &format!("; it has lines that line {at} allowed until {until}: {}", allowed.reason);
            }
            judge.stdout = Some(kept.join("\n"));
        }
        judge
    }

    fn expectation(&self, expectation: &Expectation) -> Option<Mismatch> {
        let Expectation { line, subject, select, test } = expectation;
        let test = filled(test, self.variables);
        let found = self.part(subject).and_then(|part| find(part, subject, select));
        let actual = found.and_then(|found| found.judge(&test)).err()?;
        let (word, value) = written(&test);
        let after = match subject {
            Subject::Exit | Subject::Status => self.evidence(),
            Subject::Stdout => self.expired.clone(),
            _ => String::new(),
        };
        Some(Mismatch {
            line: *line,
            what: what(subject, select),
            expected: self.cut(&format!("{word} {value}"), LONGEST),
            actual: self.show(actual) + &after,
        })
    }

    fn part(&self, subject: &Subject) -> Result<Option<Cow<'_, str>>, Actual> {
        match (&self.stdout, subject) {
            (Some(stdout), Subject::Stdout) => Ok(Some(stdout.into())),
            _ => part(self.answer, subject),
        }
    }

    /// What else an answer said whose exit or HTTP status is not the expected one.
    fn evidence(&self) -> String {
        let (name, bytes) = match self.answer {
            Answer::Command(captured) => ("stderr", &captured.stderr),
            Answer::Http { body, .. } => ("body", body),
            Answer::Port { .. } | Answer::Measure(_) => return String::new(),
        };
        match text_of(bytes) {
            text if text.is_empty() => String::new(),
            text => format!("; {name}: {}", quoted(&self.cut(&text, LONGEST / 2))),
        }
    }

    fn show(&self, actual: Actual) -> String {
        match actual {
            Actual::Text(text, note) => quoted(&self.cut(&text, LONGEST)) + &note,
            Actual::Bare(text, note) => self.cut(&text, LONGEST) + &note,
            Actual::Words(words) => self.cut(&words, LONGEST),
        }
    }

    fn cut(&self, text: &str, longest: usize) -> String {
        cut(text, longest, &self.uncut)
    }
}

/// The length of the longest text that is shown as a whole.
const LONGEST: usize = 400;

/// What was there instead, and a remark.
enum Actual {
    /// A text, shown in quotes.
    Text(String, String),
    /// A number or JSON, shown as it is.
    Bare(String, String),
    /// A sentence.
    Words(String),
}

impl Actual {
    fn and(self, more: String) -> Self {
        match self {
            Self::Text(text, note) => Self::Text(text, note + &more),
            Self::Bare(text, note) => Self::Bare(text, note + &more),
            Self::Words(words) => Self::Words(words + &more),
        }
    }

    fn of(value: &Value, note: impl Into<String>) -> Self {
        match value {
            Value::String(text) => Self::Text(text.clone(), note.into()),
            other => Self::Bare(other.to_string(), note.into()),
        }
    }
}

/// A part of an answer as text; `None`: there is no such header.
fn part<'a>(answer: &'a Answer, subject: &Subject) -> Result<Option<Cow<'a, str>>, Actual> {
    let text: Cow<'a, str> = match (answer, subject) {
        (Answer::Command(captured), Subject::Exit) => match &captured.exit {
            Exit::Status(status) => status.to_string().into(),
            Exit::Signal(name) => return Err(Actual::Words(format!("killed by SIG{name}"))),
        },
        (Answer::Command(captured), Subject::Stdout) => text_of(&captured.stdout),
        (Answer::Command(captured), Subject::Stderr) => text_of(&captured.stderr),
        (Answer::Http { status, .. }, Subject::Status) => status.to_string().into(),
        (Answer::Http { headers, .. }, Subject::Header(name)) => {
            let values = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            let values: Vec<_> = values.map(|(_, value)| value.as_str()).collect();
            return Ok((!values.is_empty()).then(|| values.join("\n").into()));
        }
        (Answer::Http { body, .. }, Subject::Body) => text_of(body),
        (Answer::Port { answered: true, body }, Subject::Body) => text_of(body),
        (Answer::Port { answered: false, .. }, Subject::Body) => {
            return Err(Actual::Words("nothing answered".to_owned()));
        }
        (Answer::Port { answered, .. }, Subject::Answers) => answered.to_string().into(),
        (Answer::Measure(text), Subject::Value) => without_newline(text).into(),
        _ => return Err(Actual::Words("the answer has no such part".to_owned())),
    };
    Ok(Some(text))
}

/// A text as the whole of it is meant: one final newline is not part of it.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => without_newline(text).into(),
        Cow::Owned(text) => without_newline(&text).to_owned().into(),
    }
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

/// What a test looks at.
enum Found {
    /// A whole text.
    Whole(String),
    /// What was selected in a text; at least one value.
    Selected(Vec<Value>),
    /// Nothing was selected, and what that means.
    Nothing(String),
}

fn find(part: Option<Cow<'_, str>>, subject: &Subject, select: &Select) -> Result<Found, Actual> {
    let Some(text) = part else {
        return Ok(Found::Nothing(format!("there is no {}", what(subject, &Select::Whole))));
    };
    let values = match select {
        Select::Whole => return Ok(Found::Whole(text.into_owned())),
        Select::Json(path) => match serde_json::from_str::<Value>(&text) {
            Ok(json) => path.query(&json).all().into_iter().cloned().collect(),
            Err(error) => return Err(Actual::Text(text.into_owned(), format!(", which is not JSON: {error}"))),
        },
        Select::Html { selector, attribute } => select_html(&text, selector, attribute.as_deref())?,
    };
    Ok(match values.is_empty() {
        true => Found::Nothing(format!("{} selects nothing", selector_text(select))),
        false => Found::Selected(values),
    })
}

fn select_html(text: &str, selector: &str, attribute: Option<&str>) -> Result<Vec<Value>, Actual> {
    let selector = Selector::parse(selector).map_err(|error| Actual::Words(format!("`{selector}`: {error}")))?;
    let html = Html::parse_document(text);
    let values = html.select(&selector).filter_map(|element| match attribute {
        Some(name) => element.attr(name).map(Value::from),
        None => Some(element.text().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ").into()),
    });
    Ok(values.collect())
}

impl Found {
    /// Whether a test holds, or what was there instead.
    fn judge(&self, test: &Test) -> Result<(), Actual> {
        match (self, test) {
            (Self::Nothing(_), Test::NotEquals(_) | Test::NotContains(_) | Test::Empty(true) | Test::Count(0)) => {
                Ok(())
            }
            (Self::Nothing(why), _) => Err(Actual::Words(why.clone())),
            (_, Test::Equals(expected)) => self.must(self.equals(expected)?, true),
            (_, Test::NotEquals(expected)) => self.must(self.equals(expected)?, false),
            (_, Test::Contains(expected)) => self.must(self.contains(expected), true),
            (_, Test::NotContains(expected)) => self.must(self.contains(expected), false),
            (Self::Whole(text), Test::Count(count)) => match text.lines().count() as u64 {
                lines if lines == *count => Ok(()),
                lines => Err(Actual::Text(text.clone(), format!(", {}", counted(lines, "line")))),
            },
            (Self::Selected(values), Test::Count(count)) => match values.len() as u64 {
                length if length == *count => Ok(()),
                length => Err(Actual::Bare(
                    Value::from(values.clone()).to_string(),
                    format!(", {}", counted(length, "value")),
                )),
            },
            (Self::Whole(text), _) => judge_value(&Value::from(text.as_str()), test),
            (Self::Selected(values), _) => values.iter().enumerate().try_for_each(|(index, value)| {
                judge_value(value, test).map_err(|actual| match values.len() {
                    1 => actual,
                    length => actual.and(format!(", value {} of {length}", index + 1)),
                })
            }),
        }
    }

    fn must(&self, holds: bool, wanted: bool) -> Result<(), Actual> {
        match holds == wanted {
            true => Ok(()),
            false => Err(self.actual()),
        }
    }

    fn actual(&self) -> Actual {
        match self {
            Self::Whole(text) if is_plain(text) => Actual::Bare(text.clone(), String::new()),
            Self::Whole(text) => Actual::Text(text.clone(), String::new()),
            Self::Selected(values) => match &values[..] {
                [value] => Actual::of(value, ""),
                values => Actual::Bare(Value::from(values).to_string(), String::new()),
            },
            Self::Nothing(why) => Actual::Words(why.clone()),
        }
    }

    fn equals(&self, expected: &Value) -> Result<bool, Actual> {
        match (self, expected) {
            (Self::Whole(text), Value::Number(number)) => Ok(number.as_i64() == Some(whole_number(text)?)),
            (Self::Whole(text), Value::Bool(truth)) => Ok(*text == truth.to_string()),
            (Self::Whole(text), _) => Ok(same(expected, &Value::from(text.as_str()))),
            (Self::Selected(values), _) => {
                let one = matches!(&values[..], [value] if same(expected, value));
                Ok(one || same(expected, &Value::from(values.clone())))
            }
            (Self::Nothing(_), _) => Ok(false),
        }
    }

    /// A text has a text inside, a list or several selected values have an element.
    fn contains(&self, expected: &Value) -> bool {
        match self {
            Self::Whole(text) => expected.as_str().is_some_and(|part| text.contains(part)),
            Self::Selected(values) => match &values[..] {
                [Value::Array(elements)] => elements.iter().any(|element| same(expected, element)),
                [value] => expected.as_str().is_some_and(|part| text_of_value(value).contains(part)),
                values => values.iter().any(|value| same(expected, value)),
            },
            Self::Nothing(_) => false,
        }
    }
}

/// Judges one value by a test that is asked of each.
fn judge_value(value: &Value, test: &Test) -> Result<(), Actual> {
    let text = text_of_value(value);
    let holds = match test {
        Test::Matches(regex) => regex.is_match(&text),
        Test::NotMatches(regex) => match regex.find(&text) {
            Some(found) if found.len() < text.len() && found.len() < LONGEST / 4 => {
                return Err(Actual::of(value, format!(", which has {}", quoted(found.as_str()))));
            }
            found => found.is_none(),
        },
        Test::AtMost(most) => return number_must(&text, |number| number <= *most),
        Test::AtLeast(least) => return number_must(&text, |number| number >= *least),
        Test::Lines(lines) => text.lines().eq(lines.iter().map(String::as_str)),
        Test::EveryLine(regex) => match text.lines().enumerate().find(|(_, line)| !regex.is_match(line)) {
            Some((index, line)) => return Err(Actual::Text(line.to_owned(), format!(", line {}", index + 1))),
            None if text.is_empty() => return Err(Actual::Text(String::new(), ", which has no line".to_owned())),
            None => true,
        },
        Test::Empty(wanted) => is_empty(value) == *wanted,
        // Asked of all values together, see `Found::judge`.
        Test::Equals(_) | Test::NotEquals(_) | Test::Contains(_) | Test::NotContains(_) | Test::Count(_) => false,
    };
    match holds {
        true => Ok(()),
        false => Err(Actual::of(value, "")),
    }
}

fn number_must(text: &str, holds: impl FnOnce(i64) -> bool) -> Result<(), Actual> {
    match holds(whole_number(text)?) {
        true => Ok(()),
        false => Err(Actual::Bare(text.trim().to_owned(), String::new())),
    }
}

fn whole_number(text: &str) -> Result<i64, Actual> {
    text.trim().parse().map_err(|_| Actual::Text(text.to_owned(), ", which is not a whole number".to_owned()))
}

/// Whether a text can be shown without quotes: a whole number, true or false.
fn is_plain(text: &str) -> bool {
    ["true", "false"].contains(&text) || text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Compares as an author means it: a text with the text of any value, everything else strictly.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(text), _) => *text == text_of_value(actual),
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len()
                && expected.iter().zip(actual).all(|(expected, actual)| same(expected, actual))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let entry = |(key, value): (&String, &Value)| actual.get(key).is_some_and(|actual| same(value, actual));
            expected.len() == actual.len() && expected.iter().all(entry)
        }
        _ => expected == actual,
    }
}

fn text_of_value(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

fn filled(test: &Test, variables: &Variables) -> Test {
    match test {
        Test::Equals(value) => Test::Equals(fill_json(value, variables)),
        Test::NotEquals(value) => Test::NotEquals(fill_json(value, variables)),
        Test::Contains(value) => Test::Contains(fill_json(value, variables)),
        Test::NotContains(value) => Test::NotContains(fill_json(value, variables)),
        Test::Lines(lines) => Test::Lines(lines.iter().map(|line| fill(line, variables)).collect()),
        Test::Matches(_)
        | Test::NotMatches(_)
        | Test::AtMost(_)
        | Test::AtLeast(_)
        | Test::Count(_)
        | Test::EveryLine(_)
        | Test::Empty(_) => test.clone(),
    }
}

fn take(capture: &Capture, answer: &Answer) -> Result<Taken, Mismatch> {
    let Capture { name, line, subject, select, matches, secret } = capture;
    let mismatch = |actual: Actual| Mismatch {
        line: *line,
        what: format!("capture {name}: {}", what(subject, select)),
        expected: match matches {
            Some(regex) => format!("one value that matches {}", toml_text(regex.as_str())),
            None => "one value".to_owned(),
        },
        actual: match actual {
            Actual::Text(text, note) | Actual::Bare(text, note) if *secret => format!("{} bytes{note}", text.len()),
            Actual::Text(text, note) => quoted(&cut(&text, LONGEST, &[])) + &note,
            Actual::Bare(text, note) => cut(&text, LONGEST, &[]) + &note,
            Actual::Words(words) => words,
        },
    };
    let text = match part(answer, subject).and_then(|part| find(part, subject, select)).map_err(mismatch)? {
        Found::Whole(text) => text,
        Found::Nothing(why) => return Err(mismatch(Actual::Words(why))),
        Found::Selected(values) => match &values[..] {
            [Value::Null] => return Err(mismatch(Actual::Words("null".to_owned()))),
            [value] => text_of_value(value).into_owned(),
            values => {
                let note = format!(", {}", counted(values.len() as u64, "value"));
                return Err(mismatch(Actual::Bare(Value::from(values).to_string(), note)));
            }
        },
    };
    let value = match matches {
        None => text,
        Some(regex) => match regex.captures(&text) {
            Some(groups) => groups.get(1).or(groups.get(0)).map_or("", |group| group.as_str()).to_owned(),
            None => return Err(mismatch(Actual::Text(text, String::new()))),
        },
    };
    match value.is_empty() {
        true => Err(mismatch(Actual::Words("an empty value".to_owned()))),
        false => Ok(Taken { name: name.clone(), value, secret: *secret }),
    }
}

// Texts.

fn counted(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn what(subject: &Subject, select: &Select) -> String {
    let mut what = word(subject).to_owned();
    if let Subject::Header(name) = subject {
        what += &format!(" {name}");
    }
    if !matches!(select, Select::Whole) {
        what += &format!(" {}", selector_text(select));
    }
    what
}

/// The word an author writes for a part of an answer.
fn word(subject: &Subject) -> &'static str {
    match subject {
        Subject::Exit => "exit",
        Subject::Stdout => "stdout",
        Subject::Stderr => "stderr",
        Subject::Status => "status",
        Subject::Header(_) => "header",
        Subject::Body => "body",
        Subject::Answers => "answers",
        Subject::Value => "value",
    }
}

fn selector_text(select: &Select) -> String {
    match select {
        Select::Whole => String::new(),
        Select::Json(path) => path.to_string(),
        Select::Html { selector, attribute: None } => selector.clone(),
        Select::Html { selector, attribute: Some(name) } => format!("{selector} @{name}"),
    }
}

/// Leaves out the middle of a text that is much longer than `longest` bytes, without cutting one of `uncut` in two.
fn cut(text: &str, longest: usize, uncut: &[String]) -> String {
    if text.len() <= longest + longest / 4 {
        return text.to_owned();
    }
    let boundary = |at: &usize| text.is_char_boundary(*at);
    let mut head = (0..=longest / 2).rev().find(boundary).unwrap_or(0);
    let mut tail = (text.len() - longest / 2..text.len()).find(boundary).unwrap_or(text.len());
    // Twice, since moving an end may bring it into another of them.
    for value in uncut.iter().chain(uncut) {
        for (start, _) in text.match_indices(value) {
            let end = start + value.len();
            head = if start < head && head < end { start } else { head };
            tail = if start < tail && tail < end { end } else { tail };
        }
    }
    format!("{}[… {} bytes left out …]{}", &text[..head], tail - head, &text[tail..])
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A text as TOML has it, without escapes where that is possible.
fn toml_text(text: &str) -> String {
    let awkward = text.contains(['\\', '"']);
    match awkward && !text.contains(|c: char| c == '\'' || c.is_control()) {
        true => format!("'{text}'"),
        false => quoted(text),
    }
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_text(text),
        Value::Array(elements) => format!("[{}]", elements.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{} = {}", toml_key(key), toml_value(value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match !key.is_empty() && key.bytes().all(bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

#[cfg(test)]
mod tests;
