//! Machines for one scenario each: copies of the booted machine, which is saved when all that is asked of it alone has been asked.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::diagnostics::{Suspect, bounded};
use super::kept::Kept;
use super::machine::{self, Booted, SharedVm, WayIn};
use super::room::{Room, Seat};
use super::shared::time;
use crate::error::chain;
use crate::guest::{Guest, Identity, PublicKey};
use crate::interrupt::Interrupt;
use crate::scenario::facts::Facts;
use crate::scenario::http::Origin;
use crate::scenario::model::{Ask, Scenario};
use crate::scenario::runner::{Target, milliseconds};
use crate::transcript::model::{ForkRecord, ForksRecord, SavedRecord};
use crate::vm::accel::Kind;
use crate::vm::fork::{self, ForkPlan};
use crate::vm::{Awake, Method, Parts, Qemu, Saved, Vm};

/// How long a copy may take to answer that its clock is set.
const WAKE_WITHIN: Duration = Duration::from_secs(60);
/// How long the booted machine, which is quick by now, may take to the same.
const HEAR_WITHIN: Duration = Duration::from_secs(20);
/// How long the first login to a copy may take before its first question.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// The part of a guest's memory that a copy is thought to write to, until some have ended: one part in so many.
const WRITTEN_PART: u64 = 8;

/// The most memory, MiB, of a fork that is kept on disk after a failure.
const MOST_KEPT_MIB: u64 = 4096;
/// The folder of a fork that is kept, beside its logs.
const KEPT: &str = "kept";
const KEPT_MANIFEST: &str = "machine.json";

/// What forks are made of and with.
pub struct Forks {
    qemu: Qemu,
    saved: Saved,
    record: ForksRecord,
    identity: Arc<Identity>,
    host_key: PublicKey,
    origin: Origin,
    facts: Arc<Facts>,
    room: Arc<Room>,
    /// Random bytes that forks gave first.
    seen: Mutex<BTreeSet<String>>,
    /// How long the guest had been ready when it was saved.
    ready_for: Duration,
    rss_mib: u64,
    base: std::path::PathBuf,
    debug: bool,
    time_factor: u32,
    runtime: tokio::runtime::Handle,
    interrupt: Arc<Interrupt>,
    session_start: Instant,
    /// While it is held, nobody throws away the files of the saved machine.
    _lock: Option<std::fs::File>,
}

/// What is needed to save a machine and to make copies of it.
pub struct Ground<'a> {
    /// The machine; it ends when it has been saved.
    pub booted: &'a Booted,
    /// QEMU.
    pub qemu: &'a Qemu,
    /// The session's id, which becomes that of the saved machine.
    pub session: &'a str,
    /// Where the first forks, which nobody asks, leave their logs.
    pub folder: Utf8PathBuf,
    /// What is known of the booted machine.
    pub facts: &'a Arc<Facts>,
    /// For everything that waits.
    pub runtime: &'a tokio::runtime::Handle,
    /// Ends everything early.
    pub interrupt: &'a Arc<Interrupt>,
    /// When the session began.
    pub session_start: Instant,
    /// QMP messages on stderr.
    pub debug: bool,
}

/// Saves the machine by the best method for which a copy proves to be a good machine.
///
/// # Errors
/// The record of why there are no forks. The machine goes on then.
pub fn prepare(ground: &Ground<'_>) -> Result<Forks, Box<ForksRecord>> {
    let none = |reason: String| Box::new(ForksRecord { method: "none".to_owned(), reason, saved: None });
    let Ground { booted, qemu, .. } = ground;
    let methods = Method::known_to(qemu.version);
    if methods.is_empty() {
        return Err(none(format!("QEMU {} cannot save a machine to a file; 8.2 and later can", qemu.version)));
    }
    // A copy would find the other ends of these gone.
    booted.guest.close_idle();
    let vm = booted.vm.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(vm) = vm.as_ref() else { return Err(none("the machine has ended".to_owned())) };
    // What does not hear it now would not hear it as a copy.
    if let Err(error) = vm.wake(HEAR_WITHIN) {
        return Err(none(error.to_string()));
    }
    let mut reasons = Vec::new();
    for method in methods {
        match save(ground, vm, *method).and_then(|forks| forks.check(&ground.folder).map(|()| forks)) {
            Ok(mut forks) => {
                reasons.push("two forks were made and checked".to_owned());
                forks.record.reason = reasons.join("; ");
                return Ok(forks);
            }
            Err(reason) => reasons.push(format!("not {method}: {reason}")),
        }
        // It stood still meanwhile.
        if let Err(error) = vm.go_on() {
            reasons.push(chain(&error));
            break;
        }
    }
    let _ = vm.wake(HEAR_WITHIN);
    Err(none(reasons.join("; ")))
}

fn save(ground: &Ground<'_>, vm: &Vm, method: Method) -> Result<Forks, String> {
    let Ground { booted, qemu, session, .. } = *ground;
    let ready_for = booted.ready.elapsed();
    let begun = Instant::now();
    let rss_mib = vm.rss_mib().unwrap_or_default();
    let saved = fork::save(vm, qemu, method).map_err(|error| chain(&error))?;
    let saved_record = SavedRecord {
        // Sessions that began in one second in different folders have one name.
        id: format!(
            "{session}/{}",
            booted.host_key.fingerprint().trim_start_matches("SHA256:").get(..8).unwrap_or_default()
        ),
        booted_at: booted.ready_at(),
        saved_at: time(jiff::Timestamp::now()),
        ready_for_ms: milliseconds(ready_for),
        save_ms: milliseconds(begun.elapsed()),
        rss_mib,
    };
    let record = ForksRecord { method: method.to_string(), reason: String::new(), saved: Some(saved_record) };
    Ok(forks(ground, saved, record, None))
}

/// Forks of a machine that was kept.
pub fn of_kept(ground: &Ground<'_>, kept: &Kept, lock: std::fs::File) -> Forks {
    let saved = Saved::of(kept.parts.clone(), ground.qemu.clone());
    forks(ground, saved, kept.forks.clone(), Some(lock))
}

fn forks(ground: &Ground<'_>, saved: Saved, record: ForksRecord, lock: Option<std::fs::File>) -> Forks {
    let Ground { booted, facts, runtime, interrupt, session_start, debug, .. } = *ground;
    let machine = saved.machine();
    // Under TCG a copy keeps one core busy; under KVM it mostly waits.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = if machine.accelerator == Kind::Kvm { cores * 2 } else { cores.max(2) };
    let (ready_for_ms, rss_mib) = record.saved.as_ref().map_or((0, 0), |saved| (saved.ready_for_ms, saved.rss_mib));
    Forks {
        qemu: ground.qemu.clone(),
        identity: Arc::clone(&booted.identity),
        host_key: booted.host_key.clone(),
        origin: booted.origin.clone(),
        facts: Arc::clone(facts),
        room: Arc::new(Room::new(most, machine.memory_mib / WRITTEN_PART)),
        saved,
        record,
        seen: Mutex::default(),
        ready_for: Duration::from_millis(ready_for_ms),
        rss_mib,
        base: crate::vm::runtime::default_base(),
        debug,
        time_factor: booted.time_factor,
        runtime: runtime.clone(),
        interrupt: Arc::clone(interrupt),
        session_start,
        _lock: lock,
    }
}

impl Forks {
    /// Two forks, one after the other: both must be good machines and unlike each other, and the first is entered as well.
    fn check(&self, folder: &Utf8Path) -> Result<(), String> {
        for (name, is_entered) in [("check-1", true), ("check-2", false)] {
            let folder = folder.join(name);
            let (vm, _) = self.copy(&folder)?;
            if is_entered {
                let within = Instant::now() + LOGIN_WITHIN * self.time_factor;
                self.guest(&vm)?.run("root", "true", None, within).map_err(|error| chain(&error))?;
            }
            drop(vm);
            // Nobody was asked there, and a copy that fails is described by its error.
            let _ = std::fs::remove_dir_all(folder);
        }
        Ok(())
    }

    /// One fork of a machine that was checked when it was saved: is all of it still there?
    ///
    /// # Errors
    /// Why it is no good machine.
    pub fn check_kept(&self, folder: &Utf8Path) -> Result<(), String> {
        let folder = folder.join("check");
        self.copy(&folder).map(drop)?;
        let _ = std::fs::remove_dir_all(folder);
        Ok(())
    }

    /// The way into a copy.
    fn guest(&self, vm: &Vm) -> Result<Arc<Guest>, String> {
        let guest = Guest::new(vm.ssh(), Arc::clone(&self.identity), self.host_key.clone());
        let guest = Arc::new(guest.map_err(|error| error.to_string())?);
        machine::watch(vm, &guest, &self.interrupt, &self.runtime);
        Ok(guest)
    }

    /// The saved machine they are made of.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// From now on they are made of the same machine elsewhere, whose files the lock holds.
    pub fn move_to(&mut self, parts: Parts, qemu: Qemu, lock: std::fs::File) {
        self.saved = Saved::of(parts, qemu);
        self._lock = Some(lock);
    }

    /// How the forks came about.
    pub fn record(&self) -> &ForksRecord {
        &self.record
    }

    /// A copy for one scenario, when there is room for it. Its logs go into `folder`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fork(self: &Arc<Self>, scenario: &Scenario, folder: Utf8PathBuf) -> Result<Fork, String> {
        let seat = self.room.enter();
        let begun = Instant::now();
        let (vm, awake) = self.copy(&folder)?;
        let pid = vm.pid();
        seat.watch(move || crate::vm::boot::private_mib(pid).unwrap_or_default());
        let Awake { clock_off, random, calls: _, took } = awake;
        let running = begun.elapsed().saturating_sub(took);
        let facts = Arc::new(Facts::above(&self.facts));
        machine::set_place(&facts, &vm, &folder);
        facts.set("machine.random", &random);
        let record = ForkRecord {
            of: self.record.saved.as_ref().map(|saved| saved.id.clone()).unwrap_or_default(),
            began_ms: milliseconds(begun.duration_since(self.session_start) + running),
            running_ms: milliseconds(running),
            awake_ms: milliseconds(took),
            clock_off_ms: milliseconds(clock_off),
            random,
        };
        let guest = self.guest(&vm)?;
        let origin = Origin { address: vm.address().into(), ..self.origin.clone() };
        let vm: SharedVm = Arc::new(Mutex::new(Some(vm)));
        let (measured, least) = (Arc::clone(&vm), self.rss_mib);
        facts.set_live("machine.rss_mib", move || machine::rss_mib(&measured).map(|mib| mib.max(least).to_string()));
        let (forks, twin_folder) = (Arc::clone(self), folder.join("twin"));
        facts.set_live("machine.twin_random", move || {
            let (_vm, awake) = forks.copy(&twin_folder)?;
            let _ = std::fs::remove_dir_all(&twin_folder);
            Ok(awake.random)
        });
        if scenario.steps.iter().any(|step| matches!(step.ask, Ask::Run { .. })) {
            // A login takes seconds under TCG, and is not what a scenario's time is for. What fails here it will find out by itself.
            let _ = guest.warm("root", Instant::now() + LOGIN_WITHIN * self.time_factor);
        }
        let began = begun + running;
        Ok(Fork { forks: Arc::clone(self), vm, guest, origin, facts, folder, began, record, _seat: seat })
    }

    /// A copy that runs, and is a good machine.
    fn copy(&self, folder: &Utf8Path) -> Result<(Vm, Awake), String> {
        let plan = ForkPlan { evidence: folder.into(), base: self.base.clone(), debug: self.debug };
        let vm = fork::fork(&self.saved, &plan, &self.runtime).map_err(|error| chain(&error))?;
        let awake = vm.wake(WAKE_WITHIN * self.time_factor).map_err(|error| error.to_string())?;
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(awake.random.clone()) {
            Ok((vm, awake))
        } else {
            Err("it has the random numbers of another fork".to_owned())
        }
    }
}

/// A copy of the saved machine, for one scenario.
pub struct Fork {
    forks: Arc<Forks>,
    vm: SharedVm,
    guest: Arc<Guest>,
    origin: Origin,
    /// What is known of it.
    pub facts: Arc<Facts>,
    folder: Utf8PathBuf,
    began: Instant,
    /// What is recorded of it.
    pub record: ForkRecord,
    // Given back last.
    _seat: Seat,
}

impl Fork {
    /// How long the guest has been ready, in its own seconds: it stood still while it was saved.
    pub fn ready_for(&self) -> Duration {
        self.forks.ready_for + self.began.elapsed()
    }

    /// What can be asked of it after a failure; nothing if it has ended.
    pub fn suspect(&self) -> Option<Suspect> {
        let ssh = self.guest.address();
        machine::suspect(&self.vm, ssh, &self.guest, &self.forks.identity, &self.forks.host_key)
    }

    /// Keeps this very moment of it on disk, in the folder of its logs, so that it can be entered later. It stands still then, and is to be ended.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn keep(&self) -> Result<(), String> {
        let vm = self.vm.lock().unwrap_or_else(PoisonError::into_inner);
        let vm = vm.as_ref().ok_or("the machine has ended")?;
        // All of its memory has to be written: what it shares with others is theirs.
        let size_mib = vm.rss_mib().unwrap_or_default();
        if size_mib > MOST_KEPT_MIB {
            return Err(format!("it has {size_mib} MiB of memory, and {MOST_KEPT_MIB} are the most"));
        }
        self.guest.close_idle();
        let saved = fork::save(vm, &self.forks.qemu, Method::MappedRam).map_err(|error| chain(&error))?;
        let folder = self.folder.join(KEPT);
        let kept = || {
            std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| error.to_string())?;
            let parts = saved.copy_fork(&self.forks.saved, folder.as_std_path()).map_err(|error| chain(&error))?;
            let kept = KeptFork {
                parts,
                identity: self.forks.identity.private_pem().to_string(),
                host_key: self.forks.host_key.line(),
            };
            let text = serde_json::to_vec_pretty(&kept).map_err(|error| error.to_string())?;
            let mut options = std::fs::File::options();
            let file = options.write(true).create_new(true).mode(0o600).open(folder.join(KEPT_MANIFEST));
            file.and_then(|mut file| file.write_all(&text)).map_err(|error| error.to_string())
        };
        kept().inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))
    }

    /// Ends it, and leaves in its logs what it said itself; what comes before is in those of the machine it is a copy of.
    pub fn end(self) -> Utf8PathBuf {
        machine::end(&self.vm);
        for (name, saved_bytes) in self.forks.saved.log_bytes() {
            let log = self.folder.join(name);
            let own = std::fs::read(&log).map(|bytes| bounded(bytes.get(saved_bytes as usize..).unwrap_or_default()));
            // A log that stays whole says the same, only longer.
            let _ = own.and_then(|own| std::fs::write(&log, own));
        }
        self.folder
    }
}

/// A failed fork that was kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptFork {
    parts: Parts,
    identity: String,
    host_key: String,
}

/// A fork that was kept goes on: the machine, and the way into it.
///
/// # Errors
/// If it is not there or does not go on.
pub fn resume(folder: &Utf8Path, qemu: &Qemu, runtime: &tokio::runtime::Handle) -> anyhow::Result<(Vm, WayIn)> {
    let path = folder.join(KEPT).join(KEPT_MANIFEST);
    let text = std::fs::read(&path).with_context(|| format!("no machine was kept: could not read `{path}`"))?;
    let KeptFork { parts, identity, host_key } = serde_json::from_slice(&text).with_context(|| format!("`{path}`"))?;
    let saved = Saved::of(parts, qemu.clone());
    let evidence = folder.join("resumed").into();
    let plan = ForkPlan { evidence, base: crate::vm::runtime::default_base(), debug: false };
    let vm = fork::fork(&saved, &plan, runtime)?;
    let way = WayIn::to(vm.ssh(), &Identity::from_private_pem(&identity)?, &PublicKey::from_line(&host_key)?)?;
    Ok((vm, way))
}

impl Target for Fork {
    fn guest(&self) -> &Guest {
        &self.guest
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn lost(&self) -> Option<String> {
        machine::lost(&self.vm)
    }

    fn lost_for_certain(&self) -> Option<String> {
        machine::lost_for_certain(&self.vm)
    }

    fn forward(&self, port: u16) -> Result<(SocketAddr, Box<dyn Send>), String> {
        machine::forward(&self.vm, port)
    }
}
