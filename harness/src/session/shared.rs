//! What the trials of one run share: the place, the key, the image and the machine once they are needed, and the records.

use std::any::Any;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::baseline::{self, Earlier, Found as FoundSoFar};
use super::diagnostics::{self, Harvest, Suspect};
use super::follow_up;
use super::forks::{self, Fork, Forks};
use super::kept::{Found, IMAGE_PATH, Kept, Key, Store};
use super::machine::{self, Booted};
use super::room::{Room, Seat};
use super::run::say;
use super::{about, profile};
use crate::hex;
use crate::image::{self, Image, Sources};
use crate::interrupt::{Interrupt, tell};
use crate::scenario::facts::Facts;
use crate::scenario::file::Beside;
use crate::scenario::mask::Mask;
use crate::scenario::model::{On, Phase, Requires, Scenario, Variables};
use crate::scenario::runner::{self, Context, Target};
use crate::settings::{AccelChoice, Keep, KeyChoice, Settings};
use crate::transcript::model::{
    FileRecord, ForksRecord, ImageRecord, MachineRecord, Outcome, OverallStatus, SCHEMA, ScenarioRecord,
    SensitivityRecord, TestSummary, Transcript,
};
use crate::transcript::sign::SigningKey;
use crate::transcript::store::{self, Place};
use crate::vm::Qemu;
use crate::vm::accel::{self, Requested};

/// Everything that can be found wrong in the first second.
pub struct Preparation {
    settings: Settings,
    key: SigningKey,
    place: Place,
    qemu: Option<Qemu>,
    earlier: Option<Earlier>,
    start: jiff::Timestamp,
    started: Instant,
}

impl Preparation {
    /// Opens the key, finds the tools, and takes a name for the session.
    ///
    /// # Errors
    /// For the first of these that is not as it must be.
    pub fn check(settings: Settings, needed: Requires) -> anyhow::Result<Self> {
        let started = Instant::now();
        let start = jiff::Timestamp::now();
        let key = match &settings.key {
            KeyChoice::Ephemeral => SigningKey::ephemeral(),
            KeyChoice::File { key, password } => SigningKey::open(key, password.as_deref()),
        }?;
        let qemu = (needed == Requires::Machine).then(Qemu::find).transpose()?;
        if let (Some(qemu), AccelChoice::Kvm) = (&qemu, settings.accel) {
            // Whether a kernel boots under it is tried later; what fails here fails before an image is built.
            accel::probe(Requested::Kvm, qemu, &crate::vm::Boot::Disk)?;
        }
        // Before the session takes its place: it may be the very folder.
        let earlier = Some(baseline::read(settings.baseline.as_deref())?);
        let place = store::reserve(&settings.artifacts, start)?;
        Ok(Self { settings, key, place, qemu, earlier, start, started })
    }
}

/// The most that is gathered about failures in one session, bytes: where very much fails, the first failures say why.
const MOST_GATHERED: u64 = 256 << 20;

/// The most scenarios that are asked on one machine at the same time.
const MOST_BESIDE: u64 = 4;

/// An image with its digests, taken before anything was booted.
struct Provided {
    image: Image,
    files: Vec<FileRecord>,
}

/// What the trials of one run share.
pub struct Shared {
    preparation: Preparation,
    runtime: tokio::runtime::Handle,
    interrupt: Arc<Interrupt>,
    facts: Arc<Facts>,
    mask: Mask,
    secrets: Variables,
    beside: Beside,
    /// The secrets, with those that a kept machine was handed by the session that booted it.
    restored: OnceLock<Variables>,
    image: OnceLock<Result<Provided, String>>,
    machine: OnceLock<Result<Booted, Box<machine::Failure>>>,
    forks: OnceLock<Result<Arc<Forks>, Box<ForksRecord>>>,
    /// For scenarios that are asked on the booted machine at the same time.
    seats: Arc<Room>,
    building: Mutex<Building>,
    /// How long the guest had been ready when the last health scenario held.
    healthy_after: Mutex<Option<Duration>>,
    found: Arc<FoundSoFar>,
    over: AtomicBool,
    kept: AtomicBool,
    /// Whether a machine that an earlier session saved will do.
    uses_saved: bool,
    /// Held while this session boots what others could use as well.
    claim: Mutex<Option<File>>,
    /// Whether a fork on which something failed has been kept.
    kept_fork: AtomicBool,
    /// Bytes that were gathered about failures.
    gathered: AtomicU64,
    /// Folders of scenarios that failed.
    failed_folders: Mutex<Vec<Utf8PathBuf>>,
}

/// The machine a scenario is asked on.
enum Asked<'a> {
    /// The booted one, with others beside.
    Booted {
        booted: &'a Booted,
        /// The word in the record.
        word: &'static str,
        _seat: Seat,
    },
    /// A copy.
    Fork(Box<Fork>),
}

/// How long providing the image took, which the run's own deadline does not count.
#[derive(Default)]
struct Building {
    since: Option<Instant>,
    took: Duration,
}

impl Asked<'_> {
    fn target(&self) -> &dyn Target {
        match self {
            Self::Booted { booted, .. } => *booted,
            Self::Fork(fork) => &**fork,
        }
    }

    /// The word in the record.
    fn word(&self) -> &'static str {
        match self {
            Self::Booted { word, .. } => word,
            Self::Fork(_) => "fork",
        }
    }

    /// How long the guest has been ready, in its own seconds.
    fn ready_for(&self) -> Duration {
        match self {
            Self::Booted { booted, .. } => booted.ready.elapsed(),
            Self::Fork(fork) => fork.ready_for(),
        }
    }
}

impl Shared {
    /// For a run of `chosen` scenarios.
    pub fn new(
        mut preparation: Preparation,
        runtime: tokio::runtime::Handle,
        interrupt: Arc<Interrupt>,
        chosen: &[Scenario],
        beside: Beside,
    ) -> Self {
        let facts = Arc::new(Facts::default());
        let mask = Mask::default();
        let settings = &preparation.settings;
        facts.set("session.id", &preparation.place.session);
        facts.set("session.dir", &preparation.place.folder);
        facts.set("harness.scenarios", &settings.scenarios);
        facts.set("settings.safe_mode", u8::from(settings.safe_mode));
        facts.set_live("harness.rss_mib", about::peak_rss_mib);
        let found = Arc::default();
        if let Some(earlier) = preparation.earlier.take() {
            baseline::offer(&facts, earlier, &found);
        }
        let names = chosen.iter().flat_map(|scenario| &scenario.secrets);
        let mut secrets: Variables = names.map(|name| (name.clone(), random_secret())).collect();
        secrets.extend(beside.accounts.secrets(random_secret));
        secrets.values().for_each(|secret| mask.add(secret));
        let credentials = preparation.settings.credentials.as_deref().map(machine::secrets_of);
        credentials.iter().flatten().for_each(|secret| mask.add(secret));
        Self {
            preparation,
            runtime,
            interrupt,
            facts,
            mask,
            secrets,
            beside,
            restored: OnceLock::new(),
            image: OnceLock::new(),
            machine: OnceLock::new(),
            forks: OnceLock::new(),
            // One for each core, since the guest needs them too where it is emulated, and few, since a hardened sshd takes few connections.
            seats: Arc::new(Room::new(about::cores().min(MOST_BESIDE) as usize, 0)),
            building: Mutex::default(),
            healthy_after: Mutex::default(),
            found,
            over: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            uses_saved: false,
            claim: Mutex::default(),
            kept_fork: AtomicBool::new(false),
            gathered: AtomicU64::new(0),
            failed_folders: Mutex::default(),
        }
    }

    /// The same, where a machine that an earlier session saved will do: nothing is asked of one that has just been booted.
    pub fn using_saved(self) -> Self {
        Self { uses_saved: self.preparation.settings.keep_saved && self.preparation.settings.forks, ..self }
    }

    /// Whether what the scenarios ask about is broken when all has been asked.
    pub fn breaks(&self) -> bool {
        self.preparation.settings.sabotage
    }

    /// Asks one scenario, after making ready what it needs. Beside what is kept of one that failed lies what one does next.
    pub fn ask(&self, scenario: &Scenario) -> ScenarioRecord {
        let (record, harvest, machine) = self.ask_and_gather(scenario);
        if record.outcome >= Outcome::Failed
            && let Err(error) = self.leave_word(&record, harvest.as_ref(), &machine)
        {
            self.say(&format!("{}: could not write what to do next: {error}", record.name));
        }
        record
    }

    fn ask_and_gather(&self, scenario: &Scenario) -> (ScenarioRecord, Option<Harvest>, follow_up::Machine) {
        let nothing = |record| (record, None, follow_up::Machine::None);
        if let Some(reason) = self.interrupt.reason() {
            let reason = format!("not asked: the run was cut short by {reason}");
            return nothing(self.unasked(scenario, Outcome::Skipped, reason));
        }
        let booted = match scenario.requires() {
            Requires::Nothing => None,
            Requires::Image => match self.image() {
                Ok(_) => None,
                Err(why) => return nothing(self.unasked(scenario, Outcome::Errored, why.clone())),
            },
            Requires::Machine => match self.machine() {
                Ok(booted) => Some(booted),
                Err(failure) => return nothing(self.unasked(scenario, Outcome::Errored, failure.short())),
            },
        };
        if let Some((booted, missing)) =
            booted.and_then(|booted| Some((booted, booted.profile.missing(&scenario.needs)?)))
        {
            let reason = format!("`{}` has no `{missing}`", booted.profile.name);
            return nothing(self.unasked(scenario, Outcome::Skipped, reason));
        }
        let asked = match booted.map(|booted| self.machine_for(scenario, booted)).transpose() {
            Ok(asked) => asked,
            Err((outcome, reason)) => return nothing(self.unasked(scenario, outcome, reason)),
        };
        let facts = match &asked {
            Some(Asked::Fork(fork)) => &fork.facts,
            _ => &self.facts,
        };
        let context = self.context(asked.as_ref().map(Asked::target), facts, booted);
        let mut record = runner::run(scenario, &context);
        if let Some(booted) = booted {
            (record.answered_by, record.on_stand_in) = booted.profile.answering(&scenario.needs);
        }
        if let Some(asked) = asked {
            asked.word().clone_into(&mut record.machine);
            if scenario.phase == Phase::Health && matches!(record.outcome, Outcome::Passed | Outcome::Warned) {
                self.health_held(asked.ready_for());
            }
            let suspect = || match &asked {
                Asked::Booted { booted, .. } => booted.suspect(),
                Asked::Fork(fork) => fork.suspect(),
            };
            let failed = record.outcome >= Outcome::Failed;
            let harvest = if failed { self.gather(scenario, suspect()) } else { None };
            let machine = match asked {
                Asked::Booted { .. } => follow_up::Machine::Shared,
                Asked::Fork(fork) => {
                    record.fork = Some(fork.record.clone());
                    self.part_with(*fork, &record)
                }
            };
            return (record, harvest, machine);
        }
        nothing(record)
    }

    /// Gathers what there is to see of a machine on which a scenario failed.
    fn gather(&self, scenario: &Scenario, suspect: Option<Suspect>) -> Option<Harvest> {
        let suspect = suspect?;
        if self.gathered.load(Ordering::SeqCst) > MOST_GATHERED {
            let why = format!("{} MiB about earlier failures are enough", MOST_GATHERED >> 20);
            return Some(Harvest { missing: vec![("*", why)], ..Harvest::default() });
        }
        let at_the_end = self.interrupt.reason().is_some();
        let harvest = diagnostics::harvest(&suspect, &self.folder_of(&scenario.name), &self.mask, at_the_end);
        self.gathered.fetch_add(harvest.files.values().sum(), Ordering::SeqCst);
        Some(harvest)
    }

    /// Leaves the result and what to do next in the folder of a scenario that failed.
    fn leave_word(
        &self,
        record: &ScenarioRecord,
        harvest: Option<&Harvest>,
        machine: &follow_up::Machine,
    ) -> anyhow::Result<()> {
        let Preparation { settings, place, .. } = &self.preparation;
        let folder = self.folder_of(&record.name);
        std::fs::create_dir_all(&folder)?;
        lock(&self.failed_folders).push(folder.clone());
        let booted = self.machine.get().and_then(|booted| booted.as_ref().ok());
        let image = self.image.get().and_then(|provided| provided.as_ref().ok());
        let ground = [
            image.map_or("no image".to_owned(), |provided| {
                let (disk, image) = (&provided.files[0], &provided.image);
                format!("image {} ({}), {}", image.disk, image.provider.word(), disk.digest)
            }),
            booted.map_or("no machine".to_owned(), |booted| {
                let (profile, accelerator) = (&booted.profile, &booted.record.accelerator);
                format!("guest {} {}, {accelerator}; asked on: {}", profile.name, profile.version, record.machine)
            }),
        ];
        let run = follow_up::Run {
            settings,
            session: &place.session,
            transcript: &place.transcript,
            program: &follow_up::program(),
            ground: ground.join("\n"),
        };
        let result = serde_json::to_string_pretty(record)?;
        std::fs::write(folder.join(follow_up::RESULT), self.mask.text(&result))?;
        let readme = follow_up::readme(record, harvest, machine, &run);
        std::fs::write(folder.join(follow_up::README), self.mask.text(&readme))?;
        let took = harvest.map(|harvest| format!(", gathered in {:.1} s", harvest.took.as_secs_f64()));
        let took = took.unwrap_or_default();
        self.say(&format!(
            "{}: what there is to see, and what to do next: {folder}/{}{took}",
            record.name,
            follow_up::README
        ));
        Ok(())
    }

    /// What a scenario is run with, on the machine it has, if it needs one.
    pub(super) fn context<'a>(
        &'a self,
        target: Option<&'a dyn Target>,
        facts: &'a Facts,
        booted: Option<&Booted>,
    ) -> Context<'a> {
        Context {
            runtime: &self.runtime,
            target,
            facts,
            mask: &self.mask,
            secrets: self.restored.get().unwrap_or(&self.secrets),
            interrupt: &self.interrupt,
            session_start: self.preparation.started,
            session_folder: &self.preparation.place.folder,
            root: &self.preparation.settings.root,
            env: &[],
            time_factor: booted.map_or(1, |booted| booted.time_factor),
            today: self.preparation.start.to_zoned(jiff::tz::TimeZone::UTC).date(),
            debug: self.preparation.settings.debug,
        }
    }

    /// The machine that a scenario is asked on; or how it ends without one, and why.
    fn machine_for<'a>(&self, scenario: &Scenario, booted: &'a Booted) -> Result<Asked<'a>, (Outcome, String)> {
        let on_booted = |word| Ok(Asked::Booted { booted, word, _seat: self.seats.enter() });
        if scenario.machine == On::Cold {
            return on_booted("cold");
        }
        match (self.forks(booted), scenario.machine) {
            (Ok(forks), _) => {
                let folder = self.fork_folder(scenario);
                let fork = forks
                    .fork(scenario, folder)
                    .map_err(|why| (Outcome::Errored, format!("there is no fork: {why}")))?;
                Ok(Asked::Fork(Box::new(fork)))
            }
            (Err(record), On::ForkOnly) => Err((Outcome::Skipped, format!("there are no forks: {}", record.reason))),
            (Err(_), _) => on_booted("shared"),
        }
    }

    /// Where a fork leaves its logs: beside the long answers of its scenario.
    fn fork_folder(&self, scenario: &Scenario) -> Utf8PathBuf {
        self.folder_of(&scenario.name).join("machine")
    }

    /// The folder of what a scenario leaves.
    fn folder_of(&self, scenario: &str) -> Utf8PathBuf {
        self.preparation.place.folder.join(scenario.replace("::", "/"))
    }

    /// What forks are made of: the machine is saved when the first is asked for, and ends.
    fn forks(&self, booted: &Booted) -> Result<&Arc<Forks>, &ForksRecord> {
        self.forks.get_or_init(|| self.prepare_forks(booted)).as_ref().map_err(|record| &**record)
    }

    fn prepare_forks(&self, booted: &Booted) -> Result<Arc<Forks>, Box<ForksRecord>> {
        let preparation = &self.preparation;
        let none = |reason: &str| Box::new(ForksRecord { method: "none".into(), reason: reason.into(), saved: None });
        let qemu = preparation.qemu.as_ref().ok_or_else(|| none("QEMU was not looked for"))?;
        if !preparation.settings.forks {
            return Err(none("RAVE_FORKS=0"));
        }
        match forks::prepare(&self.fork_ground(booted, qemu)) {
            Ok(mut forks) => {
                booted.end();
                self.say(&format!("forks: by {} ({})", forks.record().method, forks.record().reason));
                if preparation.settings.keep_saved
                    && let Err(why) = self.keep(&mut forks, booted, qemu)
                {
                    self.say(&format!("machine: not kept for later runs: {why}"));
                }
                Ok(Arc::new(forks))
            }
            Err(record) => {
                self.say(&format!("forks: none; all scenarios are asked on one machine ({})", record.reason));
                // Whoever waits for it boots one of his own.
                drop(lock(&self.claim).take());
                Err(record)
            }
        }
    }

    fn fork_ground<'a>(&'a self, booted: &'a Booted, qemu: &'a Qemu) -> forks::Ground<'a> {
        let preparation = &self.preparation;
        forks::Ground {
            booted,
            qemu,
            session: &preparation.place.session,
            folder: preparation.place.folder.join("machine"),
            facts: &self.facts,
            runtime: &self.runtime,
            interrupt: &self.interrupt,
            session_start: preparation.started,
            debug: preparation.settings.debug,
        }
    }

    /// A machine that an earlier session saved, if there is one that is right and good. Without one, nobody else boots the same meanwhile.
    fn saved(&self, provided: &Provided, qemu: &Qemu, ground: &machine::Ground<'_>) -> Option<Booted> {
        let say = |text: &str| self.say(text);
        let store = Store::open(&say).inspect_err(|error| self.say(&format!("machine: none is kept: {error}"))).ok()?;
        let key = self.key_of_saved(provided, qemu);
        let found = store.find(&key, &self.interrupt);
        let (kept, held) = match found {
            Ok(Found::Machine(kept, held)) => (kept, held),
            Ok(Found::Nothing(held)) => {
                *lock(&self.claim) = Some(held);
                return None;
            }
            Err(why) => {
                self.say(&format!("machine: none that was saved is used: {why}"));
                return None;
            }
        };
        let used = Booted::from_kept(&kept, ground).and_then(|booted| {
            let fork_ground = self.fork_ground(&booted, qemu);
            let forks = forks::of_kept(&fork_ground, &kept, held);
            forks.check_kept(&fork_ground.folder)?;
            Ok((booted, forks))
        });
        match used {
            Ok((booted, forks)) => {
                let saved = kept.forks.saved.as_ref().map(|saved| (saved.id.as_str(), age(&saved.saved_at)));
                let (id, age) = saved.unwrap_or_default();
                self.say(&format!("machine: forks of the one that {id} booted and saved {age} ago; nothing is booted"));
                let _ = self.forks.set(Ok(Arc::new(forks)));
                kept.handed.values().for_each(|secret| self.mask.add(secret));
                let restored = self.secrets.clone().into_iter().chain(kept.handed.clone());
                let _ = self.restored.set(restored.collect());
                Some(booted)
            }
            Err(why) => {
                self.say(&format!("machine: one that was saved is thrown away: {why}"));
                *lock(&self.claim) = store.lock_to_keep(&key);
                None
            }
        }
    }

    /// Keeps the saved machine for later runs, and makes forks of what is kept.
    fn keep(&self, forks: &mut Forks, booted: &Booted, qemu: &Qemu) -> Result<(), String> {
        let provided = self.image().map_err(Clone::clone)?;
        let key = self.key_of_saved(provided, qemu);
        let say = |text: &str| self.say(text);
        let store = Store::open(&say).map_err(|error| error.to_string())?;
        let claim = lock(&self.claim).take();
        let held = claim.or_else(|| store.lock_to_keep(&key)).ok_or("another run uses the one that is kept")?;
        let kept = |parts| {
            let identity = booted.identity.private_pem().to_string();
            Kept {
                key: key.clone(),
                parts,
                machine: booted.record.clone(),
                forks: forks.record().clone(),
                profile: booted.profile.clone(),
                ca: String::from_utf8_lossy(&booted.origin.ca).into_owned(),
                handed: self.handed(),
                identity,
                host_key: booted.host_key.line(),
            }
        };
        let parts = store.keep(forks.saved(), kept, &key, &held)?;
        forks.move_to(parts, qemu.clone(), held);
        Ok(())
    }

    /// The secrets of this run that the guest is handed when it is booted: those of its accounts.
    fn handed(&self) -> Variables {
        let value = |name: String| self.secrets.get(&name).cloned().map(|value| (name, value));
        self.beside.accounts.variables().filter_map(value).collect()
    }

    /// Everything that must be the same for a saved machine to be right.
    fn key_of_saved(&self, provided: &Provided, qemu: &Qemu) -> Key {
        let Provided { image, files } = provided;
        let settings = &self.preparation.settings;
        let (cores, memory_mib) = machine::size_of(settings);
        let program = std::fs::metadata(&qemu.system).map(|file| (file.len(), file.modified().ok()));
        let digests = files.iter().map(|file| format!("{} {}", file.role, file.digest));
        let command_line = match &image.boot {
            image::Boot::Disk => String::new(),
            image::Boot::Direct { command_line, .. } => command_line.clone(),
        };
        let parts = [
            (IMAGE_PATH, image.folder().to_string()),
            ("the image's content", format!("{} {command_line}", digests.collect::<Vec<_>>().join(", "))),
            ("QEMU", format!("{} {program:?} {}", qemu.version, qemu.machine_type())),
            ("the accelerator", settings.accel.word().to_owned()),
            ("the machine", format!("{cores} cores, {memory_mib} MiB")),
            ("QEMU's arguments", crate::vm::machine::arguments_digest()),
            ("the processor", about::processor()),
            ("the kernel", about::system().kernel),
            ("the accounts", format!("{:?}", self.beside.accounts)),
            ("the harness", format!("{} {}", env!("CARGO_PKG_VERSION"), crate::vm::credentials::units_digest())),
        ];
        parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Ends a fork. The first that is to stay is kept on disk.
    fn part_with(&self, fork: Fork, record: &ScenarioRecord) -> follow_up::Machine {
        let lost = fork.lost().is_some();
        let wanted = self.preparation.settings.keep_vm.wants(record.outcome >= Outcome::Failed);
        let wanted = wanted && !lost && self.interrupt.reason().is_none();
        let mut machine = if lost { follow_up::Machine::None } else { follow_up::Machine::Ended };
        if wanted && !self.kept_fork.swap(true, Ordering::SeqCst) {
            let name = format!("{}/{}", self.preparation.place.session, record.name);
            match fork.keep() {
                Ok(()) => {
                    machine = follow_up::Machine::Kept;
                    self.say(&format!("the machine of {} is kept; enter it with: hermetic shell {name}", record.name))
                }
                Err(why) => self.say(&format!("the machine of {} is not kept: {why}", record.name)),
            }
        }
        self.mask_logs(&fork.end());
        machine
    }

    /// Whether a scenario may meet others on its machine. Boots and saves the machine if it has to be known.
    pub fn others_are_near(&self, scenario: &Scenario) -> bool {
        if scenario.requires() != Requires::Machine || scenario.machine == On::Cold {
            return true;
        }
        self.machine().is_ok_and(|booted| self.forks(booted).is_err())
    }

    /// The record of a scenario that was not asked.
    fn unasked(&self, scenario: &Scenario, outcome: Outcome, reason: String) -> ScenarioRecord {
        ScenarioRecord {
            name: scenario.name.clone(),
            summary: scenario.summary.clone(),
            file: runner::relative(&scenario.file, &self.preparation.settings.root),
            outcome,
            reason: self.mask.text(&reason),
            answered_by: Vec::new(),
            on_stand_in: false,
            machine: "none".to_owned(),
            fork: None,
            started_ms: runner::milliseconds(self.elapsed()),
            took_ms: 0,
            steps: Vec::new(),
        }
    }

    /// The record of a scenario during which this program itself failed.
    pub fn panicked(&self, scenario: &Scenario, panic: &(dyn Any + Send)) -> ScenarioRecord {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        self.unasked(scenario, Outcome::Errored, format!("the harness itself failed: {text}"))
    }

    /// Keeps a record.
    pub fn record(&self, record: ScenarioRecord) {
        lock(&self.found.records).push(record);
    }

    fn image(&self) -> Result<&Provided, &String> {
        self.image.get_or_init(|| self.provide().map_err(|error| format!("{error:#}"))).as_ref()
    }

    fn provide(&self) -> anyhow::Result<Provided> {
        let settings = &self.preparation.settings;
        let build_log = self.preparation.place.folder.join("image-build.log");
        let sources = Sources {
            root: &settings.root,
            cache: Sources::default_cache(),
            build_log: &build_log,
            safe_mode: settings.safe_mode,
            interrupted: self.interrupt.flag(),
            progress: &|line| self.say(&format!("image: {line}")),
        };
        lock(&self.building).since = Some(Instant::now());
        let provided = image::provide(&settings.image, &sources);
        let mut building = lock(&self.building);
        building.took = building.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        drop(building);
        let image = provided.context("no image could be provided")?;
        let files = digests(&image)?;
        let disk = &files[0];
        self.say(&format!("image: {} ({}), {} {}", image.disk, image.provider.word(), disk.digest, image.reason));
        self.facts.set("image.provider", image.provider.word());
        self.facts.set("image.disk", &image.disk);
        self.facts.set("image.format", image.format.word());
        self.facts.set("image.digest", &disk.digest);
        self.facts.set("image.dir", image.folder());
        self.facts.set("image.bytes", image::bytes_on_disk(&image));
        if let Some(packages) = &image.packages {
            self.facts.set("image.packages", packages);
        }
        if let Some(seconds) = image.built_seconds {
            self.facts.set("image.built_seconds", seconds);
        }
        Ok(Provided { image, files })
    }

    /// The machine, booted when it is first asked for.
    pub fn machine(&self) -> Result<&Booted, &machine::Failure> {
        let meet = |booted: &Booted| {
            self.beside.guests.of(&booted.profile.name).for_each(|(name, value)| self.facts.set(name, value));
        };
        let machine = self.machine.get_or_init(|| self.boot().inspect(meet)).as_ref().map_err(|failure| &**failure)?;
        self.found.machine.get_or_init(|| (machine.record.clone(), machine.profile.name.clone()));
        Ok(machine)
    }

    fn boot(&self) -> Result<Booted, Box<machine::Failure>> {
        let provided = self.image().map_err(|why| machine::Failure::before_start(why.clone()))?;
        let qemu = self
            .preparation
            .qemu
            .as_ref()
            .ok_or_else(|| machine::Failure::before_start("QEMU was not looked for".into()))?;
        let ground = machine::Ground {
            settings: &self.preparation.settings,
            qemu,
            image: &provided.image,
            accounts: self.beside.accounts.credential(&self.secrets),
            folder: self.preparation.place.folder.join("machine"),
            runtime: &self.runtime,
            interrupt: &self.interrupt,
            facts: &self.facts,
            mask: &self.mask,
            say: &|text| self.say(text),
        };
        if self.uses_saved
            && let Some(booted) = self.saved(provided, qemu, &ground)
        {
            return Ok(booted);
        }
        let booted = machine::boot(&ground);
        if let Err(failure) = &booted {
            self.say(&format!("machine: {}", failure.long()));
        }
        booted
    }

    fn health_held(&self, after: Duration) {
        let mut healthy_after = lock(&self.healthy_after);
        let latest = healthy_after.unwrap_or_default().max(after);
        *healthy_after = Some(latest);
        self.facts.set("machine.health_seconds", latest.as_secs());
    }

    /// Ends the machine unless it is to be kept, looks at the image again, and puts everything that was found into an unsigned transcript.
    pub fn finish(&self, filters: Vec<String>, sensitivity: Option<SensitivityRecord>) -> Transcript {
        let settings = &self.preparation.settings;
        self.over.store(true, Ordering::SeqCst);
        let booted = self.machine.get();
        let forks = self.forks.get().map(|forks| match forks {
            Ok(forks) => forks.record().clone(),
            Err(record) => (**record).clone(),
        });
        let machine = match booted {
            Some(Ok(booted)) => Some(MachineRecord { forks, ..booted.record() }),
            Some(Err(failure)) => failure.record.clone(),
            None => None,
        };
        self.kept.store(self.keeps_machine(), Ordering::SeqCst);
        if !self.kept.load(Ordering::SeqCst) {
            self.end_machine();
        }
        // What was learnt to be a secret later on may be in what was gathered before.
        for folder in lock(&self.failed_folders).iter() {
            self.mask_logs(&folder.join(diagnostics::FOLDER));
        }
        let provided = self.image.get().and_then(|provided| provided.as_ref().ok());
        let unchanged = provided.filter(|_| machine.is_some()).map(unchanged);
        let image = provided.map(|provided| record_of(provided, unchanged));
        let profile = booted.and_then(|booted| booted.as_ref().ok()).map(|booted| &booted.profile);
        let mut records = lock(&self.found.records).clone();
        records.sort_by_key(|record| record.started_ms);
        // The clock may have been set meanwhile; what passed has passed.
        let end = self.preparation.start + self.elapsed();
        let mut transcript = Transcript {
            schema: SCHEMA,
            test_session_id: self.preparation.place.session.clone(),
            rave_version: profile.map_or_else(|| "none".to_owned(), |profile| profile.name.clone()),
            start_time: time(self.preparation.start),
            completion_time: time(end),
            duration_seconds: 0,
            overall_status: OverallStatus::Failed,
            reasons: Vec::new(),
            filters,
            system_info: about::system(),
            nix_version: provided.and_then(|provided| provided.image.nix_version.clone()),
            image_digest: provided.map(|provided| provided.files[0].digest.clone()),
            image,
            machine,
            profile: profile.map(profile::Profile::record),
            harness: about::harness(&settings.root, settings.recorded()),
            test_summary: TestSummary::of(records.iter()),
            validation_results: Vec::new(),
            service_health: Vec::new(),
            authentication_tests: Vec::new(),
            agent_control_tests: Vec::new(),
            sandbox_tests: Vec::new(),
            end_to_end_tests: Vec::new(),
            performance_metrics: Vec::new(),
            security_validation: Vec::new(),
            sensitivity,
            parts: Vec::new(),
            signing_key: self.preparation.key.record(),
            signature: None,
        };
        records.into_iter().for_each(|record| transcript.add(record));
        transcript.duration_seconds = whole_seconds(&transcript.start_time, &transcript.completion_time);
        transcript.overall_status = transcript.status_of_results();
        if unchanged == Some(false) {
            transcript.overall_status = OverallStatus::Failed;
            transcript.reasons.push("the image is not the same after the run as before".to_owned());
        }
        if let Some(failure) = transcript.machine.as_ref().and_then(|machine| machine.failure.clone()) {
            transcript.overall_status = OverallStatus::Failed;
            transcript.reasons.push(failure);
        }
        if let Some(why) = self.why_not_run() {
            transcript.overall_status = OverallStatus::Failed;
            transcript.reasons.push(self.mask.text(&why));
        }
        if let Some(sensitivity) = transcript.sensitivity.as_ref().filter(|sensitivity| !sensitivity.complete()) {
            transcript.reasons.push(format!("not every question was seen to notice: {}", sensitivity.summary));
        }
        let TestSummary { passed, warned, failed, errored, .. } = transcript.test_summary;
        if passed + warned + failed + errored == 0 {
            transcript.reasons.push("nothing was asked".to_owned());
        }
        if let Some(reason) = self.interrupt.reason() {
            transcript.overall_status = OverallStatus::Aborted;
            transcript.reasons.insert(0, reason.to_owned());
        }
        transcript
    }

    /// Whether the machine stays up after its questions, for people to enter it.
    fn keeps_machine(&self) -> bool {
        if self.interrupt.reason().is_some() {
            return false;
        }
        let failed = lock(&self.found.records).iter().any(|record| record.outcome >= Outcome::Failed);
        let saved = self.forks.get().is_some_and(Result::is_ok);
        let alive =
            self.machine.get().is_some_and(|booted| booted.as_ref().is_ok_and(|booted| booted.lost().is_none()));
        self.preparation.settings.keep_vm.wants(failed) && alive && !saved
    }

    /// Why there was no image, or nothing was started, if so.
    fn why_not_run(&self) -> Option<String> {
        let no_image = self.image.get().and_then(|provided| provided.as_ref().err()).cloned();
        let no_machine = self.machine.get().and_then(|booted| booted.as_ref().err());
        let no_machine = no_machine.filter(|failure| failure.record.is_none()).map(|failure| failure.short());
        no_image.or(no_machine)
    }

    /// Whether the guest could not be asked at all because there was none.
    pub fn could_not_run(&self) -> bool {
        self.why_not_run().is_some()
    }

    /// Whether all questions have been asked.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The guest's own logs may quote a secret that it was given.
    pub(super) fn mask_logs(&self, folder: &Utf8Path) {
        let logs = folder.read_dir_utf8();
        for log in logs.into_iter().flatten().flatten() {
            let Ok(bytes) = std::fs::read(log.path()) else { continue };
            let masked = self.mask.bytes(&bytes);
            if masked != bytes && std::fs::write(log.path(), masked).is_err() {
                self.say(&format!("a secret is left in `{}`, which could not be written", log.path()));
            }
        }
    }

    /// With `RAVE_KEEP_VM=1` and a failure: says how to enter the machine, and waits until the run is interrupted.
    pub fn keep_if_asked(&self) {
        if !self.kept.load(Ordering::SeqCst) {
            return;
        }
        let Some(Ok(booted)) = self.machine.get() else { return };
        match booted.way_in() {
            Ok(mut way) if self.preparation.settings.keep_vm == Keep::Always => {
                if let Err(error) = way.ssh.status() {
                    tell(&format!("could not run ssh: {error}"));
                }
            }
            Ok(way) => {
                let line = machine::paste_line(&way.ssh);
                tell(&format!("the machine is kept until ^C; enter it with:\n  {line}"));
                self.runtime.block_on(self.interrupt.wait());
            }
            Err(error) => tell(&format!("the machine is not kept: its key could not be written: {error}")),
        }
        self.end_machine();
    }

    /// Ends what still runs.
    pub fn end_machine(&self) {
        if let Some(Ok(booted)) = self.machine.get() {
            booted.end();
        }
        let folder = self.preparation.place.folder.join("machine");
        self.mask_logs(&folder.join(diagnostics::FOLDER));
        self.mask_logs(&folder);
    }

    /// Where everything is, for people.
    pub fn say_where(&self) {
        let place = &self.preparation.place;
        tell(&format!("transcript: {}", place.transcript));
        tell(&format!("artifacts: {}", place.folder));
    }

    /// What the run knows, of the booted machine too.
    pub(super) fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// The project's folder.
    pub(super) fn root(&self) -> &Utf8Path {
        &self.preparation.settings.root
    }

    /// Time limits are stretched by this.
    pub(super) fn time_factor(&self) -> u32 {
        self.machine.get().and_then(|booted| booted.as_ref().ok()).map_or(1, |booted| booted.time_factor)
    }

    /// Provides the image.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn image_now(&self) -> Result<(), String> {
        self.image().map(drop).map_err(Clone::clone)
    }

    /// Boots and saves the machine, without anything being asked of it alone.
    ///
    /// # Errors
    /// Why there is no machine, or no fork of it.
    pub(super) fn forks_now(&self) -> Result<&Arc<Forks>, String> {
        let booted = self.machine().map_err(machine::Failure::short)?;
        self.forks(booted).map_err(|record| format!("there are no forks: {}", record.reason))
    }

    /// The session's names and folders.
    pub fn place(&self) -> &Place {
        &self.preparation.place
    }

    /// The key the session signs with.
    pub fn key(&self) -> &SigningKey {
        &self.preparation.key
    }

    /// What must not be written.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The switch that ends the run.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The longest the run may take.
    pub fn validation_timeout(&self) -> Duration {
        self.preparation.settings.validation_timeout
    }

    /// Since the session began.
    pub fn elapsed(&self) -> Duration {
        self.preparation.started.elapsed()
    }

    /// How much of that went into providing the image.
    pub fn building(&self) -> Duration {
        let building = lock(&self.building);
        building.took + building.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Says something to people, with secrets masked.
    pub(super) fn say(&self, text: &str) {
        say(self.preparation.started, &self.mask.text(text));
    }
}

/// How long ago a moment was, in words.
fn age(moment: &str) -> String {
    let moment = moment.parse::<jiff::Timestamp>().unwrap_or_default();
    let seconds = jiff::Timestamp::now().duration_since(moment).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Digests of all files of an image, two at a time at most where there are two cores.
fn digests(image: &Image) -> anyhow::Result<Vec<FileRecord>> {
    let digest = |(role, path): (&str, &Utf8Path)| {
        let found = image::digest(path)?;
        anyhow::Ok(FileRecord {
            role: role.to_owned(),
            path: path.to_string(),
            bytes: found.bytes,
            digest: found.digest,
        })
    };
    std::thread::scope(|scope| {
        let files = image.files().into_iter().map(|file| scope.spawn(move || digest(file)));
        let files: Vec<_> = files.collect();
        files.into_iter().map(|file| file.join().map_err(|_| anyhow::anyhow!("digesting panicked"))?).collect()
    })
}

fn unchanged(provided: &Provided) -> bool {
    digests(&provided.image).is_ok_and(|files| files == provided.files)
}

fn record_of(provided: &Provided, unchanged_after_run: Option<bool>) -> ImageRecord {
    let image = &provided.image;
    let lines = |path: &Utf8Path| std::fs::read_to_string(path).ok().map(|text| text.lines().count() as u64);
    ImageRecord {
        provider: image.provider.word().to_owned(),
        reason: image.reason.clone(),
        files: provided.files.clone(),
        kernel_command_line: match &image.boot {
            image::Boot::Disk => None,
            image::Boot::Direct { command_line, .. } => Some(command_line.clone()),
        },
        package_count: image.packages.as_deref().and_then(lines),
        built_seconds: image.built_seconds,
        store_path: image.store_path.clone(),
        nar_hash: image.nar_hash.clone(),
        derivation: image.derivation.clone(),
        unchanged_after_run,
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// As a verifier counts them from the times as written.
fn whole_seconds(start: &str, end: &str) -> u64 {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().unwrap_or_default();
    u64::try_from(parse(end).duration_since(parse(start)).as_secs()).unwrap_or_default()
}

/// A secret of 128 bits, as hexadecimal digits.
pub(super) fn random_secret() -> String {
    let mut bytes = [0; 16];
    // The kernel's random source does not fail once it is seeded (getrandom(2)).
    ssh_key::rand_core::RngCore::fill_bytes(&mut ssh_key::rand_core::OsRng, &mut bytes);
    hex::digits(&bytes)
}
