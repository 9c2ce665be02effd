//! The serial console: what it shows about the guest's way up, and its last lines for people.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What the console has shown so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs {
    /// A kernel spoke.
    pub kernel: bool,
    /// An init system spoke, so the initial file system was left or never needed.
    pub init: bool,
    /// A line after which the guest will not come up by itself.
    pub dead_end: Option<DeadEnd>,
}

/// A line after which nothing more comes without a person at the keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadEnd {
    /// The kernel panicked; the line says why.
    Panic(String),
    /// The initial file system gave up and shows a prompt.
    InitramfsPrompt,
}

/// How Linux starts its last words.
const PANIC: &str = "Kernel panic - not syncing";
/// How initial file systems give up: Debian's, dracut's and NixOS's.
const INITRAMFS_PROMPTS: [&str; 3] = ["(initramfs)", "dracut:/#", "An error occurred in stage 1 of the boot process"];
/// What only an init system says.
const INIT_WORDS: [&str; 4] = ["systemd[1]: ", "Reached target", "Welcome to ", " login:"];
/// How much of the end of a log is looked at for its last lines, in bytes.
const TAIL_BYTES: u64 = 64 * 1024;
/// The longest line that is kept, in bytes.
const LONGEST_LINE: usize = 16 * 1024;

/// Reads the console as it grows, piece by piece.
#[derive(Debug, Default)]
pub struct Scanner {
    signs: Signs,
    line: Vec<u8>,
}

impl Scanner {
    /// Takes in what was written since the last call.
    pub fn feed(&mut self, bytes: &[u8]) -> &Signs {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            // A prompt has no end of line, so an unfinished line counts too.
            self.look();
            if piece.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                self.line.clear();
            }
        }
        &self.signs
    }

    fn look(&mut self) {
        let line = plain(&self.line);
        let text = line.trim();
        self.signs.kernel |= text.contains("Linux version ");
        self.signs.init |= INIT_WORDS.iter().any(|word| text.contains(word));
        if self.signs.dead_end.is_some() {
            return;
        }
        if without_time(text).starts_with(PANIC) && self.line.ends_with(b"\n") {
            self.signs.dead_end = Some(DeadEnd::Panic(without_time(text).to_owned()));
        } else if INITRAMFS_PROMPTS.iter().any(|prompt| text.starts_with(prompt)) {
            self.signs.dead_end = Some(DeadEnd::InitramfsPrompt);
        }
    }
}

/// A file that is read as it grows. Growth is an event (inotify), not a poll.
#[derive(Debug)]
pub struct Follower {
    file: File,
    // Not a pipe, but it is read like one, and tokio has no other safe type for a descriptor of its own.
    grown: pipe::Receiver,
}

impl Follower {
    /// Follows `path` from its start. Must be called on an async runtime.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY)?;
        Ok(Self { file: File::open(path)?, grown: pipe::Receiver::from_owned_fd_unchecked(watch)? })
    }

    /// What was written since the last call; waits until there is something.
    ///
    /// # Errors
    /// What the system said.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut bytes = Vec::new();
            self.file.read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
            // Which events does not matter, only that there were some.
            let _events = self.grown.read(&mut [0; 4096]).await?;
        }
    }
}

/// The last `lines` lines of a log, as plain text. Empty if there is none.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = last_bytes(path).unwrap_or_default();
    let text = plain(&bytes);
    let all: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Text without what steers a terminal: no escape sequences, no carriage returns, nothing that is not UTF-8.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&strip_ansi_escapes::strip(bytes))
        .chars()
        .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
        .collect()
}

fn last_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A kernel line without its `[    1.234567] `.
fn without_time(line: &str) -> &str {
    let Some((time, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else { return line };
    if time.trim().parse::<f64>().is_ok() { rest } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn signs(pieces: &[&str]) -> Signs {
        let mut scanner = Scanner::default();
        for piece in pieces {
            scanner.feed(piece.as_bytes());
        }
        scanner.signs
    }

    #[track_caller]
    fn check(pieces: &[&str], kernel: bool, init: bool, dead_end: Option<DeadEnd>) {
        assert_eq!(signs(pieces), Signs { kernel, init, dead_end }, "{pieces:?}");
    }

    #[test]
    fn reads_the_signs() {
        let panic = |line: &str| Some(DeadEnd::Panic(line.to_owned()));
        check(&["SeaBIOS (version 1.16)\r\n"], false, false, None);
        check(&["[    0.000000] Linux ver", "sion 6.12.1\r\n"], true, false, None);
        check(&["[\x1b[0;32m  OK  \x1b[0m] Reached target basic.target\r\n"], false, true, None);
        check(&["rave login: "], false, true, None);
        check(&["\r\n(initramfs) "], false, false, Some(DeadEnd::InitramfsPrompt));
        check(
            &["[    1.5] Kernel panic - not sync", "ing: VFS: no root\r\n"],
            false,
            false,
            panic("Kernel panic - not syncing: VFS: no root"),
        );
        check(
            &["[    1.5] Kernel panic - not syncing: one\n[ 2.0] ---[ end Kernel panic - not syncing: one ]---\n"],
            false,
            false,
            panic("Kernel panic - not syncing: one"),
        );
        // Somebody talks about it.
        check(&["test: Kernel panic - not syncing\n", "see the (initramfs) prompt\n"], false, false, None);
    }

    #[test]
    fn the_tail_is_plain_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\r\n\x1bc\x1b[?7l\x1b[2Jtwo\r\nthr\xffee\r\n\r\n").unwrap();
        assert_eq!(tail(file.path(), 2), "two\nthr\u{fffd}ee");
        assert_eq!(tail(file.path(), 200), "one\ntwo\nthr\u{fffd}ee");
        assert_eq!(tail(Path::new("/nonexistent"), 2), "");
    }

    #[tokio::test]
    async fn follows_a_file_as_it_grows() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut follower = Follower::open(file.path()).unwrap();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            while !all.ends_with(b"end") {
                all.extend(follower.next().await.unwrap());
            }
            all
        });
        for piece in ["a", "b", "end"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            file.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(reader.await.unwrap(), b"abend");
    }
}
