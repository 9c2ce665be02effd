//! What a machine says on its console: kept in a file that cannot grow, whatever the machine says.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::sandbox::Id;

/// The most the file may hold. When it is full, the older half goes.
const LIMIT: usize = 64 * 1024;
const LONGEST_LINE: usize = 200;

/// The file's name within a sandbox's folder.
pub const CONSOLE: &str = "console.log";

/// The console of a running machine.
#[derive(Debug)]
pub struct Console {
    file: File,
    kept: Vec<u8>,
}

impl Console {
    /// Opens the file, which whoever made the folder has put there.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(home: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().write(true).open(home.join(CONSOLE))?, kept: Vec::new() })
    }

    /// Adds what the machine said.
    ///
    /// # Errors
    /// What the system said.
    pub fn add(&mut self, said: &[u8]) -> io::Result<()> {
        self.kept.extend_from_slice(said);
        if self.kept.len() <= LIMIT {
            return self.file.write_all(said);
        }
        self.kept.drain(..self.kept.len() - LIMIT / 2);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.kept)
    }
}

/// Whether a sandbox's `init` has come to its end. Asking for SSH before that would only keep a slow machine from getting there.
#[must_use]
pub fn has_booted(home: &Path, id: &Id) -> bool {
    let wanted = format!("sandbox: {id} runs ");
    last_lines(home, usize::MAX).iter().any(|line| line.contains(&wanted))
}

/// The last lines of a sandbox's console, without what could confuse a terminal or a log.
#[must_use]
pub fn last_lines(home: &Path, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(home.join(CONSOLE)) {
        let _ = file.take(LIMIT as u64 + 1).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

fn plain(line: &str) -> String {
    let line = line.trim_end();
    line.chars().map(|character| if character.is_control() { '?' } else { character }).take(LONGEST_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talkative_machine_fills_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONSOLE), "").unwrap();
        let mut console = Console::open(folder.path()).unwrap();
        for number in 0..20_000 {
            console.add(format!("line {number}\n").as_bytes()).unwrap();
        }
        console.add(b"\x1b[31mred\r\n\n").unwrap();
        assert!(std::fs::metadata(folder.path().join(CONSOLE)).unwrap().len() <= LIMIT as u64);
        assert_eq!(last_lines(folder.path(), 2), ["line 19999", "?[31mred"]);
        console.add(&vec![b'x'; 3 * LIMIT]).unwrap();
        assert_eq!(std::fs::metadata(folder.path().join(CONSOLE)).unwrap().len(), LIMIT as u64 / 2);
    }

    #[test]
    fn a_machine_has_booted_when_its_init_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let says = |text: &str| std::fs::write(folder.path().join(CONSOLE), text).unwrap();
        says("Run /init as init process\nsandbox: sb-0002 runs\n");
        assert!(!has_booted(folder.path(), &Id::new(1)));
        says("Run /init\n[1.0] sandbox: sb-0001 runs 0123 on Linux 6.12\r\n[2] Not backgrounding");
        assert!(has_booted(folder.path(), &Id::new(1)));
    }

    #[test]
    fn no_console_has_no_lines() {
        assert_eq!(last_lines(Path::new("/nowhere"), 5), Vec::<String>::new());
    }
}
