//! The microguest, built once into `target/microguest/` and shared by all tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rave_hermetic::vm::{Boot, Disk, DiskFormat};
use sha2::{Digest, Sha256};

/// The files of a microguest.
#[derive(Debug, Clone)]
pub struct Microguest {
    folder: PathBuf,
    cmdline: String,
}

/// The microguest, built if its recipe has changed. `RAVE_MICROGUEST` names a folder that is taken as it is.
pub fn microguest() -> Microguest {
    static ONCE: OnceLock<Microguest> = OnceLock::new();
    ONCE.get_or_init(|| {
        let folder = std::env::var_os("RAVE_MICROGUEST").map_or_else(build_once, PathBuf::from);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("could not read `{}`: {error}", path.display()))
        };
        let image: serde_json::Value = serde_json::from_str(&read("image.json")).expect("image.json is JSON");
        let cmdline = image["cmdline"].as_str().expect("image.json has a cmdline").to_owned();
        Microguest { folder, cmdline }
    })
    .clone()
}

impl Microguest {
    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data disk.
    pub fn disk(&self) -> Disk {
        Disk { path: self.folder.join("disk.qcow2"), format: DiskFormat::Qcow2 }
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// A boot in which the guest does what `word` says: `ok`, `panic`, `reset` and so on.
    pub fn boot(&self, word: &str) -> Boot {
        let cmdline = format!("{} micro={word}", self.cmdline);
        Boot::Kernel { kernel: self.kernel(), initrd: self.folder.join("initrd.img"), cmdline }
    }
}

/// Builds into a folder named by the recipe's digest, one builder at a time, and only what is not there.
fn build_once() -> PathBuf {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/microguest");
    let cache = target_folder().join("microguest");
    fs::create_dir_all(&cache).expect("the target folder can be written");
    let lock = File::create(cache.join("lock")).expect("the target folder can be written");
    lock.lock().expect("the lock can be taken");
    let folder = cache.join(digest(&recipe));
    if !folder.join("image.json").exists() {
        let status = Command::new("bash").arg(recipe.join("build")).arg(&folder).status().expect("bash runs");
        assert!(status.success(), "the microguest could not be built: {status}");
    }
    folder
}

/// The folder `target` that this very test runs from.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its program");
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.expect("a test runs from the target folder").to_owned()
}

/// A digest over names and contents of a folder's files.
fn digest(folder: &Path) -> String {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let content = fs::read(&file).expect("the recipe can be read");
        hasher.update(file.strip_prefix(folder).expect("a file of the folder").as_os_str().as_encoded_bytes());
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the recipe can be read") {
        let path = entry.expect("the recipe can be read").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
