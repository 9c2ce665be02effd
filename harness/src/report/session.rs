//! What lies in a session's folder, as far as a page shows it. None of it is signed; the page says so.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};

use base64::Engine as _;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::journal::Line;

/// As much of a log as is read from its end, bytes.
const TAIL: u64 = 48 * 1024;
/// As much of a journal as is read, bytes: beyond it there is no boot any more.
const JOURNAL: u64 = 32 * 1024 * 1024;
/// The largest screenshot that is put into a page, bytes.
const SCREENSHOT: u64 = 600 * 1024;
/// Failures of which more is shown than their answers: the first.
const FAILURES: usize = 20;
/// As much of each text about a failure, bytes of its end.
const FAILURE_TAIL: u64 = 3 * 1024;
/// Screenshots of failures that are put into a page, and the largest of them, bytes.
const FAILURE_SCREENSHOTS: usize = 5;
const FAILURE_SCREENSHOT: u64 = 60 * 1024;
/// Files that are listed.
const FILES: usize = 300;
/// Units in the boot's time line.
const UNITS: usize = 24;
/// Journal lines that are shown: the last of those that matter.
const LINES: usize = 150;

/// `Starting …` and `Started …` of a unit (systemd.journal-fields(7), `journalctl --catalog`).
const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";

/// What lies in a session's folder.
#[derive(Debug, Default, Serialize)]
pub struct Session {
    /// The folder's name, where it lies beside the transcript.
    pub folder: Option<String>,
    /// Whether the page lies where links into it lead.
    pub linked: bool,
    /// The end of the serial console.
    pub console: String,
    /// Lines of the journal of priority warning and worse, the last of them.
    pub journal: String,
    /// Files with their length in bytes.
    pub files: Vec<(String, u64)>,
    /// Units that took longest to start.
    pub units: Vec<Unit>,
    /// The screen, as base64 of a PNG.
    pub screenshot: Option<String>,
    /// What was gathered about scenarios that failed, by their names.
    pub failures: BTreeMap<String, Failure>,
}

/// What was gathered about a scenario that failed, as far as it is shown.
#[derive(Debug, Default, Serialize)]
pub struct Failure {
    /// Title and text: ends of logs.
    pub texts: Vec<(&'static str, String)>,
    /// The screen, as base64 of a PNG.
    pub screenshot: Option<String>,
    /// Files, relative to the session's folder.
    pub files: Vec<String>,
}

/// How a unit started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// When it began, milliseconds by the guest's clock.
    pub from_ms: u64,
    /// How long it took.
    pub took_ms: u64,
}

impl Session {
    /// Reads what there is; what is not there is left out.
    pub fn read(folder: &Utf8Path) -> Self {
        let Some(name) = folder.file_name().filter(|_| folder.is_dir()) else { return Self::default() };
        let mut session = Self { folder: Some(name.to_owned()), linked: true, ..Self::default() };
        let machine = folder.join("machine");
        let console = tail(&machine.join("console.log"), TAIL);
        session.console = strip(&console);
        session.read_journal(&head(&machine.join("journal.jsonl"), JOURNAL));
        session.screenshot = png(&machine.join("screenshot.png"), SCREENSHOT);
        session.list(folder, folder);
        session.files.sort();
        session.read_failures(folder);
        session
    }

    fn read_journal(&mut self, text: &str) {
        let mut began: BTreeMap<String, u64> = BTreeMap::new();
        let mut lines = Vec::new();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
            let at = line.at_ms();
            match (line.id.as_deref(), line.unit.as_deref()) {
                (Some(STARTING), Some(unit)) => drop(began.insert(unit.to_owned(), at)),
                (Some(STARTED), Some(unit)) => {
                    if let Some(from_ms) = began.remove(unit) {
                        self.units.push(Unit { name: unit.to_owned(), from_ms, took_ms: at.saturating_sub(from_ms) });
                    }
                }
                _ => {}
            }
            if matches!(line.priority.as_deref(), Some("0" | "1" | "2" | "3" | "4")) {
                let message = line.message.as_ref().and_then(serde_json::Value::as_str).unwrap_or("(not text)");
                lines.push(format!("[{:>5}.{:03}] {}: {message}", at / 1000, at % 1000, line.who()));
            }
        }
        let shown = &lines[lines.len().saturating_sub(LINES)..];
        self.journal = shown.join("\n");
        self.units.sort_by_key(|unit| std::cmp::Reverse(unit.took_ms));
        self.units.truncate(UNITS);
        self.units.sort_by_key(|unit| unit.from_ms);
    }

    fn read_failures(&mut self, folder: &Utf8Path) {
        const TEXTS: [(&str, &str); 3] = [
            ("console.txt", "Console, its end"),
            ("journal.txt", "Journal, its end"),
            ("guest-failed-units.txt", "Units that failed"),
        ];
        let scenarios = subfolders(folder).into_iter().flat_map(|phase| subfolders(&phase));
        let mut screenshots = 0;
        for scenario in scenarios.filter(|scenario| scenario.join("README.txt").is_file()).take(FAILURES) {
            let Ok(name) = scenario.strip_prefix(folder) else { continue };
            let gathered = scenario.join("diagnostics");
            let mut failure = Failure::default();
            for (file, title) in TEXTS {
                let path = gathered.join(file);
                let text = String::from_utf8_lossy(&tail(&path, FAILURE_TAIL)).into_owned();
                // What is cut begins with a whole line.
                let cut = path.metadata().is_ok_and(|file| file.len() > FAILURE_TAIL);
                let text = if cut { text.split_once('\n').map_or("", |(_, rest)| rest).to_owned() } else { text };
                if !text.trim().is_empty() {
                    failure.texts.push((title, text));
                }
            }
            if screenshots < FAILURE_SCREENSHOTS {
                failure.screenshot = png(&gathered.join("screenshot.png"), FAILURE_SCREENSHOT);
                screenshots += usize::from(failure.screenshot.is_some());
            }
            failure.files = self
                .files
                .iter()
                .map(|(file, _)| file)
                .filter(|file| {
                    let inside = file.strip_prefix(name.as_str()).and_then(|file| file.strip_prefix('/'));
                    inside.is_some_and(|file| file == "README.txt" || file.starts_with("diagnostics/"))
                })
                .cloned()
                .collect();
            self.failures.insert(name.as_str().replace('/', "::"), failure);
        }
    }

    fn list(&mut self, root: &Utf8Path, folder: &Utf8Path) {
        for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_dir() {
                self.list(root, path);
            } else if let Ok(name) = path.strip_prefix(root)
                && self.files.len() < FILES
            {
                self.files.push((name.to_string(), metadata.len()));
            }
        }
    }

    /// A link from the page, which lies beside the session's folder, to a file in it: only where the path is a plain one, so
    /// that it can mean nothing else.
    pub fn link(&self, file: &str) -> Option<String> {
        let folder = self.folder.as_ref().filter(|_| self.linked)?;
        let link = format!("{folder}/{file}");
        let plain = link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        let inside = link.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        (plain && inside).then_some(link)
    }
}

/// The console without colours and cursor movements.
fn strip(bytes: &[u8]) -> String {
    let plain = strip_ansi_escapes::strip(bytes);
    let text = String::from_utf8_lossy(&plain);
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines() {
        // systemd writes the same line again and again while a job runs.
        let job =
            |line: &str| line.find("] Job ").map(|at| line[at..].split(" (").next().unwrap_or_default().to_owned());
        if kept.last().is_some_and(|last| job(line).is_some() && job(last) == job(line)) {
            kept.pop();
        }
        kept.push(line);
    }
    kept.join("\n")
}

fn subfolders(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path().to_owned()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// A picture as base64, if it is one and not too large.
fn png(path: &Utf8Path, most: u64) -> Option<String> {
    path.metadata().ok().filter(|file| file.len() <= most)?;
    let bytes = fs::read(path).ok().filter(|bytes| bytes.starts_with(b"\x89PNG"))?;
    Some(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn tail(path: &Utf8Path, bytes: u64) -> Vec<u8> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.take(bytes).read_to_end(&mut text)?;
        std::io::Result::Ok(text)
    };
    read().unwrap_or_default()
}

fn head(path: &Utf8Path, bytes: u64) -> String {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // What could be read is shown.
        let _ = file.take(bytes).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_complaints_are_found_in_a_journal() {
        let line = |id: &str, at: u64| {
            format!(
                r#"{{"MESSAGE":"x","MESSAGE_ID":"{id}","UNIT":"a.service","PRIORITY":"6","__MONOTONIC_TIMESTAMP":"{at}"}}"#
            )
        };
        let complaint = r#"{"MESSAGE":"no\u001b[0m","PRIORITY":"3","SYSLOG_IDENTIFIER":"kernel","__MONOTONIC_TIMESTAMP":"1500000"}"#;
        let text =
            [line(STARTING, 1_000_000), "not json".into(), complaint.into(), line(STARTED, 3_500_000)].join("\n");
        let mut session = Session::default();
        session.read_journal(&text);
        assert_eq!(session.units, [Unit { name: "a.service".into(), from_ms: 1000, took_ms: 2500 }]);
        assert_eq!(session.journal, "[    1.500] kernel: no\u{1b}[0m");
    }

    #[test]
    fn what_was_gathered_about_a_failure_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let gathered = folder.join("health/nginx/diagnostics");
        fs::create_dir_all(&gathered).unwrap();
        fs::create_dir_all(folder.join("health/passed/machine")).unwrap();
        fs::write(folder.join("health/nginx/README.txt"), "x").unwrap();
        fs::write(gathered.join("console.txt"), format!("first\n{}\nlast\n", "x".repeat(7000))).unwrap();
        fs::write(gathered.join("screenshot.png"), b"\x89PNG").unwrap();
        let session = Session::read(folder);
        assert_eq!(session.failures.keys().collect::<Vec<_>>(), ["health::nginx"]);
        let failure = &session.failures["health::nginx"];
        assert_eq!(failure.texts, [("Console, its end", "last\n".to_owned())]);
        assert!(failure.screenshot.is_some());
        assert_eq!(failure.files.len(), 3);
    }

    #[test]
    fn links_lead_into_the_session_s_folder_and_nowhere_else() {
        let session = Session { folder: Some("spinup-1".into()), linked: true, ..Session::default() };
        assert_eq!(session.link("health/a/01-stdout").as_deref(), Some("spinup-1/health/a/01-stdout"));
        for file in ["../x", "/etc/passwd", "a b", "a?b", "a#b", "", "a//b", "a/./b", "javascript:x", "a\"b"] {
            assert_eq!(session.link(file), None, "{file}");
        }
    }

    #[test]
    fn a_console_is_shown_as_it_looked() {
        let text = b"\x1b[0;32m  OK  \x1b[0m started\r\n[ *] Job a/start running (1s / 2s)\r\n[* ] Job a/start running (2s / 2s)\r\n";
        assert_eq!(strip(text), "  OK   started\n[* ] Job a/start running (2s / 2s)");
    }
}
