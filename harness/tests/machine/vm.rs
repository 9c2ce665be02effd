//! Every way a machine can come up, not come up, and end.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rave_hermetic::vm::accel::{AccelError, Kind, probe};
use rave_hermetic::vm::boot::{Address, CONSOLE_LOG, JOURNAL_LOG, Means, QMP_LOG};
use rave_hermetic::vm::credentials::{Login, credentials};
use rave_hermetic::vm::machine::default_cpu;
use rave_hermetic::vm::{
    Accelerator, Boot, BootFailure, Diagnosis, Interrupt, Life, Loss, Plan, Qemu, ReadyState, Requested, Vm, VmError,
};
use rave_hermetic::wait::{Probe, until};
use rustix::process::{Pid, Signal, kill_process};
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::microguest::microguest;

/// Long enough for a microguest on a busy machine without acceleration.
pub const ENOUGH: Duration = Duration::from_secs(120);

pub fn handle() -> Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
        .handle()
        .clone()
}

/// A place for one machine: its evidence and its runtime folder, so that a test can see what is left.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(folder.path().join("base")).unwrap();
        Self { folder }
    }

    pub fn plan(&self, word: &str) -> Plan {
        plan_in(self.folder.path(), word)
    }

    /// A path in it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self, word: &str) -> Vm {
        Vm::start(&self.plan(word), &handle()).unwrap()
    }

    /// What is left of machines.
    pub fn left(&self) -> Vec<PathBuf> {
        left_in(self.folder.path())
    }
}

fn plan_in(folder: &Path, word: &str) -> Plan {
    let guest = microguest();
    let qemu = Qemu::find().unwrap();
    let mut plan = Plan::new(qemu, Kind::Tcg, guest.disk(), guest.boot(word), folder.join("evidence"));
    plan.base = folder.join("base");
    plan.memory_mib = 192;
    plan.cores = 1;
    plan
}

fn left_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder.join("base")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

pub fn never() -> Interrupt {
    static NEVER: OnceLock<watch::Sender<bool>> = OnceLock::new();
    NEVER.get_or_init(|| watch::Sender::new(false)).subscribe()
}

pub fn enough() -> Instant {
    Instant::now() + ENOUGH
}

/// Boots with `word` and expects it to fail.
fn boot_failure(place: &Place, word: &str, within: Duration) -> (BootFailure, Duration) {
    let vm = place.start(word);
    let begun = Instant::now();
    let failure = *vm.wait_ready(begun + within, &never()).unwrap_err();
    let took = begun.elapsed();
    assert!(failure.command.contains("qemu-system-x86_64"), "{}", failure.command);
    drop(vm);
    assert_eq!(place.left(), Vec::<PathBuf>::new());
    eprintln!("{word}: {failure}, told after {:.1} s", took.as_secs_f32());
    (failure, took)
}

fn is_png(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x89PNG\r\n\x1a\n")
}

fn process_exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What becomes of a machine that does not go on running.
fn fate(vm: &Vm) -> Life {
    let mut life = vm.life();
    handle().block_on(async {
        let changed = tokio::time::timeout(ENOUGH, life.wait_for(|life| *life != Life::Running));
        changed.await.expect("the machine still runs").unwrap().clone()
    })
}

/// The first bytes an SSH server sends.
fn ssh_banner(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut banner = [0; 8];
    stream.read_exact(&mut banner)?;
    Ok(String::from_utf8_lossy(&banner).into_owned())
}

#[test]
fn a_guest_gets_ready_and_ends_in_order() {
    let place = Place::new();
    let vm = place.start("ok");
    let ready = vm.wait_ready(enough(), &never()).unwrap();
    let latency = ready.at.elapsed();
    eprintln!(
        "ready after {:.1} s, told {latency:?} later, QEMU uses {:?} MiB",
        ready.after.as_secs_f32(),
        vm.rss_mib()
    );
    assert_eq!(ready.state, ReadyState::Running);
    assert!(latency < Duration::from_millis(100), "{latency:?}");
    assert!(vm.rss_mib().unwrap() > 20);
    assert_eq!(vm.alive(), Ok(()));
    assert_eq!(ssh_banner(vm.ssh()).unwrap(), "SSH-2.0-");

    let picture = place.folder.path().join("picture.png");
    vm.screenshot(&picture).unwrap();
    assert!(is_png(&picture));

    let copy = place.folder.path().join("copy");
    vm.copy_evidence(&copy).unwrap();
    assert!(fs::read_to_string(copy.join(JOURNAL_LOG)).unwrap().contains("started"));
    assert!(fs::read_to_string(copy.join(QMP_LOG)).unwrap().contains("screendump"));
    assert!(fs::metadata(copy.join(CONSOLE_LOG)).is_ok());
    assert!(is_png(&copy.join("screenshot.png")));

    let pid = vm.pid().as_raw_nonzero().get();
    let life = vm.life();
    let ending = vm.shutdown(ENOUGH);
    eprintln!("ended: {ending:?}");
    assert_eq!(ending.how, Means::PowerButton);
    assert_eq!(*life.borrow(), Life::Ended);
    assert!(!process_exists(pid));
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

#[test]
fn the_guest_lets_the_harness_in_and_has_the_key_it_was_given() {
    let place = Place::new();
    let (identity, host) = (new_key(), new_key());
    let public = |key: &PrivateKey| key.public_key().to_openssh().unwrap();
    let pem = |key: &PrivateKey| key.to_openssh(LineEnding::LF).unwrap();
    let login =
        Login { authorized_key: &public(&identity), host_key_pem: &pem(&host), host_key_public: &public(&host) };
    let plan = Plan { credentials: credentials(login), ..place.plan("ok") };
    let vm = Vm::start(&plan, &handle()).unwrap();
    vm.wait_ready(enough(), &never()).unwrap();

    let mut session = ssh2::Session::new().unwrap();
    session.set_tcp_stream(TcpStream::connect(vm.ssh()).unwrap());
    session.set_timeout(60_000);
    session.handshake().unwrap();
    assert_eq!(session.host_key().unwrap().0, host.public_key().to_bytes().unwrap());
    session.userauth_pubkey_memory("root", None, &pem(&identity), None).unwrap();

    // Everybody on the host can read the arguments.
    let arguments = fs::read(format!("/proc/{}/cmdline", vm.pid().as_raw_nonzero())).unwrap();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(arguments.contains("-smbios"), "{arguments}");
    assert!(!arguments.contains("io.systemd.credential"), "{arguments}");
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap()
}

#[test]
fn a_panic_is_told_at_once() {
    let (failure, took) = boot_failure(&Place::new(), "panic", ENOUGH);
    let Diagnosis::Lost(Loss::Panicked(words)) = &failure.diagnosis else { panic!("{failure}") };
    assert_eq!(words, "Kernel panic - not syncing: sysrq triggered crash");
    assert!(failure.console.contains("Kernel panic - not syncing: sysrq triggered crash"), "{}", failure.console);
    assert!(took < Duration::from_secs(60));
}

#[test]
fn a_panic_of_a_running_machine_is_a_loss() {
    let place = Place::new();
    let vm = place.start("panic");
    let lost = fate(&vm);
    assert!(matches!(lost, Life::Lost(Loss::Panicked(_))), "{lost:?}");
    // Told by QEMU, too: the panic device works, and a quiet console would not hide a panic.
    said_in(&vm, QMP_LOG, "GUEST_PANICKED");
    assert!(matches!(vm.alive(), Err(Loss::Panicked(_))));
    // It stands still with everything to see.
    let picture = place.folder.path().join("picture.png");
    vm.screenshot(&picture).unwrap();
    assert!(is_png(&picture));
    assert_eq!(vm.shutdown(ENOUGH).how, Means::Quit);
}

#[test]
fn a_reset_is_told_at_once() {
    let (failure, _) = boot_failure(&Place::new(), "reset", ENOUGH);
    assert_eq!(failure.diagnosis, Diagnosis::Lost(Loss::Reset));
    assert!(failure.screenshot.is_some());
}

#[test]
fn a_power_off_is_told_at_once() {
    let (failure, _) = boot_failure(&Place::new(), "poweroff", ENOUGH);
    assert_eq!(failure.diagnosis, Diagnosis::Lost(Loss::PoweredOff));
    assert!(failure.screenshot.is_some());
}

#[test]
fn a_prompt_of_the_initial_file_system_is_told_at_once() {
    let (failure, took) = boot_failure(&Place::new(), "initramfs-hang", ENOUGH);
    assert!(took < ENOUGH, "{took:?}");
    assert_eq!(failure.diagnosis, Diagnosis::StuckInInitramfs);
    assert!(failure.console.ends_with("(initramfs)"), "{}", failure.console);
}

#[test]
fn a_guest_that_hangs_ends_at_the_deadline() {
    let failure = silent_failure("hang", "started");
    assert!(failure.console.contains("waiting for a service that never comes"), "{}", failure.console);
    let report = failure.report();
    for part in ["it runs, but never said that it is ready", "never comes", "screenshot: ", "-kernel"] {
        assert!(report.contains(part), "{report}");
    }
}

#[test]
fn a_guest_that_tells_nobody_ends_at_the_deadline() {
    silent_failure("no-ready", "running, and nobody is told");
}

/// Waits until `words` are in one of the machine's logs.
fn said_in(vm: &Vm, log: &str, words: &str) {
    let path = vm.evidence().join(log);
    until(enough(), || {
        let said = fs::read_to_string(&path).unwrap();
        Ok::<_, ()>(if said.contains(words) { Probe::Ready(()) } else { Probe::NotYet(said) })
    })
    .unwrap();
}

/// Boots with `word`, waits for `words` in the journal, and expects the deadline to tell that nothing more came.
fn silent_failure(word: &str, words: &str) -> BootFailure {
    let place = Place::new();
    let vm = place.start(word);
    said_in(&vm, JOURNAL_LOG, words);
    let within = Duration::from_secs(2);
    let begun = Instant::now();
    let failure = *vm.wait_ready(begun + within, &never()).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(failure.diagnosis, Diagnosis::NeverReady);
    assert!(took >= within && took < within + Duration::from_secs(8), "{took:?}");
    assert!(is_png(failure.screenshot.as_ref().unwrap()));
    failure
}

#[test]
fn a_disk_without_a_system_shows_no_kernel() {
    let place = Place::new();
    let plan = Plan { boot: Boot::Disk, ..place.plan("ok") };
    let vm = Vm::start(&plan, &handle()).unwrap();
    let failure = vm.wait_ready(Instant::now() + Duration::from_secs(5), &never()).unwrap_err();
    assert_eq!(failure.diagnosis, Diagnosis::NoKernel);
}

#[test]
fn an_interrupt_ends_the_wait_at_once() {
    let place = Place::new();
    let vm = place.start("hang");
    let interrupt = watch::Sender::new(false);
    let begun = Instant::now();
    let failure = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vm.wait_ready(enough(), &interrupt.subscribe()).unwrap_err());
        until(enough(), || {
            Ok::<_, ()>(if begun.elapsed() > Duration::from_secs(1) {
                Probe::Ready(())
            } else {
                Probe::NotYet(String::new())
            })
        })
        .unwrap();
        interrupt.send_replace(true);
        waiting.join().unwrap()
    });
    assert_eq!(failure.diagnosis, Diagnosis::Interrupted);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn two_machines_at_once_keep_apart() {
    let (one, two) = (Place::new(), Place::new());
    let (first, second) = (one.start("ok"), two.start("ok"));
    assert_ne!(first.address(), second.address());
    first.wait_ready(enough(), &never()).unwrap();
    second.wait_ready(enough(), &never()).unwrap();
    assert_eq!(ssh_banner(first.ssh()).unwrap(), "SSH-2.0-");
    assert_eq!(ssh_banner(second.ssh()).unwrap(), "SSH-2.0-");
    drop(first);
    assert_eq!(second.ping(Duration::from_secs(20)), Ok(()));
    assert!(ssh_banner(second.ssh()).is_ok());
}

#[test]
fn a_killed_qemu_is_a_loss_at_once() {
    let place = Place::new();
    let vm = place.start("hang");
    kill_process(vm.pid(), Signal::KILL).unwrap();
    let killed = Instant::now();
    let lost = fate(&vm);
    let took = killed.elapsed();
    eprintln!("a killed QEMU was told after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let Life::Lost(Loss::QemuEnded { status, .. }) = lost else { panic!("{lost:?}") };
    assert_eq!(status, "killed by signal 9");
    let failure = vm.wait_ready(enough(), &never()).unwrap_err();
    assert!(matches!(failure.diagnosis, Diagnosis::Lost(Loss::QemuEnded { .. })), "{failure}");
    assert_eq!(failure.screenshot, None);
}

#[test]
fn a_qemu_that_stands_still_is_a_loss_and_can_be_ended() {
    let place = Place::new();
    let vm = place.start("hang");
    assert_eq!(vm.ping(Duration::from_secs(20)), Ok(()));
    let pid = vm.pid();
    kill_process(pid, Signal::STOP).unwrap();
    let begun = Instant::now();
    let loss = vm.ping(Duration::from_secs(1)).unwrap_err();
    assert!(matches!(loss, Loss::Silent(_)), "{loss}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(vm.shutdown(Duration::from_secs(60)).how, Means::Kill);
    assert!(!process_exists(pid.as_raw_nonzero().get()));
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

#[test]
fn one_more_port_can_be_opened_and_closed() {
    let place = Place::new();
    let vm = place.start("ok");
    vm.wait_ready(enough(), &never()).unwrap();
    let forward = vm.forward(22).unwrap();
    let address = forward.address();
    assert_ne!(address, vm.ssh());
    assert_eq!(ssh_banner(address).unwrap(), "SSH-2.0-");
    drop(forward);
    vm.ping(Duration::from_secs(20)).unwrap();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_taken_port_is_named_or_avoided() {
    let place = Place::new();
    let any = place.start("hang");
    let taken = any.address();
    let other = Place::new();
    let fixed = Plan { address: Address::Fixed(taken), ..other.plan("hang") };
    let error = Vm::start(&fixed, &handle()).err().unwrap();
    assert_eq!(error.to_string(), format!("port 2222 or 3002 of {taken} is taken"));
    assert_eq!(other.left(), Vec::<PathBuf>::new());

    let elsewhere = std::net::Ipv4Addr::new(127, 66, 77, 88);
    let holder = TcpListener::bind((elsewhere, 3002)).unwrap();
    let fixed = Plan { address: Address::Fixed(elsewhere), ..other.plan("hang") };
    assert!(matches!(Vm::start(&fixed, &handle()), Err(VmError::PortTaken { .. })));
    drop(holder);
    assert_eq!(Vm::start(&fixed, &handle()).unwrap().address(), elsewhere);
}

#[test]
fn what_cannot_be_started_says_why() {
    let place = Place::new();
    let chain = |plan: &Plan| {
        let error = anyhow::Error::from(Vm::start(plan, &handle()).err().unwrap());
        assert_eq!(place.left(), Vec::<PathBuf>::new());
        format!("{error:#}")
    };
    let mut missing = place.plan("ok");
    missing.image.path = "/nonexistent/disk".into();
    assert!(chain(&missing).starts_with("could not prepare the machine: could not find image `/nonexistent/disk`: "));

    let mut not_an_image = place.plan("ok");
    not_an_image.image.path = place.folder.path().join("text");
    fs::write(&not_an_image.image.path, "text").unwrap();
    assert!(chain(&not_an_image).contains("Image is not in qcow2 format"), "{}", chain(&not_an_image));

    let cpu = Plan { cpu: "none-such".into(), ..place.plan("ok") };
    assert!(chain(&cpu).contains("QEMU ended at once with exit status 1: "), "{}", chain(&cpu));
    assert!(chain(&cpu).contains("none-such"));

    let large = Plan { memory_mib: 1 << 40, ..place.plan("ok") };
    assert!(chain(&large).contains("MiB free"), "{}", chain(&large));
}

#[test]
fn the_probe_finds_kvm_usable_or_says_why_not() {
    let qemu = Qemu::find().unwrap();
    // With a kernel, and with the firmware alone.
    for boot in [microguest().boot("ok"), Boot::Disk] {
        let begun = Instant::now();
        let Accelerator { kind, reason } = probe(Requested::Auto, &qemu, &boot).unwrap();
        let took = begun.elapsed();
        eprintln!("{kind}: {reason} (found out in {took:?})");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!reason.is_empty());
        match (kind, probe(Requested::Kvm, &qemu, &boot)) {
            (Kind::Kvm, Ok(_)) => a_guest_gets_ready_under_kvm(),
            (Kind::Tcg, Err(AccelError::KvmUnusable { reason: again })) => assert_eq!(again, reason),
            (kind, other) => panic!("{kind}: {other:?}"),
        }
    }
}

fn a_guest_gets_ready_under_kvm() {
    let place = Place::new();
    let plan = Plan { accelerator: Kind::Kvm, cpu: default_cpu(Kind::Kvm).into(), ..place.plan("ok") };
    Vm::start(&plan, &handle()).unwrap().wait_ready(enough(), &never()).unwrap();
}

/// Where the harness that is to be killed keeps its machine. Set only by the test below, for its child.
const VICTIM_FOLDER: &str = "RAVE_TEST_VICTIM_FOLDER";

/// Not a test of its own: the harness that the next test kills.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM_FOLDER) else { return };
    let vm = Vm::start(&plan_in(Path::new(&folder), "hang"), &handle()).unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "VICTIM {} {}", std::process::id(), vm.pid().as_raw_nonzero()).unwrap();
    out.flush().unwrap();
    let _ = vm.wait_ready(enough(), &never());
}

#[test]
fn a_killed_harness_leaves_nothing() {
    let place = Place::new();
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "vm::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM_FOLDER, place.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(harness.stdout.take().unwrap()));
    let line = lines.find_map(|line| line.unwrap().split_once("VICTIM ").map(|(_, pids)| pids.to_owned())).unwrap();
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let [harness_pid, qemu_pid] = pids[..] else { panic!("{line}") };
    assert!(process_exists(qemu_pid));
    assert_eq!(place.left().len(), 1);

    kill_process(Pid::from_raw(harness_pid).unwrap(), Signal::KILL).unwrap();
    harness.wait().unwrap();
    let killed = Instant::now();
    until(killed + Duration::from_secs(5), || {
        let gone = !process_exists(qemu_pid) && place.left().is_empty();
        Ok::<_, ()>(if gone { Probe::Ready(()) } else { Probe::NotYet(format!("{:?}", place.left())) })
    })
    .unwrap();
    eprintln!("everything was gone {:?} after the kill", killed.elapsed());
}
