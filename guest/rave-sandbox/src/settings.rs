//! Settings: the file as it is written, then as it is meant. Every key has a default but for where things lie.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::ports::Range;

const MIB: u64 = 1024 * 1024;
/// A sandbox's unit is the limit's name: nothing sensible boots in less.
const SMALLEST_MACHINE: u64 = 64;
/// A machine costs more than the memory it sees: page tables, the emulator, the forwarder.
const OVERHEAD: u64 = 64;
/// The most a sandbox may ever use.
const LARGEST: u64 = 4096;
/// The port of the appliance's own origin, which no sandbox gets.
const ORIGIN: u16 = 3002;

/// What the daemon and the command line need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The unix socket of the API.
    pub socket: PathBuf,
    /// A folder for each sandbox lies here.
    pub state: PathBuf,
    /// The forge's bare repositories.
    pub repositories: PathBuf,
    /// The programs, kernels and the root disk of a sandbox.
    pub files: Files,
    /// The address at which sandboxes are reached.
    pub listen: IpAddr,
    /// Ports for SSH, one for each sandbox.
    pub ssh_ports: Range,
    /// Ports for the web, one for each sandbox.
    pub web_ports: Range,
    /// How many sandboxes there may be at once.
    pub at_most: usize,
    /// What bounds each of them.
    pub limits: Limits,
    /// How sandboxes are run.
    pub backend: Choice,
}

/// What bounds a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory of everything that belongs to the sandbox.
    pub memory_max_bytes: u64,
    /// Memory that the machine sees.
    pub machine_memory_mib: u64,
    /// Share of a core; 200 are two cores.
    pub cpu_quota_percent: u32,
    /// Processes and threads outside the machine.
    pub tasks_max: u32,
    /// The size of its own disk.
    pub disk_mib: u64,
    /// How large a commit may be, unpacked.
    pub checkout_max_bytes: u64,
    /// How long a sandbox lives if nobody says.
    pub ttl: Duration,
    /// How long a sandbox may live.
    pub longest_ttl: Duration,
    /// How long a sandbox may take until SSH answers.
    pub start_timeout: Duration,
}

/// How sandboxes are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// QEMU with KVM where a machine runs under it, else user-mode Linux.
    Auto,
    /// QEMU with KVM, or nothing.
    QemuKvm,
    /// QEMU that emulates. Slow: for trying the machine where there is no KVM.
    QemuTcg,
    /// User-mode Linux.
    UserModeLinux,
}

/// The programs, kernels and disks that sandboxes are made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// The root disk of every sandbox.
    pub root: PathBuf,
    /// The kernel that QEMU boots.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// User-mode Linux: a kernel that is a program.
    pub uml: PathBuf,
    /// This program, as sandboxes' units start it.
    pub program: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            root: "/usr/lib/rave-sandbox/root.ext4".into(),
            kernel: "/usr/lib/rave-sandbox/vmlinuz".into(),
            initrd: "/usr/lib/rave-sandbox/initrd.img".into(),
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            uml: "/usr/bin/linux.uml".into(),
            program: "/usr/local/bin/rave-sandbox".into(),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read, or is not what is expected.
    #[error(transparent)]
    File(#[from] rave_guest::ConfigError),
    /// A value makes no sense.
    #[error("{}: `{key}` {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// Reads the settings file.
///
/// # Errors
/// If it cannot be read, or a value makes no sense.
pub fn read(path: &Path) -> Result<Settings, SettingsError> {
    let written: Written = rave_guest::read(path)?;
    written.meant().map_err(|(key, why)| SettingsError::Value { path: path.to_owned(), key, why })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    socket: PathBuf,
    state: PathBuf,
    repositories: PathBuf,
    files: Files,
    listen: IpAddr,
    ssh_ports: [u16; 2],
    web_ports: [u16; 2],
    at_most: usize,
    memory_max_mib: u64,
    machine_memory_mib: Option<u64>,
    cpu_quota_percent: u32,
    tasks_max: u32,
    disk_mib: u64,
    checkout_max_mib: u64,
    ttl_seconds: u64,
    longest_ttl_seconds: u64,
    start_timeout_seconds: u64,
    backend: Choice,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            socket: "/run/rave-sandbox/api.sock".into(),
            state: "/var/lib/rave-sandbox".into(),
            repositories: "/var/lib/rave-forge".into(),
            files: Files::default(),
            listen: IpAddr::from([127, 0, 0, 1]),
            ssh_ports: [2200, 2299],
            web_ports: [3100, 3199],
            at_most: 2,
            memory_max_mib: LARGEST,
            machine_memory_mib: None,
            cpu_quota_percent: 200,
            tasks_max: 512,
            disk_mib: 1024,
            checkout_max_mib: 256,
            ttl_seconds: 1800,
            longest_ttl_seconds: 86_400,
            start_timeout_seconds: 300,
            backend: Choice::Auto,
        }
    }
}

impl Written {
    fn meant(self) -> Result<Settings, (&'static str, String)> {
        within("at_most", self.at_most as u64, 1, 16)?;
        within("memory_max_mib", self.memory_max_mib, SMALLEST_MACHINE + OVERHEAD, LARGEST)?;
        let most = self.memory_max_mib - OVERHEAD;
        let machine_memory_mib = self.machine_memory_mib.unwrap_or(most);
        within("machine_memory_mib", machine_memory_mib, SMALLEST_MACHINE, most)?;
        within("cpu_quota_percent", u64::from(self.cpu_quota_percent), 10, 6400)?;
        within("tasks_max", u64::from(self.tasks_max), 64, 65_536)?;
        within("disk_mib", self.disk_mib, 16, 65_536)?;
        within("checkout_max_mib", self.checkout_max_mib, 1, self.disk_mib / 3)?;
        within("longest_ttl_seconds", self.longest_ttl_seconds, 10, 604_800)?;
        within("ttl_seconds", self.ttl_seconds, 10, self.longest_ttl_seconds)?;
        within("start_timeout_seconds", self.start_timeout_seconds, 5, 3600)?;
        let ssh_ports = range("ssh_ports", self.ssh_ports)?;
        let web_ports = range("web_ports", self.web_ports)?;
        if ssh_ports.overlaps(web_ports) {
            return Err(("web_ports", "has ports that are in `ssh_ports` too".to_owned()));
        }
        Ok(Settings {
            socket: absolute("socket", self.socket)?,
            state: absolute("state", self.state)?,
            repositories: absolute("repositories", self.repositories)?,
            files: self.files,
            listen: self.listen,
            ssh_ports,
            web_ports,
            at_most: self.at_most,
            limits: Limits {
                memory_max_bytes: self.memory_max_mib * MIB,
                machine_memory_mib,
                cpu_quota_percent: self.cpu_quota_percent,
                tasks_max: self.tasks_max,
                disk_mib: self.disk_mib,
                checkout_max_bytes: self.checkout_max_mib * MIB,
                ttl: Duration::from_secs(self.ttl_seconds),
                longest_ttl: Duration::from_secs(self.longest_ttl_seconds),
                start_timeout: Duration::from_secs(self.start_timeout_seconds),
            },
            backend: self.backend,
        })
    }
}

fn within(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), (&'static str, String)> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err((key, format!("is {value}; it must be from {least} to {most}")))
    }
}

fn range(key: &'static str, [first, last]: [u16; 2]) -> Result<Range, (&'static str, String)> {
    let range = Range { first, last };
    if first < 1024 || first > last {
        Err((key, format!("is [{first}, {last}]; it must be [first, last] with 1024 <= first <= last")))
    } else if range.contains(ORIGIN) {
        Err((key, format!("holds {ORIGIN}, the port of the appliance itself")))
    } else {
        Ok(range)
    }
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf, (&'static str, String)> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err((key, format!("is `{}`; it must be an absolute path", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.toml");
        std::fs::write(&path, content).unwrap();
        read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    fn refused(content: &str, expected: &str) {
        assert_eq!(parse(content).unwrap_err(), expected);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let settings = parse("").unwrap();
        assert_eq!(settings.at_most, 2);
        assert_eq!(settings.limits.memory_max_bytes, 4 << 30);
        assert_eq!(settings.limits.machine_memory_mib, 4032);
        assert_eq!(settings.limits.cpu_quota_percent, 200);
        assert_eq!(
            (settings.ssh_ports, settings.web_ports),
            (Range { first: 2200, last: 2299 }, Range { first: 3100, last: 3199 })
        );
        assert!(settings.listen.is_loopback());
    }

    #[test]
    fn the_settings_of_the_reference_guest_are_right() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference/parts/sandbox/files/etc/rave/sandbox.toml");
        let settings = read(&path).unwrap();
        assert_eq!(settings.limits.memory_max_bytes, 4 << 30);
    }

    #[test]
    fn a_mistake_is_named_with_what_would_be_right() {
        refused("memory_max_mib = 5000", "FILE: `memory_max_mib` is 5000; it must be from 128 to 4096");
        refused(
            "memory_max_mib = 512\nmachine_memory_mib = 512",
            "FILE: `machine_memory_mib` is 512; it must be from 64 to 448",
        );
        refused("web_ports = [3000, 3100]", "FILE: `web_ports` holds 3002, the port of the appliance itself");
        refused(
            "ssh_ports = [22, 2299]",
            "FILE: `ssh_ports` is [22, 2299]; it must be [first, last] with 1024 <= first <= last",
        );
        refused("web_ports = [2250, 2260]", "FILE: `web_ports` has ports that are in `ssh_ports` too");
        refused("state = \"here\"", "FILE: `state` is `here`; it must be an absolute path");
        refused("at_most = 0", "FILE: `at_most` is 0; it must be from 1 to 16");
        refused("ttl_seconds = 90000", "FILE: `ttl_seconds` is 90000; it must be from 10 to 86400");
        refused(
            "backend = \"docker\"",
            "FILE:1: unknown variant `docker`, expected one of `auto`, `qemu-kvm`, `qemu-tcg`, `user-mode-linux`",
        );
        assert!(parse("max = 3").unwrap_err().starts_with("FILE:1: unknown field `max`, expected one of `socket`"));
    }
}
