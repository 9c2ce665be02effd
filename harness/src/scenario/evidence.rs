//! What is kept of an answer: its beginning in the transcript, all of it in a file.

use std::collections::BTreeMap;
use std::fs;

use camino::Utf8PathBuf;
use sha2::{Digest as _, Sha256};

use super::mask::Mask;
use crate::hex;
use crate::transcript::model::StreamRecord;

/// As much of a stream as the transcript itself carries, bytes.
const EXCERPT: usize = 2048;

/// Where one scenario's streams go.
pub struct Evidence<'a> {
    /// The session's folder.
    pub session: Utf8PathBuf,
    /// The scenario's folder, relative to it; made when something is written.
    pub scenario: Utf8PathBuf,
    /// What must not be written.
    pub mask: &'a Mask,
}

impl Evidence<'_> {
    /// Keeps the streams of one answer to the step with this number.
    ///
    /// # Errors
    /// If a file cannot be written: evidence that is lost is no evidence.
    pub fn keep(&self, step: usize, streams: &[(&str, &[u8])]) -> std::io::Result<BTreeMap<String, StreamRecord>> {
        let keep = |(name, bytes): &(&str, &[u8])| Ok(((*name).to_owned(), self.stream(step, name, bytes)?));
        streams.iter().map(keep).collect()
    }

    fn stream(&self, step: usize, name: &str, bytes: &[u8]) -> std::io::Result<StreamRecord> {
        let bytes = self.mask.bytes(bytes);
        let excerpt = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).into_owned();
        let whole = bytes.len() <= EXCERPT && excerpt.as_bytes() == bytes;
        let file = if whole { None } else { Some(self.scenario.join(format!("{step:02}-{name}"))) };
        if let Some(file) = &file {
            fs::create_dir_all(self.session.join(&self.scenario))?;
            fs::write(self.session.join(file), &bytes)?;
        }
        Ok(StreamRecord {
            bytes: bytes.len() as u64,
            digest: hex::sha256(&Sha256::digest(&bytes)),
            excerpt,
            file: file.map(Into::into),
        })
    }
}
