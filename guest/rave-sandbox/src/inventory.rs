//! What there is of sandboxes on this machine, found by looking at the machine and not by asking the daemon: what should not be there is exactly
//! what the daemon would not know of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::backend::DISK;
use crate::machine::TAP;
use crate::settings::Settings;
use crate::unit;
use crate::world::GIT;

/// Everything that belongs to sandboxes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Whether there is nothing at all.
    pub empty: bool,
    /// Units, whatever has become of them.
    pub units: Vec<String>,
    /// Processes of these units, and machines that run outside of one.
    pub processes: Vec<Process>,
    /// Ports out of the sandboxes' ranges at which somebody listens.
    pub ports: BTreeSet<u16>,
    /// Interfaces named like a machine's cable, each with the network namespace it is in.
    pub taps: BTreeSet<String>,
    /// Network namespaces of the processes, other than this one's.
    pub namespaces: BTreeSet<String>,
    /// Disks.
    pub disks: Vec<PathBuf>,
    /// Folders.
    pub folders: Vec<PathBuf>,
}

/// A process that belongs to a sandbox.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its control group.
    pub cgroup: String,
    /// Its program.
    pub program: String,
}

/// Looks at this machine. Needs root to see everything.
#[must_use]
pub fn take(settings: &Settings) -> Inventory {
    let processes = processes(settings);
    let own = namespace(Path::new("/proc/self"));
    let mut inventory = Inventory { units: units(), ports: ports(settings), ..Inventory::default() };
    inventory.taps.extend(taps(Path::new("/proc/self"), own.as_deref()));
    for process in &processes {
        let folder = PathBuf::from(format!("/proc/{}", process.pid));
        let namespace = namespace(&folder).filter(|namespace| own.as_ref() != Some(namespace));
        inventory.taps.extend(taps(&folder, namespace.as_deref().or(own.as_deref())));
        inventory.namespaces.extend(namespace);
    }
    inventory.processes = processes;
    inventory.folders = folders(&settings.state);
    inventory.disks = inventory.folders.iter().map(|folder| folder.join(DISK)).filter(|disk| disk.exists()).collect();
    inventory.empty = inventory == Inventory::default();
    inventory
}

fn units() -> Vec<String> {
    let words = unit::list();
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    unit::listed(&output).into_iter().map(|(id, _)| id.unit()).collect()
}

fn processes(settings: &Settings) -> Vec<Process> {
    let machines = [&settings.files.uml, &settings.files.qemu];
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut processes: Vec<Process> = pids
        .filter_map(|pid| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            let cgroup = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
            let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
            let program = fs::read_link(folder.join("exe")).ok()?;
            let belongs = cgroup.contains("/rave-sandbox-sb-") || machines.contains(&&program);
            belongs.then(|| Process { pid, cgroup, program: program.display().to_string() })
        })
        .collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

/// The listening ports of this network namespace.
fn ports(settings: &Settings) -> BTreeSet<u16> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let all = tables.iter().flat_map(|table| listening(table));
    all.filter(|port| settings.ssh_ports.contains(*port) || settings.web_ports.contains(*port)).collect()
}

fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (_, port) = words.next()?.rsplit_once(':')?;
        (words.nth(1)? == "0A").then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// The interfaces that look like a machine's cable in the network namespace of a process.
fn taps(process: &Path, namespace: Option<&str>) -> Vec<String> {
    let table = fs::read_to_string(process.join("net/dev")).unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| *name == TAP).map(|name| format!("{name} in {}", namespace.unwrap_or("?"))).collect()
}

fn namespace(process: &Path) -> Option<String> {
    fs::read_link(process.join("ns/net")).ok().map(|link| link.display().to_string())
}

fn folders(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| !path.ends_with(GIT)).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::tests::settings;

    #[test]
    fn listening_ports_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                        0: 0100007F:0898 00000000:0000 0A 00000000:00000000\n\
                        1: 0100007F:0899 0100007F:1234 01 00000000:00000000\n\
                        2: 00000000000000000000000001000000:0C1C 00000000000000000000000000000000:0000 0A\n";
        assert_eq!(listening(table), [2200, 3100]);
    }

    #[test]
    fn a_folder_is_something() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings();
        settings.state = folder.path().to_owned();
        fs::create_dir(folder.path().join("sb-0001")).unwrap();
        fs::write(folder.path().join("sb-0001").join(DISK), "").unwrap();
        let inventory = take(&settings);
        assert!(!inventory.empty);
        assert_eq!(inventory.folders, [folder.path().join("sb-0001")]);
        assert_eq!(inventory.disks, [folder.path().join("sb-0001/disk.img")]);
    }
}
