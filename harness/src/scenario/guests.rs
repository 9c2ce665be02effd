//! What differs between guests that answer the same questions: names of units, accounts and files, and what is expected of them. It stands
//! in `guests.toml` beside the phases, on the harness's side, since a guest must not say itself what is right about it.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;

use super::document::{self, Item, Table, is_plain};
use super::file::Mistakes;
use super::model::Variables;

/// The file's name.
pub const FILE_NAME: &str = "guests.toml";
/// What the names of these variables begin with, and of no others but `guest.ca`.
const PREFIX: &str = "guest.";

/// The guests that are known, by the name that stands in their profiles, and each one's values by the whole name of the variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guests(BTreeMap<String, Variables>);

impl Guests {
    /// Reads `guests.toml` in `folder`. Without that file nothing is known of any guest.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(folder: &Utf8Path) -> Result<Self, Mistakes> {
        document::read(&folder.join(FILE_NAME), guests)
    }

    /// The variables of all guests. One that a guest does not have is not known in its runs.
    pub fn variables(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(Variables::keys).map(String::as_str).collect()
    }

    /// What is known of the guest that calls itself `name`.
    pub fn of(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.get(name).into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Whether a variable differs between guests.
pub fn is_of_guest(variable: &str) -> bool {
    variable.starts_with(PREFIX)
}

fn guests(root: &Table<'_>) -> Option<Guests> {
    let guest = |item: &Item<'_>| Some((item.key.to_owned(), values(&item.table("a table")?)?));
    Some(Guests(all(root, guest)?))
}

fn values(table: &Table<'_>) -> Option<Variables> {
    let value = |item: &Item<'_>| {
        let name = format!("{PREFIX}{}", item.key);
        if name == "guest.ca" || !is_plain(item.key) {
            item.mistake(format!("`{}` cannot be a name here: only a-z, 0-9 and _, and not ca", item.key));
        }
        let text = item.some_text()?;
        Some((name, text.strip_suffix('\n').unwrap_or(text).to_owned()))
    };
    all(table, value)
}

/// What is read of every entry. All are read, so that every mistake is found.
fn all<T>(table: &Table<'_>, read: impl Fn(&Item<'_>) -> Option<(String, T)>) -> Option<BTreeMap<String, T>> {
    let entries: Vec<_> = table.items.iter().map(read).collect();
    entries.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Guests, String> {
        document::read_text(FILE_NAME, text, Guests::read)
    }

    #[test]
    fn each_guest_has_values_of_its_own() {
        let guests = read("[P6-a]\nssh = 'ssh'\nports = '''\n22\n3002\n'''\n[P6-b]\nssh = 'sshd'\n").unwrap();
        assert_eq!(guests.variables().into_iter().collect::<Vec<_>>(), ["guest.ports", "guest.ssh"]);
        assert_eq!(guests.of("P6-a").collect::<Vec<_>>(), [("guest.ports", "22\n3002"), ("guest.ssh", "ssh")]);
        assert_eq!(guests.of("P6-b").collect::<Vec<_>>(), [("guest.ssh", "sshd")]);
        assert_eq!(guests.of("P6-c").next(), None);
    }

    #[test]
    fn without_the_file_no_guest_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let guests = Guests::read(Utf8Path::from_path(folder.path()).unwrap()).unwrap();
        assert_eq!(guests, Guests::default());
    }

    #[test]
    fn every_mistake_is_shown_with_its_line() {
        assert_eq!(
            read("schema = 1\n[P6-a]\nca = '/ca'\nSSH = 'ssh'\nport = 22\nunit = ' '\n").unwrap_err(),
            "guests.toml:1: `schema` must be a table, not a whole number\n\
             guests.toml:3: `ca` cannot be a name here: only a-z, 0-9 and _, and not ca\n\
             guests.toml:4: `SSH` cannot be a name here: only a-z, 0-9 and _, and not ca\n\
             guests.toml:5: `port` must be a text, not a whole number\n\
             guests.toml:6: `unit` is empty"
        );
    }
}
