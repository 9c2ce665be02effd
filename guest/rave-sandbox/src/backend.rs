//! What runs a sandbox: QEMU with KVM, or user-mode Linux where there is none. Both boot the same root disk. The command lines are plain data.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::machine::TAP;
use crate::settings::{Choice, Files, Settings};

/// How long a kernel may take under KVM until it says its first line.
const BANNER_WITHIN: Duration = Duration::from_secs(20);
/// The name of a sandbox's own disk within its folder.
pub const DISK: &str = "disk.img";

/// What runs a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    kind: Kind,
    version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Qemu(Accelerator),
    UserModeLinux,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

impl Backend {
    /// The name and version, as every result shows it.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Qemu(Accelerator::Kvm) => "qemu-kvm",
            Kind::Qemu(Accelerator::Tcg) => "qemu-tcg",
            Kind::UserModeLinux => "user-mode-linux",
        };
        format!("{kind} {}", self.version)
    }

    /// The devices that the machine's process opens.
    #[must_use]
    pub fn devices(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Qemu(Accelerator::Kvm) => &["/dev/net/tun", "/dev/kvm"],
            Kind::Qemu(Accelerator::Tcg) | Kind::UserModeLinux => &["/dev/net/tun"],
        }
    }

    /// The group that may open them.
    #[must_use]
    pub fn group(&self) -> Option<&'static str> {
        (self.kind == Kind::Qemu(Accelerator::Kvm)).then_some("kvm")
    }

    /// The command line of a sandbox's machine, program first. It has the sandbox's folder at `home`, writes its console to standard output,
    /// and is wired to the tap interface [`TAP`].
    #[must_use]
    pub fn command_line(&self, settings: &Settings, home: &Path) -> Vec<String> {
        let memory = settings.limits.machine_memory_mib;
        let disk = home.join(DISK).display().to_string();
        match self.kind {
            Kind::Qemu(accelerator) => qemu(&settings.files, accelerator, memory, &disk),
            Kind::UserModeLinux => user_mode_linux(&settings.files, memory, &disk),
        }
    }
}

/// Finds what can run sandboxes here.
///
/// # Errors
/// With the reasons why nothing can.
pub fn choose(settings: &Settings) -> Result<Backend, String> {
    let files = &settings.files;
    match settings.backend {
        Choice::QemuKvm => qemu_kvm(files),
        Choice::QemuTcg => Ok(Backend { kind: Kind::Qemu(Accelerator::Tcg), version: qemu_version(files)? }),
        Choice::UserModeLinux => uml(files),
        Choice::Auto => qemu_kvm(files).or_else(|no_kvm| {
            tracing::info!("no QEMU with KVM: {no_kvm}");
            uml(files).map_err(|no_uml| format!("{no_kvm}; {no_uml}"))
        }),
    }
}

fn qemu_kvm(files: &Files) -> Result<Backend, String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm".to_owned());
    }
    let version = qemu_version(files)?;
    // The device file may be there, and even a machine be made, where no guest ever runs. So one has to.
    says_linux(&probe(files)).map_err(|why| format!("no guest runs under KVM: {why}"))?;
    Ok(Backend { kind: Kind::Qemu(Accelerator::Kvm), version })
}

fn uml(files: &Files) -> Result<Backend, String> {
    let version = version_of(&files.uml)?;
    Ok(Backend { kind: Kind::UserModeLinux, version: version.trim().to_owned() })
}

fn qemu_version(files: &Files) -> Result<String, String> {
    let said = version_of(&files.qemu)?;
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.map(str::to_owned).ok_or_else(|| format!("`{}` does not say its version", files.qemu.display()))
}

fn version_of(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("could not run `{}`: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!("`{} --version` ended with {}", program.display(), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a machine and waits for its kernel's first line.
fn says_linux(command_line: &[String]) -> Result<(), String> {
    let (program, arguments) = command_line.split_first().ok_or("nothing to run")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Reaped(command.spawn().map_err(|error| error.to_string())?);
    let (told, lines) = mpsc::channel();
    if let Some(output) = child.0.stdout.take() {
        let told = told.clone();
        std::thread::spawn(move || tell(BufReader::new(output), &told));
    }
    if let Some(output) = child.0.stderr.take() {
        std::thread::spawn(move || tell(BufReader::new(output), &told));
    }
    let deadline = std::time::Instant::now() + BANNER_WITHIN;
    let mut last = "it said nothing".to_owned();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Ok(line) if line.contains("Linux version") => return Ok(()),
            Ok(line) => last = line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("no kernel banner within {} s; last: {last}", BANNER_WITHIN.as_secs()));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(format!("QEMU ended; last: {last}")),
        }
    }
}

fn tell(output: impl std::io::Read, told: &mpsc::Sender<String>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        if told.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
            return;
        }
    }
}

/// A child that does not outlive its owner.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn user_mode_linux(files: &Files, memory: u64, disk: &str) -> Vec<String> {
    [
        // What the loader would leave free between program and heap becomes memory of the machine that nobody can use, up to a gigabyte.
        "setarch".into(),
        "--addr-no-randomize".into(),
        files.uml.display().to_string(),
        format!("mem={memory}M"),
        format!("ubd0r={}", files.root.display()),
        format!("ubd1={disk}"),
        "root=/dev/ubda".into(),
        "rootfstype=ext4".into(),
        "ro".into(),
        "init=/init".into(),
        "sandbox.disk=/dev/ubdb".into(),
        "panic=-1".into(),
        // It keeps a socket and its number there, and ends at once when it cannot.
        "uml_dir=/dev/shm/".into(),
        "umid=machine".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        format!("vec0:transport=tap,ifname={TAP},depth=128"),
    ]
    .into()
}

fn qemu(files: &Files, accelerator: Accelerator, memory: u64, disk: &str) -> Vec<String> {
    let mut words = bare_qemu(files, accelerator, memory);
    let drive = |name: &str, file: &str, options: &str| {
        let drive = format!("file={file},if=none,id={name},format=raw{options}");
        ["-drive".into(), drive, "-device".into(), format!("virtio-blk-pci,drive={name}")]
    };
    words.extend(["-smp".into(), "2".into()]);
    words.extend([
        "-append".into(),
        "console=ttyS0 root=/dev/vda rootfstype=ext4 ro init=/init sandbox.disk=/dev/vdb panic=-1".into(),
    ]);
    words.extend(drive("root", &files.root.display().to_string(), ",readonly=on"));
    words.extend(drive("own", disk, ""));
    words.extend(["-netdev".into(), format!("tap,id=cable,ifname={TAP},script=no,downscript=no")]);
    words.extend([
        "-device".into(),
        "virtio-net-pci,netdev=cable,romfile=".into(),
        "-device".into(),
        "virtio-rng-pci".into(),
    ]);
    words
}

/// A machine without a disk: enough to see whether a kernel runs.
fn probe(files: &Files) -> Vec<String> {
    let mut words = bare_qemu(files, Accelerator::Kvm, 256);
    words.extend(["-append".into(), "console=ttyS0 panic=-1".into()]);
    words
}

fn bare_qemu(files: &Files, accelerator: Accelerator, memory: u64) -> Vec<String> {
    let (accelerator, processor) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg", "max"),
    };
    let text = |word: &str| word.to_owned();
    vec![
        files.qemu.display().to_string(),
        text("-nodefaults"),
        text("-no-user-config"),
        text("-no-reboot"),
        text("-display"),
        text("none"),
        text("-sandbox"),
        text("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        text("-machine"),
        format!("q35,accel={accelerator}"),
        text("-cpu"),
        text(processor),
        text("-m"),
        format!("{memory}M"),
        text("-chardev"),
        text("stdio,id=console,signal=off"),
        text("-serial"),
        text("chardev:console"),
        text("-kernel"),
        files.kernel.display().to_string(),
        text("-initrd"),
        files.initrd.display().to_string(),
    ]
}

/// Whether what a backend is made of is there.
///
/// # Errors
/// With the file that is missing.
pub fn check_files(files: &Files) -> Result<(), String> {
    fs::metadata(&files.root).map(drop).map_err(|error| format!("the root disk `{}`: {error}", files.root.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::unit::tests::settings;

    pub(crate) fn user_mode() -> Backend {
        Backend { kind: Kind::UserModeLinux, version: "6.12.113".into() }
    }

    #[test]
    fn every_backend_has_a_name_with_a_version() {
        assert_eq!(user_mode().name(), "user-mode-linux 6.12.113");
        assert_eq!(Backend { kind: Kind::Qemu(Accelerator::Kvm), version: "10.0.2".into() }.name(), "qemu-kvm 10.0.2");
    }

    #[test]
    fn the_command_line_of_user_mode_linux() {
        let expected = "setarch --addr-no-randomize /usr/bin/linux.uml mem=4032M ubd0r=/usr/lib/rave-sandbox/root.ext4 ubd1=/run/sandbox/disk.img root=/dev/ubda rootfstype=ext4 \
             ro init=/init sandbox.disk=/dev/ubdb panic=-1 uml_dir=/dev/shm/ umid=machine con=null con0=null,fd:1 \
             vec0:transport=tap,ifname=sandbox,depth=128";
        assert_eq!(user_mode().command_line(&settings(), Path::new(crate::machine::HOME)).join(" "), expected);
    }

    #[test]
    fn the_command_line_of_qemu() {
        let backend = Backend { kind: Kind::Qemu(Accelerator::Kvm), version: "10.0.2".into() };
        let expected = "/usr/bin/qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -machine q35,accel=kvm -cpu host -m 4032M \
             -chardev stdio,id=console,signal=off -serial chardev:console \
             -kernel /usr/lib/rave-sandbox/vmlinuz -initrd /usr/lib/rave-sandbox/initrd.img -smp 2 \
             -append console=ttyS0 root=/dev/vda rootfstype=ext4 ro init=/init sandbox.disk=/dev/vdb panic=-1 \
             -drive file=/usr/lib/rave-sandbox/root.ext4,if=none,id=root,format=raw,readonly=on -device virtio-blk-pci,drive=root \
             -drive file=/run/sandbox/disk.img,if=none,id=own,format=raw -device virtio-blk-pci,drive=own \
             -netdev tap,id=cable,ifname=sandbox,script=no,downscript=no -device virtio-net-pci,netdev=cable,romfile= -device virtio-rng-pci";
        assert_eq!(backend.command_line(&settings(), Path::new(crate::machine::HOME)).join(" "), expected);
        // A monitor or a daemon would end what the unit's main process is.
        assert!(!expected.contains("-daemonize") && !expected.contains("hostfwd"));
    }

    #[test]
    fn what_cannot_run_is_named() {
        let mut settings = settings();
        settings.files.uml = "/nowhere/linux".into();
        settings.backend = Choice::UserModeLinux;
        let why = choose(&settings).unwrap_err();
        assert!(why.starts_with("could not run `/nowhere/linux`: "), "{why}");
        let why = says_linux(&["/bin/echo".into(), "no kernel here".into()]).unwrap_err();
        assert_eq!(why, "QEMU ended; last: no kernel here");
        says_linux(&["/bin/echo".into(), "[0.0] Linux version 6.12".into()]).unwrap();
    }
}
