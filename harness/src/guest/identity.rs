//! Keys, made per session and kept in memory: the one the harness enters with, and the one a guest is given to show.

use std::fmt;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

/// The comment on every key made here.
const COMMENT: &str = "rave-hermetic";

/// An ed25519 key pair. Printing it shows the public half only.
pub struct KeyPair {
    private: PrivateKey,
    public: PublicKey,
}

/// The key pair the harness enters a guest with.
pub type Identity = KeyPair;
/// The key pair a guest is given, so that the harness knows it from the first connection on.
pub type HostKey = KeyPair;

impl KeyPair {
    /// Makes a new pair from the system's random numbers.
    ///
    /// # Panics
    /// If the system gives no random numbers.
    pub fn generate() -> Self {
        let mut private = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).expect("ed25519 is compiled in");
        private.set_comment(COMMENT);
        let public = PublicKey(private.public_key().clone());
        Self { private, public }
    }

    /// Reads a pair from its private half in OpenSSH's format.
    ///
    /// # Errors
    /// If the text is anything else.
    pub fn from_private_pem(pem: &str) -> Result<Self, KeyError> {
        // The text is not shown: it may well be a secret.
        let private = PrivateKey::from_openssh(pem).map_err(|source| KeyError { line: "…".to_owned(), source })?;
        let public = PublicKey(private.public_key().clone());
        Ok(Self { private, public })
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the public half as a line of `authorized_keys` or a `.pub` file, without a newline.
    pub fn public_line(&self) -> String {
        self.public.line()
    }

    /// Returns the fingerprint of the public half as `ssh` prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint()
    }

    /// Returns the private half in OpenSSH's format, as `sshd` and `ssh -i` read it. It is wiped from memory when dropped.
    pub fn private_pem(&self) -> impl Deref<Target = String> + use<> {
        self.private.to_openssh(LineEnding::LF).expect("an unencrypted key in memory can be written")
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public.line()).finish_non_exhaustive()
    }
}

/// The public half of a key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(ssh_key::PublicKey);

/// A text that is no public key.
#[derive(Debug, thiserror::Error)]
#[error("`{line}` is not a public key line")]
pub struct KeyError {
    line: String,
    source: ssh_key::Error,
}

impl PublicKey {
    /// Reads a line of `authorized_keys` or a `.pub` file: algorithm, base64, perhaps a comment.
    ///
    /// # Errors
    /// If the line is anything else.
    pub fn from_line(line: &str) -> Result<Self, KeyError> {
        match ssh_key::PublicKey::from_openssh(line.trim()) {
            Ok(key) => Ok(Self(key)),
            Err(source) => Err(KeyError { line: line.to_owned(), source }),
        }
    }

    /// Returns the key as a line, without a newline.
    pub fn line(&self) -> String {
        self.0.to_openssh().expect("a key in memory can be written")
    }

    /// Returns the fingerprint as `ssh` prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob())
    }

    /// Returns the name of the algorithm as it is negotiated for host keys.
    pub(super) fn algorithm(&self) -> String {
        self.0.algorithm().to_string()
    }

    /// Returns the bytes that cross the wire.
    pub(super) fn blob(&self) -> Vec<u8> {
        self.0.to_bytes().expect("a key in memory can be written")
    }
}

/// Returns the fingerprint of a key as it crosses the wire.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIAWyetxaCFc8gTAxhFGkw4c041mBet1h9vGHmK7Ezkz somebody";
        let key = PublicKey::from_line(line).unwrap();
        assert_eq!(key.fingerprint(), "SHA256:loNIZbsD3Sl5tJY0bEf+Lqj0eXxQWJwOUUNHt7Tg+VA");
        assert_eq!(key.line(), line);
    }

    #[test]
    fn nothing_private_is_printed() {
        let pair = KeyPair::generate();
        let shown = format!("{pair:?}");
        assert!(shown.contains(&pair.public_line()), "{shown}");
        let pem = pair.private_pem();
        let secret = pem.lines().nth(2).unwrap();
        assert!(!shown.contains(secret));
    }

    #[test]
    fn a_line_that_is_no_key_is_refused() {
        let error = PublicKey::from_line("ssh-ed25519 nonsense").unwrap_err();
        assert_eq!(error.to_string(), "`ssh-ed25519 nonsense` is not a public key line");
    }
}
