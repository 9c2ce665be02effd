//! A machine that is saved once and goes on in many copies, each with memory and disk of its own.
//!
//! The saved machine is its memory, its disk, and the state of its devices. A copy maps the memory copy-on-write, has an overlay over the
//! disk, and reads the state: what it writes is its own, what it only reads is there once for all of them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qapi::qmp::MigrationCapability;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::boot::{Address, CONSOLE_LOG, JOURNAL_LOG, Place, QEMU_LOG, Vm, VmError, write_error};
use super::console;
use super::machine::{Disk, DiskFormat, Machine, Origin, Sharing};
use super::qemu::{Qemu, Version};
use super::qmp::{ANSWER_WITHIN, QmpError, Transfer};
use super::runtime::{Runtime, backing_name, check_space, make_overlay};
use crate::wait::{Probe, WaitError, until};

/// How long the state of a machine may take to be written or read; memory that goes with it is read from a disk.
const TRANSFER_WITHIN: Duration = Duration::from_secs(120);
/// How many of QEMU's last lines an error shows.
const QEMU_LINES: usize = 5;

/// The file of the devices' state, and of the memory where that goes with it.
const STATE: &str = "state";

/// How the memory of a saved machine gets into its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// It stays in the file where it is, and copies map that (`x-ignore-shared`).
    SharedFile,
    /// It is written into the state page by page, and every copy reads all of it (`mapped-ram`).
    MappedRam,
}

impl Method {
    /// The methods a QEMU of this version knows, best first.
    #[must_use]
    pub fn known_to(version: Version) -> &'static [Self] {
        match version {
            // Migration to a file came with 8.2.
            Version { major: 0..=7, .. } | Version { major: 8, minor: 0..=1 } => &[],
            Version { major: 8, .. } => &[Self::SharedFile],
            Version { .. } => &[Self::SharedFile, Self::MappedRam],
        }
    }

    fn capability(self) -> MigrationCapability {
        match self {
            Self::SharedFile => MigrationCapability::x_ignore_shared,
            Self::MappedRam => MigrationCapability::mapped_ram,
        }
    }
}

/// The word in messages and transcripts, which is QEMU's own.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedFile => "x-ignore-shared",
            Self::MappedRam => "mapped-ram",
        })
    }
}

/// A machine that was saved. Until it is moved elsewhere it lives in the folder of the machine it was made of, which stays as long as this does.
pub struct Saved {
    parts: Parts,
    qemu: Qemu,
    _runtime: Option<Arc<Runtime>>,
}

/// A saved machine as plain data: what it is, and where its files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    method: Method,
    machine: Machine,
    image: Disk,
    state: PathBuf,
    console_log: PathBuf,
    journal_log: PathBuf,
}

/// Why a machine could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// QEMU does not know how, or cannot for this machine.
    #[error("QEMU did not save the machine by {method}: {reason}")]
    Refused {
        /// How it was tried.
        method: Method,
        /// QEMU's words.
        reason: String,
    },
    /// It did not come to an end.
    #[error("QEMU did not save the machine by {method} within {} s", TRANSFER_WITHIN.as_secs())]
    TooLong {
        /// How it was tried.
        method: Method,
    },
    /// No space, or a log that could not be copied.
    #[error("could not prepare to save the machine")]
    Prepare(#[from] VmError),
}

/// Saves a machine. Afterwards it stands still: it is to be ended; or its copies are, it goes on ([`Vm::go_on`]), and what was saved must not
/// be used any more.
///
/// # Errors
/// A QEMU that does not know how or whose devices cannot be saved; no space. The machine goes on then.
pub fn save(vm: &Vm, qemu: &Qemu, method: Method) -> Result<Saved, SaveError> {
    let saved = saved(vm, qemu, method)?;
    vm.stop()?;
    match write_state(vm, &saved) {
        Ok(()) => Ok(saved),
        Err(error) => {
            vm.go_on()?;
            Err(error)
        }
    }
}

/// What a copy begins with.
#[derive(Debug, Clone)]
pub struct ForkPlan {
    /// The folder for console, journal, QMP log and the like. It is made, and it stays.
    pub evidence: PathBuf,
    /// The folder for overlay and sockets, which go away with the machine.
    pub base: PathBuf,
    /// Whether QMP messages are shown on stderr too.
    pub debug: bool,
}

/// Starts a copy of a saved machine and lets it run. Its clock stands where the machine was saved, and its random numbers are those of every
/// other copy, until it is woken ([`Vm::wake`]).
///
/// # Errors
/// As [`Vm::start`], and a state that this QEMU does not take up.
pub fn fork(saved: &Saved, plan: &ForkPlan, handle: &Handle) -> Result<Vm, VmError> {
    let own_memory_mib = match saved.parts.method {
        Method::SharedFile => 0,
        Method::MappedRam => saved.parts.machine.memory_mib,
    };
    let runtime = Runtime::create(&plan.base, own_memory_mib)?;
    let overlay = Disk { path: runtime.path().join("disk.qcow2"), format: DiskFormat::Qcow2 };
    make_overlay(&saved.qemu.img, &saved.parts.machine.disk, &overlay.path)?;
    let in_runtime = |name: &str| runtime.path().join(name);
    let (ram_file, sharing) = match saved.parts.method {
        Method::SharedFile => (saved.parts.machine.ram_file.clone(), Sharing::Private),
        Method::MappedRam => (in_runtime("ram"), Sharing::Shared),
    };
    let machine = Machine {
        ram_file,
        sharing,
        origin: Origin::Incoming,
        disk: overlay,
        console_log: plan.evidence.join(CONSOLE_LOG),
        journal_log: plan.evidence.join(JOURNAL_LOG),
        ready_socket: in_runtime("ready.sock"),
        wake_socket: in_runtime("wake.sock"),
        qmp_socket: in_runtime("qmp.sock"),
        ..saved.parts.machine.clone()
    };
    let place = Place { runtime, evidence: plan.evidence.clone(), image: saved.parts.image.clone(), debug: plan.debug };
    place.make_evidence_folder()?;
    // So that its logs are whole: they begin with the machine's first line.
    for (from, to) in
        [(&saved.parts.console_log, &machine.console_log), (&saved.parts.journal_log, &machine.journal_log)]
    {
        fs::copy(from, to).map_err(write_error(to))?;
    }
    let mut vm = Vm::launch(machine, Address::Any, place, handle)?;
    read_state(&vm, saved)?;
    vm.begin()?;
    Ok(vm)
}

impl Parts {
    /// The machine it was made of.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

impl Saved {
    /// How its memory gets into its copies.
    #[must_use]
    pub fn method(&self) -> Method {
        self.parts.method
    }

    /// The machine it was made of.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        self.parts.machine()
    }

    /// What it is, for whoever keeps it.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// A saved machine of which only the parts were left.
    #[must_use]
    pub fn of(parts: Parts, qemu: Qemu) -> Self {
        Self { parts, qemu, _runtime: None }
    }

    /// The same for a machine that is itself a fork, whose disk lies over that of the machine it is a fork of: that goes along.
    ///
    /// # Errors
    /// What the system or `qemu-img` said.
    pub fn copy_fork(&self, of: &Saved, folder: &Path) -> Result<Parts, VmError> {
        let parts = self.copy_files(folder, folder)?;
        let below = folder.join("below.qcow2");
        link_or_copy(&of.parts.machine.disk.path, &below).map_err(write_error(&below))?;
        let disk = &parts.machine.disk.path;
        let rebased = Command::new(&self.qemu.img)
            .args(["rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(backing_name(&below, DiskFormat::Qcow2))
            .arg(disk)
            .output()
            .map_err(|source| VmError::Spawn { program: self.qemu.img.clone(), source })?;
        match rebased.status.success() {
            true => Ok(parts),
            false => {
                let source = io::Error::other(String::from_utf8_lossy(&rebased.stderr).trim().to_owned());
                Err(VmError::Write { path: disk.clone(), source })
            }
        }
    }

    /// Puts its files into another folder as well, and returns what it is when that folder is called `name`. They are the same files where the
    /// file system can do that.
    ///
    /// # Errors
    /// What the system said.
    pub fn copy_files(&self, folder: &Path, name: &Path) -> Result<Parts, VmError> {
        let mut parts = self.parts.clone();
        let credentials = parts.machine.credential_files.iter_mut();
        let memory = (parts.method == Method::SharedFile).then_some(&mut parts.machine.ram_file);
        let others = [&mut parts.machine.disk.path, &mut parts.state, &mut parts.console_log, &mut parts.journal_log];
        for path in others.into_iter().chain(memory).chain(credentials) {
            let file = path.file_name().unwrap_or_default().to_owned();
            link_or_copy(path, &folder.join(&file)).map_err(write_error(&folder.join(&file)))?;
            *path = name.join(file);
        }
        Ok(parts)
    }

    /// How long the logs were when it was saved: what a copy's logs have beyond that is its own.
    #[must_use]
    pub fn log_bytes(&self) -> [(&'static str, u64); 2] {
        let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        [(CONSOLE_LOG, length(&self.parts.console_log)), (JOURNAL_LOG, length(&self.parts.journal_log))]
    }
}

/// Prepares the folder for what is to be saved.
fn saved(vm: &Vm, qemu: &Qemu, method: Method) -> Result<Saved, VmError> {
    let folder = vm.runtime.path();
    if method == Method::MappedRam {
        check_space(folder, vm.machine.memory_mib)?;
    }
    let parts = Parts {
        method,
        machine: vm.machine.clone(),
        image: vm.image.clone(),
        state: folder.join(STATE),
        console_log: folder.join(CONSOLE_LOG),
        journal_log: folder.join(JOURNAL_LOG),
    };
    Ok(Saved { parts, qemu: qemu.clone(), _runtime: Some(Arc::clone(&vm.runtime)) })
}

/// One more name for a file; a copy in another file system, in which holes stay holes.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copied = Command::new("cp").args(["--sparse=always", "--"]).args([from, to]).output()?;
    let words = || io::Error::other(String::from_utf8_lossy(&copied.stderr).trim().to_owned());
    if copied.status.success() { Ok(()) } else { Err(words()) }
}

fn write_state(vm: &Vm, saved: &Saved) -> Result<(), SaveError> {
    let method = saved.parts.method;
    let refused = |reason: String| SaveError::Refused { method, reason };
    let words = |error: VmError| match error {
        VmError::Control(QmpError::Refused { reason, .. }) => refused(reason),
        other => other.into(),
    };
    // A fork still has the capability that it was read with; a QEMU that does not know it has not got it either.
    for other in [Method::SharedFile, Method::MappedRam].into_iter().filter(|other| *other != method) {
        let _ = vm.control(vm.qmp.unset_capability(other.capability()));
    }
    vm.control(vm.qmp.set_capability(method.capability())).map_err(words)?;
    let written = vm.control(vm.qmp.write_state(&saved.parts.state)).map_err(words).and_then(|()| {
        await_transfer(vm).map_err(|error| match error {
            WaitError::Deadline { .. } => SaveError::TooLong { method },
            WaitError::Never(NoTransfer::Failed(reason)) => refused(reason),
            WaitError::Never(NoTransfer::Lost(error)) => error.into(),
        })
    });
    if written.is_err() {
        // Or the next method could not be tried.
        vm.control(vm.qmp.unset_capability(method.capability()))?;
    }
    written?;
    for (from, to) in
        [(&vm.machine.console_log, &saved.parts.console_log), (&vm.machine.journal_log, &saved.parts.journal_log)]
    {
        fs::copy(from, to).map_err(write_error(to))?;
    }
    Ok(())
}

fn read_state(vm: &Vm, saved: &Saved) -> Result<(), VmError> {
    let read = vm
        .control(vm.qmp.set_capability(saved.parts.method.capability()))
        .and_then(|()| vm.control(vm.qmp.read_state(&saved.parts.state)))
        .and_then(|()| {
            await_transfer(vm).map_err(|error| match error {
                WaitError::Deadline { .. } => {
                    VmError::Incoming { reason: format!("not done after {} s", TRANSFER_WITHIN.as_secs()) }
                }
                WaitError::Never(NoTransfer::Failed(reason)) => VmError::Incoming { reason },
                WaitError::Never(NoTransfer::Lost(error)) => error,
            })
        });
    read.map_err(|error| match error {
        // QEMU ends when it cannot read a state; its last words say why.
        VmError::Control(QmpError::Ended { .. } | QmpError::Broken { .. }) => {
            VmError::Incoming { reason: console::tail(&vm.evidence().join(QEMU_LOG), QEMU_LINES) }
        }
        other => other,
    })
}

/// Why a state was not written or read.
enum NoTransfer {
    Failed(String),
    Lost(VmError),
}

fn await_transfer(vm: &Vm) -> Result<(), WaitError<NoTransfer>> {
    until(Instant::now() + TRANSFER_WITHIN, || {
        match vm.control(vm.qmp.transfer(TRANSFER_WITHIN.max(ANSWER_WITHIN))).map_err(NoTransfer::Lost)? {
            Transfer::Done => Ok(Probe::Ready(())),
            Transfer::Underway => Ok(Probe::NotYet(String::new())),
            Transfer::Failed(reason) => Err(NoTransfer::Failed(reason)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_qemu_cannot_or_know_one_way() {
        let known = |major, minor| Method::known_to(Version { major, minor });
        assert!(known(7, 2).is_empty() && known(8, 1).is_empty());
        assert_eq!(known(8, 2), [Method::SharedFile]);
        assert_eq!(known(9, 0), [Method::SharedFile, Method::MappedRam]);
        assert_eq!(known(10, 0), known(9, 0));
    }
}
