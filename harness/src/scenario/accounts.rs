//! The accounts of the forge that every run hands to the guest: who they are stands in `accounts.toml` beside the phases, their passwords
//! and tokens are made by the run, and nobody else ever knows them.

use std::collections::BTreeMap;

use camino::Utf8Path;

use super::document::{self, Item, Table, is_plain};
use super::file::Mistakes;
use super::model::Variables;

/// The file's name.
pub const FILE_NAME: &str = "accounts.toml";
/// The systemd credential in which the accounts reach the guest.
pub const CREDENTIAL: &str = "rave.accounts";
/// Access levels of the forge, by the words its documentation uses.
const LEVELS: [(&str, u64); 5] =
    [("guest", 10), ("reporter", 20), ("developer", 30), ("maintainer", 40), ("owner", 50)];

/// Which accounts there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// The path of the group in which they have their role.
    group: String,
    list: Vec<Account>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    username: String,
    name: String,
    admin: bool,
    access_level: Option<u64>,
}

impl Accounts {
    /// Reads `accounts.toml` in `folder`. Without that file there are no accounts.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(folder: &Utf8Path) -> Result<Self, Mistakes> {
        document::read(&folder.join(FILE_NAME), accounts)
    }

    /// The variables they bring: `account.NAME.password` and `account.NAME.token`.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        let names = |account: &Account| ["password", "token"].map(|what| variable(&account.username, what));
        self.list.iter().flat_map(names)
    }

    /// A value for each variable; `random` makes a new secret each time.
    pub fn secrets(&self, random: impl Fn() -> String) -> Variables {
        let value = |name: String| {
            // The prefix is the forge's: it tells scanners for leaked secrets what it is.
            let prefix = if name.ends_with(".token") { "glpat-" } else { "" };
            (name, format!("{prefix}{}", random()))
        };
        self.variables().map(value).collect()
    }

    /// What the guest is told, as JSON; nothing where there are no accounts.
    pub fn credential(&self, secrets: &Variables) -> Option<Vec<u8>> {
        let account = |account: &Account| {
            let Account { username, name, admin, access_level } = account;
            let secret = |what| secrets.get(&variable(username, what));
            let mut json = BTreeMap::from([
                ("username", username.as_str().into()),
                ("name", name.as_str().into()),
                ("email", format!("{username}@rave.local").into()),
                ("admin", (*admin).into()),
                ("password", serde_json::json!(secret("password"))),
                ("token", serde_json::json!(secret("token"))),
            ]);
            json.extend(access_level.map(|level| ("access_level", level.into())));
            json
        };
        let accounts: Vec<_> = self.list.iter().map(account).collect();
        (!accounts.is_empty()).then(|| {
            serde_json::json!({ "schema": 1, "group": self.group, "accounts": accounts }).to_string().into_bytes()
        })
    }
}

/// Whether a variable comes from an account.
pub fn is_of_account(variable: &str) -> bool {
    variable.starts_with("account.")
}

fn variable(username: &str, what: &str) -> String {
    format!("account.{username}.{what}")
}

fn accounts(root: &Table<'_>) -> Option<Accounts> {
    root.only(&["group", "account"]);
    let group = root.require("group", "the file").and_then(|item| path(&item));
    let items = root.require("account", "the file").and_then(|item| item.list("tables, each below `[[account]]`"));
    let list: Vec<_> = items.unwrap_or_default().iter().map(account).collect();
    Some(Accounts { group: group?, list: list.into_iter().collect::<Option<_>>()? })
}

fn account(item: &Item<'_>) -> Option<Account> {
    let table = item.table("tables, each below `[[account]]`")?;
    table.only(&["username", "name", "admin", "role"]);
    let username = table.require("username", "the account").and_then(|item| path(&item));
    let name = table.require("name", "the account").and_then(|item| item.one_line());
    let admin = table.get("admin").map_or(Some(false), |item| item.boolean());
    let access_level = table.get("role").map_or(Some(None), |item| {
        let word = item.text()?;
        let level = LEVELS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level);
        if level.is_none() {
            item.mistake(format!("`{word}` is not a role: it is one of {}", LEVELS.map(|(word, _)| word).join(", ")));
        }
        Some(level)
    });
    Some(Account { username: username?, name: name?.to_owned(), admin: admin?, access_level: access_level? })
}

/// A word that can stand in a path of the forge and in the name of a variable.
fn path(item: &Item<'_>) -> Option<String> {
    let word = item.some_text()?;
    if !is_plain(word) {
        item.mistake(format!("`{word}` cannot be a {}: only a-z, 0-9 and _", item.key));
    }
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Accounts, String> {
        document::read_text(FILE_NAME, text, Accounts::read)
    }

    #[test]
    fn accounts_have_secrets_and_reach_the_guest_as_json() {
        let text = "group = 'rave'\n[[account]]\nusername = 'dana'\nname = 'Dana'\nrole = 'developer'\n\
                    [[account]]\nusername = 'root'\nname = 'Root'\nadmin = true\n";
        let accounts = read(text).unwrap();
        let names: Vec<_> = accounts.variables().collect();
        assert_eq!(
            names,
            ["account.dana.password", "account.dana.token", "account.root.password", "account.root.token"]
        );
        let secrets = accounts.secrets(|| "r".to_owned());
        assert_eq!(secrets["account.dana.token"], "glpat-r");
        let json: serde_json::Value = serde_json::from_slice(&accounts.credential(&secrets).unwrap()).unwrap();
        let dana = serde_json::json!({ "username": "dana", "name": "Dana", "email": "dana@rave.local", "admin": false,
            "access_level": 30, "password": "r", "token": "glpat-r" });
        assert_eq!(json["accounts"][0], dana);
        assert_eq!(json["accounts"][1].get("access_level"), None);
    }

    #[test]
    fn without_the_file_nothing_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::read(Utf8Path::from_path(folder.path()).unwrap()).unwrap();
        assert_eq!(accounts.credential(&Variables::new()), None);
    }

    #[test]
    fn every_mistake_is_shown_with_its_line() {
        let text = "grup = 'rave'\n[[account]]\nusername = 'Dana D'\nname = 'Dana'\nrole = 'coder'\n";
        assert_eq!(
            read(text).unwrap_err(),
            "accounts.toml:1: the file has no `group`\n\
             accounts.toml:1: unknown key `grup`, did you mean `group`?\n\
             accounts.toml:3: `Dana D` cannot be a username: only a-z, 0-9 and _\n\
             accounts.toml:5: `coder` is not a role: it is one of guest, reporter, developer, maintainer, owner"
        );
    }
}
