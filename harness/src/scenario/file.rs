//! Reads scenario files from their folder. What a file says is checked by `check`.

use std::fmt;
use std::fs;

use camino::{Utf8DirEntry, Utf8Path};

use super::accounts::{self, Accounts};
use super::check;
use super::document::{Document, is_plain, nearest};
use super::guests::{self, Guests};
use super::model::{Phase, Scenario};

/// The folder, beside those of the phases, for texts that several steps send to their commands.
const LIBRARY: &str = "lib";

/// What lies in the folder of the scenarios.
#[derive(Debug)]
pub struct Folder {
    /// The scenarios (`<phase>/<name>.toml`), sorted by phase and name.
    pub scenarios: Vec<Scenario>,
    /// What they use that is in none of them.
    pub beside: Beside,
}

/// What lies beside the folders of the phases, for all scenarios.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// The accounts of the run (`accounts.toml`).
    pub accounts: Accounts,
    /// What differs between guests (`guests.toml`).
    pub guests: Guests,
}

impl Beside {
    /// The variables it brings.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        self.accounts.variables().chain(self.guests.variables().into_iter().map(str::to_owned))
    }
}

/// Where a scenario file stands: what it may use that is not in it.
pub struct Surroundings<'a> {
    /// The folder of the scenarios, from which files that steps name are read.
    pub folder: &'a Utf8Path,
    /// What lies beside it.
    pub beside: &'a Beside,
}

/// Reads all scenarios below `folder`, and what they use.
///
/// # Errors
/// Every mistake of every file and folder, not only the first.
pub fn read(folder: &Utf8Path) -> Result<Folder, Mistakes> {
    let mut mistakes = Vec::new();
    let beside = Beside {
        accounts: or_default(Accounts::read(folder), &mut mistakes),
        guests: or_default(Guests::read(folder), &mut mistakes),
    };
    let surroundings = Surroundings { folder, beside: &beside };
    let mut found = Found { surroundings, scenarios: Vec::new(), mistakes };
    for entry in found.entries(folder) {
        let path = folder.join(entry.file_name());
        match path.is_dir() {
            true if entry.file_name() == LIBRARY => {}
            true => found.phase_folder(&path, entry.file_name()),
            false if ["README.md", accounts::FILE_NAME, guests::FILE_NAME].contains(&entry.file_name()) => {}
            false => found.mistake(&path, "a scenario lies in the folder of its phase, not here"),
        }
    }
    if found.scenarios.is_empty() && found.mistakes.is_empty() {
        found.mistake(folder, "there is no scenario below this folder");
    }
    let scenarios = found.finish()?;
    Ok(Folder { scenarios, beside })
}

/// What was read; mistakes are collected, so that those of other files are found too.
fn or_default<T: Default>(read: Result<T, Mistakes>, mistakes: &mut Vec<Mistake>) -> T {
    read.unwrap_or_else(|Mistakes(found)| {
        mistakes.extend(found);
        T::default()
    })
}

/// Checks the text of one scenario file.
///
/// # Errors
/// Every mistake in it.
pub fn read_text(
    file: &Utf8Path,
    phase: Phase,
    text: &str,
    surroundings: &Surroundings<'_>,
) -> Result<Scenario, Mistakes> {
    let document = Document::new(file, text);
    let scenario = match document.parse(text) {
        Ok(root) => check::scenario(&document, root.get_ref(), phase, surroundings),
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
struct Found<'a> {
    surroundings: Surroundings<'a>,
    scenarios: Vec<Scenario>,
    mistakes: Vec<Mistake>,
}

impl Found<'_> {
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
            Ok(text) => read_text(path, phase, text, &self.surroundings),
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
    !word.is_empty() && is_plain(word)
}

#[cfg(test)]
mod tests;
