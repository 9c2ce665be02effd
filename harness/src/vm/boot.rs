//! The running machine: started, watched from outside, and ended. Who holds a [`Vm`] holds QEMU, its memory and its disk; dropping it
//! leaves nothing behind.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::accel::Kind;
use super::address;
use super::console::{self, DeadEnd, Follower, Scanner, Signs};
use super::credentials::{self, Credential};
use super::machine::{
    Boot, Disk, DiskFormat, FORWARDS, GUEST_HTTPS, HOST_SSH, Machine, NETDEV, Origin, Sharing, command_line,
    default_cpu, paste_line, shell_line,
};
use super::process::{Process, describe};
use super::qemu::Qemu;
use super::qmp::{self, ANSWER_WITHIN, Event, Qmp, QmpError, monitor_line};
use super::runtime::{self, Runtime, RuntimeError, make_overlay};
use super::wake::Caller;

/// How long QEMU may take from its start to its first answer.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long QEMU may take to end once it was told to.
const QUIT_WITHIN: Duration = Duration::from_secs(5);
/// How long the news of a machine's end may take to arrive when its end can be seen already; longer than [`QUIT_WITHIN`].
const NEWS_WITHIN: Duration = Duration::from_secs(10);
/// How often QEMU is asked whether it is there.
const PULSE: Duration = Duration::from_secs(10);
/// How long it may take to answer that, on a host that is busy with other things, before it counts as lost.
const PULSE_WITHIN: Duration = Duration::from_secs(60);
/// How long a screenshot of a machine in trouble may take.
const SCREENSHOT_WITHIN: Duration = Duration::from_secs(5);
/// How many addresses, or ports, are tried when others keep taking them.
const ADDRESS_TRIES: usize = 8;
/// How many of the console's last lines a failure shows.
const CONSOLE_LINES: usize = 40;
/// QEMU's words when a port is taken.
const FORWARD_REFUSED: &str = "ould not set up host forwarding rule";

/// The console, as bytes from the guest.
pub const CONSOLE_LOG: &str = "console.log";
/// The guest's journal, one JSON object per line.
pub const JOURNAL_LOG: &str = "journal.jsonl";
/// Every QMP message.
pub const QMP_LOG: &str = "qmp.log";
/// What QEMU itself printed.
pub const QEMU_LOG: &str = "qemu.log";
/// QEMU's command line, as run and as one can run it by hand.
pub const COMMAND: &str = "command.txt";
/// The screen when something went wrong.
pub const SCREENSHOT: &str = "screenshot.png";

/// What machine is wanted.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The QEMU to use.
    pub qemu: Qemu,
    /// What runs the guest's instructions.
    pub accelerator: Kind,
    /// The CPU model.
    pub cpu: String,
    /// Number of cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The image; it is never written to.
    pub image: Disk,
    /// What is started.
    pub boot: Boot,
    /// What is handed to the guest.
    pub credentials: Vec<Credential>,
    /// The folder for console, journal, QMP log and the like. It is made, and it stays.
    pub evidence: PathBuf,
    /// The folder for memory, overlay and sockets, which go away with the machine.
    pub base: PathBuf,
    /// Where the machine answers.
    pub address: Address,
    /// Whether QMP messages are shown on stderr too.
    pub debug: bool,
}

/// Where a machine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// On any free loopback address.
    Any,
    /// On this loopback address, or nowhere.
    Fixed(Ipv4Addr),
}

/// A machine that was started. All functions block and are for ordinary threads, not for tasks of the runtime.
///
/// Fields drop in this order: QEMU is killed and reaped, then its folder with memory and overlay is removed, unless what was saved of the
/// machine still needs it. The tasks that watch the machine end by themselves when QEMU has ended.
pub struct Vm {
    pub(super) handle: Handle,
    watched: Arc<Watched>,
    pub(super) qmp: Qmp,
    pub(super) machine: Machine,
    pub(super) image: Disk,
    evidence: PathBuf,
    started: Instant,
    pub(super) caller: Caller,
    pub(super) process: Process,
    pub(super) runtime: Arc<Runtime>,
}

/// What the watching tasks found out.
struct Watched {
    life: watch::Sender<Life>,
    signs: watch::Sender<Signs>,
    ready: watch::Sender<Option<Arrived>>,
    ending: AtomicBool,
}

/// Whether the machine is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// As far as is known.
    Running,
    /// It ended as asked.
    Ended,
    /// It ended, or stands still, though nobody asked for it.
    Lost(Loss),
}

/// How a machine was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The kernel panicked; its own words if it said any.
    Panicked(String),
    /// The guest reset itself.
    Reset,
    /// The guest powered itself off.
    PoweredOff,
    /// QEMU ended.
    QemuEnded {
        /// How, in words.
        status: String,
        /// The last lines QEMU printed.
        stderr_tail: String,
    },
    /// QEMU does not answer on its control socket.
    Silent(String),
    /// The control connection ended though QEMU runs: what becomes of the guest would not be seen.
    NoControl(String),
    /// A disk could not be written, and QEMU lets the guest stand still for it; the system's words.
    Disk(String),
}

/// The readiness line, and when it came.
#[derive(Debug, Clone)]
struct Arrived {
    state: String,
    at: Instant,
}

/// The guest is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What the guest's systemd says about itself.
    pub state: ReadyState,
    /// Time from the guest's first instruction.
    pub after: Duration,
    /// When the line arrived.
    pub at: Instant,
}

/// What systemd calls the state of a system that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyState {
    /// Every unit is fine.
    Running,
    /// A unit has failed.
    Degraded,
}

/// Set to true to interrupt waiting.
pub type Interrupt = watch::Receiver<bool>;

/// Why a guest did not get ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// The machine was lost before.
    Lost(Loss),
    /// The console shows no kernel: nothing to boot, or a kernel that does not use the serial console.
    NoKernel,
    /// The initial file system shows a prompt, or nothing after it has shown a sign of life.
    StuckInInitramfs,
    /// An init system runs, and never said that it is ready.
    NeverReady,
    /// It said it is up, in a state that is neither running nor degraded.
    WrongState(String),
    /// The harness was interrupted.
    Interrupted,
}

/// A boot that failed, with all there is to see.
#[derive(Debug, thiserror::Error)]
#[error("the guest did not get ready: {diagnosis} ({:.1} s after its start)", after.as_secs_f32())]
pub struct BootFailure {
    /// What happened.
    pub diagnosis: Diagnosis,
    /// When, from the guest's first instruction.
    pub after: Duration,
    /// The console's last lines, as plain text.
    pub console: String,
    /// A picture of the screen, if QEMU could still take one.
    pub screenshot: Option<PathBuf>,
    /// A command line that starts the same machine in a terminal.
    pub command: String,
    /// The folder with the complete logs.
    pub evidence: PathBuf,
}

/// Why a machine could not be started, asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// No folder or overlay.
    #[error("could not prepare the machine")]
    Runtime(#[from] RuntimeError),
    /// A file could not be written.
    #[error("could not write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU could not be started at all.
    #[error("could not start `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU ended before the guest's first instruction.
    #[error("QEMU ended at once with {status}: {stderr}")]
    QemuEnded {
        /// How, in words.
        status: String,
        /// What it printed.
        stderr: String,
    },
    /// QEMU started and did not connect to the harness.
    #[error("QEMU did not answer within {} s of its start", within.as_secs())]
    NoAnswer {
        /// How long was waited.
        within: Duration,
    },
    /// The ports are taken.
    #[error("port {HOST_SSH} or {GUEST_HTTPS} of {address} is taken")]
    PortTaken {
        /// The address.
        address: Ipv4Addr,
    },
    /// No loopback address would do.
    #[error("could not find a free loopback address")]
    NoAddress(#[source] io::Error),
    /// The saved state of a machine could not be taken up.
    #[error("QEMU did not take up the saved machine: {reason}")]
    Incoming {
        /// QEMU's words.
        reason: String,
    },
    /// A forward was refused.
    #[error("could not forward a port to the guest's {guest_port}: {reason}")]
    Forward {
        /// The guest's port.
        guest_port: u16,
        /// QEMU's words.
        reason: String,
    },
    /// The control socket failed.
    #[error("could not control the machine")]
    Control(#[from] QmpError),
}

/// How a machine was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What it took.
    pub how: Means,
    /// How long it took.
    pub took: Duration,
}

/// What it took to end a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The guest powered itself off when the button was pressed.
    PowerButton,
    /// QEMU was told to quit.
    Quit,
    /// QEMU was killed.
    Kill,
}

/// A forward that was added to a running machine. Dropping it takes it away again.
pub struct OpenForward {
    address: SocketAddr,
    qmp: Qmp,
}

impl Plan {
    /// A machine with two cores and 2 GiB on any address. Everything can be changed.
    pub fn new(qemu: Qemu, accelerator: Kind, image: Disk, boot: Boot, evidence: impl Into<PathBuf>) -> Self {
        Self {
            qemu,
            accelerator,
            cpu: default_cpu(accelerator).into(),
            cores: 2,
            memory_mib: 2048,
            image,
            boot,
            credentials: Vec::new(),
            evidence: evidence.into(),
            base: runtime::default_base(),
            address: Address::Any,
            debug: false,
        }
    }
}

impl Vm {
    /// Starts the machine and lets the guest run.
    ///
    /// # Errors
    /// No space, no image, no free address, a QEMU that refuses its arguments or does not answer. Nothing is left behind but the evidence.
    pub fn start(plan: &Plan, handle: &Handle) -> Result<Self, VmError> {
        let runtime = Runtime::create(&plan.base, plan.memory_mib)?;
        let overlay = Disk { path: runtime.path().join("disk.qcow2"), format: DiskFormat::Qcow2 };
        make_overlay(&plan.qemu.img, &plan.image, &overlay.path)?;
        let credential_files = credentials::write_files(&plan.credentials, runtime.path())
            .map_err(|source| VmError::Write { path: runtime.path().to_owned(), source })?;
        let in_runtime = |name: &str| runtime.path().join(name);
        let machine = Machine {
            qemu: plan.qemu.system.clone(),
            machine_type: plan.qemu.machine_type().into(),
            accelerator: plan.accelerator,
            cpu: plan.cpu.clone(),
            cores: plan.cores,
            memory_mib: plan.memory_mib,
            ram_file: in_runtime("ram"),
            sharing: Sharing::Shared,
            origin: Origin::Cold,
            disk: overlay,
            boot: plan.boot.clone(),
            address: Ipv4Addr::LOCALHOST,
            forwards: FORWARDS.to_vec(),
            credential_files,
            console_log: plan.evidence.join(CONSOLE_LOG),
            journal_log: plan.evidence.join(JOURNAL_LOG),
            ready_socket: in_runtime("ready.sock"),
            wake_socket: in_runtime("wake.sock"),
            qmp_socket: in_runtime("qmp.sock"),
        };
        let place = Place { runtime, evidence: plan.evidence.clone(), image: plan.image.clone(), debug: plan.debug };
        for log in [&machine.console_log, &machine.journal_log] {
            place.make_evidence_folder()?;
            File::create(log).map_err(write_error(log))?;
        }
        let mut vm = Self::launch(machine, plan.address, place, handle)?;
        vm.begin()?;
        Ok(vm)
    }

    /// Starts QEMU, which waits, with everything that watches it.
    pub(super) fn launch(
        mut machine: Machine,
        address: Address,
        place: Place,
        handle: &Handle,
    ) -> Result<Self, VmError> {
        place.make_evidence_folder()?;
        let launched = match address {
            Address::Fixed(address) => {
                machine.address = address;
                handle.block_on(launch(&machine, &place))
            }
            Address::Any => launch_anywhere(&mut machine, &place, handle),
        };
        let Launched { process, qmp, watched, caller } = launched?;
        let Place { runtime, evidence, image, debug: _ } = place;
        Ok(Self {
            handle: handle.clone(),
            watched,
            qmp,
            machine,
            image,
            evidence,
            started: Instant::now(),
            caller,
            process,
            runtime: Arc::new(runtime),
        })
    }

    /// Lets the guest run, for the first time.
    pub(super) fn begin(&mut self) -> Result<(), VmError> {
        self.started = Instant::now();
        self.go_on()
    }

    /// Waits until the guest says that it is ready. Ends at once when it cannot become ready any more or `interrupt` becomes true.
    ///
    /// # Errors
    /// The diagnosis, with console, screenshot and a command line to try it by hand.
    pub fn wait_ready(&self, deadline: Instant, interrupt: &Interrupt) -> Result<Ready, Box<BootFailure>> {
        let verdict = self.handle.block_on(self.ready_or_not(deadline, interrupt.clone()));
        verdict.map_err(|diagnosis| Box::new(self.failure(diagnosis)))
    }

    async fn ready_or_not(&self, deadline: Instant, mut interrupt: Interrupt) -> Result<Ready, Diagnosis> {
        let mut ready = self.watched.ready.subscribe();
        let mut life = self.life();
        let mut signs = self.watched.signs.subscribe();
        let prompt = |signs: &Signs| signs.dead_end == Some(DeadEnd::InitramfsPrompt);
        tokio::select! {
            biased;
            Ok(arrived) = ready.wait_for(Option::is_some) => self.judge(arrived.as_ref()),
            Ok(life) = life.wait_for(|life| *life != Life::Running) => Err(diagnose(&life)),
            Ok(_) = signs.wait_for(prompt) => Err(Diagnosis::StuckInInitramfs),
            Ok(_) = interrupt.wait_for(|interrupted| *interrupted) => Err(Diagnosis::Interrupted),
            () = tokio::time::sleep_until(deadline.into()) => Err(self.why_not_ready()),
        }
    }

    fn judge(&self, arrived: Option<&Arrived>) -> Result<Ready, Diagnosis> {
        let arrived = arrived.ok_or(Diagnosis::NeverReady)?;
        let state = match arrived.state.as_str() {
            "running" => ReadyState::Running,
            "degraded" => ReadyState::Degraded,
            other => return Err(Diagnosis::WrongState(other.to_owned())),
        };
        Ok(Ready { state, after: arrived.at - self.started, at: arrived.at })
    }

    /// What the deadline means, from what was seen until then.
    fn why_not_ready(&self) -> Diagnosis {
        let signs = self.watched.signs.borrow();
        // The journal says that systemd is there even if the console is quiet.
        let journal = std::fs::metadata(&self.machine.journal_log).is_ok_and(|file| file.len() > 0);
        match (signs.init || journal, signs.kernel) {
            (true, _) => Diagnosis::NeverReady,
            (false, true) => Diagnosis::StuckInInitramfs,
            (false, false) => Diagnosis::NoKernel,
        }
    }

    fn failure(&self, diagnosis: Diagnosis) -> BootFailure {
        let after = self.started.elapsed();
        let path = self.evidence.join(SCREENSHOT);
        let gone = matches!(diagnosis, Diagnosis::Lost(Loss::QemuEnded { .. } | Loss::Silent(_) | Loss::NoControl(_)));
        let screenshot = (!gone).then(|| self.handle.block_on(self.qmp.screenshot(&path, SCREENSHOT_WITHIN)).ok());
        // QEMU's event may be quicker than the kernel's words on the console; by now they are there.
        let diagnosis = match diagnosis {
            Diagnosis::Lost(Loss::Panicked(words)) if words.is_empty() => {
                Diagnosis::Lost(Loss::Panicked(self.watched.panic_words()))
            }
            other => other,
        };
        BootFailure {
            diagnosis,
            after,
            console: self.console_tail(CONSOLE_LINES),
            screenshot: screenshot.flatten().map(|()| path),
            command: paste_line(&self.machine, &self.image),
            evidence: self.evidence.clone(),
        }
    }

    /// Changes when the machine is lost. The value is [`Life::Running`] until then.
    #[must_use]
    pub fn life(&self) -> watch::Receiver<Life> {
        self.watched.life.subscribe()
    }

    /// Whether the machine is still there, as far as is known at this moment. Asks nobody.
    ///
    /// # Errors
    /// How it was lost.
    pub fn alive(&self) -> Result<(), Loss> {
        match &*self.watched.life.borrow() {
            Life::Running | Life::Ended => Ok(()),
            Life::Lost(loss) => Err(loss.clone()),
        }
    }

    /// Whether the machine is still there: asks QEMU, and where the answer is not that the guest runs, waits a moment for the news of why.
    ///
    /// # Errors
    /// How it was lost.
    pub fn alive_for_certain(&self) -> Result<(), Loss> {
        let runs = self.alive().is_ok() && self.control(self.qmp.status(ANSWER_WITHIN)).is_ok_and(|is| is == "running");
        if !runs {
            let mut life = self.life();
            let news = async { life.wait_for(|life| *life != Life::Running).await.map(drop) };
            // Without any it stands still for a reason that is no loss, such as being saved.
            let _ = self.handle.block_on(async { tokio::time::timeout(NEWS_WITHIN, news).await });
        }
        self.alive()
    }

    /// Asks QEMU whether it is there. One that does not answer within `within` makes the machine count as lost.
    ///
    /// # Errors
    /// How it was lost.
    pub fn ping(&self, within: Duration) -> Result<(), Loss> {
        // A refusal or a broken connection is an answer; what it means comes from the process's end.
        let _ = self.control(self.qmp.status(within));
        self.alive()
    }

    /// What the machine is.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine's own loopback address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.machine.address
    }

    /// Where the guest's SSH answers.
    #[must_use]
    pub fn ssh(&self) -> SocketAddr {
        (self.machine.address, HOST_SSH).into()
    }

    /// Where the guest's HTTPS answers.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        (self.machine.address, GUEST_HTTPS).into()
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> rustix::process::Pid {
        self.process.pid()
    }

    /// The control socket, for what has no function here. [`Vm::handle`] runs its calls.
    #[must_use]
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The runtime behind the machine.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The folder with the machine's logs.
    #[must_use]
    pub fn evidence(&self) -> &Path {
        &self.evidence
    }

    /// QEMU's exact arguments, program first.
    #[must_use]
    pub fn command_line(&self) -> Vec<std::ffi::OsString> {
        command_line(&self.machine)
    }

    /// A command line that starts the same machine in a terminal, for pasting.
    #[must_use]
    pub fn paste_line(&self) -> String {
        paste_line(&self.machine, &self.image)
    }

    /// The last lines of the console, as plain text.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> String {
        console::tail(&self.machine.console_log, lines)
    }

    /// How much memory QEMU uses at this moment, in MiB, the guest's own included. Nothing if it has ended.
    #[must_use]
    pub fn rss_mib(&self) -> Option<u64> {
        memory_mib(self.pid(), "VmRSS:")
    }

    /// How much of that is its own and shared with no other process, in MiB.
    #[must_use]
    pub fn private_mib(&self) -> Option<u64> {
        private_mib(self.pid())
    }

    /// Writes a PNG of the screen.
    ///
    /// # Errors
    /// A QEMU that does not answer or cannot write there.
    pub fn screenshot(&self, path: &Path) -> Result<(), VmError> {
        self.control(self.qmp.screenshot(path, ANSWER_WITHIN))
    }

    /// Lets the guest stand still.
    ///
    /// # Errors
    /// A QEMU that does not answer.
    pub fn stop(&self) -> Result<(), VmError> {
        self.control(self.qmp.stop())
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// A QEMU that does not answer.
    pub fn go_on(&self) -> Result<(), VmError> {
        self.control(self.qmp.go_on())
    }

    /// Opens one more port of the guest, for as long as the result is held.
    ///
    /// # Errors
    /// QEMU's refusal.
    pub fn forward(&self, guest_port: u16) -> Result<OpenForward, VmError> {
        let mut reason = String::new();
        for _ in 0..ADDRESS_TRIES {
            // QEMU does not tell which port it took for 0, so a free one is looked up first; somebody else may be quicker.
            let port = address::free_port(self.machine.address).map_err(VmError::NoAddress)?;
            let address = SocketAddr::from((self.machine.address, port));
            reason = self.control(self.qmp.monitor(format!("hostfwd_add {NETDEV} tcp:{address}-:{guest_port}")))?;
            if reason.trim().is_empty() {
                return Ok(OpenForward { address, qmp: self.qmp.clone() });
            }
        }
        Err(VmError::Forward { guest_port, reason: reason.trim().to_owned() })
    }

    /// Copies the machine's logs into `folder`, with a new screenshot if QEMU can take one.
    ///
    /// # Errors
    /// What the system said.
    pub fn copy_evidence(&self, folder: &Path) -> Result<(), VmError> {
        std::fs::create_dir_all(folder).map_err(write_error(folder))?;
        for name in [CONSOLE_LOG, JOURNAL_LOG, QMP_LOG, QEMU_LOG, COMMAND] {
            let copy = folder.join(name);
            std::fs::copy(self.evidence.join(name), &copy).map_err(write_error(&copy))?;
        }
        // A machine that cannot be photographed any more still has its logs.
        let _ = self.handle.block_on(self.qmp.screenshot(&folder.join(SCREENSHOT), SCREENSHOT_WITHIN));
        Ok(())
    }

    /// Ends the machine: the power button, for at most `within`; then QEMU's own end; then the kill. When it returns, nothing is left but
    /// the evidence.
    pub fn shutdown(self, within: Duration) -> Ending {
        let begun = Instant::now();
        self.watched.ending.store(true, Ordering::SeqCst);
        let how = self.handle.block_on(async {
            let orderly = self.power_off(within).await;
            match (self.quit().await, orderly) {
                (true, true) => Means::PowerButton,
                (true, false) => Means::Quit,
                (false, _) => Means::Kill,
            }
        });
        drop(self);
        Ending { how, took: begun.elapsed() }
    }

    /// Whether the guest went to its end by itself.
    async fn power_off(&self, within: Duration) -> bool {
        let mut life = self.life();
        if *life.borrow() != Life::Running || within.is_zero() {
            return false;
        }
        let off = async {
            self.qmp.power_button().await.is_ok()
                && life.wait_for(|life| *life != Life::Running).await.is_ok_and(|life| *life == Life::Ended)
        };
        tokio::time::timeout(within, off).await.unwrap_or_default()
    }

    /// Whether QEMU ended when told to, or had ended before.
    async fn quit(&self) -> bool {
        let mut exit = self.process.exit();
        let ended = async {
            // The answer may be lost in QEMU's end; the end itself counts.
            self.qmp.post(qapi::qmp::quit {});
            exit.wait_for(Option::is_some).await.is_ok()
        };
        tokio::time::timeout(QUIT_WITHIN, ended).await.unwrap_or_default()
    }

    /// Runs a call to QEMU. Silence makes the machine count as lost.
    pub(super) fn control<T>(&self, call: impl Future<Output = Result<T, QmpError>>) -> Result<T, VmError> {
        let answer = self.handle.block_on(call);
        if let Err(error @ QmpError::Silent { .. }) = &answer {
            self.watched.lose(Loss::Silent(error.to_string()));
        }
        Ok(answer?)
    }
}

impl OpenForward {
    /// Where the guest's port answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for OpenForward {
    fn drop(&mut self) {
        self.qmp.post(monitor_line(format!("hostfwd_remove {NETDEV} tcp:{}", self.address)));
    }
}

impl BootFailure {
    /// The failure in full: diagnosis, console, and where the rest is. Several lines.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = format!("{self}\n");
        if let Diagnosis::Lost(Loss::QemuEnded { stderr_tail, .. }) = &self.diagnosis {
            let _ = writeln!(report, "QEMU's last lines:\n{}", indent(stderr_tail));
        }
        if self.console.is_empty() {
            report.push_str("the console is empty\n");
        } else {
            let _ = writeln!(report, "the console's last lines:\n{}", indent(&self.console));
        }
        if let Some(screenshot) = &self.screenshot {
            let _ = writeln!(report, "screenshot: {}", screenshot.display());
        }
        let _ = writeln!(report, "complete logs: {}", self.evidence.display());
        let _ = writeln!(report, "to see it by hand: {}", self.command);
        report
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(words) if words.is_empty() => f.write_str("the guest's kernel panicked"),
            Self::Panicked(words) => write!(f, "the guest's kernel panicked: {words}"),
            Self::Reset => f.write_str("the guest reset itself"),
            Self::PoweredOff => f.write_str("the guest powered itself off"),
            Self::QemuEnded { status, .. } => write!(f, "QEMU ended with {status}"),
            Self::Silent(words) => write!(f, "QEMU is silent: {words}"),
            Self::NoControl(words) => write!(f, "QEMU runs and cannot be controlled any more: {words}"),
            Self::Disk(words) => write!(f, "QEMU could not write the machine's disk on the host: {words}"),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(loss) => loss.fmt(f),
            Self::NoKernel => f.write_str("no kernel spoke on the serial console"),
            Self::StuckInInitramfs => f.write_str("it is stuck in the initial file system"),
            Self::NeverReady => f.write_str("it runs, but never said that it is ready"),
            Self::WrongState(state) => write!(f, "systemd calls its state `{state}`"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What the end of the machine means for its boot. An end that was asked for interrupts.
fn diagnose(life: &Life) -> Diagnosis {
    match life {
        Life::Running | Life::Ended => Diagnosis::Interrupted,
        Life::Lost(loss) => Diagnosis::Lost(loss.clone()),
    }
}

impl Watched {
    fn new() -> Self {
        Self {
            life: watch::Sender::new(Life::Running),
            signs: watch::Sender::default(),
            ready: watch::Sender::new(None),
            ending: AtomicBool::new(false),
        }
    }

    /// The first loss counts; an end that was asked for is none.
    fn lose(&self, loss: Loss) {
        let ending = self.ending.load(Ordering::SeqCst);
        let asked_for = ending && matches!(loss, Loss::PoweredOff | Loss::QemuEnded { .. } | Loss::NoControl(_));
        self.life.send_if_modified(|life| {
            let first = *life == Life::Running;
            if first {
                *life = if asked_for { Life::Ended } else { Life::Lost(loss) };
            }
            first
        });
    }
}

/// Memory of a process that it shares with no other, in MiB (`RssAnon`, proc_pid_status(5)). Nothing if it has ended.
#[must_use]
pub fn private_mib(pid: rustix::process::Pid) -> Option<u64> {
    memory_mib(pid, "RssAnon:")
}

fn memory_mib(pid: rustix::process::Pid, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Where a machine lives and what it leaves.
pub(super) struct Place {
    /// What goes away with it.
    pub(super) runtime: Runtime,
    /// What stays.
    pub(super) evidence: PathBuf,
    /// The image it comes from, for people who want to start it by hand.
    pub(super) image: Disk,
    /// Whether QMP messages are shown on stderr too.
    pub(super) debug: bool,
}

impl Place {
    pub(super) fn make_evidence_folder(&self) -> Result<(), VmError> {
        std::fs::create_dir_all(&self.evidence).map_err(write_error(&self.evidence))
    }
}

/// A QEMU that waits, with everything that watches it.
struct Launched {
    process: Process,
    qmp: Qmp,
    watched: Arc<Watched>,
    caller: Caller,
}

/// Launches on one free address after the other while others keep taking them.
fn launch_anywhere(machine: &mut Machine, place: &Place, handle: &Handle) -> Result<Launched, VmError> {
    let mut tries = 0;
    loop {
        tries += 1;
        machine.address = address::free(&[HOST_SSH, GUEST_HTTPS]).map_err(VmError::NoAddress)?;
        match handle.block_on(launch(machine, place)) {
            Err(VmError::PortTaken { .. }) if tries < ADDRESS_TRIES => {}
            launched => return launched,
        }
    }
}

/// Starts QEMU, connects to it, and watches it.
async fn launch(machine: &Machine, place: &Place) -> Result<Launched, VmError> {
    let command = place.evidence.join(COMMAND);
    let lines =
        format!("{}\n\n# By hand:\n{}\n", shell_line(&command_line(machine)), paste_line(machine, &place.image));
    std::fs::write(&command, lines).map_err(write_error(&command))?;
    let qmp_log = place.evidence.join(QMP_LOG);
    let log = qmp::Log::create(&qmp_log, place.debug).map_err(write_error(&qmp_log))?;
    let qemu_log = place.evidence.join(QEMU_LOG);
    let output = File::create(&qemu_log).map_err(write_error(&qemu_log))?;
    let ready = listen(&machine.ready_socket)?;
    let wake = listen(&machine.wake_socket)?;
    let control = listen(&machine.qmp_socket)?;

    let process = Process::spawn(&command_line(machine), output)
        .map_err(|source| VmError::Spawn { program: machine.qemu.clone(), source })?;
    let mut exit = process.exit();
    let connect = async {
        let (ready, _) = ready.accept().await.map_err(QmpError::Open)?;
        let (wake, _) = wake.accept().await.map_err(QmpError::Open)?;
        let (control, _) = control.accept().await.map_err(QmpError::Open)?;
        let (qmp, events) = Qmp::open(control, log).await?;
        Ok::<_, QmpError>((ready, wake, qmp, events))
    };
    // One that ends before it connects would otherwise be waited for.
    let mut ended = process.exit();
    let connected = tokio::select! {
        biased;
        connected = tokio::time::timeout(START_WITHIN, connect) => connected,
        Ok(status) = ended.wait_for(Option::is_some) => return Err(refused(*status, machine, &qemu_log)),
    };
    let (ready, wake, qmp, events) = match connected {
        Ok(Ok(connected)) => connected,
        // A connection that breaks is QEMU's end, a moment before it is reaped.
        Ok(Err(error)) => match tokio::time::timeout(QUIT_WITHIN, exit.wait_for(Option::is_some)).await {
            Ok(Ok(status)) => return Err(refused(*status, machine, &qemu_log)),
            _ => return Err(error.into()),
        },
        Err(_) => return Err(VmError::NoAnswer { within: START_WITHIN }),
    };

    let watched = Arc::new(Watched::new());
    let follower = Follower::open(&machine.console_log).map_err(write_error(&machine.console_log))?;
    tokio::spawn(watch_events(events, process.exit(), watched.clone()));
    tokio::spawn(watch_pulse(qmp.clone(), watched.clone()));
    tokio::spawn(watch_exit(process.exit(), qemu_log, watched.clone()));
    tokio::spawn(watch_console(follower, process.exit(), watched.clone()));
    tokio::spawn(watch_ready(ready, watched.clone()));
    Ok(Launched { process, qmp, watched, caller: Caller::new(wake) })
}

fn listen(path: &Path) -> Result<UnixListener, VmError> {
    // From a try before this one.
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).map_err(write_error(path))
}

/// Why QEMU ended before the guest could start.
fn refused(status: Option<ExitStatus>, machine: &Machine, qemu_log: &Path) -> VmError {
    let stderr = console::tail(qemu_log, CONSOLE_LINES);
    if stderr.contains(FORWARD_REFUSED) {
        return VmError::PortTaken { address: machine.address };
    }
    VmError::QemuEnded { status: status.map(describe).unwrap_or_default(), stderr }
}

async fn watch_events(
    mut events: mpsc::UnboundedReceiver<Event>,
    mut exit: watch::Receiver<Option<ExitStatus>>,
    watched: Arc<Watched>,
) {
    let mut why = "it closed the connection".to_owned();
    while let Some(event) = events.recv().await {
        match event {
            Event::Garbage(words) => why = format!("it said {words:?}, which is no QMP"),
            Event::DiskError { stopped: true, reason } => watched.lose(Loss::Disk(reason)),
            Event::Panicked => watched.lose(Loss::Panicked(watched.panic_words())),
            Event::Shutdown { guest: true, reason } if reason == "guest-reset" => watched.lose(Loss::Reset),
            Event::Reset { guest: true } => watched.lose(Loss::Reset),
            // Also `guest-panic`, which says less than the panic's own event.
            Event::Shutdown { guest: true, reason } if reason != "guest-panic" => watched.lose(Loss::PoweredOff),
            Event::Shutdown { .. }
            | Event::Reset { .. }
            | Event::Stopped
            | Event::Resumed
            | Event::DiskError { .. }
            | Event::Other(_) => {}
        }
    }
    // QEMU's end closes the connection too, a moment before it is reaped, and is told by that.
    if tokio::time::timeout(QUIT_WITHIN, exit.wait_for(Option::is_some)).await.is_err() {
        watched.lose(Loss::NoControl(why));
    }
}

/// Asks QEMU again and again whether it is there: one that stands still ends no connection and sends no event.
async fn watch_pulse(qmp: Qmp, watched: Arc<Watched>) {
    let mut life = watched.life.subscribe();
    loop {
        tokio::select! {
            _ = life.wait_for(|life| *life != Life::Running) => return,
            () = tokio::time::sleep(PULSE) => {}
        }
        if let Err(error @ QmpError::Silent { .. }) = qmp.status(PULSE_WITHIN).await {
            watched.lose(Loss::Silent(error.to_string()));
        }
    }
}

async fn watch_exit(mut exit: watch::Receiver<Option<ExitStatus>>, qemu_log: PathBuf, watched: Arc<Watched>) {
    let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
    let stderr_tail = console::tail(&qemu_log, CONSOLE_LINES);
    watched.lose(Loss::QemuEnded { status: status.map(describe).unwrap_or_default(), stderr_tail });
}

async fn watch_console(mut console: Follower, mut exit: watch::Receiver<Option<ExitStatus>>, watched: Arc<Watched>) {
    let mut scanner = Scanner::default();
    loop {
        let bytes = tokio::select! {
            biased;
            Ok(bytes) = console.next() => bytes,
            _ = exit.wait_for(Option::is_some) => return,
        };
        let signs = scanner.feed(&bytes).clone();
        let panic = match &signs.dead_end {
            Some(DeadEnd::Panic(words)) => Some(words.clone()),
            _ => None,
        };
        watched.signs.send_if_modified(|known| std::mem::replace(known, signs.clone()) != signs);
        // A kernel without a driver for the panic device says it only here.
        if let Some(words) = panic {
            watched.lose(Loss::Panicked(words));
        }
    }
}

impl Watched {
    /// What the console said about the panic, if it was quicker than QEMU's event.
    fn panic_words(&self) -> String {
        match &self.signs.borrow().dead_end {
            Some(DeadEnd::Panic(words)) => words.clone(),
            _ => String::new(),
        }
    }
}

async fn watch_ready(socket: UnixStream, watched: Arc<Watched>) {
    /// The line the guest's unit writes.
    #[derive(Deserialize)]
    struct ReadyLine {
        state: String,
    }
    let mut lines = BufReader::new(socket).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(ReadyLine { state }) = serde_json::from_str(&line) {
            watched.ready.send_if_modified(|known| {
                let first = known.is_none();
                known.get_or_insert(Arrived { state, at: Instant::now() });
                first
            });
        }
    }
}

pub(super) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> VmError {
    let path = path.to_owned();
    move |source| VmError::Write { path, source }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
