//! Bytes as people compare them.

/// Lower-case hexadecimal digits.
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A SHA-256 digest as it stands in a transcript: `sha256:` and 64 digits.
pub fn sha256(digest: &[u8]) -> String {
    format!("sha256:{}", digits(digest))
}
