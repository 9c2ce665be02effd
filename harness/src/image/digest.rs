//! SHA-256 over the files of an image.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};

use super::manifest::Image;
use crate::hex;

/// A file's length and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    /// Length in bytes.
    pub bytes: u64,
    /// `sha256:…`
    pub digest: String,
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read `{path}` for its digest")]
pub struct DigestError {
    /// The file.
    pub path: Utf8PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Reads a file once, 64 KiB at a time: larger buffers fall out of the second-level cache and are slower.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Utf8Path) -> Result<FileDigest, DigestError> {
    let read = || {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(FileDigest { bytes, digest: hex::sha256(&hasher.finalize()) }),
                length => {
                    hasher.update(&buffer[..length]);
                    bytes += length as u64;
                }
            }
        }
    };
    read().map_err(|source| DigestError { path: path.to_owned(), source })
}

/// Bytes that all files of an image take on the disk they lie on: a sparse file takes less than its length.
pub fn bytes_on_disk(image: &Image) -> u64 {
    let blocks = |path: &Utf8Path| path.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    image.files().into_iter().map(|(_, path)| blocks(path)).sum()
}
