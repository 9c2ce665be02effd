//! Writing the log: one thread, which takes what has come together, writes it, and syncs it once for all who wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use jiff::Timestamp;
use rave_guest::Secret;
use tokio::sync::{oneshot, watch};

use super::chain::{self, Broken, Verified};
use super::memory::Memory;
use super::record::{BodyDigest, Decision, Record};

/// The log can be read by the service and its group, and written by the service.
const MODE: u32 = 0o640;

/// The way to the log.
#[derive(Debug, Clone)]
pub struct Log {
    requests: mpsc::Sender<Request>,
    failed: watch::Receiver<Option<String>>,
}

/// Whether whoever writes waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// What follows must not be done unless this is on disk.
    Synced,
    /// If this is lost, something harmless is done twice.
    Buffered,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It does not hold together.
    #[error("the audit log is broken, and nothing may be added to it")]
    Broken(#[from] Broken),
    /// It cannot be opened or written.
    #[error("could not {action} the audit log `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another bridge writes to it.
    #[error("the audit log `{}` is in use by another bridge", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It could not be written before.
    #[error("the audit log cannot be written any more")]
    Closed,
}

struct Request {
    records: Vec<Record>,
    durable: Durability,
    done: oneshot::Sender<()>,
}

/// Opens a log, makes it if it is not there, verifies it, and learns from it.
///
/// # Errors
/// If it cannot be opened, is in use, or is broken.
pub fn open(path: &Path, key: &Secret) -> Result<(Log, Memory), AuditError> {
    let failed = |action| move |source| AuditError::Io { action, path: path.to_owned(), source };
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path).map_err(failed("open"))?;
    // A file that the kernel lets nobody change but at its end keeps its mode, too.
    if file.metadata().map_err(failed("look at"))?.permissions().mode() & 0o777 != MODE {
        file.set_permissions(std::fs::Permissions::from_mode(MODE)).map_err(failed("protect"))?;
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(AuditError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
    }
    // The file's name must outlive a crash too.
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))?;
    }
    let mut memory = Memory::default();
    let verified = chain::verify(path, key, |record| memory.learn(record))?;
    let mut writer =
        Writer { file, key: key.clone(), records: verified.records, last_hash: verified.last_hash.clone() };
    writer.begin(&verified).map_err(failed("write"))?;

    let (requests, received) = mpsc::channel();
    let (report, failed_since) = watch::channel(None);
    let shown = path.to_owned();
    std::thread::Builder::new()
        .name("audit".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            if let Err(error) = writer.serve(&received) {
                report.send_replace(Some(format!("could not write the audit log `{}`: {error}", shown.display())));
            }
        })
        .map_err(failed("start writing"))?;
    Ok((Log { requests, failed: failed_since }, memory))
}

impl Log {
    /// Writes records, in this order and with nothing between them.
    ///
    /// # Errors
    /// If they could not be written; then nothing can be any more.
    pub async fn write(&self, records: Vec<Record>, durable: Durability) -> Result<(), AuditError> {
        if records.is_empty() {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        self.requests.send(Request { records, durable, done }).map_err(|_| AuditError::Closed)?;
        written.await.map_err(|_| AuditError::Closed)
    }

    /// Returns once the log cannot be written any more, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the audit log was closed".to_owned(),
        }
    }
}

struct Writer {
    file: File,
    key: Secret,
    records: u64,
    last_hash: String,
}

impl Writer {
    /// The first record of this run, and one that vouches for what a crash left before it.
    fn begin(&mut self, found: &Verified) -> io::Result<()> {
        if !found.torn.is_empty() {
            self.file.write_all(b"\n")?;
            let body = Some(BodyDigest::of(&found.torn));
            self.write([Record { body, ..Record::new(Decision::Torn) }])?;
        }
        self.write([Record {
            reason: Some(format!("rave-bridge {}", env!("CARGO_PKG_VERSION"))),
            ..Record::new(Decision::Opened)
        }])?;
        self.file.sync_data()
    }

    fn serve(&mut self, requests: &mpsc::Receiver<Request>) -> io::Result<()> {
        while let Ok(first) = requests.recv() {
            let mut batch = vec![first];
            batch.extend(requests.try_iter());
            let sync = batch.iter().any(|request| request.durable == Durability::Synced);
            let mut waiting = vec![];
            let mut records = vec![];
            for Request { records: wanted, durable: _, done } in batch {
                records.extend(wanted);
                waiting.push(done);
            }
            self.write(records)?;
            if sync {
                self.file.sync_data()?;
            }
            for done in waiting {
                let _ = done.send(()); // whoever asked may be gone
            }
        }
        Ok(())
    }

    fn write(&mut self, records: impl IntoIterator<Item = Record>) -> io::Result<()> {
        let mut text = String::new();
        for mut record in records {
            record.seq = self.records + 1;
            record.time = Timestamp::now();
            record.prev_hash.clone_from(&self.last_hash);
            let (line, hash) = chain::seal(&self.key, &record)?;
            text.push_str(&line);
            text.push('\n');
            self.records = record.seq;
            self.last_hash = hash;
        }
        self.file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify;
    use std::fs;

    struct Place {
        folder: tempfile::TempDir,
        key: Secret,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            fs::write(&path, "0123456789abcdef0123456789abcdef").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
            Self { key: Secret::read(&path).unwrap(), folder }
        }

        fn log(&self) -> PathBuf {
            self.folder.path().join("audit.jsonl")
        }

        async fn write(&self, records: Vec<Record>) -> Memory {
            let (log, memory) = open(&self.log(), &self.key).unwrap();
            log.write(records, Durability::Synced).await.unwrap();
            memory
        }

        fn broken(&self) -> String {
            let shown = format!("{}", self.log().display());
            verify(&self.log(), &self.key, |_| {}).unwrap_err().to_string().replace(&shown, "log")
        }
    }

    fn record(decision: Decision, event_id: &str) -> Record {
        Record { event_id: Some(event_id.to_owned()), ..Record::new(decision) }
    }

    /// The lock of a log just dropped is gone once its thread is.
    fn until_free(place: &Place) {
        let file = File::open(place.log()).unwrap();
        file.lock().unwrap();
    }

    #[tokio::test]
    async fn what_was_not_answered_is_remembered() {
        let place = Place::new();
        place
            .write(vec![
                record(Decision::Received, "$a"),
                record(Decision::Received, "$b"),
                record(Decision::Started, "$b"),
                record(Decision::Ended, "$a"),
                record(Decision::Replied, "$a"),
            ])
            .await;
        until_free(&place);
        let memory = place.write(vec![]).await;
        assert_eq!(memory.open.len(), 1);
        assert_eq!(memory.open[0].received.event_id.as_deref(), Some("$b"));
        assert!(memory.open[0].started.is_some() && memory.open[0].ended.is_none());
        assert!(memory.seen.contains(&fingerprint("$a")) && !memory.seen.contains(&fingerprint("$c")));
        assert_eq!(fs::metadata(place.log()).unwrap().permissions().mode() & 0o777, MODE);
    }

    use crate::audit::fingerprint;

    #[tokio::test]
    async fn a_torn_last_line_is_vouched_for_and_a_changed_one_is_not() {
        let place = Place::new();
        place.write(vec![record(Decision::Received, "$a")]).await;
        until_free(&place);
        let mut text = fs::read(place.log()).unwrap();
        let whole = text.clone();
        text.extend_from_slice(&whole[..40]);
        fs::write(place.log(), &text).unwrap();
        assert_eq!(verify(&place.log(), &place.key, |_| {}).unwrap().torn, &whole[..40]);
        place.write(vec![record(Decision::Received, "$b")]).await;
        until_free(&place);
        let good = fs::read_to_string(place.log()).unwrap();
        let mut decisions = vec![];
        verify(&place.log(), &place.key, |record| decisions.push(record.decision)).unwrap();
        use Decision::{Opened, Received, Torn};
        assert_eq!(decisions, [Opened, Received, Torn, Opened, Received]);

        let lines: Vec<&str> = good.lines().collect();
        let broken_by = |lines: Vec<String>| {
            fs::write(place.log(), lines.join("\n") + "\n").unwrap();
            place.broken()
        };
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let mut changed = owned(&lines);
        changed[1] = changed[1].replace("$a", "$x");
        assert!(broken_by(changed).starts_with("log:2: the hash does not fit"));
        let mut torn = owned(&lines);
        torn[2] = torn[2].replace('{', "[");
        assert_eq!(broken_by(torn), "log:3: is no record");
        let mut torn_twice = lines[..3].join("\n").into_bytes();
        torn_twice.extend_from_slice(b"\n{\"seq\"");
        fs::write(place.log(), &torn_twice).unwrap();
        place.write(vec![]).await;
        until_free(&place);
        verify(&place.log(), &place.key, |_| {}).unwrap();
        let missing = owned(&[&lines[..1], &lines[2..]].concat());
        let gap = "log:3: is number 3 and does not follow number 1: lines are missing, or in another order";
        assert_eq!(broken_by(missing), gap);
        let twice = owned(&[&lines[..2], &lines[1..]].concat());
        assert_eq!(
            broken_by(twice),
            "log:3: is number 2 and does not follow number 2: lines are missing, or in another order"
        );
        assert!(open(&place.log(), &place.key).unwrap_err().to_string().starts_with("the audit log is broken"));
    }

    #[tokio::test]
    async fn two_bridges_do_not_share_a_log() {
        let place = Place::new();
        let _first = open(&place.log(), &place.key).unwrap();
        assert!(matches!(open(&place.log(), &place.key), Err(AuditError::InUse { .. })));
    }
}
