//! What is asked for: as it was sent, then as it is meant. Everything in it comes from outside, so nothing is taken on trust: what goes into a
//! path, a command line or a file of the sandbox has a form of its own, and anything else is refused.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::Limits;

const LONGEST_KEY: usize = 8192;
const MOST_KEYS: usize = 16;
const LONGEST_NAME: usize = 255;
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The body of `POST /sandboxes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    project: String,
    project_id: u64,
    mr: u64,
    sha: String,
    repository: String,
    authorized_keys: Vec<String>,
    requested_by: String,
    ttl_seconds: Option<u64>,
}

/// A sandbox that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The project's path, such as `rave/hello`.
    pub project: String,
    /// The project's number in the forge.
    pub project_id: u64,
    /// The merge request's number within the project.
    pub mr: u64,
    /// The commit: 40 hexadecimal digits.
    pub sha: String,
    /// Where the project can be cloned from. It is only recorded.
    pub repository: String,
    /// Who may enter: SSH keys, without options.
    pub authorized_keys: Vec<String>,
    /// Who wants it.
    pub requested_by: String,
    /// How long it may live.
    pub ttl: Duration,
}

impl Request {
    /// Checks what was sent.
    ///
    /// # Errors
    /// With what is wrong, and what would be right.
    pub fn check(sent: Sent, limits: &Limits) -> Result<Self, String> {
        let Sent { project, project_id, mr, sha, repository, authorized_keys, requested_by, ttl_seconds } = sent;
        if !is_project(&project) {
            return Err(format!("`project` is {project:?}; it must be a path such as \"rave/hello\""));
        }
        if mr == 0 {
            return Err("`mr` is 0; merge requests count from 1".to_owned());
        }
        if sha.len() != 40 || !sha.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("`sha` is {sha:?}; it must be 40 hexadecimal digits"));
        }
        if repository.len() > 2048 || !repository.chars().all(|character| character.is_ascii_graphic()) {
            return Err("`repository` must be a URL".to_owned());
        }
        if !is_name(&requested_by) {
            return Err(format!("`requested_by` is {requested_by:?}; it must be a user name"));
        }
        if authorized_keys.is_empty() || authorized_keys.len() > MOST_KEYS {
            return Err(format!(
                "`authorized_keys` holds {} keys; it must hold 1 to {MOST_KEYS}",
                authorized_keys.len()
            ));
        }
        let authorized_keys = authorized_keys.iter().map(|key| check_key(key)).collect::<Result<_, _>>()?;
        let longest = limits.longest_ttl.as_secs();
        let ttl = ttl_seconds.unwrap_or(limits.ttl.as_secs());
        if !(10..=longest).contains(&ttl) {
            return Err(format!("`ttl_seconds` is {ttl}; it must be from 10 to {longest}"));
        }
        let ttl = Duration::from_secs(ttl);
        Ok(Self { project, project_id, mr, sha, repository, authorized_keys, requested_by, ttl })
    }
}

/// At least a namespace and a name, and nothing that could leave the folder of repositories or be taken for an option.
fn is_project(path: &str) -> bool {
    path.len() <= LONGEST_NAME && path.split('/').count() >= 2 && path.split('/').all(is_name)
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && !name.ends_with(".git")
}

/// Type, key, and at most a comment: an option before them could run a command, and a line break would be a second key.
fn check_key(key: &str) -> Result<String, String> {
    let key = key.trim_end_matches(['\n', ' ']);
    let refused = |why: &str| Err(format!("a key in `authorized_keys` {why}"));
    if key.len() > LONGEST_KEY {
        return refused("is longer than 8192 characters");
    }
    if key.chars().any(char::is_control) {
        return refused("has a line break or another control character in it");
    }
    let mut words = key.split(' ');
    match (words.next(), words.next()) {
        (Some(kind), _) if !KEY_TYPES.contains(&kind) => refused("does not begin with a key type such as ssh-ed25519"),
        (_, Some(blob)) if blob.starts_with("AAAA") && blob.bytes().all(is_base64) => Ok(key.to_owned()),
        _ => refused("has no key after its type"),
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::settings;

    /// A request as the bridge would send it.
    pub(crate) fn body() -> serde_json::Value {
        serde_json::json!({
            "project": "rave/hello", "project_id": 7, "mr": 1, "sha": "0123456789abcdef0123456789abcdef01234567",
            "repository": "https://rave.local:3002/gitlab/rave/hello.git",
            "authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA dana@rave.local"],
            "requested_by": "dana", "ttl_seconds": 600
        })
    }

    pub(crate) fn limits() -> Limits {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.toml");
        std::fs::write(&path, "").unwrap();
        settings::read(&path).unwrap().limits
    }

    fn parse(body: serde_json::Value) -> Result<Request, String> {
        let sent = serde_json::from_value(body).map_err(|error| error.to_string())?;
        Request::check(sent, &limits())
    }

    fn refused(key: &str, value: serde_json::Value, expected: &str) {
        let mut body = body();
        body[key] = value;
        let message = parse(body).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_good_request_is_taken_as_it_is() {
        let request = parse(body()).unwrap();
        assert_eq!(request.project, "rave/hello");
        assert_eq!(request.ttl, Duration::from_secs(600));
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        for project in [
            "hello",
            "../etc",
            "rave/../..",
            "rave//hello",
            "/rave/hello",
            "rave/-x",
            "rave/.x",
            "rave/a b",
            "rave/a\n",
            "rave/hello.git",
        ] {
            refused("project", project.into(), "`project` is");
        }
        for sha in ["HEAD", "--output=x", "0123456789ABCDEF0123456789abcdef01234567", ""] {
            refused("sha", sha.into(), "`sha` is");
        }
        refused("mr", 0.into(), "count from 1");
        refused("mr", (-1).into(), "invalid value");
        refused("requested_by", "a\nb".into(), "`requested_by` is");
        refused("ttl_seconds", 0.into(), "from 10 to 86400");
        refused("ttl_seconds", u64::MAX.into(), "from 10 to 86400");
        refused("memory", 1.into(), "unknown field `memory`");
    }

    #[test]
    fn a_key_is_a_key_and_nothing_else() {
        let key = |text: &str, expected| refused("authorized_keys", serde_json::json!([text]), expected);
        key("command=\"reboot\" ssh-ed25519 AAAA", "does not begin with a key type");
        key("ssh-ed25519 AAAAx\nssh-ed25519 AAAAy", "line break");
        key("ssh-ed25519", "no key after its type");
        key("ssh-ed25519 !", "no key after its type");
        key("", "does not begin with a key type");
        refused("authorized_keys", serde_json::json!([]), "holds 0 keys");
    }
}
