//! A sandbox's unit. systemd bounds it and ends it, so that all of it ends together, whoever is still there to look. The command lines are plain
//! data.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::backend::Backend;
use crate::machine::HOME;
use crate::sandbox::{Id, Sandbox};
use crate::settings::Settings;

/// Folders of the appliance that are empty for a sandbox's processes.
const HIDDEN: &str = "/boot:ro /etc:ro /home:ro /media:ro /mnt:ro /opt:ro /root:ro /run:ro /srv:ro /var:ro";

/// The command line that makes the unit of a sandbox.
#[must_use]
pub fn start(settings: &Settings, backend: &Backend, sandbox: &Sandbox, lifetime: Duration) -> Vec<String> {
    let mut words: Vec<String> =
        ["systemd-run", "--quiet", "--collect", "--no-ask-password", "--service-type=exec"].map(str::to_owned).into();
    words.push(format!("--unit={}", sandbox.id.unit()));
    words.push(format!("--description=Sandbox of merge request {} of {}", sandbox.mr, sandbox.project));
    words.extend(
        properties(settings, backend, sandbox, lifetime).into_iter().map(|property| format!("--property={property}")),
    );
    words.push("--".to_owned());
    words.extend(machine(settings, sandbox));
    words.push("--".to_owned());
    words.extend(backend.command_line(settings, Path::new(HOME)));
    words
}

/// The command line that ends a sandbox.
#[must_use]
pub fn stop(id: &Id) -> Vec<String> {
    vec!["systemctl".into(), "--no-ask-password".into(), "--no-block".into(), "stop".into(), id.unit()]
}

/// The command line that lists the units of sandboxes, whatever has become of them.
#[must_use]
pub fn list() -> Vec<String> {
    [
        "systemctl",
        "--no-ask-password",
        "--no-pager",
        "--plain",
        "--no-legend",
        "--full",
        "--all",
        "--type=service",
        "list-units",
        "rave-sandbox-sb-*.service",
    ]
    .map(str::to_owned)
    .into()
}

/// Reads what [`list`] says: the sandboxes, and whether their unit still runs.
#[must_use]
pub fn listed(output: &str) -> Vec<(Id, bool)> {
    output
        .lines()
        .filter_map(|line| {
            // A unit that has failed has a dot before its name.
            let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("rave-sandbox-"));
            let id = Id::of_unit(words.next()?)?;
            let active = words.nth(1)?;
            Some((id, !matches!(active, "inactive" | "failed")))
        })
        .collect()
}

fn machine(settings: &Settings, sandbox: &Sandbox) -> Vec<String> {
    vec![
        settings.files.program.display().to_string(),
        "machine".into(),
        format!("--home={HOME}"),
        format!("--ssh={}", SocketAddr::new(settings.listen, sandbox.ssh_port)),
        format!("--web={}", SocketAddr::new(settings.listen, sandbox.web_port)),
    ]
}

/// Systemd runs it as root, but with the same view of files as the sandbox; so it looks from where systemd itself does.
fn ended(settings: &Settings, folder: &Path) -> String {
    let (program, socket) = (settings.files.program.display(), settings.socket.display());
    format!("/usr/bin/nsenter --target=1 --mount -- {program} ended --socket {socket} {}", folder.display())
}

fn properties(settings: &Settings, backend: &Backend, sandbox: &Sandbox, lifetime: Duration) -> Vec<String> {
    let limits = &settings.limits;
    let folder = settings.state.join(sandbox.id.as_str());
    let text = |word: &str| word.to_owned();
    let mut properties = vec![
        // What it may use, and for how long.
        format!("MemoryMax={}", limits.memory_max_bytes),
        text("MemorySwapMax=0"),
        format!("CPUQuota={}%", limits.cpu_quota_percent),
        format!("TasksMax={}", limits.tasks_max),
        format!("RuntimeMaxSec={}", lifetime.as_secs().max(1)),
        text("TimeoutStopSec=5"),
        text("OOMPolicy=kill"),
        text("LimitCORE=0"),
        // Its end, also when nobody else is there to see it.
        format!("ExecStopPost=+{}", ended(settings, &folder)),
        // Who it is: nobody, and another nobody than the next.
        text("DynamicUser=yes"),
        text("NoNewPrivileges=yes"),
        text("CapabilityBoundingSet="),
        text("AmbientCapabilities="),
        text("UMask=0077"),
        // What it sees: programs, and its own folder.
        format!("TemporaryFileSystem={HIDDEN}"),
        // The machine's memory is a file, of which it runs code.
        format!("TemporaryFileSystem=/dev/shm:mode=1777,size={}", limits.memory_max_bytes),
        format!("BindPaths={}:{HOME}", folder.display()),
        text("Environment=TMPDIR=/dev/shm PATH=/usr/sbin:/usr/bin"),
        text("DevicePolicy=closed"),
        text("PrivateIPC=yes"),
        text("ProtectProc=invisible"),
        text("ProtectClock=yes"),
        text("ProtectControlGroups=yes"),
        text("ProtectHostname=yes"),
        text("ProtectKernelLogs=yes"),
        text("ProtectKernelModules=yes"),
        text("ProtectKernelTunables=yes"),
        // What it may ask of the kernel. User and network namespaces: that is how it gets a network of its own without a privilege.
        text("RestrictNamespaces=user net"),
        text("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        text("RestrictRealtime=yes"),
        text("SystemCallArchitectures=native"),
        text("SystemCallFilter=@system-service @debug"),
        text("SystemCallErrorNumber=EPERM"),
    ];
    properties.extend(backend.devices().iter().map(|device| format!("DeviceAllow={device} rw")));
    properties.extend(backend.group().map(|group| format!("SupplementaryGroups={group}")));
    properties
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backend::tests::user_mode;
    use crate::sandbox::State;

    pub(crate) fn settings() -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox.toml");
        std::fs::write(&path, "").unwrap();
        crate::settings::read(&path).unwrap()
    }

    pub(crate) fn sandbox() -> Sandbox {
        Sandbox {
            id: Id::new(0x1a2b),
            state: State::Starting,
            reason: None,
            console: Vec::new(),
            backend: "user-mode-linux 6.12.113".into(),
            project: "rave/hello".into(),
            project_id: 7,
            mr: 1,
            sha: "0123456789abcdef0123456789abcdef01234567".into(),
            repository: "https://rave.local:3002/gitlab/rave/hello.git".into(),
            requested_by: "dana".into(),
            address: "127.0.0.1".into(),
            ssh_port: 2200,
            web_port: 3100,
            host_key: String::new(),
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            expires_at: "2026-01-02T03:14:05Z".parse().unwrap(),
            memory_max_bytes: 4 << 30,
            cpu_quota_percent: 200,
        }
    }

    #[test]
    fn the_unit_of_a_sandbox() {
        let words = start(&settings(), &user_mode(), &sandbox(), Duration::from_secs(600));
        let expected = [
            "systemd-run",
            "--quiet",
            "--collect",
            "--no-ask-password",
            "--service-type=exec",
            "--unit=rave-sandbox-sb-1a2b.service",
            "--description=Sandbox of merge request 1 of rave/hello",
            "--property=MemoryMax=4294967296",
            "--property=MemorySwapMax=0",
            "--property=CPUQuota=200%",
            "--property=TasksMax=512",
            "--property=RuntimeMaxSec=600",
            "--property=TimeoutStopSec=5",
            "--property=OOMPolicy=kill",
            "--property=LimitCORE=0",
            "--property=ExecStopPost=+/usr/bin/nsenter --target=1 --mount -- /usr/local/bin/rave-sandbox ended --socket /run/rave-sandbox/api.sock /var/lib/rave-sandbox/sb-1a2b",
            "--property=DynamicUser=yes",
            "--property=NoNewPrivileges=yes",
            "--property=CapabilityBoundingSet=",
            "--property=AmbientCapabilities=",
            "--property=UMask=0077",
            "--property=TemporaryFileSystem=/boot:ro /etc:ro /home:ro /media:ro /mnt:ro /opt:ro /root:ro /run:ro /srv:ro /var:ro",
            "--property=TemporaryFileSystem=/dev/shm:mode=1777,size=4294967296",
            "--property=BindPaths=/var/lib/rave-sandbox/sb-1a2b:/run/sandbox",
            "--property=Environment=TMPDIR=/dev/shm PATH=/usr/sbin:/usr/bin",
            "--property=DevicePolicy=closed",
            "--property=PrivateIPC=yes",
            "--property=ProtectProc=invisible",
            "--property=ProtectClock=yes",
            "--property=ProtectControlGroups=yes",
            "--property=ProtectHostname=yes",
            "--property=ProtectKernelLogs=yes",
            "--property=ProtectKernelModules=yes",
            "--property=ProtectKernelTunables=yes",
            "--property=RestrictNamespaces=user net",
            "--property=RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "--property=RestrictRealtime=yes",
            "--property=SystemCallArchitectures=native",
            "--property=SystemCallFilter=@system-service @debug",
            "--property=SystemCallErrorNumber=EPERM",
            "--property=DeviceAllow=/dev/net/tun rw",
            "--",
            "/usr/local/bin/rave-sandbox",
            "machine",
            "--home=/run/sandbox",
            "--ssh=127.0.0.1:2200",
            "--web=127.0.0.1:3100",
            "--",
            "setarch",
            "--addr-no-randomize",
            "/usr/bin/linux.uml",
        ];
        assert_eq!(&words[..expected.len()], expected);
    }

    #[test]
    fn the_end_of_a_sandbox() {
        assert_eq!(
            stop(&Id::new(1)).join(" "),
            "systemctl --no-ask-password --no-block stop rave-sandbox-sb-0001.service"
        );
    }

    #[test]
    fn units_are_read_from_a_list() {
        let output = "  rave-sandbox-sb-1a2b.service loaded active running Sandbox of merge request 1 of rave/hello\n\
                      ● rave-sandbox-sb-0001.service loaded failed failed Sandbox\n\
                        rave-sandbox-sb-0002.service loaded deactivating stop-sigterm Sandbox\n\
                        rave-sandbox-other.service loaded active running Another\n\n";
        assert_eq!(listed(output), [(Id::new(0x1a2b), true), (Id::new(1), false), (Id::new(2), true)]);
    }
}
