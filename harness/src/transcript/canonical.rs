//! The one byte form of a transcript: RFC 8785 (JSON Canonicalization Scheme). The file is exactly these bytes.

use super::model::Transcript;

/// The canonical bytes of the whole document.
///
/// # Errors
/// If the document cannot be written as JSON, which only an integer above 2^53 could cause.
pub fn of(transcript: &Transcript) -> Result<Vec<u8>, serde_json::Error> {
    serde_json_canonicalizer::to_vec(transcript)
}

/// The canonical bytes of the document without its signature: what the signature inside it is over.
///
/// # Errors
/// As [`of`].
pub fn of_unsigned(transcript: &Transcript) -> Result<Vec<u8>, serde_json::Error> {
    of(&Transcript { signature: None, ..transcript.clone() })
}
