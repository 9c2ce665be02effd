//! A sandbox's own disk: a file system made from a folder, without a mount. What a commit holds stays an archive here; it is unpacked inside the
//! sandbox, so that nobody's files are ever laid out on the appliance.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::backend::DISK;
use crate::repository::{Repository, RepositoryError};
use crate::request::Request;
use crate::sandbox::Id;
use crate::settings::Settings;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The commit cannot be had.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file cannot be written.
    #[error("could not write the seed")]
    Write(#[from] io::Error),
    /// A program failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// Makes the disk of a sandbox in its folder, and returns its host key as it stands in a known-hosts file.
///
/// # Errors
/// If the commit cannot be had or the disk not be made.
pub fn make(settings: &Settings, id: &Id, request: &Request, folder: &Path) -> Result<String, SeedError> {
    let tree = folder.join("tree");
    let (seed, ssh) = (tree.join("seed"), tree.join("home/.ssh"));
    for path in [&seed, &ssh, &tree.join("checkout")] {
        fs::create_dir_all(path)?;
    }
    fs::write(tree.join("commit"), format!("{}\n", request.sha))?;
    fs::write(seed.join("id"), format!("{id}\n"))?;
    fs::write(seed.join("project"), format!("{}\n", request.project))?;
    fs::write(seed.join("merge_request"), format!("{}\n", request.mr))?;
    fs::write(ssh.join("authorized_keys"), request.authorized_keys.join("\n") + "\n")?;
    let repository = Repository::of(&settings.repositories, &request.project, &folder.join("git"))?;
    repository.archive(&request.sha, settings.limits.checkout_max_bytes, &seed.join("checkout.tar"))?;
    let host_key = host_key(&seed.join("host_key"))?;
    // Everything belongs to root here; `init` gives home and checkout to their user.
    for name in [".", "seed", "checkout"] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(0o755))?;
    }
    for name in ["home", "home/.ssh"] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(0o700))?;
    }
    for name in ["commit", "seed/id", "seed/project", "seed/merge_request"] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(0o644))?;
    }
    for name in ["home/.ssh/authorized_keys", "seed/checkout.tar", "seed/host_key"] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(0o600))?;
    }
    disk(settings.limits.disk_mib, &tree, &folder.join(DISK))?;
    fs::remove_dir_all(&tree)?;
    fs::remove_dir_all(folder.join("git"))?;
    Ok(host_key)
}

fn host_key(path: &Path) -> Result<String, SeedError> {
    let said = run("dropbearkey", Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(path))?;
    let line = said.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap_or_default();
    let key: Vec<&str> = line.split(' ').take(2).collect();
    if key.len() == 2 {
        Ok(key.join(" "))
    } else {
        Err(SeedError::Program { program: "dropbearkey", message: format!("no public key in what it said: {said:?}") })
    }
}

/// Sparse, and in a folder that only root enters; the sandbox's process, whoever that is, sees it through its unit.
fn disk(mebibytes: u64, tree: &Path, disk: &Path) -> Result<(), SeedError> {
    File::create(disk)?.set_len(mebibytes * 1024 * 1024)?;
    let mut command = Command::new("mke2fs");
    // Without a journal and with nothing left for later: the disk lives for one boot, and the machine may be slow.
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "root_owner=0:0,lazy_itable_init=1,nodiscard",
        "-d",
    ]);
    run("mke2fs", command.arg(tree).arg(disk))?;
    fs::set_permissions(disk, Permissions::from_mode(0o666))?;
    Ok(())
}

fn run(program: &'static str, command: &mut Command) -> Result<String, SeedError> {
    let failed = |message| SeedError::Program { program, message };
    command.stdin(Stdio::null()).env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
