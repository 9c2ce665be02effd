//! What a job runs in. In the appliance a transient unit without network, with a user, memory and time of its own; for tests, a plain process.

use std::ffi::OsString;
use std::path::Path;

use tokio::process::Command;

use crate::settings;

/// The name of all job units before their number.
pub const UNIT: &str = "rave-job-";

/// What jobs run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executor {
    /// A unit of systemd for each job.
    Systemd {
        /// The memory of a job, in MiB.
        memory_mib: u64,
    },
    /// A process of this user: no walls at all. Only where the runner's description says so, so that everybody who looks at a runner sees it.
    Direct,
}

impl Executor {
    /// Chooses by the runner's description.
    #[must_use]
    pub fn of(settings: &settings::Runner) -> Self {
        if settings.description.contains("direct executor") {
            Self::Direct
        } else {
            Self::Systemd { memory_mib: settings.memory_mib }
        }
    }

    /// The command that runs a job. It reads an archive with `job.sh` and `project/` from standard input.
    #[must_use]
    pub fn command(&self, job: u64, timeout: u64, folder: &Path) -> Command {
        match self {
            Self::Systemd { memory_mib } => {
                let mut command = Command::new("systemd-run");
                command.args(systemd_arguments(job, timeout, *memory_mib)).args(["/bin/sh", "-c", UNPACK]);
                command
            }
            Self::Direct => {
                let mut command = Command::new("/bin/sh");
                command
                    .args(["-c", UNPACK])
                    .env_clear()
                    .env("PATH", "/usr/local/bin:/usr/bin:/bin")
                    .env("RUNTIME_DIRECTORY", folder);
                command.process_group(0);
                command
            }
        }
    }
}

/// What the unit does before the script of the job: all that is its own, the script too, comes through the pipe, and none of it shows in a process list.
const UNPACK: &str = "cd \"$RUNTIME_DIRECTORY\" && tar -xf - && cd project && exec /bin/bash ../job.sh </dev/null";

fn systemd_arguments(job: u64, timeout: u64, memory_mib: u64) -> Vec<OsString> {
    let mut arguments = vec![
        "--quiet".to_owned(),
        "--pipe".to_owned(),
        "--wait".to_owned(),
        "--collect".to_owned(),
        "--service-type=exec".to_owned(),
        format!("--unit={UNIT}{job}"),
        format!("--description=Job {job} of the forge"),
    ];
    let properties = [
        "DynamicUser=yes".to_owned(),
        "PrivateNetwork=yes".to_owned(),
        "RestrictAddressFamilies=AF_UNIX".to_owned(),
        "ProtectSystem=strict".to_owned(),
        "ProtectHome=yes".to_owned(),
        "ProtectProc=invisible".to_owned(),
        "ProcSubset=pid".to_owned(),
        "PrivateTmp=yes".to_owned(),
        "PrivateDevices=yes".to_owned(),
        "PrivateUsers=yes".to_owned(),
        "ProtectKernelTunables=yes".to_owned(),
        "ProtectKernelModules=yes".to_owned(),
        "ProtectKernelLogs=yes".to_owned(),
        "ProtectControlGroups=yes".to_owned(),
        "ProtectClock=yes".to_owned(),
        "ProtectHostname=yes".to_owned(),
        "RestrictNamespaces=yes".to_owned(),
        "RestrictRealtime=yes".to_owned(),
        "RestrictSUIDSGID=yes".to_owned(),
        "LockPersonality=yes".to_owned(),
        "NoNewPrivileges=yes".to_owned(),
        "CapabilityBoundingSet=".to_owned(),
        "SystemCallArchitectures=native".to_owned(),
        "SystemCallFilter=@system-service".to_owned(),
        "InaccessiblePaths=-/etc/rave/secrets -/var/lib/rave-forge -/var/lib/rave-runner -/run/postgresql -/run/dbus -/run/systemd/private -/run/rave-sandbox"
            .to_owned(),
        format!("RuntimeDirectory={UNIT}{job}"),
        "RuntimeDirectoryMode=0700".to_owned(),
        "UMask=0077".to_owned(),
        "KillMode=control-group".to_owned(),
        "TimeoutStopSec=5s".to_owned(),
        format!("RuntimeMaxSec={timeout}"),
        format!("MemoryMax={memory_mib}M"),
        "MemorySwapMax=0".to_owned(),
        "TasksMax=128".to_owned(),
        "CPUWeight=50".to_owned(),
        "OOMPolicy=kill".to_owned(),
        "LimitCORE=0".to_owned(),
    ];
    arguments.extend(properties.into_iter().map(|property| format!("--property={property}")));
    arguments.push("--".to_owned());
    arguments.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_walls() {
        let arguments: Vec<String> =
            systemd_arguments(7, 60, 256).into_iter().filter_map(|argument| argument.into_string().ok()).collect();
        for wanted in
            ["DynamicUser=yes", "PrivateNetwork=yes", "MemoryMax=256M", "RuntimeMaxSec=60", "ProtectSystem=strict"]
        {
            assert!(arguments.contains(&format!("--property={wanted}")), "{wanted}");
        }
        assert!(arguments.contains(&"--unit=rave-job-7".to_owned()));
        assert_eq!(arguments.last().unwrap(), "--");
    }
}
