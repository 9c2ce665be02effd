//! A scenario file as written: TOML in which every key and value knows its line, and a place where mistakes are collected.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{Mistake, Mistakes};

/// One file: where its lines begin and what is wrong in it.
pub(super) struct Document {
    pub(super) file: Utf8PathBuf,
    line_starts: Vec<usize>,
    mistakes: RefCell<Vec<(u64, String)>>,
}

impl Document {
    pub(super) fn new(file: &Utf8Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(ends).collect(),
            mistakes: RefCell::new(Vec::new()),
        }
    }

    /// Parses the text. What follows a syntax error is guesswork, so only the first one is reported.
    pub(super) fn parse<'a>(&self, text: &'a str) -> Result<Spanned<DeTable<'a>>, ()> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        match errors.iter().min_by_key(|error| start(error)) {
            None => Ok(root),
            Some(error) => {
                self.mistake(self.line(start(error)), format!("is not TOML: {}", error.message()));
                Err(())
            }
        }
    }

    pub(super) fn mistake(&self, line: u64, message: impl Into<String>) {
        self.mistakes.borrow_mut().push((line, message.into()));
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes.dedup();
        let mistake = |(line, message)| Mistake { file: self.file.clone(), line: Some(line), message };
        mistakes.into_iter().map(mistake).collect()
    }

    fn line(&self, offset: usize) -> u64 {
        self.line_starts.partition_point(|start| *start <= offset) as u64
    }
}

/// Reads a file with `parse`, which says what is wrong where it finds nothing. A file that is not there is an empty one.
///
/// # Errors
/// Every mistake in it.
pub(super) fn read<T: Default>(path: &Utf8Path, parse: impl FnOnce(&Table<'_>) -> Option<T>) -> Result<T, Mistakes> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            return Err(Mistakes(vec![Mistake { file: path.to_owned(), line: None, message }]));
        }
    };
    let document = Document::new(path, &text);
    let found = document.parse(&text).ok().and_then(|root| parse(&Table::new(&document, 1, root.get_ref())));
    let mistakes = document.into_mistakes();
    found.filter(|_| mistakes.is_empty()).ok_or(Mistakes(mistakes))
}

/// Whether a word has only a-z, 0-9 and `_`, as names of scenarios, accounts and variables do.
pub(super) fn is_plain(word: &str) -> bool {
    word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// A value and the key it was given for.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    document: &'a Document,
    /// The key; of an element of a list, the key of the list.
    pub(super) key: &'a str,
    /// The line of the key; of an element of a list, of the element.
    pub(super) line: u64,
    /// The value.
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    pub(super) fn mistake(&self, message: impl Into<String>) {
        self.document.mistake(self.line, message);
    }

    /// Says that the value is of another kind than the one wanted.
    pub(super) fn wrong_kind(&self, wanted: &str) {
        self.mistake(format!("`{}` must be {wanted}, not {}", self.key, kind(self.value)));
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_kind("a text");
        }
        text
    }

    /// A text that is more than white space.
    pub(super) fn some_text(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.mistake(format!("`{}` is empty", self.key));
        }
        Some(text)
    }

    /// A text that is more than white space, in one line.
    pub(super) fn one_line(&self) -> Option<&'a str> {
        let text = self.some_text()?;
        if text.contains('\n') {
            self.mistake(format!("`{}` must be one line", self.key));
        }
        Some(text)
    }

    pub(super) fn integer(&self) -> Option<i64> {
        let DeValue::Integer(integer) = self.value else {
            self.wrong_kind("a whole number");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_none() {
            self.mistake(format!("`{}` is too large a number", self.key));
        }
        number
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer_within(&self, least: i64, most: i64) -> Option<i64> {
        let number = self.integer()?;
        if !(least..=most).contains(&number) {
            self.mistake(format!("`{}` must be a number from {least} to {most}, not {number}", self.key));
            return None;
        }
        Some(number)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.wrong_kind("true or false");
        }
        boolean
    }

    pub(super) fn table(&self, wanted: &str) -> Option<Table<'a>> {
        let table = self.entries();
        if table.is_none() {
            self.wrong_kind(wanted);
        }
        table
    }

    /// The entries, if the value is a table.
    pub(super) fn entries(&self) -> Option<Table<'a>> {
        Some(Table::new(self.document, self.line, self.value.as_table()?))
    }

    pub(super) fn list(&self, wanted: &str) -> Option<Vec<Item<'a>>> {
        let list = self.elements();
        if list.is_none() {
            self.wrong_kind(wanted);
        }
        list
    }

    /// The elements, if the value is a list.
    pub(super) fn elements(&self) -> Option<Vec<Item<'a>>> {
        let array = self.value.as_array()?;
        let element = |value: &'a Spanned<DeValue<'a>>| Item {
            line: self.document.line(value.span().start),
            value: value.get_ref(),
            ..*self
        };
        Some(array.iter().map(element).collect())
    }
}

/// A table, its entries in the order in which they are written.
pub(super) struct Table<'a> {
    document: &'a Document,
    /// The line of its header or key.
    pub(super) line: u64,
    /// Its entries.
    pub(super) items: Vec<Item<'a>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(document: &'a Document, line: u64, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let item = |(key, value): (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| Item {
            document,
            key: key.get_ref(),
            line: document.line(key.span().start),
            value: value.get_ref(),
        };
        Self { document, line, items: entries.into_iter().map(item).collect() }
    }

    pub(super) fn mistake(&self, message: impl Into<String>) {
        self.document.mistake(self.line, message);
    }

    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        self.items.iter().find(|item| item.key == key).copied()
    }

    /// The entry `key`; without one it is a mistake of the whole `place`.
    pub(super) fn require(&self, key: &str, place: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            self.mistake(format!("{place} has no `{key}`"));
        }
        item
    }

    /// Every key that is not among `known` is a mistake.
    pub(super) fn only(&self, known: &[&str]) {
        for item in self.items.iter().filter(|item| !known.contains(&item.key)) {
            unknown_key(item, known);
        }
    }
}

/// Says that a key means nothing here.
pub(super) fn unknown_key(item: &Item<'_>, known: &[&str]) {
    item.mistake(format!("unknown key `{}`{}", item.key, nearest(item.key, known.iter().copied())));
}

/// `, did you mean …?` with the nearest known word, or nothing if none is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|candidate| (distance(word, candidate), candidate)).min();
    match near.filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1)) {
        Some((_, candidate)) => format!(", did you mean `{candidate}`?"),
        None => String::new(),
    }
}

/// The number of typing errors between two words; a word that only breaks off has one.
fn distance(word: &str, candidate: &str) -> usize {
    let (word, candidate) = (word.to_lowercase(), candidate.to_lowercase());
    match word.len() >= 3 && candidate.starts_with(&word) {
        true => 1,
        false => strsim::damerau_levenshtein(&word, &candidate),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a test writes into a file of this name, read with `read`; mistakes are shown as if the file lay where one is.
#[cfg(test)]
pub(super) fn read_text<T>(
    name: &str,
    text: &str,
    read: impl FnOnce(&Utf8Path) -> Result<T, Mistakes>,
) -> Result<T, String> {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    fs::write(folder.join(name), text).unwrap();
    read(folder).map_err(|mistakes| mistakes.to_string().replace(&format!("{folder}/"), ""))
}
