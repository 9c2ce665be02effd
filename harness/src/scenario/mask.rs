//! Secrets are masked in everything that is written.

use std::sync::{PoisonError, RwLock};

use memchr::memmem;

/// What stands in a secret's place.
const MASK: &str = "[masked]";

/// The secrets of a session: those the run made, and those captured as secret.
#[derive(Default)]
pub struct Mask {
    secrets: RwLock<Vec<String>>,
}

impl Mask {
    /// Masks `secret` from now on. A text of fewer than four bytes is not a secret: masking it would garble everything.
    pub fn add(&self, secret: &str) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        // Texts are shown with quotes and control characters escaped.
        for form in [secret.to_owned(), secret.escape_debug().to_string()] {
            if secret.len() >= 4 && !secrets.contains(&form) {
                secrets.push(form);
            }
        }
        // The longest first, so that a secret inside another does not leave the rest of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }

    /// `bytes` without secrets; unchanged where there is none in them.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(bytes.to_owned(), |bytes, secret| replace(bytes, secret.as_bytes(), MASK.as_bytes()))
    }
}

fn replace(bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let Some(first) = memmem::find(&bytes, from) else { return bytes };
    let mut result = Vec::with_capacity(bytes.len());
    let (mut rest, mut next) = (bytes.as_slice(), Some(first));
    while let Some(at) = next {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(to);
        rest = &rest[at + from.len()..];
        next = memmem::find(rest, from);
    }
    result.extend_from_slice(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_text_and_bytes() {
        let mask = Mask::default();
        mask.add("hunter2");
        mask.add("hunter2-long");
        mask.add("ab");
        assert_eq!(mask.text("a hunter2-long ab hunter2."), "a [masked] ab [masked].");
        assert_eq!(mask.bytes(b"\xffhunter2\xffhunter2"), b"\xff[masked]\xff[masked]");
        assert_eq!(mask.bytes(b"nothing here"), b"nothing here");
        mask.add("say \"it\"");
        assert_eq!(mask.text(&format!("{:?}", "say \"it\"")), "\"[masked]\"");
    }
}
