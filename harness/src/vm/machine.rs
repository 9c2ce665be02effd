//! A machine as plain data, and the QEMU command line that follows from it. Nothing here touches the outside world.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::accel::Kind;

/// The guest's port for SSH.
pub const GUEST_SSH: u16 = 22;
/// The guest's port for HTTPS. It has the same number outside, so that URLs, redirects and cookies stay literal.
pub const GUEST_HTTPS: u16 = 3002;
/// The port on the machine's own loopback address that leads to the guest's SSH. Not 22: only root may bind that.
pub const HOST_SSH: u16 = 2222;
/// The name of QEMU's network, for forwards that are added later.
pub const NETDEV: &str = "net0";
/// The virtio-serial port on which the guest says that it is ready.
pub const READY_PORT: &str = "rave.ready";
/// The virtio-serial port on which the guest streams its journal.
pub const JOURNAL_PORT: &str = "rave.journal";
/// The virtio-serial port on which a copy of a machine is told the time and gives an account of itself.
pub const WAKE_PORT: &str = "rave.wake";

/// Everything QEMU is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The emulator.
    pub qemu: PathBuf,
    /// The machine version, such as `pc-q35-7.2`.
    pub machine_type: String,
    /// What runs the guest's instructions.
    pub accelerator: Kind,
    /// The CPU model. [`default_cpu`] has a good one.
    pub cpu: String,
    /// Number of cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The file that holds the memory.
    pub ram_file: PathBuf,
    /// Who else may see what the guest writes there.
    pub sharing: Sharing,
    /// How the guest begins.
    pub origin: Origin,
    /// The disk that is written to: an overlay, thrown away with the machine.
    pub disk: Disk,
    /// What is started.
    pub boot: Boot,
    /// The loopback address of the machine's own.
    pub address: Ipv4Addr,
    /// Forwards from `address` into the guest. Nothing else gets in, and nothing gets out.
    pub forwards: Vec<Forward>,
    /// Files with one SMBIOS string each (`io.systemd.credential…`). Files, since arguments are for everybody to read.
    pub credential_files: Vec<PathBuf>,
    /// Where the serial console is written.
    pub console_log: PathBuf,
    /// Where the guest's journal is written, one JSON object per line.
    pub journal_log: PathBuf,
    /// The socket on which the readiness line arrives. The harness listens there before QEMU starts, and QEMU connects.
    pub ready_socket: PathBuf,
    /// The socket behind [`WAKE_PORT`]. The harness listens there too.
    pub wake_socket: PathBuf,
    /// The socket for QMP. And there.
    pub qmp_socket: PathBuf,
}

/// A disk file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// How it is written.
    pub format: DiskFormat,
}

/// The format of a disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    /// QEMU's own.
    Qcow2,
    /// Byte for byte.
    Raw,
}

/// What becomes of what the guest writes to its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// It goes to the file, which QEMU makes if it is not there.
    Shared,
    /// It stays in this process; the file, which is there, keeps what it holds (copy on write).
    Private,
}

/// How a guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// With its first instruction.
    Cold,
    /// In the middle: QEMU waits for the state of a machine that was saved.
    Incoming,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// The firmware (SeaBIOS) starts what is on the disk.
    Disk,
    /// QEMU starts this kernel.
    Kernel {
        /// The kernel, a bzImage.
        kernel: PathBuf,
        /// The initial file system.
        initrd: PathBuf,
        /// The kernel's command line.
        cmdline: String,
    },
}

/// One TCP forward from the machine's address into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The port outside.
    pub host_port: u16,
    /// The port in the guest.
    pub guest_port: u16,
}

/// The two forwards every machine has.
pub const FORWARDS: [Forward; 2] = [
    Forward { host_port: HOST_SSH, guest_port: GUEST_SSH },
    Forward { host_port: GUEST_HTTPS, guest_port: GUEST_HTTPS },
];

/// A CPU model that fits the accelerator.
///
/// KVM: `host`, what the machine has. TCG: `qemu64`, the fastest of those measured (a guest with its services up after 93 s; `max` 110 s,
/// `Nehalem` 141 s), since C libraries choose wide vector code where it is offered and that is dear to emulate. It is an x86-64-v1, which
/// is what Debian and nixpkgs build for; a guest with x86-64-v2 binaries needs `Nehalem`.
#[must_use]
pub fn default_cpu(accelerator: Kind) -> &'static str {
    match accelerator {
        Kind::Kvm => "host",
        Kind::Tcg => "qemu64",
    }
}

/// QEMU's command line for this machine, program first.
#[must_use]
pub fn command_line(machine: &Machine) -> Vec<OsString> {
    let mut line = Line(vec![machine.qemu.clone().into_os_string()]);
    hardware(&mut line, machine);
    boot(&mut line, &machine.boot);
    disk(&mut line, &machine.disk);
    network(&mut line, machine.address, &machine.forwards);
    for file in &machine.credential_files {
        line.option("-smbios").value("type=11,path=").path(file);
    }
    serial_ports(&mut line, machine);
    control(&mut line, &machine.qmp_socket);
    if machine.origin == Origin::Incoming {
        line.option("-incoming").value("defer");
    }
    line.0
}

/// The same machine for a person's terminal, as one line for a shell: console and QEMU's monitor on the terminal, the image itself as
/// the disk and unchanged (`snapshot=on`), and nothing of what goes away with the harness. It can be pasted long after the run.
#[must_use]
pub fn paste_line(machine: &Machine, image: &Disk) -> String {
    let mut line = Line(vec![machine.qemu.clone().into_os_string()]);
    line.option("-machine").value(&machine.machine_type);
    processor(&mut line, machine);
    line.option("-m").value(format!("{}M", machine.memory_mib));
    line.option("-nodefaults").option("-no-user-config");
    boot(&mut line, &machine.boot);
    line.option("-drive")
        .value("if=virtio,snapshot=on,file=")
        .path(&image.path)
        .value(format!(",format={}", image.format));
    network(&mut line, machine.address, &machine.forwards);
    line.option("-nographic").option("-serial").value("mon:stdio");
    shell_line(&line.0)
}

/// Arguments as one line that a POSIX shell takes apart into the same arguments.
#[must_use]
pub fn shell_line(arguments: &[OsString]) -> String {
    let words = arguments.iter().map(|argument| argument.as_encoded_bytes());
    let quoted = shlex::bytes::Quoter::new().allow_nul(true).join(words).unwrap_or_default();
    String::from_utf8_lossy(&quoted).into_owned()
}

fn hardware(line: &mut Line, machine: &Machine) {
    line.option("-name").value("rave,debug-threads=on");
    line.option("-machine").value(&machine.machine_type).value(",memory-backend=ram");
    processor(line, machine);
    line.option("-m").value(format!("{}M", machine.memory_mib));
    // In a file, so that copies of the booted machine can map the same memory copy-on-write.
    let share = match machine.sharing {
        Sharing::Shared => "on",
        Sharing::Private => "off",
    };
    line.option("-object")
        .value(format!("memory-backend-file,id=ram,size={}M,share={share},mem-path=", machine.memory_mib))
        .path(&machine.ram_file);
    line.option("-nodefaults").option("-no-user-config");
    line.option("-display").value("none");
    // A screen, so that there is something to take a screenshot of.
    line.option("-device").value("VGA");
    line.option("-device").value("virtio-rng-pci");
    line.option("-device").value("vmgenid,guid=auto");
    line.option("-device").value("pvpanic-pci");
}

fn processor(line: &mut Line, machine: &Machine) {
    line.option("-accel").value(match machine.accelerator {
        Kind::Kvm => "kvm",
        Kind::Tcg => "tcg,thread=multi",
    });
    line.option("-cpu").value(&machine.cpu);
    line.option("-smp").value(machine.cores.to_string());
}

fn boot(line: &mut Line, boot: &Boot) {
    let Boot::Kernel { kernel, initrd, cmdline } = boot else { return };
    line.option("-kernel").value(kernel);
    line.option("-initrd").value(initrd);
    line.option("-append").value(cmdline);
}

fn disk(line: &mut Line, disk: &Disk) {
    // `cache=unsafe` ignores the guest's flushes: the overlay is gone when the machine is gone, so no power cut can matter to it.
    line.option("-drive")
        .value("if=none,id=disk,cache=unsafe,discard=unmap,file.drop-cache=off,file=")
        .path(&disk.path)
        .value(format!(",format={}", disk.format));
    line.option("-device").value("virtio-blk-pci,drive=disk,bootindex=1");
}

fn network(line: &mut Line, address: Ipv4Addr, forwards: &[Forward]) {
    line.option("-netdev").value(format!("user,id={NETDEV},restrict=on"));
    for Forward { host_port, guest_port } in forwards {
        line.value(format!(",hostfwd=tcp:{address}:{host_port}-:{guest_port}"));
    }
    line.option("-device").value(format!("virtio-net-pci,netdev={NETDEV},romfile="));
}

fn serial_ports(line: &mut Line, machine: &Machine) {
    line.option("-chardev").value("file,id=console,append=on,path=").path(&machine.console_log);
    line.option("-serial").value("chardev:console");
    line.option("-device").value("virtio-serial-pci");
    line.option("-chardev").value("socket,id=ready,path=").path(&machine.ready_socket);
    line.option("-device").value(format!("virtserialport,chardev=ready,name={READY_PORT}"));
    line.option("-chardev").value("file,id=journal,append=on,path=").path(&machine.journal_log);
    line.option("-device").value(format!("virtserialport,chardev=journal,name={JOURNAL_PORT}"));
    line.option("-chardev").value("socket,id=wake,path=").path(&machine.wake_socket);
    line.option("-device").value(format!("virtserialport,chardev=wake,name={WAKE_PORT}"));
}

fn control(line: &mut Line, qmp_socket: &Path) {
    line.option("-chardev").value("socket,id=qmp,path=").path(qmp_socket);
    line.option("-mon").value("chardev=qmp,mode=control");
    // Whatever ends the guest leaves QEMU there, stopped, so that the screen can still be photographed.
    line.option("-action").value("reboot=shutdown,shutdown=pause,panic=pause,watchdog=pause");
    // The guest waits until the harness listens to its events.
    line.option("-S");
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        })
    }
}

/// A command line that grows: an option, then the pieces of its value.
struct Line(Vec<OsString>);

impl Line {
    fn option(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    /// Appends to the value of the last option, or starts it.
    fn value(&mut self, piece: impl AsRef<OsStr>) -> &mut Self {
        match self.0.last_mut() {
            Some(last) if !last.as_encoded_bytes().starts_with(b"-") => last.push(piece),
            _ => self.0.push(piece.as_ref().to_owned()),
        }
        self
    }

    /// A path inside a value of the form `key=value,key=value`, where QEMU wants a comma doubled.
    fn path(&mut self, path: &Path) -> &mut Self {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let doubled = path.as_os_str().as_bytes().iter().flat_map(|byte| match byte {
            b',' => vec![b',', b','],
            other => vec![*other],
        });
        self.value(OsString::from_vec(doubled.collect()))
    }
}

/// A digest over the arguments that this harness gives QEMU, whatever the machine: one that was saved by a harness with others is not the same.
#[must_use]
pub fn arguments_digest() -> String {
    crate::hex::sha256(&Sha256::digest(shell_line(&command_line(&example()))))
}

/// A machine of which only the shape matters.
fn example() -> Machine {
    Machine {
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        machine_type: "pc-q35-7.2".into(),
        accelerator: Kind::Tcg,
        cpu: "qemu64".into(),
        cores: 2,
        memory_mib: 512,
        ram_file: "/run/m/ram".into(),
        sharing: Sharing::Shared,
        origin: Origin::Cold,
        disk: Disk { path: "/run/m/disk.qcow2".into(), format: DiskFormat::Qcow2 },
        boot: Boot::Disk,
        address: Ipv4Addr::new(127, 65, 1, 2),
        forwards: FORWARDS.to_vec(),
        credential_files: vec!["/run/m/credential-0".into()],
        console_log: "/e/console.log".into(),
        journal_log: "/e/journal.jsonl".into(),
        ready_socket: "/run/m/ready.sock".into(),
        wake_socket: "/run/m/wake.sock".into(),
        qmp_socket: "/run/m/qmp.sock".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::example as machine;
    use super::*;

    #[test]
    fn the_command_line_follows_from_the_machine() {
        let expected = "
            /usr/bin/qemu-system-x86_64
            -name rave,debug-threads=on
            -machine pc-q35-7.2,memory-backend=ram
            -accel tcg,thread=multi
            -cpu qemu64
            -smp 2
            -m 512M
            -object memory-backend-file,id=ram,size=512M,share=on,mem-path=/run/m/ram
            -nodefaults -no-user-config
            -display none
            -device VGA
            -device virtio-rng-pci
            -device vmgenid,guid=auto
            -device pvpanic-pci
            -drive if=none,id=disk,cache=unsafe,discard=unmap,file.drop-cache=off,file=/run/m/disk.qcow2,format=qcow2
            -device virtio-blk-pci,drive=disk,bootindex=1
            -netdev user,id=net0,restrict=on,hostfwd=tcp:127.65.1.2:2222-:22,hostfwd=tcp:127.65.1.2:3002-:3002
            -device virtio-net-pci,netdev=net0,romfile=
            -smbios type=11,path=/run/m/credential-0
            -chardev file,id=console,append=on,path=/e/console.log
            -serial chardev:console
            -device virtio-serial-pci
            -chardev socket,id=ready,path=/run/m/ready.sock
            -device virtserialport,chardev=ready,name=rave.ready
            -chardev file,id=journal,append=on,path=/e/journal.jsonl
            -device virtserialport,chardev=journal,name=rave.journal
            -chardev socket,id=wake,path=/run/m/wake.sock
            -device virtserialport,chardev=wake,name=rave.wake
            -chardev socket,id=qmp,path=/run/m/qmp.sock
            -mon chardev=qmp,mode=control
            -action reboot=shutdown,shutdown=pause,panic=pause,watchdog=pause
            -S";
        let expected: Vec<_> = expected.split_whitespace().map(OsString::from).collect();
        assert_eq!(command_line(&machine()), expected);
    }

    #[test]
    fn a_fork_differs_from_its_machine_in_memory_and_beginning() {
        let cold = command_line(&machine());
        let fork = command_line(&Machine { sharing: Sharing::Private, origin: Origin::Incoming, ..machine() });
        let differs: Vec<_> = fork.iter().filter(|word| !cold.contains(word)).collect();
        let memory = "memory-backend-file,id=ram,size=512M,share=off,mem-path=/run/m/ram";
        assert_eq!(differs, [memory, "-incoming", "defer"]);
    }

    #[test]
    fn kvm_and_a_kernel_of_its_own() {
        let machine = Machine {
            accelerator: Kind::Kvm,
            cpu: default_cpu(Kind::Kvm).into(),
            boot: Boot::Kernel {
                kernel: "/i/vmlinuz".into(),
                initrd: "/i/initrd".into(),
                cmdline: "root=/dev/vda console=ttyS0".into(),
            },
            ..machine()
        };
        let line = command_line(&machine);
        let value = |option: &str| &line[line.iter().position(|word| word == option).unwrap() + 1];
        assert_eq!(value("-accel"), "kvm");
        assert_eq!(value("-cpu"), "host");
        assert_eq!(value("-kernel"), "/i/vmlinuz");
        assert_eq!(value("-initrd"), "/i/initrd");
        assert_eq!(value("-append"), "root=/dev/vda console=ttyS0");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let machine = Machine { disk: Disk { path: "/a,b/disk".into(), format: DiskFormat::Raw }, ..machine() };
        let drive = "if=none,id=disk,cache=unsafe,discard=unmap,file.drop-cache=off,file=/a,,b/disk,format=raw";
        assert!(command_line(&machine).iter().any(|word| word == drive));
    }

    #[test]
    fn the_line_to_paste_survives_a_shell_and_needs_nothing_of_the_run() {
        let machine = Machine {
            boot: Boot::Kernel { kernel: "/i/vm linuz".into(), initrd: "/i/initrd".into(), cmdline: "a=1 'b'".into() },
            ..machine()
        };
        let line = paste_line(&machine, &Disk { path: "/image.raw".into(), format: DiskFormat::Raw });
        let words = shlex::split(&line).unwrap();
        assert!(words.contains(&"/i/vm linuz".to_owned()) && words.contains(&"a=1 'b'".to_owned()), "{line}");
        assert!(words.contains(&"if=virtio,snapshot=on,file=/image.raw,format=raw".to_owned()), "{line}");
        assert!(!line.contains("/run/m"), "{line}");
    }
}
