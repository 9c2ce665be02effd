//! Runs the `hermetic` command on scenario files written for one test, in folders that go away with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A project of its own: scenarios and artifacts.
pub struct Project {
    folder: TempDir,
    settings: Vec<(String, String)>,
}

impl Project {
    /// With these scenario files: `phase/name` and text.
    pub fn new(scenarios: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), settings: Vec::new() };
        for (name, text) in scenarios {
            let file = project.path("scenarios").join(format!("{name}.toml"));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        project
    }

    /// With one more setting.
    pub fn set(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.settings.push((name.to_owned(), value.as_ref().to_str().unwrap().to_owned()));
        self
    }

    /// Without a setting that it had.
    pub fn without(mut self, name: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self
    }

    /// With a Nix store of its own, so that any user can build and nothing outside changes.
    pub fn with_nix(mut self) -> Self {
        let path = |name: &str| self.path("nix").join(name).to_str().unwrap().to_owned();
        // Without a sandbox a builder finds this machine's shell; without caches nothing is asked of the network.
        let config = "sandbox = false\nbuild-users-group =\nsubstituters =\ncores = 7\n";
        let settings = [
            ("NIX_STORE_DIR", path("store")),
            ("NIX_STATE_DIR", path("var")),
            ("NIX_LOCALSTATE_DIR", path("var")),
            ("NIX_LOG_DIR", path("log")),
            ("NIX_CONF_DIR", path("etc")),
            ("NIX_REMOTE", "local".to_owned()),
            ("NIX_CONFIG", config.to_owned()),
            ("XDG_CACHE_HOME", path("cache")),
        ];
        self.settings.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The `hermetic` command with the project's settings and none of this process's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hermetic"));
        command.args(arguments).current_dir(self.folder.path());
        for variable in ["SAFE_MODE", "DEBUG", "VALIDATION_TIMEOUT", "PWD"] {
            command.env_remove(variable);
        }
        std::env::vars().filter(|(name, _)| name.starts_with("RAVE_")).for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.env("RAVE_SCENARIOS", self.path("scenarios")).env("RAVE_ARTIFACTS", self.path("artifacts"));
        // Nothing is left in the user's cache, unless a test is about that.
        command.env("RAVE_KEEP_SAVED", "0").env("XDG_CACHE_HOME", self.path("cache"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn hermetic(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The one file among the artifacts whose name ends so.
    pub fn artifact(&self, end: &str) -> PathBuf {
        let files = std::fs::read_dir(self.path("artifacts")).unwrap().map(|entry| entry.unwrap().path());
        let found: Vec<_> = files.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
        assert_eq!(found.len(), 1, "files that end with {end}: {found:?}");
        found[0].clone()
    }

    /// The one transcript.
    pub fn transcript(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.artifact(".json")).unwrap()).unwrap()
    }
}

/// Nix makes the folders of its store read-only.
impl Drop for Project {
    fn drop(&mut self) {
        if self.path("nix").exists() {
            let _ = Command::new("chmod").arg("-R").arg("u+w").arg(self.path("nix")).status();
        }
    }
}

/// What a run said and how it ended.
pub struct Ran {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Ran {
    /// Asserts the exit code and that all of `texts` were said.
    #[track_caller]
    pub fn check(&self, code: i32, texts: &[&str]) {
        let said = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{said}");
        for text in texts {
            assert!(said.contains(text), "`{text}` was not said:\n{said}");
        }
    }
}
