//! The folder that lives and dies with a machine: memory, overlay, sockets, credentials. A guardian outside the harness removes it even
//! when the harness is killed.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::json;

use super::machine::{Disk, DiskFormat};
use super::process::spawn_guardian;

/// The longest path of a Unix socket in bytes, without the closing zero (`sun_path` in unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// The longest file name the harness gives to a socket, with its slash.
const LONGEST_SOCKET_NAME: usize = "/ready.sock".len();
/// Space for the overlay to grow, in MiB, beside the memory.
const OVERLAY_MIB: u64 = 512;

/// The folder. Dropping it removes it with all it holds, and ends the guardian.
#[derive(Debug)]
pub struct Runtime {
    folder: Option<tempfile::TempDir>,
    guardian: Child,
}

/// Why there is no folder for the machine, or no overlay in it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The folder cannot be made.
    #[error("could not make a folder for the machine in `{}`", base.display())]
    Make {
        /// Where it was tried.
        base: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is too little space.
    #[error("`{}` has {free_mib} MiB free; the machine's memory and disk may need {needed_mib} MiB (TMPDIR chooses another folder)", base.display())]
    NoSpace {
        /// The folder.
        base: PathBuf,
        /// MiB needed if the guest uses all it has.
        needed_mib: u64,
        /// MiB free.
        free_mib: u64,
    },
    /// The path leaves no room for the name of a socket.
    #[error("`{}` is too long a path for sockets; at most {most} bytes will do (TMPDIR chooses another folder)", base.display())]
    TooLong {
        /// The folder.
        base: PathBuf,
        /// The longest base that works.
        most: usize,
    },
    /// The image is not there.
    #[error("could not find image `{}`", image.display())]
    Image {
        /// The image.
        image: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` could not be run.
    #[error("could not run `{}`", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` refused.
    #[error("could not make an overlay over image `{}`: {stderr}", image.display())]
    Overlay {
        /// The image.
        image: PathBuf,
        /// What it said.
        stderr: String,
    },
}

/// Where machines live when nobody says otherwise: `TMPDIR`, else `/var/tmp`. Not `XDG_RUNTIME_DIR`, which is often a small memory disk.
#[must_use]
pub fn default_base() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

impl Runtime {
    /// Makes the folder in `base`, for its owner only, for a machine that keeps this much memory there.
    ///
    /// # Errors
    /// No space, too long a path, or what the system said.
    pub fn create(base: &Path, memory_mib: u64) -> Result<Self, RuntimeError> {
        let make = |source| RuntimeError::Make { base: base.to_owned(), source };
        let base = base.canonicalize().map_err(make)?;
        check_length(&base)?;
        check_space(&base, memory_mib + OVERLAY_MIB)?;
        let folder = tempfile::Builder::new()
            .prefix("rave-vm-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(make)?;
        let guardian = guard(folder.path()).map_err(make)?;
        Ok(Self { folder: Some(folder), guardian })
    }

    /// Gives the folder another name, in the same file system, under which it stays.
    ///
    /// # Errors
    /// What the system said; the folder goes away then.
    pub fn settle(mut self, name: &Path) -> io::Result<()> {
        std::fs::rename(self.path(), name)?;
        // Under its old name there is nothing left to remove.
        drop(self.folder.take().map(tempfile::TempDir::keep));
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/nonexistent"), tempfile::TempDir::path)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            // What fails here the guardian tries again.
            let _ = folder.close();
        }
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// Makes `overlay` in `folder`, a qcow2 file that holds what the machine writes over `image`.
///
/// # Errors
/// An image that is not there or not what it is said to be; `qemu-img`'s own words.
pub fn make_overlay(qemu_img: &Path, image: &Disk, overlay: &Path) -> Result<(), RuntimeError> {
    let backing =
        image.path.canonicalize().map_err(|source| RuntimeError::Image { image: image.path.clone(), source })?;
    let output = Command::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2", "-F", &image.format.to_string(), "-b"])
        .arg(backing_name(&backing, image.format))
        .arg(overlay)
        .output()
        .map_err(|source| RuntimeError::Run { program: qemu_img.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RuntimeError::Overlay { image: image.path.clone(), stderr })
}

/// How an overlay names the file below it. QEMU throws the files of a machine that wakes from a saved state out of the page cache, in case
/// another host wrote to them; here every fork would read the image from the disk again (`drop-cache`, qemu-qmp-ref(7)).
pub(super) fn backing_name(path: &Path, format: DiskFormat) -> OsString {
    let Some(file_name) = path.to_str() else { return path.into() };
    let file = json!({ "driver": "file", "filename": file_name, "drop-cache": false });
    format!("json:{}", json!({ "driver": format.to_string(), "file": file })).into()
}

/// Starts a shell that removes `folder` when the harness ends, however it ends. The second `rm` is for what QEMU, dying at the same
/// moment, may still have made during the first.
fn guard(folder: &Path) -> io::Result<Child> {
    spawn_guardian(
        "read -r never; [ -e \"$1\" ] || exit 0; rm -rf -- \"$1\"; sleep 1; rm -rf -- \"$1\"",
        &[OsString::from(folder)],
    )
}

fn check_length(base: &Path) -> Result<(), RuntimeError> {
    let most = LONGEST_SOCKET_PATH - LONGEST_SOCKET_NAME - "/rave-vm-XXXXXX".len();
    let too_long = base.as_os_str().len() > most;
    if too_long { Err(RuntimeError::TooLong { base: base.to_owned(), most }) } else { Ok(()) }
}

/// The memory file is sparse, but it must be able to grow: QEMU is killed (SIGBUS) when it cannot.
pub(super) fn check_space(base: &Path, needed_mib: u64) -> Result<(), RuntimeError> {
    let space = rustix::fs::statvfs(base)
        .map_err(|error| RuntimeError::Make { base: base.to_owned(), source: error.into() })?;
    let free_mib = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
    if free_mib < needed_mib {
        return Err(RuntimeError::NoSpace { base: base.to_owned(), needed_mib, free_mib });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Probe, until};
    use std::time::{Duration, Instant};

    #[test]
    fn is_for_its_owner_only_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let runtime = Runtime::create(base.path(), 1).unwrap();
        let folder = runtime.path().to_owned();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(folder.join("ram"), "x").unwrap();
        drop(runtime);
        assert!(!folder.exists());
    }

    #[test]
    fn the_guardian_removes_what_nobody_else_does() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("machine");
        std::fs::create_dir(&folder).unwrap();
        let mut guardian = guard(&folder).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Only then is the shell through with its `trap`: SIGTERM, signal 15, is ignored (SigIgn, proc_pid_status(5)).
        let status = format!("/proc/{}/status", guardian.id());
        let ignored = || {
            let status = std::fs::read_to_string(&status)?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
            let ignores = u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << 14) != 0);
            Ok::<_, std::io::Error>(if ignores { Probe::Ready(()) } else { Probe::NotYet(mask.to_owned()) })
        };
        until(deadline, ignored).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&guardian), rustix::process::Signal::TERM)
            .unwrap();
        assert!(folder.exists());
        drop(guardian.stdin.take());
        let gone = || Ok::<_, ()>(if folder.exists() { Probe::NotYet("still there".into()) } else { Probe::Ready(()) });
        until(deadline, gone).unwrap();
        guardian.wait().unwrap();
    }

    #[test]
    fn refuses_a_folder_that_will_not_do() {
        let base = tempfile::tempdir().unwrap();
        let error = Runtime::create(base.path(), 1 << 40).unwrap_err().to_string();
        assert!(error.contains("MiB free; the machine's memory and disk may need 1099511628288 MiB"), "{error}");

        let long = base.path().join("x".repeat(100));
        std::fs::create_dir(&long).unwrap();
        let error = Runtime::create(&long, 1).unwrap_err().to_string();
        assert!(error.contains("too long a path for sockets"), "{error}");

        let error = Runtime::create(&base.path().join("none"), 1).unwrap_err().to_string();
        assert!(error.starts_with("could not make a folder for the machine in `/"), "{error}");
    }

    #[test]
    fn names_an_image_that_is_not_there() {
        let image = Disk { path: "/nonexistent/image.qcow2".into(), format: DiskFormat::Qcow2 };
        let error = make_overlay(Path::new("qemu-img"), &image, Path::new("/nonexistent/overlay")).unwrap_err();
        assert_eq!(error.to_string(), "could not find image `/nonexistent/image.qcow2`");
    }
}
