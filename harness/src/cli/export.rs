//! `hermetic export`: what a transcript says, in the formats of others.

use std::fs;

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::hex;
use crate::report::in_toto;
use crate::settings::{KeyChoice, Settings};
use crate::transcript::sign::SigningKey;
use crate::transcript::{dsse, store};

/// What `hermetic export` is told.
#[derive(Args)]
pub struct ExportArguments {
    /// The transcript; one that does not verify is not exported
    transcript: Utf8PathBuf,
    /// An in-toto statement with a test result, in a DSSE envelope signed with RAVE_SIGNING_KEY
    #[arg(long, required = true)]
    in_toto: bool,
    /// A key that must have signed the transcript; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Where it goes; standard output if not given
    #[arg(long, value_name = "FILE")]
    out: Option<Utf8PathBuf>,
    /// Where the public key goes, as PEM for whoever verifies the envelope
    #[arg(long, value_name = "FILE")]
    public_pem: Option<Utf8PathBuf>,
}

/// Writes the envelope.
pub fn main(arguments: &ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { transcript: path, in_toto: _, keys, out, public_pem } = arguments;
    let key = match Settings::from_environment()?.key {
        KeyChoice::Ephemeral => bail!("an attestation needs a key of your own: name it in RAVE_SIGNING_KEY"),
        KeyChoice::File { key, password } => SigningKey::open(&key, password.as_deref())?,
    };
    let trusted = keys.iter().map(|key| super::verify::read_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    let (transcript, _) = super::verify::check(path, &trusted)?;
    let json = fs::read(path).with_context(|| format!("could not read `{path}`"))?;
    let digest = hex::digits(&Sha256::digest(&json));
    let statement = in_toto::statement(&transcript, path.file_name().unwrap_or_default(), &digest);
    let statement = statement.with_context(|| format!("`{path}` is about no image, so there is nothing to attest"))?;
    let envelope = dsse::seal(&serde_json::to_vec(&statement)?, dsse::IN_TOTO, &key)?;
    let text = format!("{}\n", serde_json::to_string(&envelope)?);
    if let Some(file) = public_pem {
        store::write_whole(file, dsse::public_pem(key.public()).as_bytes())?;
    }
    write(out.as_deref(), &text)
}

fn write(out: Option<&Utf8Path>, text: &str) -> anyhow::Result<()> {
    match out {
        Some(file) => Ok(store::write_whole(file, text.as_bytes())?),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
