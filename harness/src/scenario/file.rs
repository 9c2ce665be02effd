//! Reads scenario files from their folder. What a file says is checked by `check`.

use std::fmt;
use std::fs;

use camino::{Utf8DirEntry, Utf8Path};

use super::check;
use super::document::{Document, nearest};
use super::model::{Phase, Scenario};

/// Reads all scenarios below `folder` (`<phase>/<name>.toml`), sorted by phase and name.
///
/// # Errors
/// Every mistake of every file and folder, not only the first.
pub fn read(folder: &Utf8Path) -> Result<Vec<Scenario>, Mistakes> {
    let mut found = Found::default();
    for entry in found.entries(folder) {
        let path = folder.join(entry.file_name());
        match path.is_dir() {
            true => found.phase_folder(&path, entry.file_name()),
            false if entry.file_name() == "README.md" => {}
            false => found.mistake(&path, "a scenario lies in the folder of its phase, not here"),
        }
    }
    if found.scenarios.is_empty() && found.mistakes.is_empty() {
        found.mistake(folder, "there is no scenario below this folder");
    }
    found.finish()
}

/// Reads the one scenario called `name` (`phase::name`) and opens no other file.
///
/// # Errors
/// Every mistake of its file, or that there is no such scenario.
pub fn read_one(folder: &Utf8Path, name: &str) -> Result<Scenario, Mistakes> {
    let mut found = Found::default();
    match name.split_once("::").and_then(|(phase, short)| Some((Phase::from_word(phase)?, short))) {
        Some((phase, short)) if is_name(short) => found.one_of(&folder.join(phase.word()), short, phase),
        _ => found.mistake(folder, format!("`{name}` is not the name of a scenario, such as `health::postgresql`")),
    }
    found.finish().map(|mut scenarios| scenarios.remove(0))
}

/// Checks the text of one scenario file.
///
/// # Errors
/// Every mistake in it.
pub fn read_text(file: &Utf8Path, phase: Phase, text: &str) -> Result<Scenario, Mistakes> {
    let document = Document::new(file, text);
    let scenario = match document.parse(text) {
        Ok(root) => check::scenario(&document, root.get_ref(), phase),
        Err(()) => None,
    };
    let mistakes = document.into_mistakes();
    scenario.filter(|_| mistakes.is_empty()).ok_or(Mistakes(mistakes))
}

/// All mistakes found; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// One mistake, where it is and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file or folder, as given on the way in.
    pub file: camino::Utf8PathBuf,
    /// The line in the file, from 1; `None`: the file or folder as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{mistake}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// What has been read so far.
#[derive(Default)]
struct Found {
    scenarios: Vec<Scenario>,
    mistakes: Vec<Mistake>,
}

impl Found {
    fn mistake(&mut self, file: &Utf8Path, message: impl Into<String>) {
        self.mistakes.push(Mistake { file: file.to_owned(), line: None, message: message.into() });
    }

    /// The entries of a folder by name, without hidden ones.
    fn entries(&mut self, folder: &Utf8Path) -> Vec<Utf8DirEntry> {
        let entries = match folder.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) => {
                self.mistake(folder, format!("cannot be read: {error}"));
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_name().starts_with('.') => {}
                Ok(entry) => found.push(entry),
                Err(error) => self.mistake(folder, format!("has an entry that cannot be read: {error}")),
            }
        }
        found.sort_by(|a, b| a.file_name().cmp(b.file_name()));
        found
    }

    fn phase_folder(&mut self, folder: &Utf8Path, word: &str) {
        let Some(phase) = Phase::from_word(word) else {
            let words = Phase::ALL.map(Phase::word);
            return self.mistake(folder, format!("`{word}` is not a phase{}", nearest(word, words)));
        };
        let entries = self.entries(folder);
        if entries.is_empty() {
            self.mistake(folder, "there is no scenario in this folder");
        }
        for entry in entries {
            let path = folder.join(entry.file_name());
            if path.is_dir() {
                self.mistake(&path, "folders below a phase are not read");
            } else if path.extension() != Some("toml") {
                self.mistake(&path, "is not a scenario: its name does not end in `.toml`");
            } else {
                self.read_file(&path, phase);
            }
        }
    }

    fn one_of(&mut self, folder: &Utf8Path, name: &str, phase: Phase) {
        let path = folder.join(name).with_extension("toml");
        if path.exists() {
            return self.read_file(&path, phase);
        }
        let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
        let names: Vec<_> = entries.filter_map(|entry| entry.path().file_stem().map(str::to_owned)).collect();
        let near = nearest(name, names.iter().map(String::as_str));
        self.mistake(&path, format!("there is no scenario `{}::{name}`{near}", phase.word()));
    }

    fn read_file(&mut self, path: &Utf8Path, phase: Phase) {
        let name = path.file_stem().unwrap_or_default();
        if !is_name(name) {
            self.mistake(path, format!("`{name}` cannot be a name: only a-z, 0-9 and _"));
        }
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.mistake(path, format!("cannot be read: {error}")),
        };
        let read = match std::str::from_utf8(&bytes) {
            Ok(text) => read_text(path, phase, text),
            Err(error) => {
                let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                let message = "is not UTF-8".to_owned();
                Err(Mistakes(vec![Mistake { file: path.to_owned(), line: Some(line), message }]))
            }
        };
        match read {
            Ok(scenario) => self.scenarios.push(scenario),
            Err(Mistakes(mistakes)) => self.mistakes.extend(mistakes),
        }
    }

    fn finish(mut self) -> Result<Vec<Scenario>, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        self.scenarios.sort_by(|a, b| (a.phase, &a.name).cmp(&(b.phase, &b.name)));
        Ok(self.scenarios)
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests;
