//! What runs the guest's instructions: KVM where it really works, TCG elsewhere.
//!
//! That `/dev/kvm` can be opened proves little: in some virtual machines it is there and guests abort or stand still under it. So a guest is run.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::machine::{Boot, default_cpu};
use super::process::{Process, describe};
use super::qemu::Qemu;
use crate::wait::{Probe, WaitError, until};

/// How long the probe may take in all.
pub const PROBE_WITHIN: Duration = Duration::from_millis(4500);
/// What the probe's guest writes to the exit port.
const EXIT_VALUE: u8 = 0x2a;
/// QEMU's exit status for it: `isa-debug-exit` makes `value * 2 + 1` of what is written.
const EXIT_STATUS: i32 = EXIT_VALUE as i32 * 2 + 1;
/// How every Linux starts its log.
const BANNER: &str = "Linux version ";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requested {
    /// KVM if it works, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// TCG, without a look at KVM.
    Tcg,
}

/// What was chosen, and why. Both belong in the transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerator {
    /// The choice.
    pub kind: Kind,
    /// The reason, for people.
    pub reason: String,
}

/// Why there is no accelerator as asked for.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// KVM was asked for and does not work.
    #[error("KVM was asked for, but {reason}")]
    KvmUnusable {
        /// Why not.
        reason: String,
    },
}

/// Chooses the accelerator; a probe takes at most [`PROBE_WITHIN`]. `boot` is what will be booted: its kernel, if it has one of its own,
/// has to show its banner.
///
/// # Errors
/// KVM was asked for and does not work.
pub fn probe(requested: Requested, qemu: &Qemu, boot: &Boot) -> Result<Accelerator, AccelError> {
    let chosen = |kind, reason: String| Ok(Accelerator { kind, reason });
    if requested == Requested::Tcg {
        return chosen(Kind::Tcg, "asked for".into());
    }
    match (try_kvm(qemu, boot), requested) {
        (Ok(proof), _) => chosen(Kind::Kvm, proof),
        (Err(reason), Requested::Kvm) => Err(AccelError::KvmUnusable { reason }),
        (Err(reason), _) => chosen(Kind::Tcg, reason),
    }
}

/// What proves that KVM works, or what shows that it does not.
fn try_kvm(qemu: &Qemu, boot: &Boot) -> Result<String, String> {
    let deadline = Instant::now() + PROBE_WITHIN;
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    run_boot_sector(qemu, Kind::Kvm, deadline)?;
    match boot {
        Boot::Disk => Ok("a guest ran under it".into()),
        Boot::Kernel { kernel, .. } => {
            run_kernel(qemu, Kind::Kvm, kernel, deadline)?;
            Ok("a guest and the kernel ran under it".into())
        }
    }
}

/// Boots a disk of one sector through the firmware, which takes the processor through real and protected mode, interrupts and a disk. The
/// sector ends QEMU with a status that nothing else gives. Code at the reset vector alone is not enough: it got through under a KVM under
/// which neither firmware nor kernel ever came to anything.
fn run_boot_sector(qemu: &Qemu, kind: Kind, deadline: Instant) -> Result<(), String> {
    let disk = disk_of(&boot_sector()).map_err(|error| format!("the probe could not be set up: {error}"))?;
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", disk.path().display());
    let exit_port = "isa-debug-exit,iobase=0xf4,iosize=4";
    run_guest(qemu, kind, &["-drive", &drive, "-device", "ide-hd,drive=disk", "-device", exit_port], |running| {
        let ended = until(deadline, || match running.process.exit().borrow().as_ref() {
            Some(status) if status.code() == Some(EXIT_STATUS) => Ok(Probe::Ready(())),
            Some(status) => Err(running.ended(*status)),
            None => Ok(Probe::NotYet(String::new())),
        });
        ended.map_err(|error| running.why(error, "a guest of one sector did not get to its end"))
    })
}

/// Starts a kernel and waits for its banner on the serial console.
fn run_kernel(qemu: &Qemu, kind: Kind, kernel: &Path, deadline: Instant) -> Result<(), String> {
    let kernel = kernel.to_string_lossy();
    let append = "console=ttyS0 earlyprintk=ttyS0 panic=-1";
    run_guest(qemu, kind, &["-kernel", &kernel, "-append", append, "-serial", "stdio"], |running| {
        let banner = until(deadline, || {
            if running.output().contains(BANNER) {
                return Ok(Probe::Ready(()));
            }
            match running.process.exit().borrow().as_ref() {
                Some(status) => Err(running.ended(*status)),
                None => Ok(Probe::NotYet(String::new())),
            }
        });
        banner.map_err(|error| running.why(error, "the kernel did not show its banner"))
    })
}

/// A probe's guest. It is killed when this is dropped.
struct Running {
    kind: Kind,
    process: Process,
    output: tempfile::NamedTempFile,
}

fn run_guest(
    qemu: &Qemu,
    kind: Kind,
    arguments: &[&str],
    watch: impl FnOnce(&Running) -> Result<(), String>,
) -> Result<(), String> {
    let kind_name = kind.to_string();
    let machine = ["-machine", qemu.machine_type(), "-accel", &kind_name, "-cpu", default_cpu(kind), "-m", "256M"];
    let nothing_else = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"];
    let mut command_line = vec![qemu.system.clone().into_os_string()];
    command_line.extend([&machine[..], &nothing_else, arguments].concat().into_iter().map(OsString::from));
    let start = || -> io::Result<Running> {
        let output = tempfile::NamedTempFile::new()?;
        let process = Process::spawn(&command_line, File::options().append(true).open(output.path())?)?;
        Ok(Running { kind, process, output })
    };
    watch(&start().map_err(|error| format!("the probe could not be set up: {error}"))?)
}

impl Running {
    fn output(&self) -> String {
        std::fs::read(self.output.path()).map(|bytes| super::console::plain(&bytes)).unwrap_or_default()
    }

    fn ended(&self, status: std::process::ExitStatus) -> String {
        let last = self.output().lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        format!("a guest under {} ended with {}: {last}", self.kind, describe(status))
    }

    fn why(&self, error: WaitError<String>, silence: &str) -> String {
        match error {
            WaitError::Never(reason) => reason,
            WaitError::Deadline { .. } => {
                format!("under {} {silence} within {} s", self.kind, PROBE_WITHIN.as_secs_f32())
            }
        }
    }
}

/// A boot sector in 16-bit code that ends QEMU through `isa-debug-exit` at port 0xf4.
fn boot_sector() -> [u8; 512] {
    let code = [
        0xb0, EXIT_VALUE, // mov al, EXIT_VALUE
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the hlt
    ];
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(&code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]); // what the firmware wants to see at the end
    sector
}

/// A disk that starts with `sector`. The firmware boots no disk that is too small to have a geometry.
fn disk_of(sector: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(sector)?;
    file.as_file().set_len(1 << 20)?;
    Ok(file)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcg_is_taken_as_asked() {
        let qemu = Qemu { system: "/nonexistent".into(), img: "/nonexistent".into(), version: crate::vm::qemu::OLDEST };
        let chosen = probe(Requested::Tcg, &qemu, &Boot::Disk).unwrap();
        assert_eq!(chosen, Accelerator { kind: Kind::Tcg, reason: "asked for".into() });
    }

    #[test]
    fn the_boot_sector_runs_where_qemu_works() {
        let Ok(qemu) = Qemu::find() else { return };
        run_boot_sector(&qemu, Kind::Tcg, Instant::now() + Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_guest_that_gets_nowhere_is_given_up() {
        let Ok(qemu) = Qemu::find() else { return };
        let reason = run_boot_sector(&qemu, Kind::Tcg, Instant::now()).unwrap_err();
        assert_eq!(reason, "under tcg a guest of one sector did not get to its end within 4.5 s");
        let reason =
            run_kernel(&qemu, Kind::Tcg, Path::new("/nonexistent"), Instant::now() + PROBE_WITHIN).unwrap_err();
        assert!(reason.starts_with("a guest under tcg ended with exit status 1: "), "{reason}");
        assert!(reason.contains("/nonexistent"), "{reason}");
    }
}
