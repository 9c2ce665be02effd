//! What the clients of the forge, the homeserver and the sandbox daemon have in common.

use std::time::Duration;

use serde_json::Value;

/// No answer that the bridge asks for is longer.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// How long a connection may take: all services are on this machine.
const CONNECT: Duration = Duration::from_secs(3);

/// A client builder with the bridge's habits: no redirects, no proxies, no waiting for ever.
pub fn client(patience: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(patience)
        .pool_max_idle_per_host(4)
        .user_agent(concat!("rave-bridge/", env!("CARGO_PKG_VERSION")))
}

/// An answer: its status, and its body if that is JSON (null otherwise).
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// Sends a request and reads the answer, up to a limit.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Answered, String> {
    let mut response = request.send().await.map_err(|error| shown(&error))?;
    let status = response.status().as_u16();
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await.map_err(|error| shown(&error))? {
        if bytes.len() + chunk.len() > LONGEST_ANSWER {
            return Err(format!("an answer of more than {LONGEST_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Answered { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}

/// A text as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An error with its causes, in one line.
fn shown(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_hold_no_slash() {
        assert_eq!(segment("rave/hello"), "rave%2Fhello");
        assert_eq!(segment("!a:b?c#d"), "%21a%3Ab%3Fc%23d");
    }
}
