//! Where sessions leave what they found: names that never collide, files that are whole or not there.

use std::fs::{self, File};
use std::io::{self, Write as _};

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
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write `{path}`")]
pub struct StoreError {
    /// The file or folder.
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
        let folder = artifacts.join(format!("spinup-{name}"));
        // Making the folder is what takes the name: exactly one session can.
        match fs::create_dir(&folder) {
            Ok(()) => {
                let transcript = artifacts.join(format!("boot_transcript_{name}.json"));
                return Ok(Place { session: format!("spinup-{name}"), folder, transcript });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(StoreError { path: folder, source }),
        }
    }
    let source = io::Error::other("a thousand sessions began in this second");
    Err(StoreError { path: artifacts.join(format!("spinup-{stamp}")), source })
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
