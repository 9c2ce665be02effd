//! What is gathered of a scenario that failed before its machine ends: from the guest as long as it answers, from QEMU as long as that does,
//! from the logs and this host in any case. Every file has a bound, everything together has a deadline, and secrets are masked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::chain;
use crate::guest::{Captured, Guest};
use crate::report::journal::Line;
use crate::scenario::mask::Mask;
use crate::vm::Outside;
use crate::vm::boot::{COMMAND, QEMU_LOG, QMP_LOG, SCREENSHOT};
use crate::vm::console;

/// The folder, in that of the scenario.
pub const FOLDER: &str = "diagnostics";
/// How long the guest may take to tell about itself; a command that has to be killed takes up to three seconds more.
const GUEST_WITHIN: Duration = Duration::from_secs(6);
/// The same where the run is to end.
const GUEST_WITHIN_AT_THE_END: Duration = Duration::from_secs(3);
/// How much longer than that is waited for the guest.
const GUEST_GRACE: Duration = Duration::from_millis(2500);
/// How long QEMU may take for one answer.
const QEMU_WITHIN: Duration = Duration::from_secs(2);
/// The most of one part of what the guest tells, bytes.
const PART: usize = 256 << 10;
/// The most of a log's beginning and end, bytes.
const LOG_ENDS: (u64, u64) = (256 << 10, 768 << 10);
/// The same of the journal as the guest wrote it; it is kept as text, which is about a fifth of that.
const JOURNAL_ENDS: (u64, u64) = (4 << 20, 12 << 20);
/// The most of a journal as text, bytes at its beginning and end.
const JOURNAL_TEXT_ENDS: (u64, u64) = (1 << 20, 3 << 20);
/// The largest screenshot that is kept, bytes.
const MOST_SCREENSHOT: u64 = 2 << 20;

/// What the guest is asked, in one go. `MARK` begins each part.
const QUESTIONS: &str = include_str!("diagnostics.sh");

/// What was gathered.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Files in the scenario's folder, with their length in bytes.
    pub files: BTreeMap<String, u64>,
    /// What could not be had, and why.
    pub missing: Vec<(&'static str, String)>,
    /// How long it took.
    pub took: Duration,
}

/// The way to a machine on which something failed.
pub struct Suspect {
    /// What is seen of it from outside.
    pub outside: Outside,
    /// The way in.
    pub guest: Arc<Guest>,
}

/// Gathers it into the folder of the scenario. `at_the_end`: the whole run is to end, and waits for this.
pub fn harvest(suspect: &Suspect, folder: &Utf8Path, mask: &Mask, at_the_end: bool) -> Harvest {
    let begun = Instant::now();
    let within = if at_the_end { GUEST_WITHIN_AT_THE_END } else { GUEST_WITHIN };
    let mut basket = Basket { folder: folder.to_owned(), mask, harvest: Harvest::default() };
    if let Err(error) = fs::create_dir_all(folder.join(FOLDER)) {
        basket.miss("everything", error.to_string());
        return basket.harvest;
    }
    // The guest is slow and the rest is quick, so that is done meanwhile.
    let guest = ask_guest(Arc::clone(&suspect.guest), begun + within);
    let outside = &suspect.outside;
    basket.screenshot(outside);
    match outside.monitor(QEMU_WITHIN) {
        Ok(text) => basket.put("qemu.txt", text.as_bytes()),
        Err(error) => basket.miss("qemu.txt", chain(&error)),
    }
    basket.put("host.txt", host(outside).as_bytes());
    for name in [QMP_LOG, QEMU_LOG, COMMAND] {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        basket.log(name, &outside.evidence().join(name), LOG_ENDS, text);
    }
    let left = (within + GUEST_GRACE).saturating_sub(begun.elapsed());
    match guest.recv_timeout(left) {
        Ok(told) => basket.guest(told),
        Err(_) => basket.miss(GUEST, format!("it did not answer within {:.1} s", begun.elapsed().as_secs_f64())),
    }
    // Last, since what the guest wrote before the failure is on its way for a moment.
    basket.log("console.txt", outside.console_log(), LOG_ENDS, console::plain);
    basket.journal(outside.journal_log());
    basket.harvest.took = begun.elapsed();
    basket.harvest
}

/// What is missing if the guest says nothing.
const GUEST: &str = "guest-*.txt";

/// What the guest told, and why not all of it if so.
struct Told {
    mark: String,
    text: Vec<u8>,
    broke_off: Option<String>,
}

/// Asks in a thread of its own: whoever waits for it may give up, and the thread ends when the guest does.
fn ask_guest(guest: Arc<Guest>, deadline: Instant) -> mpsc::Receiver<Told> {
    let (sender, told) = mpsc::sync_channel(1);
    let mark = format!("[{}]", super::shared::random_secret());
    thread::spawn(move || {
        let questions = QUESTIONS.replace("MARK", &mark);
        let (text, broke_off) = match guest.run("root", &questions, None, deadline) {
            Ok(Captured { stdout, .. }) => (stdout, None),
            Err(error) => {
                let so_far = error.so_far().map(|so_far| so_far.stdout.clone()).unwrap_or_default();
                (so_far, Some(chain(&error)))
            }
        };
        // Nobody may be waiting any more.
        let _ = sender.send(Told { mark, text, broke_off });
    });
    told
}

/// The parts by name. The last of a text that broke off is without its last line, which may be half a secret.
fn parts(told: &Told) -> Vec<(String, Vec<u8>)> {
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let whole = if told.broke_off.is_some() { whole_lines(&told.text) } else { &told.text };
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        let begins = line.strip_prefix(told.mark.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
        match (begins, parts.last_mut()) {
            (Some(name), _) => parts.push((name.trim().to_owned(), Vec::new())),
            (None, Some((_, part))) => part.extend_from_slice(line),
            (None, None) => {}
        }
    }
    parts
}

/// All up to the last end of a line.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1)]
}

/// Where it goes.
struct Basket<'a> {
    folder: Utf8PathBuf,
    mask: &'a Mask,
    harvest: Harvest,
}

impl Basket<'_> {
    fn put(&mut self, name: &'static str, bytes: &[u8]) {
        self.put_named(name, name, bytes);
    }

    fn put_named(&mut self, what: &'static str, name: &str, bytes: &[u8]) {
        let bytes = self.mask.bytes(bytes);
        let name = format!("{FOLDER}/{name}");
        match fs::write(self.folder.join(&name), &bytes) {
            Ok(()) => drop(self.harvest.files.insert(name, bytes.len() as u64)),
            Err(error) => self.miss(what, error.to_string()),
        }
    }

    fn miss(&mut self, what: &'static str, why: String) {
        self.harvest.missing.push((what, self.mask.text(&why)));
    }

    fn log(&mut self, name: &'static str, path: &Path, most: (u64, u64), text: impl Fn(&[u8]) -> String) {
        match ends(path, most) {
            Ok(bytes) => self.put(name, text(&bytes).as_bytes()),
            Err(error) => self.miss(name, error.to_string()),
        }
    }

    fn journal(&mut self, path: &Path) {
        const NAME: &str = "journal.txt";
        match ends(path, JOURNAL_ENDS) {
            Ok(bytes) => {
                // A secret is masked before lines are cut.
                let text = journal(&self.mask.bytes(&bytes));
                self.put(NAME, &cut(text.as_bytes(), JOURNAL_TEXT_ENDS));
            }
            Err(error) => self.miss(NAME, error.to_string()),
        }
    }

    fn screenshot(&mut self, outside: &Outside) {
        let name = format!("{FOLDER}/{SCREENSHOT}");
        let path = self.folder.join(&name);
        if let Err(error) = outside.screenshot(path.as_std_path(), QEMU_WITHIN) {
            return self.miss(SCREENSHOT, chain(&error));
        }
        match path.metadata().map(|file| file.len()) {
            Ok(bytes) if bytes <= MOST_SCREENSHOT => drop(self.harvest.files.insert(name, bytes)),
            Ok(bytes) => {
                // Too large to be looked at in five minutes.
                let _ = fs::remove_file(&path);
                self.miss(SCREENSHOT, format!("it has {bytes} bytes, and {MOST_SCREENSHOT} are the most"));
            }
            Err(error) => self.miss(SCREENSHOT, error.to_string()),
        }
    }

    fn guest(&mut self, told: Told) {
        let parts = parts(&told);
        for (name, text) in parts.iter().filter(|(name, text)| name != "end" && !text.trim_ascii().is_empty()) {
            let text = if text.len() > PART { whole_lines(&text[..PART]) } else { text };
            self.put_named(GUEST, &format!("guest-{name}.txt"), text);
        }
        let is_whole = parts.last().is_some_and(|(name, _)| name == "end");
        let why = told.broke_off.or_else(|| (!is_whole).then(|| "what it told broke off".to_owned()));
        match (why, parts.last()) {
            (None, _) => {}
            (Some(why), None) => self.miss(GUEST, why),
            (Some(why), Some((last, _))) => {
                self.miss(GUEST, format!("nothing is whole from guest-{last}.txt on: {why}"))
            }
        }
    }
}

/// Beginning and end of a file, whole lines, with a word about what is left out.
fn ends(path: &Path, (head, tail): (u64, u64)) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= head + tail {
        file.take(head + tail).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    (&mut file).take(head).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(length - tail))?;
    let mut end = Vec::new();
    file.take(tail).read_to_end(&mut end)?;
    Ok(joined(&bytes, &end, length))
}

/// The same of bytes.
fn cut(bytes: &[u8], (head, tail): (u64, u64)) -> Vec<u8> {
    let (head, tail) = (head as usize, tail as usize);
    if bytes.len() <= head + tail {
        return bytes.to_owned();
    }
    joined(&bytes[..head], &bytes[bytes.len() - tail..], bytes.len() as u64)
}

fn joined(head: &[u8], tail: &[u8], length: u64) -> Vec<u8> {
    let head = whole_lines(head);
    let tail = &tail[memchr::memchr(b'\n', tail).map_or(tail.len(), |at| at + 1)..];
    let left_out = length - head.len() as u64 - tail.len() as u64;
    [head, format!("[{left_out} bytes are left out here]\n").as_bytes(), tail].concat()
}

/// At most so much of a log as is kept of a machine on which something failed: the bound for what a fork said itself.
pub fn bounded(bytes: &[u8]) -> Vec<u8> {
    cut(bytes, JOURNAL_ENDS)
}

/// The journal as one reads it: time since the boot, who, what.
fn journal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(mut entry) = serde_json::from_slice::<Line>(line) else {
            text.push_str(&console::plain(line));
            text.push('\n');
            continue;
        };
        let at = entry.at_ms();
        let message = match entry.message.take().unwrap_or_default() {
            serde_json::Value::String(message) => message,
            // What is no text comes as its bytes.
            serde_json::Value::Array(bytes) => {
                let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            other => other.to_string(),
        };
        let mark = match entry.priority.as_deref() {
            Some("0" | "1" | "2" | "3") => "!! ",
            Some("4") => "! ",
            _ => "",
        };
        let message = console::plain(message.as_bytes()).replace('\n', "\n    ");
        let _ = writeln!(text, "[{:>6}.{:03}] {mark}{}: {message}", at / 1000, at % 1000, entry.who());
    }
    text
}

/// QEMU's process, and what this host has left.
fn host(outside: &Outside) -> String {
    let mut text = outside.process();
    for file in ["/proc/loadavg", "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory"] {
        if let Ok(content) = fs::read_to_string(file) {
            let _ = writeln!(text, "\n== {file}\n{}", content.trim_end());
        }
    }
    text.push_str("\n== free on disk\n");
    for folder in [outside.evidence(), &crate::vm::runtime::default_base()] {
        if let Ok(found) = rustix::fs::statvfs(folder) {
            let mib = |blocks: u64| (u128::from(blocks) * u128::from(found.f_frsize)) >> 20;
            let (free, all) = (mib(found.f_bavail), mib(found.f_blocks));
            let _ = writeln!(text, "{free} of {all} MiB, {} files more: {}", found.f_favail, folder.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, broke_off: Option<&str>) -> Vec<(String, String)> {
        let told = Told { mark: "[m]".into(), text: text.into(), broke_off: broke_off.map(str::to_owned) };
        parts(&told).into_iter().map(|(name, text)| (name, String::from_utf8(text).unwrap())).collect()
    }

    #[track_caller]
    fn check(text: &str, broke_off: Option<&str>, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        assert_eq!(told(text, broke_off), expected);
    }

    #[test]
    fn what_a_guest_tells_is_taken_apart() {
        check("motd\n\n[m] state\na\n\n[m] end\n", None, &[("state", "a\n\n"), ("end", "")]);
        check("", Some("gone"), &[]);
        // A line that broke off may be half a secret.
        check("[m] a\n1\n[m] b\n2\npasswor", Some("gone"), &[("a", "1\n"), ("b", "2\n")]);
        check("[m] a\nit says [m] b\n", None, &[("a", "it says [m] b\n")]);
    }

    #[test]
    fn a_long_text_loses_its_middle_and_no_part_of_a_line() {
        let text = b"one\ntwo\nthree\nfour\nfive\n";
        assert_eq!(cut(text, (100, 100)), text);
        assert_eq!(cut(text, (5, 7)), b"one\n[15 bytes are left out here]\nfive\n");
        assert_eq!(cut(b"onelongline", (3, 3)), b"[11 bytes are left out here]\n");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, text).unwrap();
        assert_eq!(ends(file.path(), (5, 7)).unwrap(), cut(text, (5, 7)));
        assert_eq!(ends(file.path(), (50, 70)).unwrap(), text);
        assert!(ends(Path::new("/nonexistent"), (1, 1)).is_err());
    }

    #[test]
    fn a_journal_reads_as_text() {
        let lines = [
            r#"{"MESSAGE":"hello","_SYSTEMD_UNIT":"a.service","PRIORITY":"6","__MONOTONIC_TIMESTAMP":"1500000"}"#,
            r#"{"MESSAGE":[104,105,27,91,48,109],"SYSLOG_IDENTIFIER":"kernel","PRIORITY":"3","__MONOTONIC_TIMESTAMP":"2000"}"#,
            "not json",
            r#"{"MESSAGE":"a\nb"}"#,
        ];
        let expected = "[     1.500] a.service: hello\n[     0.002] !! kernel: hi\nnot json\n[     0.000] : a\n    b\n";
        assert_eq!(journal(lines.join("\n").as_bytes()), expected);
    }
}
