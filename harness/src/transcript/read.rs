//! Reads a transcript as it lies there, with its signature beside it, and verifies it before anything of it is believed.

use std::fs;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use minisign::PublicKey;

use super::model::Transcript;
use super::verify::{self, Check, LARGEST, Refusal, Trust};

/// A signature is not longer than this; what follows is not read, and is then missing or too much.
const LARGEST_SIGNATURE: usize = 64 * 1024;

/// Reads a transcript and verifies it, with one of these keys or, with none, with its own; a refusal is a [`Refusal`], anything
/// else could not be read.
///
/// # Errors
/// As said.
pub fn check(path: &Utf8Path, trusted: &[PublicKey]) -> anyhow::Result<(Transcript, Trust)> {
    let length = path.metadata().with_context(|| format!("could not read `{path}`"))?.len();
    let too_long = || format!("it has {length} bytes, more than the {LARGEST} that are read");
    ensure!(length <= LARGEST, Refusal::new(Check::Schema, too_long()));
    let json = fs::read(path).with_context(|| format!("could not read `{path}`"))?;
    let beside = Utf8PathBuf::from(format!("{path}.minisig"));
    let minisig = match fs::read(&beside) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(LARGEST_SIGNATURE)]).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal::new(Check::Signature, format!("its signature `{beside}` is not there")).into());
        }
        Err(error) => return Err(error).with_context(|| format!("could not read `{beside}`")),
    };
    Ok(verify::verify_with(&json, &minisig, trusted)?)
}
