//! The booted machine of a run: accelerator, boot, login, profile, and its end.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::about;
use super::diagnostics::{self, Suspect};
use super::kept::Kept;
use super::profile::{self, Profile};
use crate::error::chain;
use crate::guest::{Exit, Guest, HostKey, Identity, PublicKey};
use crate::image::{self, Image, Provider};
use crate::interrupt::Interrupt;
use crate::scenario::accounts;
use crate::scenario::facts::Facts;
use crate::scenario::http::Origin;
use crate::scenario::mask::Mask;
use crate::scenario::runner::Target;
use crate::settings::{AccelChoice, MachineSize, Settings};
use crate::transcript::model::MachineRecord;
use crate::vm::accel::{self, Accelerator, Kind, Requested};
use crate::vm::credentials::{Credential, Login, credentials};
use crate::vm::{BootFailure, Life, Plan, Qemu, ReadyState, Vm};

/// The longest a guest may take from the start of QEMU to its readiness event: the appliance's budget for all services.
const READY_WITHIN: Duration = Duration::from_secs(10 * 60);
/// The longest the first questions may take (profile and certificate).
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// TCG runs a guest's instructions about this many times slower than KVM (boot to all services: 110 s against some 20 s).
const TCG_TIME_FACTOR: u32 = 4;

/// What a machine is booted from.
pub struct Ground<'a> {
    /// What the run was told.
    pub settings: &'a Settings,
    /// QEMU.
    pub qemu: &'a Qemu,
    /// What is booted.
    pub image: &'a Image,
    /// The accounts the guest is to make, as a credential's content.
    pub accounts: Option<Vec<u8>>,
    /// Where console, journal and logs go.
    pub folder: Utf8PathBuf,
    /// For everything that waits.
    pub runtime: &'a tokio::runtime::Handle,
    /// Ends the boot early.
    pub interrupt: &'a Interrupt,
    /// What is found out.
    pub facts: &'a Facts,
    /// What must not be written.
    pub mask: &'a Mask,
    /// Progress.
    pub say: &'a dyn Fn(&str),
}

/// A machine that is up, with what is needed to ask it.
pub struct Booted {
    /// What the guest says about itself.
    pub profile: Profile,
    /// Time limits are stretched by this.
    pub time_factor: u32,
    /// The key to enter with; its private half is only written where somebody wants to enter by hand.
    pub(super) identity: Arc<Identity>,
    pub(super) host_key: PublicKey,
    ssh: SocketAddr,
    pub(super) guest: Arc<Guest>,
    pub(super) origin: Origin,
    pub(super) vm: SharedVm,
    /// When it said that it is ready.
    pub(super) ready: Instant,
    pub(super) record: MachineRecord,
}

/// A machine that is used by several and ended by one.
pub(super) type SharedVm = Arc<Mutex<Option<Vm>>>;

/// Why there is no machine.
#[derive(Debug)]
pub struct Failure {
    /// What is recorded, if QEMU was started at all.
    pub record: Option<MachineRecord>,
    short: String,
    long: String,
}

impl Failure {
    /// Nothing was started.
    pub fn before_start(why: String) -> Box<Self> {
        Box::new(Self { record: None, long: why.clone(), short: format!("there is no machine: {why}") })
    }

    /// For every scenario that needed the machine.
    pub fn short(&self) -> String {
        self.short.clone()
    }

    /// For people, once: diagnosis, console, and a command to try it by hand.
    pub fn long(&self) -> &str {
        &self.long
    }
}

/// Each file of a folder, under its own name.
fn given_credentials(folder: &Utf8Path) -> Result<Vec<Credential>, String> {
    let read = || -> std::io::Result<Vec<Credential>> {
        let mut files = folder.read_dir_utf8()?.collect::<std::io::Result<Vec<_>>>()?;
        files.sort_by(|one, other| one.file_name().cmp(other.file_name()));
        files.iter().map(|file| Ok(Credential::new(file.file_name(), std::fs::read(file.path())?))).collect()
    };
    read().map_err(|error| format!("could not read the credentials in `{folder}`: {error}"))
}

/// What of the credentials in a folder must not be written: every line of a text but those that are no secret by their form, such as
/// comments, and those that are so short that they are words.
pub(super) fn secrets_of(folder: &Utf8Path) -> Vec<String> {
    let Ok(credentials) = given_credentials(folder) else { return Vec::new() };
    credentials
        .iter()
        .filter_map(|credential| std::str::from_utf8(&credential.content).ok())
        .flat_map(secret_lines)
        .collect()
}

fn secret_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let secret = |line: &&str| line.len() >= 16 && !line.starts_with('#') && !line.starts_with("-----");
    lines.filter(secret).map(str::to_owned).collect()
}

/// Boots the image and enters it.
///
/// # Errors
/// If there is no usable accelerator, QEMU does not start, the guest does not become ready, or cannot be entered.
pub fn boot(ground: &Ground<'_>) -> Result<Booted, Box<Failure>> {
    let Ground { settings, qemu, image, accounts, runtime, interrupt, facts, say, folder, mask: _ } = ground;
    let accelerator = accelerator(ground).map_err(|error| Failure::before_start(chain(&error)))?;
    let time_factor = if accelerator.kind == Kind::Tcg { TCG_TIME_FACTOR } else { 1 };
    say(&format!("accelerator: {} ({})", word(accelerator.kind), accelerator.reason));
    let identity = Arc::new(Identity::generate());
    let host_key = HostKey::generate();
    let mut plan = Plan::new((*qemu).clone(), accelerator.kind, disk(image), kernel(image), folder.as_std_path());
    (plan.cores, plan.memory_mib) = size_of(settings);
    plan.debug = settings.debug;
    plan.credentials = credentials(Login {
        authorized_key: &identity.public_line(),
        host_key_pem: &host_key.private_pem(),
        host_key_public: &host_key.public_line(),
    });
    plan.credentials.extend(accounts.clone().map(|content| Credential::new(accounts::CREDENTIAL, content)));
    let given = settings.credentials.as_deref().map(given_credentials).transpose();
    plan.credentials.extend(given.map_err(Failure::before_start)?.unwrap_or_default());
    say(&format!("machine: booting with {} cores and {} MiB", plan.cores, plan.memory_mib));
    let vm = Vm::start(&plan, runtime).map_err(|error| Failure::before_start(chain(&error)))?;
    let mut record = record(&vm, qemu, &accelerator, time_factor);
    set_facts(facts, &vm, &accelerator, plan.memory_mib, folder);
    let guest = Guest::new(vm.ssh(), Arc::clone(&identity), host_key.public().clone());
    let guest = Arc::new(guest.map_err(|error| Failure::before_start(error.to_string()))?);
    watch(&vm, &guest, interrupt, runtime);
    // The first login takes seconds under TCG; it goes on while the guest starts its last services.
    let deadline = Instant::now() + READY_WITHIN;
    let early = Arc::clone(&guest);
    thread::spawn(move || early.warm("root", deadline));
    let ready = vm.wait_ready(deadline, &interrupt.watch()).map_err(|failure| {
        // Many a guest that does not get ready lets one in all the same, and says which unit it waits for.
        diagnose(ground, &vm, &guest);
        not_ready(&record, &failure)
    })?;
    let state = match ready.state {
        ReadyState::Running => "running",
        ReadyState::Degraded => "degraded",
    };
    say(&format!("machine: ready after {:.1} s ({state})", ready.after.as_secs_f64()));
    facts.set("machine.ready_seconds", ready.after.as_secs());
    facts.set("machine.state", state);
    record.ready_state = Some(state.to_owned());
    record.ready_ms = u64::try_from(ready.after.as_millis()).ok();
    record.ready_at = Some(time_of(ready.at));
    let ssh = vm.ssh();
    let vm = Arc::new(Mutex::new(Some(vm)));
    let measured = Arc::clone(&vm);
    facts.set_live("machine.rss_mib", move || rss_mib(&measured).map(|mib| mib.to_string()));
    match enter(&guest, &vm, folder, facts).and_then(|found| is_believable(found, image.provider)) {
        Ok((profile, origin)) => {
            say(&format!("guest: {} {}", profile.name, profile.version));
            let host_key = host_key.public().clone();
            let ready = ready.at;
            Ok(Booted { profile, time_factor, identity, host_key, ssh, guest, origin, vm, ready, record })
        }
        Err(why) => {
            let lost = lost_for_certain(&vm).map(|lost| format!("{lost}; ")).unwrap_or_default();
            if let Some(vm) = vm.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                diagnose(ground, vm, &guest);
            }
            end(&vm);
            let short = format!("the machine booted and could not be entered: {lost}{why}");
            record.failure = Some(short.clone());
            Err(Box::new(Failure { record: Some(record), long: short.clone(), short }))
        }
    }
}

fn accelerator(ground: &Ground<'_>) -> Result<Accelerator, accel::AccelError> {
    let requested = match ground.settings.accel {
        AccelChoice::Auto => Requested::Auto,
        AccelChoice::Kvm => Requested::Kvm,
        AccelChoice::Tcg => Requested::Tcg,
    };
    accel::probe(requested, ground.qemu, &kernel(ground.image))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Kvm => "kvm",
        Kind::Tcg => "tcg",
    }
}

fn disk(image: &Image) -> crate::vm::Disk {
    let format = match image.format {
        image::DiskFormat::Qcow2 => crate::vm::DiskFormat::Qcow2,
        image::DiskFormat::Raw => crate::vm::DiskFormat::Raw,
    };
    crate::vm::Disk { path: image.disk.clone().into(), format }
}

fn kernel(image: &Image) -> crate::vm::Boot {
    match &image.boot {
        image::Boot::Disk => crate::vm::Boot::Disk,
        image::Boot::Direct { kernel, initrd, command_line } => crate::vm::Boot::Kernel {
            kernel: kernel.clone().into(),
            initrd: initrd.clone().into(),
            cmdline: command_line.clone(),
        },
    }
}

/// Cores and memory of the guest: those that are asked for, or what suits this host.
pub(super) fn size_of(settings: &Settings) -> (u32, u64) {
    match settings.size {
        Some(MachineSize { cores, memory_mib }) => (cores, memory_mib),
        None => size(settings.safe_mode, about::cores(), about::memory_mib()),
    }
}

/// Cores and memory of the guest: two and a quarter of the host's, within 6-8 GiB, or what there is, within 8-16 GiB.
fn size(safe_mode: bool, cores: u64, host_mib: u64) -> (u32, u64) {
    let all = u32::try_from(cores).unwrap_or(u32::MAX);
    if safe_mode {
        (2, (host_mib / 4).clamp(6 * 1024, 8 * 1024))
    } else {
        (all, (host_mib / 2).clamp(8 * 1024, 16 * 1024))
    }
}

fn record(vm: &Vm, qemu: &Qemu, accelerator: &Accelerator, time_factor: u32) -> MachineRecord {
    MachineRecord {
        qemu_version: qemu.version.to_string(),
        arguments: vm.command_line().iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        accelerator: word(accelerator.kind).to_owned(),
        accelerator_reason: accelerator.reason.clone(),
        origin: "cold".to_owned(),
        time_factor: time_factor.into(),
        ready_state: None,
        ready_ms: None,
        ready_at: None,
        forks: None,
        failure: None,
    }
}

fn set_facts(facts: &Facts, vm: &Vm, accelerator: &Accelerator, memory_mib: u64, folder: &Utf8Path) {
    set_place(facts, vm, folder);
    facts.set("machine.accelerator", word(accelerator.kind));
    facts.set("machine.memory_mib", memory_mib);
}

/// Where a machine answers and what it leaves.
pub(super) fn set_place(facts: &Facts, vm: &Vm, folder: &Utf8Path) {
    facts.set("machine.address", vm.ssh().ip());
    facts.set("machine.ssh_port", vm.ssh().port());
    facts.set("machine.console", folder.join(crate::vm::boot::CONSOLE_LOG));
    facts.set("machine.journal", folder.join(crate::vm::boot::JOURNAL_LOG));
}

/// Resident memory of QEMU now, MiB.
pub(super) fn rss_mib(vm: &SharedVm) -> Result<u64, String> {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    vm.as_ref().and_then(Vm::rss_mib).ok_or_else(|| "QEMU has ended".to_owned())
}

/// A moment that has passed, by the clock as it is now: RFC 3339 in UTC, to the millisecond.
fn time_of(moment: Instant) -> String {
    super::shared::time(jiff::Timestamp::now() - moment.elapsed())
}

/// Whoever waits for the guest gives up at once when the machine is lost or the run is to end.
pub(super) fn watch(vm: &Vm, guest: &Arc<Guest>, interrupt: &Interrupt, runtime: &tokio::runtime::Handle) {
    let (mut life, mut interrupted, guest) = (vm.life(), interrupt.watch(), Arc::clone(guest));
    runtime.spawn(async move {
        tokio::select! {
            Ok(()) = async { life.wait_for(|life| *life != Life::Running).await.map(drop) } => match &*life.borrow() {
                Life::Lost(loss) => guest.lost(loss.to_string()),
                Life::Running | Life::Ended => guest.cancel(),
            },
            Ok(()) = async { interrupted.wait_for(|set| *set).await.map(drop) } => guest.cancel(),
        }
    });
}

/// Gathers what there is to see of a machine that did not come up.
fn diagnose(ground: &Ground<'_>, vm: &Vm, guest: &Arc<Guest>) {
    if ground.interrupt.reason().is_none() {
        let suspect = Suspect { outside: vm.outside(), guest: Arc::clone(guest) };
        let harvest = diagnostics::harvest(&suspect, &ground.folder, ground.mask, false);
        (ground.say)(&format!(
            "machine: {} files about it are in {}, gathered in {:.1} s",
            harvest.files.len(),
            ground.folder.join(diagnostics::FOLDER),
            harvest.took.as_secs_f64()
        ));
    }
}

fn not_ready(record: &MachineRecord, failure: &BootFailure) -> Box<Failure> {
    let short = failure.to_string();
    let record = MachineRecord { failure: Some(short.clone()), ..record.clone() };
    Box::new(Failure { record: Some(record), short, long: failure.report() })
}

/// The first questions: who are you, and how can I be sure of your public address?
fn enter(guest: &Guest, vm: &Mutex<Option<Vm>>, folder: &Utf8Path, facts: &Facts) -> Result<(Profile, Origin), String> {
    let profile = Profile::parse(&read(guest, profile::PATH)?)?;
    let ca = read(guest, &profile.ca)?;
    let (profile, origin) = known(profile, ca, folder, facts)?;
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    let address = vm.as_ref().map_or(origin.address, |vm| vm.address().into());
    Ok((profile, Origin { address, ..origin }))
}

/// What is known of a guest once its profile and its CA's certificate are; where it answers is not among that.
fn known(profile: Profile, ca: Vec<u8>, folder: &Utf8Path, facts: &Facts) -> Result<(Profile, Origin), String> {
    let path = folder.join("guest-ca.crt");
    std::fs::write(&path, &ca).map_err(|error| format!("could not write `{path}`: {error}"))?;
    facts.set("guest.ca", &path);
    let url = reqwest::Url::parse(&profile.origin).map_err(|error| format!("{}: origin: {error}", profile::PATH))?;
    Ok((profile, Origin { url, address: IpAddr::from([127, 0, 0, 1]), ca }))
}

/// A reference guest proves the harness, never P6, whatever it says about itself. One that comes by another way may say that it is one.
fn is_believable(found: (Profile, Origin), provider: Provider) -> Result<(Profile, Origin), String> {
    let name = &found.0.name;
    let stand_in = found.0.capabilities.values().any(|capability| capability.stand_in);
    if provider == Provider::Reference && name != "P6-reference" {
        Err(format!("the guest calls itself `{name}`, which an image of provider `{}` is not", provider.word()))
    } else if name == "P6-production" && stand_in {
        Err(format!("the guest calls itself `{name}` and has stand-ins"))
    } else {
        Ok(found)
    }
}

fn read(guest: &Guest, path: &str) -> Result<Vec<u8>, String> {
    let command = format!("cat -- '{}'", path.replace('\'', r"'\''"));
    let captured = guest.run("root", &command, None, Instant::now() + LOGIN_WITHIN).map_err(|error| chain(&error))?;
    match captured.exit {
        Exit::Status(0) => Ok(captured.stdout),
        _ => Err(format!("could not read `{path}` in the guest: {}", String::from_utf8_lossy(&captured.stderr).trim())),
    }
}

pub(super) fn lost(vm: &Mutex<Option<Vm>>) -> Option<String> {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    vm.as_ref()?.alive().err().map(|loss| loss.to_string())
}

/// The same after asking.
pub(super) fn lost_for_certain(vm: &Mutex<Option<Vm>>) -> Option<String> {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    vm.as_ref()?.alive_for_certain().err().map(|loss| loss.to_string())
}

/// What can be asked of a machine after a failure; nothing if it has ended. The way in is one of its own where everybody who waits for the
/// guest was told to give up.
pub(super) fn suspect(
    vm: &SharedVm,
    ssh: SocketAddr,
    guest: &Arc<Guest>,
    identity: &Arc<Identity>,
    host_key: &PublicKey,
) -> Option<Suspect> {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    let vm = vm.as_ref()?;
    let again = || Guest::new(ssh, Arc::clone(identity), host_key.clone()).map(Arc::new).ok();
    let guest = if guest.is_cancelled() { again() } else { None }.unwrap_or_else(|| Arc::clone(guest));
    Some(Suspect { outside: vm.outside(), guest })
}

pub(super) fn end(vm: &Mutex<Option<Vm>>) {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(vm) = vm {
        // Its disk is thrown away and its journal was streamed, so there is nothing that an orderly end would save.
        vm.shutdown(Duration::ZERO);
    }
}

impl Booted {
    /// One that an earlier session booted and saved: there are only forks of it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn from_kept(kept: &Kept, ground: &Ground<'_>) -> Result<Self, String> {
        let Ground { image, facts, folder, .. } = ground;
        let MachineRecord { accelerator, time_factor, ready_state, ready_ms, .. } = &kept.machine;
        std::fs::create_dir_all(folder).map_err(|error| format!("could not write `{folder}`: {error}"))?;
        let (profile, origin) = known(kept.profile.clone(), kept.ca.clone().into_bytes(), folder, facts)?;
        let (profile, origin) = is_believable((profile, origin), image.provider)?;
        facts.set("machine.accelerator", accelerator);
        facts.set("machine.memory_mib", kept.parts.machine().memory_mib);
        facts.set("machine.ready_seconds", ready_ms.unwrap_or_default() / 1000);
        facts.set("machine.state", ready_state.as_deref().unwrap_or_default());
        let identity = Identity::from_private_pem(&kept.identity).map_err(|error| error.to_string())?;
        let identity = Arc::new(identity);
        let host_key = PublicKey::from_line(&kept.host_key).map_err(|error| error.to_string())?;
        // Nothing answers there, and nobody asks: every scenario has a fork.
        let ssh = SocketAddr::from(([127, 0, 0, 1], 0));
        let guest = Guest::new(ssh, Arc::clone(&identity), host_key.clone()).map_err(|error| error.to_string())?;
        Ok(Self {
            profile,
            time_factor: u32::try_from(*time_factor).unwrap_or(1),
            identity,
            host_key,
            ssh,
            guest: Arc::new(guest),
            origin,
            vm: Arc::default(),
            ready: Instant::now(),
            record: MachineRecord { origin: "saved".to_owned(), ..kept.machine.clone() },
        })
    }

    /// What is recorded of the machine, and how it was lost if it was.
    pub fn record(&self) -> MachineRecord {
        MachineRecord { failure: lost(&self.vm), ..self.record.clone() }
    }

    /// When it became ready, RFC 3339.
    pub fn ready_at(&self) -> String {
        self.record.ready_at.clone().unwrap_or_default()
    }

    /// What can be asked of it after a failure; nothing if it has ended.
    pub fn suspect(&self) -> Option<Suspect> {
        suspect(&self.vm, self.ssh, &self.guest, &self.identity, &self.host_key)
    }

    /// Ends the machine; a second time does nothing.
    pub fn end(&self) {
        end(&self.vm);
    }

    /// A command that enters the machine.
    ///
    /// # Errors
    /// If the key cannot be written.
    pub fn way_in(&self) -> std::io::Result<WayIn> {
        WayIn::to(self.ssh, &self.identity, &self.host_key)
    }
}

/// A command that enters the machine, with the key it uses: the key is gone when this is dropped.
pub struct WayIn {
    /// The command.
    pub ssh: Command,
    _files: tempfile::TempDir,
}

impl WayIn {
    /// To a guest that answers there, with the key to enter it and the key it shows.
    ///
    /// # Errors
    /// If the key cannot be written.
    pub(super) fn to(ssh: SocketAddr, identity: &Identity, host_key: &PublicKey) -> std::io::Result<Self> {
        let files = tempfile::Builder::new().prefix("rave-key-").tempdir()?;
        let (key, known) = (files.path().join("identity"), files.path().join("known_hosts"));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?;
        file.write_all(identity.private_pem().as_bytes())?;
        let (address, port) = (ssh.ip(), ssh.port().to_string());
        std::fs::write(&known, format!("[{address}]:{port} {}\n", host_key.line()))?;
        let option = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "IdentitiesOnly=yes", "-o", &option("UserKnownHostsFile", &known)]);
        ssh.arg("-i").arg(&key).args(["-p", &port]).arg(format!("root@{address}"));
        Ok(Self { ssh, _files: files })
    }
}

impl Target for Booted {
    fn guest(&self) -> &Guest {
        &self.guest
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn lost(&self) -> Option<String> {
        lost(&self.vm)
    }

    fn lost_for_certain(&self) -> Option<String> {
        lost_for_certain(&self.vm)
    }

    fn forward(&self, port: u16) -> Result<(SocketAddr, Box<dyn Send>), String> {
        forward(&self.vm, port)
    }
}

/// Opens one more port of the guest until the value is dropped.
pub(super) fn forward(vm: &SharedVm, port: u16) -> Result<(SocketAddr, Box<dyn Send>), String> {
    let vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
    let forward = vm.as_ref().ok_or("the machine has ended")?.forward(port).map_err(|error| chain(&error))?;
    Ok((forward.address(), Box::new(forward)))
}

/// A command as one would type it.
pub fn paste_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(std::ffi::OsStr::to_string_lossy);
    shlex::try_join(words.collect::<Vec<_>>().iter().map(AsRef::as_ref)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_credential_every_line_is_a_secret_that_looks_like_one() {
        let age = "# created: 2026-11-25\n# public key: age1xyz0123456789\nAGE-SECRET-KEY-1QQQQQQQQQQQQ\n";
        assert_eq!(secret_lines(age), ["AGE-SECRET-KEY-1QQQQQQQQQQQQ"]);
        // Put together here, so that nobody who looks for keys in the tree finds this one.
        let key = ["-----BEGIN PRIVATE K", "EY-----\nMC4CAQAwBQYDK2VwBCIE\n"].concat();
        assert_eq!(secret_lines(&key), ["MC4CAQAwBQYDK2VwBCIE"]);
        assert!(secret_lines("short\n").is_empty());
        assert!(secrets_of("/nonexistent".into()).is_empty());
    }
}
