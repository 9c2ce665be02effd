//! DSSE envelopes (<https://github.com/secure-systems-lab/dsse>), signed with the key of a session: what in-toto statements
//! travel in. minisign signs a digest of the file and a comment; DSSE signs the payload with its type, by plain Ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::PublicKey;
use serde::Serialize;

use super::sign::{SignError, SigningKey};

/// The type of an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An envelope, as it is written.
#[derive(Debug, Serialize)]
pub struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// Puts a payload into an envelope and signs it.
///
/// # Errors
/// If the key cannot be used.
pub fn seal(payload: &[u8], payload_type: &str, key: &SigningKey) -> Result<Envelope, SignError> {
    let signature = key.sign_plain(&encoding(payload_type, payload))?;
    Ok(Envelope {
        payload_type: payload_type.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature { keyid: key.id(), sig: STANDARD.encode(signature) }],
    })
}

/// What is signed: the pre-authentication encoding of DSSE version 1.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// A minisign public key as other programs take it: PEM, SubjectPublicKeyInfo (RFC 8410).
pub fn public_pem(key: &PublicKey) -> String {
    // Sequence of the algorithm 1.3.101.112 and a bit string of 32 bytes.
    const BEFORE: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    // Two bytes name the algorithm and eight the key; the rest is the key itself.
    let der = [&BEFORE[..], &key.to_bytes()[10..]].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(encoding("http://example.com/HelloWorld", b"hello world"), expected);
    }
}
