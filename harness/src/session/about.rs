//! What a transcript says about the machine that ran the harness and about the harness itself.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use camino::Utf8Path;
use sha2::{Digest as _, Sha256};

use crate::hex;
use crate::transcript::model::{HarnessRecord, SystemInfo};

/// The machine that runs the harness.
pub fn system() -> SystemInfo {
    let uname = rustix::system::uname();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    SystemInfo {
        os: pretty
            .map_or_else(|| uname.sysname().to_string_lossy().into_owned(), |name| name.trim_matches('"').to_owned()),
        kernel: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cpus: cores(),
        memory_mib: memory_mib(),
    }
}

/// Logical processors this process may use.
pub fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// What kind of processor this machine has, and which of its features can be used.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let flags = Sha256::digest(value("flags"));
    format!("{}, features {}", value("model name"), hex::digits(&flags[..4]))
}

/// Memory of this machine, MiB.
pub fn memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit.max(1)) * info.totalram as u64 / (1024 * 1024)
}

/// Peak resident memory of this process, MiB (`VmHWM`, proc_pid_status(5)).
pub fn peak_rss_mib() -> Result<String, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("there is no VmHWM")?;
    let kib = line.trim_end_matches("kB").trim().parse::<u64>().map_err(|error| error.to_string())?;
    Ok(kib.div_ceil(1024).to_string())
}

/// This program and the checkout it stands in.
pub fn harness(root: &Utf8Path, settings: BTreeMap<String, String>) -> HarnessRecord {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", root.as_str()]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    HarnessRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: git(&["rev-parse", "HEAD"]),
        git_dirty: git(&["status", "--porcelain"]).map(|changes| !changes.is_empty()),
        settings,
    }
}
