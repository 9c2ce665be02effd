//! What differs between two commits, as the API shows it.

use serde_json::{Value, json};

use super::run::{GitError, Repository};

impl Repository {
    /// The differences from one commit to another, file by file.
    ///
    /// # Errors
    /// If git cannot.
    pub async fn diff(&self, from: &str, to: &str) -> Result<Vec<Value>, GitError> {
        let raw = self.run(&["diff", "--raw", "-z", "-M", "--no-abbrev", from, to, "--"], b"").await?;
        let options = ["diff", "-M", "--no-color", "--no-ext-diff", "--no-textconv", from, to, "--"];
        let patch = self.run(&options, b"").await?;
        let patch = String::from_utf8_lossy(&patch).into_owned();
        Ok(files(&String::from_utf8_lossy(&raw), &patches(&patch)))
    }
}

/// The hunks of each file, without what git says of the file itself. No line of a hunk begins with a letter, so each file's head is plain.
fn patches(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if line.starts_with("diff --git ") {
            found.push(String::new());
            inside = false;
        }
        inside |= line.starts_with("@@ ") || line.starts_with("Binary files ");
        if let (true, Some(last)) = (inside, found.last_mut()) {
            last.push_str(line);
        }
    }
    found
}

fn files(raw: &str, patches: &[String]) -> Vec<Value> {
    let mut words = raw.split('\0');
    let mut found = Vec::new();
    while let Some(about) = words.next() {
        let fields: Vec<&str> = about.trim_start_matches(':').split(' ').collect();
        let &[old_mode, new_mode, _, _, status] = fields.as_slice() else { break };
        let Some(old_path) = words.next() else { break };
        let renamed = status.starts_with(['R', 'C']);
        let new_path = if renamed { words.next().unwrap_or(old_path) } else { old_path };
        let diff = patches.get(found.len()).map(String::as_str).unwrap_or_default();
        found.push(json!({
            "old_path": old_path, "new_path": new_path, "a_mode": old_mode, "b_mode": new_mode, "diff": diff,
            "new_file": status.starts_with('A'), "renamed_file": renamed, "deleted_file": status.starts_with('D'),
            "generated_file": false, "collapsed": false, "too_large": false,
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_gets_its_own_hunks() {
        let patch = "diff --git a/a b/a\nindex 1..2\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-diff --git x\n+y\ndiff --git a/b b/c\nsimilarity index 100%\n";
        let found = files(":100644 100644 1 2 M\0a\0:100644 100644 1 1 R100\0b\0c\0", &patches(patch));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["diff"], "@@ -1 +1 @@\n-diff --git x\n+y\n");
        assert_eq!(
            (found[1]["old_path"].as_str(), found[1]["new_path"].as_str(), found[1]["diff"].as_str()),
            (Some("b"), Some("c"), Some(""))
        );
    }
}
