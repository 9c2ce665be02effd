//! `hermetic verify`: is this transcript what somebody signed, and does it say what follows from itself?

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;

use crate::report::text;
use crate::transcript::model::Transcript;
use crate::transcript::verify::{self, LARGEST, Refusal, Trust};

/// The exit code of a transcript that is not verified.
pub const NOT_VERIFIED: u8 = 3;

/// Prints the verdict.
pub fn main(path: &Utf8Path, key: Option<&str>) -> ExitCode {
    match check(path, key) {
        Ok((transcript, trust)) => {
            println!("verified: {}", text::summary(&transcript));
            println!("signed by {}", transcript.signing_key.public_key);
            if trust == Trust::FromTranscript {
                println!("no --key was given: it is unchanged since it was signed, but anybody could have signed it");
            }
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<Refusal>() => {
            println!("NOT VERIFIED: {path}: {error}");
            NOT_VERIFIED.into()
        }
        Err(error) => {
            eprintln!("hermetic: {error:#}");
            crate::session::Ended::CouldNotRun.into()
        }
    }
}

/// Reads a transcript and verifies it; a refusal is a [`Refusal`], anything else could not be read.
///
/// # Errors
/// As said.
pub fn check(path: &Utf8Path, key: Option<&str>) -> anyhow::Result<(Transcript, Trust)> {
    let length = path.metadata().with_context(|| format!("could not read `{path}`"))?.len();
    ensure!(length <= LARGEST, Refusal(format!("it has {length} bytes, more than the {LARGEST} that are read")));
    let json = fs::read(path).with_context(|| format!("could not read `{path}`"))?;
    let beside = Utf8Path::new(path).with_extension("json.minisig");
    let minisig = match fs::read(&beside) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal(format!("its signature `{beside}` is not there")).into());
        }
        Err(error) => return Err(error).with_context(|| format!("could not read `{beside}`")),
    };
    let key = key.map(read_key).transpose()?;
    Ok(verify::verify(&json, &minisig, key.as_ref())?)
}

fn read_key(key: &str) -> anyhow::Result<minisign::PublicKey> {
    let text = match fs::read_to_string(key) {
        Ok(text) => text,
        Err(_) if !key.contains(['/', '.']) => key.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("could not read the key `{key}`")),
    };
    verify::public_key(&text).map_err(|refusal| anyhow::anyhow!("`{key}`: {refusal}"))
}
