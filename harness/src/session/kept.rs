//! Saved machines that are kept on disk from run to run, so that a run with a filter boots nothing.
//!
//! Each lies in a folder named by a digest over everything that must be the same for it to be right. It holds keys to enter the machine, so
//! it is for its owner only. A lock beside the folder is held, shared, by whoever makes forks of it, and alone by whoever makes it or throws
//! it away.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::profile::Profile;
use crate::error::chain;
use crate::hex;
use crate::image::Sources;
use crate::interrupt::Interrupt;
use crate::scenario::model::Variables;
use crate::transcript::model::{ForksRecord, MachineRecord};
use crate::vm::runtime::Runtime;
use crate::vm::{Parts, Saved};
use crate::wait::{Probe, WaitError, until};

/// The most disk space that kept machines may take together, bytes.
const MOST_BYTES: u64 = 8 << 30;
/// How long another run that boots the very machine may take before this one boots its own.
const OTHER_WITHIN: Duration = Duration::from_secs(15 * 60);
/// The file that says what a machine is. It is written last: a folder without it is none.
const MANIFEST: &str = "machine.json";

/// Everything that must be the same for a kept machine to be right, by name.
pub type Key = BTreeMap<String, String>;

/// A machine that was kept, and all that is known of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What must be the same for it to be right.
    pub key: Key,
    /// The machine itself.
    pub parts: Parts,
    /// How it was booted.
    pub machine: MachineRecord,
    /// How it was saved.
    pub forks: ForksRecord,
    /// What it says about itself.
    pub profile: Profile,
    /// The certificate of its CA.
    pub ca: String,
    /// Secrets of the run that were handed to it when it was booted, by name: it knows these, and no others.
    pub handed: Variables,
    /// The private key that enters it.
    pub identity: String,
    /// The key it shows.
    pub host_key: String,
}

/// What was found.
pub enum Found {
    /// A machine, which stays as long as the lock is held.
    Machine(Box<Kept>, File),
    /// None; with the lock held, nobody else boots the same meanwhile.
    Nothing(File),
}

/// Where machines are kept.
pub struct Store<'a> {
    folder: Utf8PathBuf,
    say: &'a dyn Fn(&str),
}

impl<'a> Store<'a> {
    /// In the cache.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(say: &'a dyn Fn(&str)) -> std::io::Result<Self> {
        let folder = Sources::default_cache().join("machines");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self { folder, say })
    }

    /// Looks for the machine of this key. Where another run boots it at this moment, waits for that.
    ///
    /// # Errors
    /// If the run is interrupted, or the lock cannot be taken.
    pub fn find(&self, key: &Key, interrupt: &Interrupt) -> Result<Found, String> {
        self.throw_away_stale(key);
        let lock = self.lock(&name(key)).map_err(|error| error.to_string())?;
        let mut said = false;
        let deadline = std::time::Instant::now() + OTHER_WITHIN;
        let found = until(deadline, || {
            if let Some(reason) = interrupt.reason() {
                return Err(reason.to_owned());
            }
            match lock.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut said, true) {
                        (self.say)("machine: another run boots the same; waiting for it");
                    }
                    return Ok(Probe::NotYet("another run boots the same machine".to_owned()));
                }
                Err(TryLockError::Error(error)) => return Err(error.to_string()),
            }
            if let Some(kept) = self.read(key) {
                return Ok(Probe::Ready(Some(Box::new(kept))));
            }
            lock.unlock().map_err(|error| error.to_string())?;
            // Of several that find nothing one gets this, and the others wait above.
            match lock.try_lock() {
                Ok(()) => Ok(Probe::Ready(None)),
                Err(TryLockError::WouldBlock) => Ok(Probe::NotYet("another run boots the same machine".to_owned())),
                Err(TryLockError::Error(error)) => Err(error.to_string()),
            }
        });
        match found {
            Ok(Some(kept)) => Ok(Found::Machine(kept, lock)),
            Ok(None) => Ok(Found::Nothing(lock)),
            Err(WaitError::Deadline { last, .. }) => Err(last),
            Err(WaitError::Never(why)) => Err(why),
        }
    }

    /// The lock of a machine that this run has booted without looking for a kept one; nothing if another run uses what is kept.
    pub fn lock_to_keep(&self, key: &Key) -> Option<File> {
        let lock = self.lock(&name(key)).ok()?;
        lock.try_lock().ok().map(|()| lock)
    }

    /// Keeps a saved machine, in place of one of the same key. With the lock, which must be held alone, goes what it then is.
    ///
    /// # Errors
    /// Why it is not kept; it is where it was then.
    pub fn keep(
        &self,
        saved: &Saved,
        kept: impl FnOnce(Parts) -> Kept,
        key: &Key,
        lock: &File,
    ) -> Result<Parts, String> {
        let place = self.folder.join(name(key));
        self.remove(&place);
        // If this run is killed, this folder goes as well.
        let folder = Runtime::create(self.folder.as_std_path(), 0).map_err(|error| chain(&error))?;
        let parts = saved.copy_files(folder.path(), place.as_std_path()).map_err(|error| chain(&error))?;
        let bytes = bytes_of(folder.path());
        if bytes > MOST_BYTES {
            return Err(format!("it takes {} MiB, and {} are the most", bytes >> 20, MOST_BYTES >> 20));
        }
        self.make_room(MOST_BYTES - bytes);
        let write = || {
            let text = serde_json::to_vec_pretty(&kept(parts.clone()))?;
            let path = folder.path().join(MANIFEST);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|error| error.to_string())?;
        folder.settle(place.as_std_path()).map_err(|error| error.to_string())?;
        // From making it to using it; others may do so too.
        lock.lock_shared().map_err(|error| error.to_string())?;
        Ok(parts)
    }

    fn read(&self, key: &Key) -> Option<Kept> {
        let text = fs::read(self.folder.join(name(key)).join(MANIFEST)).ok()?;
        serde_json::from_slice::<Kept>(&text).ok().filter(|kept| kept.key == *key)
    }

    /// Machines of the same image that are not right any more, and what a killed run left.
    fn throw_away_stale(&self, key: &Key) {
        for folder in self.folders().into_iter().filter(|folder| folder.file_name() != Some(&name(key))) {
            let Some(_lock) = self.alone(&folder) else { continue };
            let text = fs::read(folder.join(MANIFEST)).unwrap_or_default();
            match serde_json::from_slice::<Kept>(&text) {
                Ok(kept) if kept.key.get(IMAGE_PATH) != key.get(IMAGE_PATH) => {}
                Ok(kept) => {
                    self.remove(&folder);
                    (self.say)(&format!("machine: one that was saved is thrown away: {}", differences(&kept.key, key)));
                }
                Err(_) => {
                    self.remove(&folder);
                    (self.say)("machine: one that was saved by another version, or not to the end, is thrown away");
                }
            }
        }
    }

    /// Throws the oldest away until the rest takes at most so many bytes.
    fn make_room(&self, most: u64) {
        let mut folders = self.folders();
        folders.sort_by_key(|folder| fs::metadata(folder).and_then(|folder| folder.modified()).ok());
        let mut bytes: u64 = folders.iter().map(|folder| bytes_of(folder.as_std_path())).sum();
        for folder in folders {
            if bytes <= most {
                return;
            }
            if let Some(_lock) = self.alone(&folder) {
                bytes -= bytes_of(folder.as_std_path());
                self.remove(&folder);
                (self.say)("machine: an old one that was saved is thrown away to make room");
            }
        }
    }

    /// The folders of machines; not those in the making, which their makers' guardians look after.
    fn folders(&self) -> Vec<Utf8PathBuf> {
        let entries = self.folder.read_dir_utf8().into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path().to_owned());
        folders.filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.starts_with(PREFIX))).collect()
    }

    /// The lock of a folder, if nobody else has it.
    fn alone(&self, folder: &Utf8Path) -> Option<File> {
        let lock = self.lock(folder.file_name()?).ok()?;
        lock.try_lock().ok().map(|()| lock)
    }

    fn lock(&self, name: &str) -> std::io::Result<File> {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join(format!("{name}.lock")))
    }

    fn remove(&self, folder: &Utf8Path) {
        if let Err(error) = fs::remove_dir_all(folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            (self.say)(&format!("machine: could not remove `{folder}`: {error}"));
        }
    }
}

/// Throws away all kept machines that nobody uses; says how many bytes that gave back.
///
/// # Errors
/// If the cache cannot be used.
pub fn clean(say: &dyn Fn(&str)) -> std::io::Result<()> {
    let store = Store::open(say)?;
    let mut bytes = 0;
    for folder in store.folders() {
        match store.alone(&folder) {
            Some(_lock) => {
                bytes += bytes_of(folder.as_std_path());
                store.remove(&folder);
            }
            None => say(&format!("`{folder}` is in use, and stays")),
        }
    }
    say(&format!("{} MiB of saved machines are thrown away", bytes >> 20));
    Ok(())
}

/// How the names of folders begin.
const PREFIX: &str = "saved-";
/// The part of a key that says which image it is, wherever its content stands by now.
pub const IMAGE_PATH: &str = "image";

fn name(key: &Key) -> String {
    let mut digest = Sha256::new();
    for (name, value) in key {
        digest.update(format!("{name}\0{value}\0"));
    }
    format!("{PREFIX}{}", hex::digits(&digest.finalize()[..8]))
}

fn differences(old: &Key, new: &Key) -> String {
    let different = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let words = different.map(|(name, value)| {
        format!("{name} was `{}` and is `{value}`", old.get(name).map_or("unknown", String::as_str))
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Bytes of a folder's files on the disk, where holes take none.
fn bytes_of(folder: &std::path::Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
}
