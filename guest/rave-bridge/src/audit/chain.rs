//! The chain: how a line is sealed, and how a log is verified.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rave_guest::Secret;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::record::{BodyDigest, Decision, Record, hex};

/// What stands for the hash before the first line.
pub(super) const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Between what is hashed and its hash.
const HASH_FIELD: &str = ",\"hash\":\"";
/// No honest line is longer.
const LONGEST_LINE: u64 = 256 * 1024;

/// What a log that holds together ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many lines are good.
    pub records: u64,
    /// The hash of the last one.
    pub last_hash: String,
    /// What a crash left after them, without a newline.
    pub torn: Vec<u8>,
}

/// Why a log cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The file cannot be read.
    #[error("could not read the audit log `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not as it was written.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong there.
        why: String,
    },
}

/// A record as a line with its hash, without newline; and the hash.
pub(super) fn seal(key: &Secret, record: &Record) -> Result<(String, String), serde_json::Error> {
    let mut line = serde_json::to_string(record)?;
    line.pop(); // the closing brace
    let hash = keyed_hash(key, line.as_bytes());
    line.push_str(HASH_FIELD);
    line.push_str(&hash);
    line.push_str("\"}");
    Ok((line, hash))
}

/// Reads a log from its first line to its last, hands every record to `each`, and says what it ends with.
///
/// # Errors
/// At the first line that does not follow from the one before. A last line without newline is none: a crash leaves that.
pub fn verify(path: &Path, key: &Secret, mut each: impl FnMut(&Record)) -> Result<Verified, Broken> {
    let failed = |source| Broken::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut verified = Verified { records: 0, last_hash: BEGINNING.to_owned(), torn: vec![] };
    let mut torn_at = 0;
    let mut line = vec![];
    for number in 1.. {
        line.clear();
        reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        let broken = |line, why: &str| Broken::Line { path: path.to_owned(), line, why: why.to_owned() };
        if line.len() as u64 >= LONGEST_LINE || verified.torn.len() as u64 >= LONGEST_LINE {
            return Err(broken(number, "is longer than any record"));
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            verified.torn.append(&mut line);
            return Ok(verified);
        };
        match open(key, text, &verified) {
            // What a crash cut off stays in the file, and the next record vouches for it.
            Ok((record, _)) if !verified.torn.is_empty() && !vouches(&record, &verified.torn) => {
                return Err(broken(torn_at, "is no record"));
            }
            Ok((record, hash)) => {
                each(&record);
                verified = Verified { records: record.seq, last_hash: hash, torn: vec![] };
            }
            Err(Unsealed::NotARecord) => {
                torn_at = if verified.torn.is_empty() { number } else { torn_at };
                verified.torn.extend_from_slice(&line);
            }
            Err(Unsealed::Wrong(why)) => return Err(broken(number, &why)),
        }
    }
    unreachable!("a file has fewer than 2^64 lines")
}

/// Torn bytes are ended by the newline with which the vouching begins.
fn vouches(record: &Record, torn: &[u8]) -> bool {
    let torn = torn.strip_suffix(b"\n").unwrap_or(torn);
    record.decision == Decision::Torn && record.body == Some(BodyDigest::of(torn))
}

enum Unsealed {
    NotARecord,
    Wrong(String),
}

fn open(key: &Secret, line: &[u8], before: &Verified) -> Result<(Record, String), Unsealed> {
    let text = std::str::from_utf8(line).map_err(|_| Unsealed::NotARecord)?;
    let (content, hash) = text.rsplit_once(HASH_FIELD).ok_or(Unsealed::NotARecord)?;
    let hash = hash.strip_suffix("\"}").ok_or(Unsealed::NotARecord)?;
    if !bool::from(keyed_hash(key, content.as_bytes()).as_bytes().ct_eq(hash.as_bytes())) {
        return Err(Unsealed::Wrong(
            "the hash does not fit: the line was changed, or the key is not the one it was written with".to_owned(),
        ));
    }
    let record: Record =
        serde_json::from_str(&format!("{content}}}")).map_err(|error| Unsealed::Wrong(error.to_string()))?;
    if record.prev_hash != before.last_hash || record.seq != before.records + 1 {
        let why = format!(
            "is number {} and does not follow number {}: lines are missing, or in another order",
            record.seq, before.records
        );
        return Err(Unsealed::Wrong(why));
    }
    Ok((record, hash.to_owned()))
}

fn keyed_hash(key: &Secret, content: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(content);
    hex(&mac.finalize().into_bytes())
}
