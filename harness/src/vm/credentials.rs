//! What is handed to the guest at boot: systemd credentials in SMBIOS strings. The image that is tested stays the image that ships; the
//! key to log in with, the host key to expect, and the units that report readiness and stream the journal come from outside.
//!
//! See systemd.system-credentials(7) and systemd-debug-generator(8); units from credentials need systemd 256.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::machine::{JOURNAL_PORT, READY_PORT, WAKE_PORT};

/// The unit that says when the guest is ready.
pub const READY_UNIT: &str = "rave-ready.service";
/// The unit that streams the journal.
pub const JOURNAL_UNIT: &str = "rave-journal.service";
/// The unit that makes a good machine of a copy.
pub const WAKE_UNIT: &str = "rave-wake.service";

/// Debian's and NixOS's places for programs. NixOS gives units no such path by itself.
const PROGRAMS: &str = "/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// One credential: a name that systemd in the guest knows, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name, such as `ssh.authorized_keys.root`.
    pub name: String,
    /// The content.
    pub content: Vec<u8>,
}

/// How the harness will log in, as the guest has to know it.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// One line for root's `authorized_keys`.
    pub authorized_key: &'a str,
    /// The guest's ed25519 host key, private half, in OpenSSH's PEM format.
    pub host_key_pem: &'a str,
    /// The same key's public half, one line.
    pub host_key_public: &'a str,
}

/// Everything the harness hands to a guest: the login, readiness, the journal, and what wakes a copy of it.
#[must_use]
pub fn credentials(login: Login<'_>) -> Vec<Credential> {
    let mut all = login_credentials(login);
    all.extend(unit_credentials());
    all
}

fn login_credentials(login: Login<'_>) -> Vec<Credential> {
    let Login { authorized_key, host_key_pem, host_key_public } = login;
    // `f+~` writes the decoded base64 over whatever is there, before sshd starts.
    let tmpfiles = format!(
        "f+~ /etc/ssh/ssh_host_ed25519_key 0600 root root - {}\nf+~ /etc/ssh/ssh_host_ed25519_key.pub 0644 root root - {}\n",
        STANDARD.encode(host_key_pem),
        STANDARD.encode(host_key_public.trim_end().to_owned() + "\n"),
    );
    vec![
        Credential::new("ssh.authorized_keys.root", authorized_key.trim_end().to_owned() + "\n"),
        Credential::new("tmpfiles.extra", tmpfiles),
    ]
}

/// The units and what pulls them in. The journal starts as soon as its port is there, long before most services.
fn unit_credentials() -> Vec<Credential> {
    let wants = |unit: &str| format!("[Unit]\nWants={unit}\n");
    vec![
        Credential::new(format!("systemd.extra-unit.{READY_UNIT}"), ready_unit()),
        Credential::new(format!("systemd.extra-unit.{WAKE_UNIT}"), wake_unit()),
        Credential::new("systemd.unit-dropin.multi-user.target", wants(&format!("{READY_UNIT} {WAKE_UNIT}"))),
        Credential::new(format!("systemd.extra-unit.{JOURNAL_UNIT}"), journal_unit()),
        Credential::new("systemd.unit-dropin.sysinit.target", wants(JOURNAL_UNIT)),
    ]
}

/// A digest over what the units do: a guest that was booted with others is not the same.
#[must_use]
pub fn units_digest() -> String {
    let mut digest = Sha256::new();
    for Credential { name, content } in unit_credentials() {
        digest.update(name);
        digest.update(content);
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says the state of the system once it has settled.
fn ready_unit() -> String {
    let say = "printf \"{\\\\\"state\\\\\":\\\\\"%%s\\\\\"}\\\\n\" \"$$state\"";
    format!(
        "[Unit]\n\
         Description=Report readiness to the test harness\n\
         \n\
         {}",
        service(READY_PORT, ">", &format!("state=$$(systemctl is-system-running --wait); {say}"))
    )
}

/// Waits for lines `NUMBER TIME SEED`: sets the clock, stirs the seed into the random pool, and answers with the time and with random
/// bytes. A machine that was saved stands still in this loop, and every copy of it goes on here.
fn wake_unit() -> String {
    let script = r#"while read -r number now seed; do
        date -u -s "@$$now" >/dev/null 2>&1 || date -u -s "@$${now%%.*}" >/dev/null
        echo "$$seed" >/dev/urandom
        random=$$(od -An -v -N32 -tx1 /dev/urandom | tr -dc 0-9a-f)
        echo "$$number $$(date -u +%%s.%%N) $$random" >&0
        done"#;
    let script: Vec<_> = script.lines().map(str::trim).collect();
    format!(
        "[Unit]\n\
         Description=Tell a copy of this machine the time, for the test harness\n\
         \n\
         {}",
        service(WAKE_PORT, "<>", &script.join("; ").replace("do; ", "do "))
    )
}

fn journal_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Stream the journal to the test harness\n\
         DefaultDependencies=no\n\
         After=systemd-journald.socket\n\
         Conflicts=shutdown.target\n\
         Before=shutdown.target\n\
         \n\
         {}",
        service(JOURNAL_PORT, ">", "exec journalctl -b -f -n all -o json --no-pager")
    )
}

/// A unit's service whose `script` has a virtio-serial port as its output (`way` is `>`), or as its input too (`<>`). In it, `%%` and `$$` are systemd's `%` and `$`.
///
/// `Type=exec`: the start job is done when the shell runs, so that the guest does not wait for what waits for the guest. The shell waits
/// for the port by itself, since udev makes no unit of such devices (systemd 257 has no rule for it). No port, no report: that must not
/// be a failed unit of the guest.
fn service(port: &str, way: &str, script: &str) -> String {
    let device = format!("/dev/virtio-ports/{port}");
    format!(
        "[Service]\n\
         Type=exec\n\
         Environment=PATH={PROGRAMS}\n\
         ExecStart=/bin/sh -c 'udevadm wait --timeout=600 {device} || exit 0; {{ {script}; }} {way} {device}'\n"
    )
}

/// Writes each credential as an SMBIOS string into a file of `folder`, readable by its owner only.
///
/// # Errors
/// A file that cannot be written.
pub fn write_files(credentials: &[Credential], folder: &Path) -> io::Result<Vec<PathBuf>> {
    let write = |(number, credential): (usize, &Credential)| {
        let path = folder.join(format!("credential-{number}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(credential.smbios_string().as_bytes())?;
        Ok(path)
    };
    credentials.iter().enumerate().map(write).collect()
}

impl Credential {
    /// A credential with this name and content.
    pub fn new(name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), content: content.into() }
    }

    fn smbios_string(&self) -> String {
        format!("io.systemd.credential.binary:{}={}", self.name, STANDARD.encode(&self.content))
    }
}

/// Without the content, which may be secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, {} bytes)", self.name, self.content.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LOGIN: Login<'_> =
        Login { authorized_key: "ssh-ed25519 AAAA me", host_key_pem: "PEM\n", host_key_public: "ssh-ed25519 BBBB" };

    #[test]
    fn hands_over_login_readiness_and_journal() {
        let names: Vec<_> = credentials(LOGIN).into_iter().map(|credential| credential.name).collect();
        let expected = [
            "ssh.authorized_keys.root",
            "tmpfiles.extra",
            "systemd.extra-unit.rave-ready.service",
            "systemd.extra-unit.rave-wake.service",
            "systemd.unit-dropin.multi-user.target",
            "systemd.extra-unit.rave-journal.service",
            "systemd.unit-dropin.sysinit.target",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_host_key_goes_where_sshd_looks() {
        let tmpfiles = &login_credentials(LOGIN)[1];
        assert_eq!(
            String::from_utf8_lossy(&tmpfiles.content),
            "f+~ /etc/ssh/ssh_host_ed25519_key 0600 root root - UEVNCg==\n\
             f+~ /etc/ssh/ssh_host_ed25519_key.pub 0644 root root - c3NoLWVkMjU1MTkgQkJCQgo=\n"
        );
    }

    #[test]
    fn the_ready_unit_prints_one_json_line() {
        let unit = ready_unit();
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert_eq!(
            command,
            r#"/bin/sh -c 'udevadm wait --timeout=600 /dev/virtio-ports/rave.ready || exit 0; { state=$$(systemctl is-system-running --wait); printf "{\\"state\\":\\"%%s\\"}\\n" "$$state"; } > /dev/virtio-ports/rave.ready'"#
        );
        // What systemd makes of it: quotes off, `\\` one backslash, `$$` and `%%` single. Run with another answer and another port.
        let script = command
            .trim_start_matches("/bin/sh -c '")
            .trim_end_matches('\'')
            .replace("\\\\", "\\")
            .replace("$$", "$")
            .replace("%%", "%")
            .replace("udevadm wait --timeout=600", "test -e")
            .replace("systemctl is-system-running --wait", "echo degraded")
            .replace("/dev/virtio-ports/rave.ready", "/dev/stdout");
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"state\":\"degraded\"}\n");
    }

    #[test]
    fn the_wake_unit_answers_with_time_and_random_bytes() {
        let unit = wake_unit();
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        // As above; the clock of the machine that runs this test is left alone, and its pool may well be stirred.
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("port");
        std::fs::write(&port, "7 1700000000.25 c2VlZA==\n").unwrap();
        let script = command
            .trim_start_matches("/bin/sh -c '")
            .trim_end_matches('\'')
            .replace("\\\\", "\\")
            .replace("$$", "$")
            .replace("%%", "%")
            .replace("udevadm wait --timeout=600", "test -e")
            .replace("date -u -s \"@$now\"", "false")
            .replace("date -u -s \"@${now%.*}\"", "echo \"@${now%.*}\" >&2; echo")
            .replace("/dev/virtio-ports/rave.wake", port.to_str().unwrap());
        let output = std::process::Command::new("timeout").args(["5", "/bin/sh", "-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "@1700000000\n");
        let said = std::fs::read_to_string(&port).unwrap();
        let answer: Vec<_> = said.lines().nth(1).unwrap().split(' ').collect();
        assert_eq!((answer[0], answer[2].len()), ("7", 64), "{said}");
        assert!(answer[1].starts_with(|digit: char| digit.is_ascii_digit()), "{said}");
    }

    #[test]
    fn files_are_for_the_owner_only_and_debug_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Credential::new("name", "secret");
        let files = write_files(std::slice::from_ref(&secret), folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), "io.systemd.credential.binary:name=c2VjcmV0");
        assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{secret:?}"), "Credential(name, 6 bytes)");
    }
}
