//! `hermetic keygen`: a key pair as stock minisign makes and takes it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use camino::Utf8Path;
use minisign::KeyPair;

/// Makes a key pair; an existing file is not overwritten.
pub fn main(secret: &Utf8Path, password_file: Option<&Utf8Path>) -> anyhow::Result<()> {
    let (pair, comment) = match password_file {
        Some(file) => {
            let text =
                fs::read_to_string(file).with_context(|| format!("could not read the password file `{file}`"))?;
            let password = text.lines().next().unwrap_or_default().to_owned();
            anyhow::ensure!(!password.is_empty(), "the first line of `{file}` is empty; it must be the password");
            (KeyPair::generate_encrypted_keypair(Some(password)), "rave-hermetic encrypted secret key")
        }
        None => (KeyPair::generate_unencrypted_keypair(), "rave-hermetic secret key, not encrypted"),
    };
    let pair = pair.map_err(|error| anyhow::anyhow!("could not make a key: {error}"))?;
    let public = secret.with_extension("pub");
    write_new(secret, 0o600, pair.sk.to_box(Some(comment)).map_err(minisign)?.to_string().as_bytes())?;
    write_new(&public, 0o644, pair.pk.to_box().map_err(minisign)?.to_string().as_bytes())?;
    println!("secret key: {secret}\npublic key: {public}\n{}", pair.pk.to_base64());
    Ok(())
}

fn minisign(error: minisign::PError) -> anyhow::Error {
    anyhow::anyhow!("minisign failed: {error}")
}

fn write_new(path: &Utf8Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("could not make `{path}` (an existing key is never overwritten)"))?;
    file.write_all(bytes).with_context(|| format!("could not write `{path}`"))
}
