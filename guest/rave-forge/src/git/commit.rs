//! Making a commit from a list of changes to files: the new tree is worked out here, written by git through an index of its own.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::run::{GitError, Repository};
use crate::text;

/// Whose commit it is. Characters that git cannot keep are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

/// What happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Create(Vec<u8>),
    /// It has other content.
    Update(Vec<u8>),
    /// It goes.
    Delete,
    /// It comes from elsewhere, perhaps with other content.
    Move {
        /// Where it was.
        from: String,
        /// The new content, if it changes.
        content: Option<Vec<u8>>,
    },
    /// It becomes a program, or is one no longer.
    Mode {
        /// Whether it is a program.
        executable: bool,
    },
}

/// A change to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file's path.
    pub path: String,
    /// What happens to it.
    pub action: Action,
}

/// Why a list of changes makes no commit.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// They do not fit what is there; in GitLab's words.
    #[error("{0}")]
    Unfit(String),
    /// Git could not.
    #[error("could not write the commit")]
    Git(#[from] GitError),
    /// The system could not.
    #[error("could not write the files of a commit")]
    Files(#[from] std::io::Error),
}

impl Author {
    /// An author whom git accepts.
    #[must_use]
    pub fn new(name: &str, email: &str) -> Self {
        let plain = |text: &str| -> String {
            let kept: String =
                text.chars().filter(|character| !character.is_control() && !"<>".contains(*character)).collect();
            kept.trim_matches(|c: char| c.is_whitespace() || ".,:;\"\\'".contains(c)).to_owned()
        };
        let or = |text: String, usual: &str| if text.is_empty() { usual.to_owned() } else { text };
        Self { name: or(plain(name), "unknown"), email: or(plain(email), "unknown@invalid") }
    }
}

/// Where a file's content comes from while the tree is worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Kept(String),
    New(usize),
}

type Files = BTreeMap<String, (String, Content)>;

impl Repository {
    /// Writes the tree that `changes` make of a commit's (or of nothing), and returns its name.
    ///
    /// # Errors
    /// If a change does not fit, or git cannot.
    pub async fn changed_tree(&self, base: Option<&str>, changes: Vec<Change>) -> Result<String, ChangeError> {
        let mut files = Files::new();
        if let Some(base) = base {
            for entry in self.tree(base, "", true).await?.into_iter().filter(|entry| entry.kind != "tree") {
                files.insert(entry.path, (entry.mode, Content::Kept(entry.id)));
            }
        }
        let contents = apply(&mut files, changes).map_err(ChangeError::Unfit)?;
        let work = tempfile::Builder::new().prefix("rave-forge-").tempdir()?;
        let mut names = String::new();
        for (number, content) in contents.iter().enumerate() {
            let path = work.path().join(number.to_string());
            std::fs::File::create(&path)?.write_all(content)?;
            names.push_str(&format!("{}\n", path.display()));
        }
        let answer = if contents.is_empty() {
            String::new()
        } else {
            self.text(&["hash-object", "-w", "--no-filters", "--stdin-paths"], names.as_bytes()).await?
        };
        let ids: Vec<&str> = answer.lines().collect();
        let mut lines = Vec::new();
        for (path, (mode, content)) in &files {
            let id = match content {
                Content::Kept(id) => id.as_str(),
                Content::New(number) => ids.get(*number).copied().unwrap_or_default(),
            };
            lines.extend_from_slice(format!("{mode} {id}\t{path}\0").as_bytes());
        }
        let index = work.path().join("index").display().to_string();
        let environment = [("GIT_INDEX_FILE", index.as_str())];
        self.run_in(&["update-index", "-z", "--add", "--index-info"], &environment, &lines).await?;
        let tree = self.run_in(&["write-tree"], &environment, b"").await?;
        Ok(String::from_utf8_lossy(&tree).trim().to_owned())
    }
}

/// Applies changes one after the other; returns the new contents.
fn apply(files: &mut Files, changes: Vec<Change>) -> Result<Vec<Vec<u8>>, String> {
    let mut contents = Vec::new();
    let exists = "A file with this name already exists";
    let missing = "A file with this name doesn't exist";
    for Change { path, action } in changes {
        if !text::is_file(&path) {
            return Err("file_path should be a valid file path".to_owned());
        }
        let mut store = |content: Vec<u8>| {
            contents.push(content);
            Content::New(contents.len() - 1)
        };
        match action {
            Action::Create(content) => {
                if files.contains_key(&path) {
                    return Err(exists.to_owned());
                }
                if in_the_way(files, &path) {
                    return Err("A directory with this name already exists".to_owned());
                }
                files.insert(path, ("100644".to_owned(), store(content)));
            }
            Action::Update(content) => files.get_mut(&path).ok_or(missing)?.1 = store(content),
            Action::Delete => drop(files.remove(&path).ok_or(missing)?),
            Action::Move { from, content } => {
                if files.contains_key(&path) {
                    return Err(exists.to_owned());
                }
                let (mode, kept) = files.remove(&from).ok_or(missing)?;
                if in_the_way(files, &path) {
                    return Err("A directory with this name already exists".to_owned());
                }
                files.insert(path, (mode, content.map_or(kept, store)));
            }
            Action::Mode { executable } => {
                files.get_mut(&path).ok_or(missing)?.0 = if executable { "100755" } else { "100644" }.to_owned();
            }
        }
    }
    Ok(contents)
}

/// Whether a path is a folder already, or one of its folders is a file.
fn in_the_way(files: &Files, path: &str) -> bool {
    let folder = format!("{path}/");
    files.range(folder.clone()..).next().is_some_and(|(first, _)| first.starts_with(&folder))
        || path.match_indices('/').any(|(end, _)| files.contains_key(&path[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[(&str, Action)], expected: Result<&[&str], &str>) {
        let mut files = Files::new();
        files.insert("a".into(), ("100644".into(), Content::Kept("1".into())));
        files.insert("d/b".into(), ("100644".into(), Content::Kept("2".into())));
        let changes =
            changes.iter().map(|(path, action)| Change { path: (*path).to_owned(), action: action.clone() }).collect();
        let found = apply(&mut files, changes).map(|_| files.keys().cloned().collect::<Vec<_>>());
        assert_eq!(
            found,
            expected.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect()).map_err(str::to_owned)
        );
    }

    #[test]
    fn changes_fit_what_is_there_or_are_refused() {
        let new = || Action::Create(b"x".to_vec());
        check(&[("c", new())], Ok(&["a", "c", "d/b"]));
        check(&[("a", new())], Err("A file with this name already exists"));
        check(&[("d", new())], Err("A directory with this name already exists"));
        check(&[("a/b", new())], Err("A directory with this name already exists"));
        check(&[("../c", new())], Err("file_path should be a valid file path"));
        check(&[("c", Action::Update(vec![]))], Err("A file with this name doesn't exist"));
        check(&[("a", Action::Delete), ("a/b", new())], Ok(&["a/b", "d/b"]));
        check(&[("c", Action::Move { from: "a".into(), content: None })], Ok(&["c", "d/b"]));
        check(&[("a/c", Action::Move { from: "a".into(), content: None })], Ok(&["a/c", "d/b"]));
        check(&[("c", Action::Mode { executable: true })], Err("A file with this name doesn't exist"));
    }

    #[test]
    fn an_author_is_always_one_that_git_takes() {
        assert_eq!(Author::new(" A <b>\n", "x@y\0"), Author { name: "A b".into(), email: "x@y".into() });
        assert_eq!(Author::new("<>", "").name, "unknown");
    }
}
