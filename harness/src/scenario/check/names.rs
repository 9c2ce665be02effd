//! Checks names of variables and the texts that use them.

use std::collections::{BTreeMap, BTreeSet};

use crate::scenario::document::{Document, Item, Table, is_plain, nearest};
use crate::scenario::file::Surroundings;
use crate::scenario::model::{BUILT_INS, Piece, Template, pieces};

/// The variables of a scenario, as far as its steps have been read.
pub(super) struct Names<'a> {
    document: &'a Document,
    /// What the file may use that is not in it.
    pub(super) surroundings: &'a Surroundings<'a>,
    /// Secrets and the captures of earlier steps.
    known: BTreeMap<String, Variable>,
    /// Every capture of the file and its line, for better messages.
    captured: BTreeMap<String, u64>,
    /// What the step at hand uses.
    pub(super) uses: BTreeSet<String>,
}

const SECRET: &str = "a secret";
pub(super) const CAPTURED: &str = "a captured value";

struct Variable {
    line: u64,
    is: &'static str,
    used: bool,
}

impl<'a> Names<'a> {
    pub(super) fn new(document: &'a Document, steps: &[Table<'_>], surroundings: &'a Surroundings<'a>) -> Self {
        let mut captured = BTreeMap::new();
        for step in steps {
            let http = step.get("http").and_then(|item| item.entries());
            let captures = http.as_ref().unwrap_or(step).get("capture").and_then(|item| item.entries());
            for item in captures.iter().flat_map(|captures| &captures.items) {
                captured.insert(item.key.to_owned(), item.line);
            }
        }
        Self { document, surroundings, known: BTreeMap::new(), captured, uses: BTreeSet::new() }
    }

    pub(super) fn secrets(&mut self, item: &Item<'_>) -> Vec<String> {
        let mut secrets = Vec::new();
        for item in item.list("a list of names").unwrap_or_default() {
            let Some(name) = item.text() else { continue };
            self.add(name, &item, SECRET);
            secrets.push(name.to_owned());
        }
        secrets
    }

    pub(super) fn add(&mut self, name: &str, item: &Item<'_>, is: &'static str) {
        if !is_variable(name) {
            item.mistake(format!("`{name}` cannot be the name of a variable: a-z first, then a-z, 0-9 and _"));
        }
        let variable = Variable { line: item.line, is, used: false };
        if let Some(Variable { line, is, .. }) = self.known.insert(name.to_owned(), variable) {
            item.mistake(format!("`{name}` is {is} already, in line {line}"));
        }
    }

    /// A captured value need not be used: that it is there is worth asking.
    pub(super) fn report_unused_secrets(&self) {
        for (name, variable) in self.known.iter().filter(|(_, variable)| !variable.used && variable.is == SECRET) {
            self.document.mistake(variable.line, format!("the secret `{name}` is never used"));
        }
    }

    pub(super) fn template(&mut self, item: &Item<'_>) -> Option<Template> {
        Some(self.template_of(item.text()?, item))
    }

    /// The same of a text that stands elsewhere; its mistakes are those of `item`.
    pub(super) fn template_of(&mut self, text: &str, item: &Item<'_>) -> Template {
        for piece in pieces(text) {
            match piece {
                Piece::Name(name) => self.use_name(name, item),
                Piece::Text(text) => self.look_for_unclosed(text, item),
            }
        }
        Template(text.to_owned())
    }

    pub(super) fn some_template(&mut self, item: &Item<'_>) -> Option<Template> {
        item.some_text()?;
        self.template(item)
    }

    fn use_name(&mut self, name: &str, item: &Item<'_>) {
        if let Some(variable) = self.known.get_mut(name) {
            variable.used = true;
        } else if !self.is_of_the_run(name) {
            let beside: Vec<_> = self.surroundings.beside.variables().collect();
            let words = BUILT_INS.iter().map(|(known, ..)| *known).chain(self.known.keys().map(String::as_str));
            let words = words.chain(beside.iter().map(String::as_str));
            item.mistake(match self.captured.get(name) {
                Some(line) => format!("`{{{{{name}}}}}` is not known yet: it is captured in line {line}"),
                None => format!("unknown variable `{{{{{name}}}}}`{}", nearest(name, words)),
            });
        }
        self.uses.insert(name.to_owned());
    }

    /// What is known before the step in `line`: accounts, the guest's names, secrets, and what earlier steps captured.
    pub(super) fn before(&self, line: u64) -> Vec<String> {
        let known = self.known.iter().filter(|(_, variable)| variable.line < line).map(|(name, _)| name.clone());
        known.chain(self.surroundings.beside.variables()).collect()
    }

    fn is_of_the_run(&self, name: &str) -> bool {
        BUILT_INS.iter().any(|(known, ..)| *known == name)
            || self.surroundings.beside.variables().any(|known| known == name)
    }

    fn look_for_unclosed(&self, text: &str, item: &Item<'_>) {
        for after in text.split("{{").skip(1) {
            let end = after.find(|c: char| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '.')).unwrap_or(after.len());
            let name = &after[..end];
            if self.known.contains_key(name) || self.is_of_the_run(name) {
                item.mistake(format!("`{{{{{name}` is not closed by `}}}}`"));
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && is_plain(name)
}
