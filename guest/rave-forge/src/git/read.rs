//! Reading a repository: names, commits, trees, files.

use serde_json::{Value, json};

use super::run::{GitError, Repository};
use crate::text;

/// A commit as git keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: String,
    /// The commits before it.
    pub parents: Vec<String>,
    /// Author's name, address and time.
    pub author: (String, String, String),
    /// Committer's name, address and time.
    pub committer: (String, String, String),
    /// The whole message.
    pub message: String,
}

/// A line of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mode, as six digits.
    pub mode: String,
    /// `blob`, `tree` or `commit`.
    pub kind: String,
    /// The object's name.
    pub id: String,
    /// The whole path.
    pub path: String,
}

const FORMAT: &str = "--format=%H%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B";

impl Repository {
    /// The commit that a branch, a tag or a whole commit name stands for.
    ///
    /// # Errors
    /// If git cannot be asked.
    pub async fn resolve(&self, name: &str) -> Result<Option<String>, GitError> {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        let hexadecimal = (7..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let asked = if name == "HEAD" || text::is_commit(name) {
            format!("{name}^{{commit}}\n")
        } else if text::is_branch(name) {
            let short = if hexadecimal { format!("{name}^{{commit}}\n") } else { String::new() };
            format!("refs/heads/{name}^{{commit}}\nrefs/tags/{name}^{{commit}}\n{short}")
        } else {
            return Ok(None);
        };
        let answer = self.text(&["cat-file", "--batch-check=%(objectname) %(objecttype)"], asked.as_bytes()).await?;
        Ok(answer.lines().find_map(|line| line.strip_suffix(" commit")).map(str::to_owned))
    }

    /// One commit.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn commit(&self, id: &str) -> Result<Commit, GitError> {
        let commits = self.log(&["--max-count=1", id]).await?;
        commits.into_iter().next().ok_or(GitError::Unreadable { what: "log".to_owned() })
    }

    /// The commits that a list of revisions and options selects; callers pass whole commit names only.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn log(&self, selection: &[&str]) -> Result<Vec<Commit>, GitError> {
        let arguments: Vec<&str> =
            ["log", "-z", FORMAT, "--no-show-signature"].into_iter().chain(selection.iter().copied()).collect();
        let answer = self.run(&arguments, b"").await?;
        Ok(commits(&String::from_utf8_lossy(&answer)))
    }

    /// How many commits a selection has.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn count(&self, selection: &[&str]) -> Result<usize, GitError> {
        let arguments: Vec<&str> = ["rev-list", "--count"].into_iter().chain(selection.iter().copied()).collect();
        Ok(self.text(&arguments, b"").await?.trim().parse().unwrap_or(0))
    }

    /// The entries of a tree, at a folder or in all folders.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn tree(&self, commit: &str, folder: &str, recursive: bool) -> Result<Vec<Entry>, GitError> {
        let folder = folder.trim_matches('/');
        let at = format!("{commit}:{folder}");
        let mut arguments = vec!["ls-tree", "-z", "--full-tree"];
        if recursive {
            arguments.extend(["-r", "-t"]);
        }
        arguments.push(&at);
        let ended = self.try_run(&arguments, &[], b"").await?;
        if ended.status != 0 {
            return Ok(Vec::new()); // no such folder
        }
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        Ok(entries(&String::from_utf8_lossy(&ended.stdout), &prefix))
    }

    /// The entry of a file.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn entry(&self, commit: &str, path: &str) -> Result<Option<Entry>, GitError> {
        if !text::is_file(path) {
            return Ok(None);
        }
        let answer = self.run(&["ls-tree", "-z", "--full-tree", commit, "--", path], b"").await?;
        Ok(entries(&String::from_utf8_lossy(&answer), "").into_iter().find(|entry| entry.path == path))
    }

    /// The size of an object.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn size(&self, id: &str) -> Result<u64, GitError> {
        let answer = self.text(&["cat-file", "-s", id], b"").await?;
        answer.trim().parse().map_err(|_| GitError::Unreadable { what: "cat-file".to_owned() })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn blob(&self, id: &str) -> Result<Vec<u8>, GitError> {
        self.run(&["cat-file", "blob", id], b"").await
    }
}

impl Commit {
    /// As the API shows it.
    #[must_use]
    pub fn json(&self, project_url: &str) -> Value {
        let short = self.id.get(..8).unwrap_or_default();
        json!({
            "id": self.id, "short_id": short, "parent_ids": self.parents,
            "title": self.message.lines().next().unwrap_or_default(), "message": self.message,
            "author_name": self.author.0, "author_email": self.author.1, "authored_date": self.author.2,
            "committer_name": self.committer.0, "committer_email": self.committer.1, "committed_date": self.committer.2,
            "created_at": self.committer.2, "trailers": {}, "extended_trailers": {},
            "web_url": format!("{project_url}/-/commit/{}", self.id),
        })
    }
}

fn commits(text: &str) -> Vec<Commit> {
    let fields: Vec<&str> = text.split('\0').collect();
    let (records, _) = fields.as_chunks::<9>();
    let commit = |[id, parents, an, ae, ad, cn, ce, cd, message]: &[&str; 9]| Commit {
        id: (*id).to_owned(),
        parents: parents.split_whitespace().map(str::to_owned).collect(),
        author: ((*an).to_owned(), (*ae).to_owned(), (*ad).to_owned()),
        committer: ((*cn).to_owned(), (*ce).to_owned(), (*cd).to_owned()),
        message: (*message).to_owned(),
    };
    records.iter().map(commit).collect()
}

fn entries(text: &str, prefix: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (about, path) = line.split_once('\t')?;
        let mut words = about.split_whitespace();
        let mut word = || words.next().map(str::to_owned);
        Some(Entry { mode: word()?, kind: word()?, id: word()?, path: format!("{prefix}{path}") })
    };
    text.split('\0').filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_line_by_line() {
        let text = "100644 blob aa\ta b\x00040000 tree bb\tsrc\0";
        let found = entries(text, "x/");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].path.as_str(), found[1].kind.as_str()), ("x/a b", "tree"));
    }

    #[test]
    fn a_log_is_read_nine_fields_at_a_time() {
        let text = "1\0p q\0A\0a@x\0t\0C\0c@x\0u\0one\n\nmore\n\x002\0\0A\0a\0t\0C\0c\0u\0two\n\0";
        let found = commits(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].parents, ["p", "q"]);
        assert_eq!(found[1].message, "two\n");
    }
}
