//! The settings file, as written and as meant.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use openidconnect::url::Url;
use openidconnect::{ClientId, IssuerUrl, RedirectUrl};
use rave_guest::Secret;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    listen: SocketAddr,
    root_url: String,
    issuer: String,
    client_id: String,
    client_secret: PathBuf,
    ca: PathBuf,
    group: String,
}

/// What the program goes by.
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its own address for browsers, with a slash at its end.
    pub root_url: Url,
    /// The path of that address, without a slash at its end.
    pub path: String,
    /// Who signs people in.
    pub issuer: IssuerUrl,
    /// Its name there.
    pub client_id: ClientId,
    /// Its secret there.
    pub client_secret: Secret,
    /// Where people come back to.
    pub redirect: RedirectUrl,
    /// The certificate authority of the provider, PEM.
    pub ca: Vec<u8>,
    /// The group whose members may sign in.
    pub group: String,
}

impl Settings {
    /// Reads and checks the settings file and the files it names.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file: SettingsFile = rave_guest::read(path)?;
        let key = |name: &str| format!("{}: `{name}`", path.display());
        let SettingsFile { listen, root_url, issuer, client_id, client_secret, ca, group } = file;
        let (root_url, below) = root(&root_url).with_context(|| key("root_url"))?;
        ensure!(
            !issuer.ends_with('/'),
            "{} must have no slash at its end: the provider compares it letter by letter",
            key("issuer")
        );
        for (name, value) in [("client_id", &client_id), ("group", &group)] {
            ensure!(!value.is_empty(), "{} is empty", key(name));
        }
        let redirect = root_url.join("login/gitlab").map(RedirectUrl::from_url).with_context(|| key("root_url"))?;
        Ok(Self {
            listen,
            path: below,
            issuer: IssuerUrl::new(issuer).with_context(|| key("issuer"))?,
            client_id: ClientId::new(client_id),
            client_secret: Secret::read(&client_secret)?,
            redirect,
            ca: std::fs::read(&ca).with_context(|| format!("{}: could not read `{}`", key("ca"), ca.display()))?,
            group,
            root_url,
        })
    }
}

/// The address and its path.
fn root(written: &str) -> anyhow::Result<(Url, String)> {
    let url = Url::parse(written)?;
    let Some(path) = url.path().strip_suffix('/').filter(|path| !path.is_empty()) else {
        bail!("must have a path with a slash at its end, such as https://rave.local:3002/grafana/");
    };
    ensure!(url.scheme() == "https", "must be https: cookies are for https only");
    let path = path.to_owned();
    Ok((url, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    const GOOD: &str = "listen = \"127.0.0.1:3000\"\nroot_url = \"https://rave.local:3002/grafana/\"\nissuer = \"https://rave.local:3002/gitlab\"\n\
                        client_id = \"grafana\"\nclient_secret = \"FOLDER/secret\"\nca = \"FOLDER/ca\"\ngroup = \"rave\"\n";

    fn check(written: &str, instead: &str, expected: Result<(), &str>) {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        let (path, secret) = (folder.path().join("grafana.toml"), folder.path().join("secret"));
        fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o400)).unwrap();
        fs::write(folder.path().join("ca"), "a certificate").unwrap();
        fs::write(&path, GOOD.replace(written, instead).replace("FOLDER", &here)).unwrap();
        let found = Settings::read(&path).map(drop).map_err(|error| format!("{error:#}").replace(&here, ""));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_mistake_is_named_with_what_is_right() {
        check("", "", Ok(()));
        let slash = "/grafana.toml: `root_url`: must have a path with a slash at its end, such as https://rave.local:3002/grafana/";
        check("grafana/\"", "grafana\"", Err(slash));
        check("3002/grafana/\"", "3002/\"", Err(slash));
        check(
            "https://rave.local:3002/grafana/",
            "http://rave.local/grafana/",
            Err("/grafana.toml: `root_url`: must be https: cookies are for https only"),
        );
        check("\"grafana\"", "\"\"", Err("/grafana.toml: `client_id` is empty"));
        check(
            "FOLDER/ca",
            "FOLDER/no",
            Err("/grafana.toml: `ca`: could not read `/no`: No such file or directory (os error 2)"),
        );
        check(
            "gitlab\"",
            "gitlab/\"",
            Err("/grafana.toml: `issuer` must have no slash at its end: the provider compares it letter by letter"),
        );
        check(
            "group",
            "grup",
            Err(
                "/grafana.toml:7: unknown field `grup`, expected one of `listen`, `root_url`, `issuer`, `client_id`, `client_secret`, `ca`, `group`",
            ),
        );
    }
}
