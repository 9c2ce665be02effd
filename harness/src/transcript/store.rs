//! Where sessions leave what they found: names that never collide, files that are whole or not there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::sign::Sealed;

/// A session's name and folders, taken for it alone.
#[derive(Debug, Clone)]
pub struct Place {
    /// `spinup-YYYYMMDD-HHMMSS`, with `-N` where it was taken.
    pub session: String,
    /// `<artifacts>/<session>/`.
    pub folder: Utf8PathBuf,
    /// `<artifacts>/boot_transcript_YYYYMMDD-HHMMSS.json`.
    pub transcript: Utf8PathBuf,
    /// While it is held, nobody throws the session away.
    _held: Option<Arc<File>>,
}

/// How the names of sessions begin, and those of their transcripts.
const SESSION: &str = "spinup-";
const TRANSCRIPT: &str = "boot_transcript_";
/// What lies beside a session's folder, by what comes after its name.
const FILES: [&str; 5] = [".json", ".json.minisig", ".pub", ".junit.xml", ".html"];

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write `{path}`")]
pub struct StoreError {
    /// The file or folder.
    pub path: Utf8PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Why a folder of sessions could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read `{path}`")]
pub struct ReadError {
    /// The folder.
    pub path: Utf8PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Takes a name for a session that began at `start`.
///
/// # Errors
/// If the session's folder cannot be made.
pub fn reserve(artifacts: &Utf8Path, start: jiff::Timestamp) -> Result<Place, StoreError> {
    fs::create_dir_all(artifacts).map_err(|source| StoreError { path: artifacts.to_owned(), source })?;
    let stamp = start.strftime("%Y%m%d-%H%M%S").to_string();
    let names = std::iter::once(stamp.clone()).chain((2..1000).map(|n| format!("{stamp}-{n}")));
    for name in names {
        let folder = artifacts.join(format!("{SESSION}{name}"));
        // Making the folder is what takes the name: exactly one session can.
        match fs::create_dir(&folder) {
            Ok(()) => {
                let transcript = artifacts.join(format!("{TRANSCRIPT}{name}.json"));
                let _held = hold(&folder).map(Arc::new);
                return Ok(Place { session: format!("{SESSION}{name}"), folder, transcript, _held });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(StoreError { path: folder, source }),
        }
    }
    let source = io::Error::other("a thousand sessions began in this second");
    Err(StoreError { path: artifacts.join(format!("{SESSION}{stamp}")), source })
}

/// Holds a session's folder as long as the result lives, together with others: whoever throws sessions away leaves it. Nothing where the
/// file system knows no locks.
pub fn hold(folder: &Utf8Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock_shared().ok().map(|()| file)
}

/// A session that has been, or is still going on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Date and time.
    stamp: String,
    /// Which of those that began in one second.
    number: u32,
    artifacts: Utf8PathBuf,
}

/// What becomes of a session that is to be thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is thrown away.
    Gone,
    /// It goes on, or somebody is in its machine.
    InUse,
}

/// The sessions of which something lies in a folder, oldest first. What is called otherwise than a session names its files is none.
///
/// # Errors
/// If the folder cannot be read.
pub fn sessions(artifacts: &Utf8Path) -> Result<Vec<Session>, ReadError> {
    let failed = |source| ReadError { path: artifacts.to_owned(), source };
    let mut found = std::collections::BTreeSet::new();
    for entry in artifacts.read_dir_utf8().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let of_file = FILES.iter().find_map(|end| name.strip_prefix(TRANSCRIPT)?.strip_suffix(end));
        found.extend(name.strip_prefix(SESSION).or(of_file).and_then(|name| Session::named(name, artifacts)));
    }
    Ok(found.into_iter().collect())
}

impl Session {
    /// `YYYYMMDD-HHMMSS` or `YYYYMMDD-HHMMSS-N`.
    fn named(name: &str, artifacts: &Utf8Path) -> Option<Self> {
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts = name.splitn(3, '-');
        let (date, time, number) = (parts.next()?, parts.next()?, parts.next());
        let number = number.map_or(Some(1), |number| number.parse().ok())?;
        let session = Self { stamp: format!("{date}-{time}"), number, artifacts: artifacts.to_owned() };
        (digits(date, 8) && digits(time, 6) && session.name() == name).then_some(session)
    }

    /// Its name without what all begin with.
    pub fn name(&self) -> String {
        let Self { stamp, number, .. } = self;
        if *number == 1 { stamp.clone() } else { format!("{stamp}-{number}") }
    }

    fn folder(&self) -> Utf8PathBuf {
        self.artifacts.join(format!("{SESSION}{}", self.name()))
    }

    /// Where its transcript is, if there is one.
    pub fn transcript(&self) -> Utf8PathBuf {
        self.artifacts.join(format!("{TRANSCRIPT}{}.json", self.name()))
    }

    fn files(&self) -> impl Iterator<Item = Utf8PathBuf> {
        FILES.iter().map(|end| self.artifacts.join(format!("{TRANSCRIPT}{}{end}", self.name())))
    }

    /// Bytes on the disk of all that would be thrown away.
    pub fn bytes(&self, folder_only: bool) -> u64 {
        let files = self.files().filter(|_| !folder_only);
        bytes(&self.folder()) + files.map(|file| bytes(&file)).sum::<u64>()
    }

    /// Whether it can be thrown away at this moment.
    ///
    /// # Errors
    /// What the system said.
    pub fn fate(&self) -> Result<Fate, StoreError> {
        self.alone().map(|alone| if alone.is_some() { Fate::Gone } else { Fate::InUse })
    }

    /// Throws it away, unless it is in use: its folder, and what lies beside it unless that is to stay.
    ///
    /// # Errors
    /// What the system said.
    pub fn remove(&self, folder_only: bool) -> Result<Fate, StoreError> {
        let Some(_alone) = self.alone()? else { return Ok(Fate::InUse) };
        let folder = self.folder();
        gone(&folder, fs::remove_dir_all(&folder))?;
        if !folder_only {
            // The transcript before its signature, so that it never lies there without one.
            for file in self.files() {
                gone(&file, fs::remove_file(&file))?;
            }
        }
        Ok(Fate::Gone)
    }

    /// The lock that nobody who uses it may have meanwhile; of a session without a folder, nobody has one.
    fn alone(&self) -> Result<Option<Option<File>>, StoreError> {
        let path = self.folder();
        let failed = |source| StoreError { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// What is not there is as good as removed.
fn gone(path: &Utf8Path, removed: io::Result<()>) -> Result<(), StoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Bytes of a file, or of all files below a folder, on the disk, where holes take none. Links are not followed.
fn bytes(path: &Utf8Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let own = std::os::unix::fs::MetadataExt::blocks(&found) * 512;
    let inside = path.read_dir_utf8().ok().filter(|_| found.is_dir()).into_iter().flatten().flatten();
    own + inside.map(|entry| bytes(entry.path())).sum::<u64>()
}

impl Place {
    /// The detached signature of the transcript.
    pub fn minisig(&self) -> Utf8PathBuf {
        self.transcript.with_extension("json.minisig")
    }

    /// The public half of a key that was made for the session.
    pub fn public_key(&self) -> Utf8PathBuf {
        self.transcript.with_extension("pub")
    }

    /// The JUnit report.
    pub fn junit(&self) -> Utf8PathBuf {
        self.transcript.with_extension("junit.xml")
    }

    /// The page to look at.
    pub fn html(&self) -> Utf8PathBuf {
        self.transcript.with_extension("html")
    }

    /// Writes a sealed transcript: signature first, so that a transcript never lies there without one.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, sealed: &Sealed) -> Result<(), StoreError> {
        write_whole(&self.minisig(), sealed.minisig.as_bytes())?;
        write_whole(&self.transcript, &sealed.json)
    }
}

/// Writes a file to a temporary name, syncs it, and renames it.
///
/// # Errors
/// If any of that fails; nothing is left then.
pub fn write_whole(path: &Utf8Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().permissions(permissions()).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| StoreError { path: path.to_owned(), source })
}

/// Readable by all, unlike a temporary file's own: transcripts are there to be shown.
fn permissions() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: bool) {
        assert_eq!(Session::named(name, "/a".into()).is_some(), expected, "{name}");
    }

    #[test]
    fn only_what_a_session_is_called_is_one() {
        check("20261125-044451", true);
        check("20261125-044451-2", true);
        for name in ["20261125-044451-1", "20261125-044451-02", "20261125-044451-x", "20261125", "2026112-0444511", ""]
        {
            check(name, false);
        }
        check("20261125-044451/../x", false);
    }

    #[test]
    fn sessions_come_oldest_first_and_those_in_use_stay() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Utf8Path::from_path(folder.path()).unwrap();
        let start: jiff::Timestamp = "2026-11-25T04:44:51Z".parse().unwrap();
        let places: Vec<_> = (0..11).map(|_| reserve(artifacts, start).unwrap()).collect();
        fs::write(artifacts.join("boot_transcript_20251125-044451.json"), "x").unwrap();
        for other in ["README.md", "boot_transcript_mine.json", "spinup-mine"] {
            fs::write(artifacts.join(other), "x").unwrap();
        }
        let found = sessions(artifacts).unwrap();
        let names: Vec<_> = found.iter().map(Session::name).collect();
        assert_eq!((names[0].as_str(), names[1].as_str()), ("20251125-044451", "20261125-044451"));
        assert_eq!((names[2].as_str(), names[11].as_str()), ("20261125-044451-2", "20261125-044451-11"));
        assert_eq!(found[1].fate().unwrap(), Fate::InUse);
        assert_eq!(found[1].remove(false).unwrap(), Fate::InUse);
        assert!(places[0].folder.exists());
        fs::write(&places[0].transcript, "x").unwrap();
        fs::write(places[0].folder.join("log"), "x").unwrap();
        let transcript = places[0].transcript.clone();
        drop(places);
        assert!(found[1].bytes(false) > 0);
        assert_eq!(found[1].remove(true).unwrap(), Fate::Gone);
        assert!(transcript.exists());
        for session in found {
            assert_eq!(session.remove(false).unwrap(), Fate::Gone);
        }
        assert!(sessions(artifacts).unwrap().is_empty());
        assert_eq!(fs::read_dir(artifacts).unwrap().count(), 3);
    }
}
