//! Keys and signatures: minisign's formats (<https://jedisct1.github.io/minisign/>), so that the stock tool checks them.

use std::fs;
use std::io::{self, Cursor};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

use super::canonical;
use super::model::{SigningKeyRecord, Transcript};

/// What a signature says in clear, not covered by it.
pub const UNTRUSTED_COMMENT: &str = "signature of a rave-hermetic boot transcript";

/// The key a session signs with.
pub struct SigningKey {
    public: PublicKey,
    secret: SecretKey,
    ephemeral: bool,
}

/// Why a key could not be used or a document not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A key or password file could not be read.
    #[error("could not read {what} `{path}`")]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file is not a minisign secret key.
    #[error("`{path}` is not a minisign secret key: {why}")]
    NotAKey {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is encrypted and no password file was named.
    #[error("the signing key `{path}` is encrypted; name the file of its password in RAVE_SIGNING_KEY_PASSWORD_FILE")]
    PasswordNeeded {
        /// The file.
        path: Utf8PathBuf,
    },
    /// The password does not open the key.
    #[error("the password in `{password}` does not open the signing key `{path}`")]
    WrongPassword {
        /// The key file.
        path: Utf8PathBuf,
        /// The password file.
        password: Utf8PathBuf,
    },
    /// A password was named for a key that has none.
    #[error("the signing key `{path}` is not encrypted, yet RAVE_SIGNING_KEY_PASSWORD_FILE is set")]
    PasswordNotNeeded {
        /// The key file.
        path: Utf8PathBuf,
    },
    /// minisign itself failed.
    #[error("minisign failed: {0}")]
    Minisign(String),
    /// The document could not be written as JSON.
    #[error("could not write the transcript as JSON")]
    Json(#[from] serde_json::Error),
}

fn minisign(error: minisign::PError) -> SignError {
    SignError::Minisign(error.to_string())
}

impl SigningKey {
    /// A key made for one session.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn ephemeral() -> Result<Self, SignError> {
        let KeyPair { pk: public, sk: secret } = KeyPair::generate_unencrypted_keypair().map_err(minisign)?;
        Ok(Self { public, secret, ephemeral: true })
    }

    /// Opens a secret key file as `minisign -G` (or `-G -W`) writes it.
    ///
    /// # Errors
    /// If the file cannot be read, is no key, or the password is missing, superfluous or wrong.
    pub fn open(path: &Utf8Path, password: Option<&Utf8Path>) -> Result<Self, SignError> {
        let read = |what, path: &Utf8Path| {
            fs::read_to_string(path).map_err(|source| SignError::Read { what, path: path.to_owned(), source })
        };
        let text = read("the signing key", path)?;
        let secret = match (is_encrypted(path, &text)?, password) {
            (true, None) => return Err(SignError::PasswordNeeded { path: path.to_owned() }),
            (false, Some(_)) => return Err(SignError::PasswordNotNeeded { path: path.to_owned() }),
            (true, Some(file)) => {
                let password = read("the password file", file)?;
                let password = password.lines().next().unwrap_or_default().to_owned();
                let key = SecretKeyBox::from_string(&text).and_then(|key| key.into_secret_key(Some(password)));
                key.map_err(|_| SignError::WrongPassword { path: path.to_owned(), password: file.to_owned() })?
            }
            (false, None) => unencrypted(&text).map_err(|why| SignError::NotAKey { path: path.to_owned(), why })?,
        };
        let public = PublicKey::from_secret_key(&secret).map_err(minisign)?;
        Ok(Self { public, secret, ephemeral: false })
    }

    /// The public half, base64, as `minisign -P` takes it.
    pub fn public_base64(&self) -> String {
        self.public.to_base64()
    }

    /// The public half as a file for `minisign -p`.
    ///
    /// # Errors
    /// If minisign cannot format it.
    pub fn public_file(&self) -> Result<String, SignError> {
        Ok(self.public.to_box().map_err(minisign)?.into_string())
    }

    /// Whether it was made for one session.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// The record of this key for a transcript.
    pub fn record(&self) -> SigningKeyRecord {
        SigningKeyRecord { public_key: self.public_base64(), ephemeral: self.ephemeral }
    }

    /// The number that minisign shows for the key: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        self.public.keynum().iter().rev().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes by plain Ed25519, for formats that are not minisign's.
    ///
    /// # Errors
    /// If the key does not hold the two halves of an Ed25519 key.
    pub fn sign_plain(&self, bytes: &[u8]) -> Result<[u8; 64], SignError> {
        use ed25519_dalek::Signer as _;
        let not_a_pair = || SignError::Minisign("the key does not hold an Ed25519 key pair".to_owned());
        let text = self.secret.to_box(None).map_err(minisign)?.to_string();
        let raw = decoded(&text).map_err(SignError::Minisign)?;
        // Behind what derives a password there are the key's number, and the seed with the public half.
        let pair: &[u8; 64] = raw[62..126].try_into().map_err(|_| not_a_pair())?;
        let key = ed25519_dalek::SigningKey::from_keypair_bytes(pair).map_err(|_| not_a_pair())?;
        if key.verifying_key().as_bytes()[..] != self.public.to_bytes()[10..] {
            return Err(not_a_pair());
        }
        Ok(key.sign(bytes).to_bytes())
    }

    /// Signs bytes; the text is a `.minisig` file.
    ///
    /// # Errors
    /// If minisign fails.
    pub fn sign(&self, bytes: &[u8], trusted_comment: &str) -> Result<String, SignError> {
        let signature = minisign::sign(
            Some(&self.public),
            &self.secret,
            Cursor::new(bytes),
            Some(trusted_comment),
            Some(UNTRUSTED_COMMENT),
        );
        Ok(signature.map_err(minisign)?.into_string())
    }
}

/// A transcript as it goes to disk.
pub struct Sealed {
    /// The file: the canonical form of the document with its signature.
    pub json: Vec<u8>,
    /// The detached signature of that file.
    pub minisig: String,
}

/// Signs a transcript twice: inside, over its canonical form without the signature, and outside, over the file.
///
/// # Errors
/// If minisign fails or the document cannot be written as JSON.
pub fn seal(transcript: &Transcript, key: &SigningKey) -> Result<Sealed, SignError> {
    let comment = trusted_comment(transcript);
    let inside = key.sign(&canonical::of_unsigned(transcript)?, &comment)?;
    let signed = Transcript { signature: Some(inside), ..transcript.clone() };
    let json = canonical::of(&signed)?;
    let minisig = key.sign(&json, &comment)?;
    Ok(Sealed { json, minisig })
}

/// What the signature says in clear, covered by it: session, image and status.
pub fn trusted_comment(transcript: &Transcript) -> String {
    format!(
        "session:{} image:{} status:{}",
        transcript.test_session_id,
        transcript.image_digest.as_deref().unwrap_or("none"),
        transcript.overall_status.word()
    )
}

/// The key's bytes: signature algorithm, key derivation algorithm (`Sc`: encrypted; two zero bytes: not), …
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let line = text.lines().nth(1).ok_or("it has no second line")?;
    let bytes = STANDARD.decode(line.trim()).map_err(|error| format!("its second line is not base64: {error}"))?;
    if bytes.len() == 158 && bytes.starts_with(b"Ed") {
        Ok(bytes)
    } else {
        Err("its second line is not a secret key".into())
    }
}

fn is_encrypted(path: &Utf8Path, text: &str) -> Result<bool, SignError> {
    match decoded(text) {
        Ok(bytes) => Ok(&bytes[2..4] == b"Sc"),
        Err(why) => Err(SignError::NotAKey { path: path.to_owned(), why }),
    }
}

/// `minisign -G -W` of version 0.11 leaves the checksum zero, which the crate refuses to open; the checksum is only
/// a test for a wrong password, so an unencrypted key is taken by its bytes.
fn unencrypted(text: &str) -> Result<SecretKey, String> {
    if let Ok(key) = SecretKeyBox::from_string(text).and_then(SecretKeyBox::into_unencrypted_secret_key) {
        return Ok(key);
    }
    SecretKey::from_bytes(&decoded(text)?).map_err(|error| error.to_string())
}
