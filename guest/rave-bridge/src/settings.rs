//! The settings file, as written and as meant: what is left after reading it is checked, with its secrets in hand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rave_guest::{ConfigError, Secret, SecretError};
use serde::Deserialize;

/// The longest a role may be remembered: whoever loses it must lose it within a minute.
const LONGEST_ROLE_CACHE: u64 = 60;

/// Everything the bridge is told, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where the homeserver reaches the bridge; a loopback address.
    pub listen: SocketAddr,
    /// The server part of every user the bridge listens to.
    pub server_name: String,
    /// The bridge's own user id.
    pub user_id: String,
    /// The audit log.
    pub audit: PathBuf,
    /// The program that starts and stops agents.
    pub systemctl: PathBuf,
    /// What proves the bridge to the homeserver.
    pub as_token: Secret,
    /// What proves the homeserver to the bridge.
    pub hs_token: Secret,
    /// The key of the audit log's chain.
    pub audit_key: Secret,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The forge.
    pub forge: Forge,
    /// Who a Matrix user is.
    pub directory: Directory,
    /// The sandbox daemon.
    pub sandbox: Sandbox,
    /// How much one sender or room may ask.
    pub limits: Limits,
    /// Rooms the bridge may be in; empty: any room without outsiders.
    pub rooms: Vec<String>,
}

/// Where the homeserver is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Homeserver {
    /// Base address of its client API.
    pub url: String,
    /// The bridge's id in its registration.
    pub appservice: String,
}

/// Where the forge is, and as whom the bridge speaks to it.
#[derive(Debug)]
pub struct Forge {
    /// Base address of its REST API.
    pub url: String,
    /// The CA that signed its certificate; none for plain HTTP on the loopback interface.
    pub ca: Option<PathBuf>,
    /// The token of the bridge's account.
    pub token: Secret,
    /// The group whose members' levels are the roles, and in which projects are made.
    pub group: String,
}

/// Where Matrix users and accounts of the forge are tied together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Connection to the homeserver's database, as key=value words.
    pub database: String,
    /// The identity provider, as the homeserver names it.
    pub provider: String,
}

/// How the bridge speaks to the sandbox daemon.
#[derive(Debug)]
pub struct Sandbox {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// How long a sandbox lives.
    pub life: Duration,
    /// How long one may take to answer.
    pub ready_within: Duration,
    /// How often the bridge looks after those there are.
    pub watch_every: Duration,
}

/// How much one may ask.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Commands of one sender in a minute, over time.
    pub sender_per_minute: u32,
    /// Commands of one sender at once.
    pub sender_burst: u32,
    /// Commands in one room in a minute.
    pub room_per_minute: u32,
    /// After so many denials within `ignore_seconds` a sender is ignored …
    pub denials: u32,
    /// … for so long.
    pub ignore_seconds: u64,
    /// How long a role is remembered, in seconds; at most 60.
    pub role_cache_seconds: u64,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A secret is wrong.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A value cannot work.
    #[error("{}: `{key}` {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    server_name: String,
    user: String,
    audit: PathBuf,
    systemctl: PathBuf,
    secrets: SecretFiles,
    homeserver: Homeserver,
    forge: ForgeFile,
    directory: Directory,
    sandbox: SandboxFile,
    limits: Limits,
    rooms: RoomsFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretFiles {
    as_token: PathBuf,
    hs_token: PathBuf,
    audit_key: PathBuf,
    forge_token: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgeFile {
    url: String,
    ca: Option<PathBuf>,
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SandboxFile {
    socket: PathBuf,
    life_seconds: u64,
    ready_seconds: u64,
    watch_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomsFile {
    allowed: Vec<String>,
}

impl Settings {
    /// Reads the settings and the secrets they name.
    ///
    /// # Errors
    /// If the file or a secret is missing or wrong.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let File {
            listen,
            server_name,
            user,
            audit,
            systemctl,
            secrets,
            homeserver,
            forge,
            directory,
            sandbox,
            limits,
            rooms,
        } = rave_guest::read(path)?;
        let check = |key, problem: Option<String>| match problem {
            None => Ok(()),
            Some(why) => Err(SettingsError::Value { path: path.to_owned(), key, why }),
        };
        check("listen", (!listen.ip().is_loopback()).then(|| format!("is {listen}; it must be a loopback address")))?;
        check("server_name", not_a_name(&server_name))?;
        check("user", not_a_name(&user))?;
        check("audit", not_absolute(&audit))?;
        check("systemctl", not_absolute(&systemctl))?;
        check("homeserver.url", not_private(&homeserver.url, false))?;
        check("forge.url", not_private(&forge.url, forge.ca.is_some()))?;
        check("forge.group", not_a_name(&forge.group))?;
        check("directory.database", not_a_database(&directory.database))?;
        check("sandbox.socket", not_absolute(&sandbox.socket))?;
        for (key, value) in [
            ("sandbox.life_seconds", sandbox.life_seconds),
            ("sandbox.ready_seconds", sandbox.ready_seconds),
            ("sandbox.watch_seconds", sandbox.watch_seconds),
            ("limits.sender_per_minute", limits.sender_per_minute.into()),
            ("limits.sender_burst", limits.sender_burst.into()),
            ("limits.room_per_minute", limits.room_per_minute.into()),
            ("limits.denials", limits.denials.into()),
        ] {
            check(key, (value == 0).then(|| "is 0; it must be at least 1".to_owned()))?;
        }
        check(
            "limits.role_cache_seconds",
            (limits.role_cache_seconds > LONGEST_ROLE_CACHE)
                .then(|| format!("is {}; it must be at most {LONGEST_ROLE_CACHE}", limits.role_cache_seconds)),
        )?;
        check(
            "rooms.allowed",
            rooms
                .allowed
                .iter()
                .find(|room| !room.starts_with('!'))
                .map(|room| format!("has `{room}`; it must list room ids, which start with `!`, and no aliases")),
        )?;
        let as_token = Secret::read(&secrets.as_token)?;
        let hs_token = Secret::read(&secrets.hs_token)?;
        check(
            "secrets.hs_token",
            (as_token == hs_token).then(|| "is the same as `secrets.as_token`; they must differ".to_owned()),
        )?;
        Ok(Self {
            listen,
            user_id: format!("@{user}:{server_name}"),
            server_name,
            audit,
            systemctl,
            as_token,
            hs_token,
            audit_key: Secret::read(&secrets.audit_key)?,
            homeserver,
            forge: Forge {
                url: forge.url,
                ca: forge.ca,
                token: Secret::read(&secrets.forge_token)?,
                group: forge.group,
            },
            directory,
            sandbox: Sandbox {
                socket: sandbox.socket,
                life: Duration::from_secs(sandbox.life_seconds),
                ready_within: Duration::from_secs(sandbox.ready_seconds),
                watch_every: Duration::from_secs(sandbox.watch_seconds),
            },
            limits,
            rooms: rooms.allowed,
        })
    }
}

/// The log and its key, for whoever only verifies.
#[derive(Debug)]
pub struct AuditSettings {
    /// The audit log.
    pub audit: PathBuf,
    /// The key of its chain.
    pub key: Secret,
}

impl AuditSettings {
    /// Reads of the settings what verifying the log takes, and no other secret.
    ///
    /// # Errors
    /// If the file or the key is missing or wrong.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let File { audit, secrets, .. } = rave_guest::read(path)?;
        Ok(Self { audit, key: Secret::read(&secrets.audit_key)? })
    }
}

fn not_a_name(value: &str) -> Option<String> {
    let fits =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || ".-_".contains(character);
    (value.is_empty() || !value.chars().all(fits))
        .then(|| format!("is `{value}`; it must be a name of lower-case letters, digits, `.`, `-` and `_`"))
}

fn not_absolute(path: &Path) -> Option<String> {
    (!path.is_absolute()).then(|| format!("is `{}`; it must be an absolute path", path.display()))
}

/// A token goes to this address, so it must be the machine itself or proved by a CA.
fn not_private(url: &str, with_ca: bool) -> Option<String> {
    let host = |rest: &str| rest.split(['/', ':']).next().unwrap_or_default().to_owned();
    let good = match url.split_once("://") {
        Some(("https", rest)) => with_ca && !host(rest).is_empty(),
        Some(("http", rest)) => matches!(host(rest).as_str(), "127.0.0.1" | "localhost"),
        _ => false,
    };
    (!good || url.ends_with('/')).then(|| {
        format!("is `{url}`; it must be https:// with a `ca`, or http://127.0.0.1, without a slash at its end")
    })
}

fn not_a_database(value: &str) -> Option<String> {
    match value.parse::<tokio_postgres::Config>() {
        Err(error) => Some(format!(
            "is no connection: {error}; it must be like `host=/run/postgresql user=rave_bridge dbname=synapse`"
        )),
        Ok(config) if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() => {
            Some("must name host, user and dbname".to_owned())
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    const SHIPPED: &str = include_str!("../../reference/parts/bridge/files/etc/rave/bridge.toml");

    /// Reads the shipped settings, with secrets in a folder of their own and one line replaced.
    fn read(from: &str, to: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bridge-as-token", "bridge-hs-token", "bridge-audit-key", "bridge-forge-token"] {
            let path = folder.path().join(name);
            fs::write(&path, format!("{name}-0123456789abcdef0123456789abcdef")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        }
        let path = folder.path().join("bridge.toml");
        assert!(SHIPPED.contains(from), "the shipped settings have no {from}");
        let text = SHIPPED.replacen(from, to, 1).replace("/etc/rave/secrets", folder.path().to_str().unwrap());
        fs::write(&path, text).unwrap();
        let shown = format!("{}", path.display());
        Settings::read(&path).map_err(|error| error.to_string().replace(&shown, "bridge.toml"))
    }

    #[test]
    fn the_shipped_settings_are_good() {
        let settings = read("", "").unwrap();
        assert_eq!(settings.user_id, "@rave:rave.local");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:9000");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_would_be_right() {
        let check = |from: &str, to: &str, message: &str| assert_eq!(read(from, to).unwrap_err(), message);
        check("127.0.0.1:9000", "0.0.0.0:9000", "bridge.toml: `listen` is 0.0.0.0:9000; it must be a loopback address");
        check(
            "user = \"rave\"",
            "user = \"@rave\"",
            "bridge.toml: `user` is `@rave`; it must be a name of lower-case letters, digits, `.`, `-` and `_`",
        );
        check(
            "allowed = []",
            "allowed = [\"#a:b\"]",
            "bridge.toml: `rooms.allowed` has `#a:b`; it must list room ids, which start with `!`, and no aliases",
        );
        check(
            "role_cache_seconds = 30",
            "role_cache_seconds = 90",
            "bridge.toml: `limits.role_cache_seconds` is 90; it must be at most 60",
        );
        check("sender_burst = 5", "sender_burst = 0", "bridge.toml: `limits.sender_burst` is 0; it must be at least 1");
        check(
            "bridge-hs-token",
            "bridge-as-token",
            "bridge.toml: `secrets.hs_token` is the same as `secrets.as_token`; they must differ",
        );
        check(
            "https://rave.local",
            "http://rave.local",
            "bridge.toml: `forge.url` is `http://rave.local:3002/gitlab/api/v4`; it must be https:// with a `ca`, or http://127.0.0.1, without a slash at its end",
        );
        check(" dbname=synapse", "", "bridge.toml: `directory.database` must name host, user and dbname");
        let unknown = read("listen =", "listne =").unwrap_err();
        assert!(unknown.contains(": unknown field `listne`"), "{unknown}");
    }
}
