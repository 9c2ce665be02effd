//! The daemon's heart: which sandboxes there are, who may have one, and what becomes of them. What follows from what is `life`'s to say; what
//! the system is made to do is `world`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::life::{self, Next, Seen};
use crate::request::Request;
use crate::sandbox::{Id, Sandbox, State};
use crate::settings::Settings;
use crate::world::World;

/// How often sandboxes are looked at while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// systemd is asked for its units every so many looks. The end of a unit is seen without asking; this is for what went wrong there.
const ASK_EVERY: u32 = 10;
/// How long is said what has failed.
const FAILED_IS_KEPT: Duration = Duration::from_secs(600);

/// Why something that was asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken.
    Capacity(String),
    /// There is one already.
    Exists(String),
    /// What is asked for makes no sense.
    BadRequest(String),
    /// Nothing here can run a sandbox.
    NoBackend(String),
    /// There is no such sandbox.
    NotFound(String),
    /// The system did not do it.
    System(String),
}

/// All sandboxes.
pub struct Keeper {
    settings: Settings,
    backend: Result<String, String>,
    world: Arc<dyn World>,
    entries: Mutex<BTreeMap<Id, Entry>>,
    wake: Condvar,
}

#[derive(Debug, Clone)]
struct Entry {
    sandbox: Sandbox,
    made: Made,
}

/// How much of a sandbox there is beside what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Its disk is being made.
    Disk,
    /// Its unit is being made.
    Unit,
    /// It has a unit, or had one.
    All,
    /// Nothing is left of it.
    Nothing,
}

impl Entry {
    /// Whether it takes one of the places: it is wanted, or not yet gone.
    fn counts(&self) -> bool {
        self.sandbox.state.counts() || self.made != Made::Nothing
    }
}

impl Keeper {
    /// Takes over what a daemon before this one has left: what runs is kept, of everything else nothing remains.
    pub fn new(settings: Settings, backend: Result<String, String>, world: Arc<dyn World>) -> Arc<Self> {
        let entries = reconcile(world.as_ref());
        Arc::new(Self { settings, backend, world, entries: Mutex::new(entries), wake: Condvar::new() })
    }

    /// All sandboxes, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Sandbox> {
        self.lock().values().map(|entry| entry.sandbox.clone()).collect()
    }

    /// One sandbox.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn show(&self, id: &str) -> Result<Sandbox, Refused> {
        let found = Id::parse(id).and_then(|id| self.lock().get(&id).map(|entry| entry.sandbox.clone()));
        found.ok_or_else(|| no_such(id))
    }

    /// Starts a sandbox. It is `starting` when this returns; its disk is made and its unit started behind the caller's back.
    ///
    /// # Errors
    /// If there is no place for it, it is there already, or its commit is not.
    pub fn start(self: &Arc<Self>, request: Request) -> Result<Sandbox, Refused> {
        let backend = self.backend.clone().map_err(Refused::NoBackend)?;
        self.world.check(&request).map_err(Refused::BadRequest)?;
        let sandbox = {
            let mut entries = self.lock();
            let sandbox = self.place(&entries, &request, backend)?;
            // What is said of an earlier one that failed is no longer of interest.
            entries.retain(|_, entry| entry.counts() || !same(&entry.sandbox, &request));
            entries.insert(sandbox.id.clone(), Entry { sandbox: sandbox.clone(), made: Made::Disk });
            sandbox
        };
        tracing::info!(
            "{}: starting, merge request {} of {} at {}",
            sandbox.id,
            request.mr,
            request.project,
            request.sha
        );
        let (keeper, id) = (Arc::clone(self), sandbox.id.clone());
        let started =
            std::thread::Builder::new().name(format!("starts-{id}")).spawn(move || keeper.bring_up(&id, &request));
        if let Err(error) = started {
            self.fail(&sandbox.id, Made::Nothing, error.to_string());
            return Err(Refused::System(error.to_string()));
        }
        Ok(sandbox)
    }

    /// Ends a sandbox. It is `stopping` when this returns, and no more when it is gone.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn stop(&self, id: &str) -> Result<Sandbox, Refused> {
        let id = Id::parse(id).ok_or_else(|| no_such(id))?;
        let mut entries = self.lock();
        let entry = entries.get_mut(&id).ok_or_else(|| no_such(id.as_str()))?;
        if entry.sandbox.state == State::Failed && entry.made == Made::Nothing {
            let mut sandbox = entry.sandbox.clone();
            sandbox.state = State::Stopping;
            entries.remove(&id);
            return Ok(sandbox);
        }
        entry.sandbox.state = State::Stopping;
        let (sandbox, made) = (entry.sandbox.clone(), entry.made);
        drop(entries);
        tracing::info!("{id}: stopping");
        // Who is still making it sees that it is not wanted any more.
        if made == Made::All {
            self.note(&sandbox);
            self.world.stop(&id).map_err(Refused::System)?;
        }
        self.wake.notify_all();
        Ok(sandbox)
    }

    /// Looks after the sandboxes, for ever.
    pub fn look_after(&self) {
        let mut looks = 0;
        loop {
            let entries = self.lock();
            let idle = self.wake.wait_while(entries, |entries| entries.is_empty());
            drop(idle.unwrap_or_else(PoisonError::into_inner));
            self.look(looks % ASK_EVERY == 0);
            looks = looks.wrapping_add(1);
            let pause = self.wake.wait_timeout(self.lock(), LOOK_EVERY);
            drop(pause.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Looks once at every sandbox, and does what follows. `ask` is whether systemd is asked too.
    pub fn look(&self, ask: bool) {
        let now = self.world.now();
        let before: Vec<Entry> = self.lock().values().cloned().collect();
        let units = if ask { self.world.units().ok() } else { None };
        for entry in before {
            if entry.made == Made::All {
                let seen = self.seen(&entry.sandbox, units.as_deref());
                if ask && entry.sandbox.state == State::Stopping && seen == (Seen::Running { banner: false }) {
                    self.end(&entry.sandbox.id); // once more: systemd may not have heard it
                }
                self.follow(&entry.sandbox, &seen, now);
            } else if entry.made == Made::Nothing && now.duration_since(entry.sandbox.expires_at).is_positive() {
                self.lock().remove(&entry.sandbox.id);
            }
        }
    }

    fn seen(&self, sandbox: &Sandbox, units: Option<&[(Id, bool)]>) -> Seen {
        let result = self.world.result(&sandbox.id);
        let runs = units.is_none_or(|units| units.iter().any(|(id, runs)| *runs && *id == sandbox.id));
        if result.is_some() || !runs {
            Seen::Gone { result }
        } else {
            Seen::Running { banner: sandbox.state == State::Starting && self.world.banner(sandbox) }
        }
    }

    fn follow(&self, sandbox: &Sandbox, seen: &Seen, now: Timestamp) {
        let id = &sandbox.id;
        if sandbox.state == State::Failed {
            // It was given up; its unit was told to end.
            if matches!(seen, Seen::Gone { .. }) {
                self.world.forget(id);
                self.change(id, |entry| entry.made = Made::Nothing);
            }
            return;
        }
        match life::next(sandbox, seen, now, self.settings.limits.start_timeout) {
            Next::Wait => {}
            Next::Ready => {
                tracing::info!("{id}: ready");
                self.advance(id, State::Ready);
            }
            Next::Expire => {
                tracing::info!("{id}: its time is over");
                self.advance(id, State::Stopping);
                self.end(id);
            }
            Next::GiveUp(why) => {
                self.fail(id, Made::All, why);
                self.end(id);
            }
            Next::Ended => {
                tracing::info!("{id}: ended");
                self.world.forget(id);
                self.lock().remove(id);
            }
            Next::Failed(why) => self.fail(id, Made::Nothing, why),
        }
    }

    /// Makes the disk and the unit of a sandbox, unless somebody ends it meanwhile.
    fn bring_up(&self, id: &Id, request: &Request) {
        let Some(sandbox) = self.wanted(id, Made::Disk) else { return };
        let host_key = match self.world.prepare(&sandbox, request) {
            Ok(host_key) => host_key,
            Err(why) => return self.fail(id, Made::Nothing, why),
        };
        self.change(id, |entry| entry.sandbox.host_key = host_key);
        let Some(sandbox) = self.wanted(id, Made::Unit) else { return };
        self.note(&sandbox);
        let lifetime = sandbox.expires_at.duration_since(self.world.now()).unsigned_abs();
        if let Err(why) = self.world.launch(&sandbox, lifetime) {
            return self.fail(id, Made::Nothing, why);
        }
        self.change(id, |entry| entry.made = Made::All);
        if self.lock().get(id).is_some_and(|entry| entry.sandbox.state == State::Stopping) {
            self.end(id);
        }
        self.wake.notify_all();
    }

    /// The sandbox, if it is still to be made. If not, nothing remains of it.
    fn wanted(&self, id: &Id, made: Made) -> Option<Sandbox> {
        let mut entries = self.lock();
        let entry = entries.get_mut(id)?;
        if entry.sandbox.state == State::Starting {
            entry.made = made;
            return Some(entry.sandbox.clone());
        }
        drop(entries);
        self.world.forget(id);
        self.lock().remove(id);
        None
    }

    fn fail(&self, id: &Id, made: Made, why: String) {
        tracing::warn!("{id}: failed: {why}");
        let console = self.world.console(id);
        if made == Made::Nothing {
            self.world.forget(id);
        }
        let kept_until = self.world.now() + FAILED_IS_KEPT;
        self.change(id, |entry| {
            entry.made = made;
            entry.sandbox.state = State::Failed;
            entry.sandbox.reason = Some(why);
            entry.sandbox.console = console;
            entry.sandbox.expires_at = kept_until;
        });
    }

    fn end(&self, id: &Id) {
        if let Err(why) = self.world.stop(id) {
            tracing::warn!("{id}: {why}");
        }
    }

    /// Takes a sandbox one state further, unless somebody has ended it meanwhile.
    fn advance(&self, id: &Id, state: State) {
        self.change(id, |entry| {
            if entry.sandbox.state != State::Stopping {
                entry.sandbox.state = state;
            }
        });
        let sandbox = self.lock().get(id).map(|entry| entry.sandbox.clone());
        if let Some(sandbox) = sandbox {
            self.note(&sandbox);
        }
    }

    fn note(&self, sandbox: &Sandbox) {
        if let Err(why) = self.world.save(sandbox) {
            tracing::warn!("{}: {why}", sandbox.id);
        }
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(id) {
            change(entry);
        }
    }

    /// Finds a name, a place and ports for a new sandbox.
    fn place(&self, entries: &BTreeMap<Id, Entry>, request: &Request, backend: String) -> Result<Sandbox, Refused> {
        let there: Vec<&Sandbox> =
            entries.values().filter(|entry| entry.counts()).map(|entry| &entry.sandbox).collect();
        if let Some(sandbox) = there.iter().find(|sandbox| same(sandbox, request)) {
            let message = format!("{} is there for merge request {} of {}", sandbox.id, request.mr, request.project);
            return Err(Refused::Exists(message));
        }
        if there.len() >= self.settings.at_most {
            return Err(Refused::Capacity(format!("there are {} sandboxes, and no more at once", there.len())));
        }
        let no_port = |what| Refused::Capacity(format!("no port for {what} is free"));
        let free = |port| self.world.port_is_free(port);
        let taken: Vec<u16> = there.iter().flat_map(|sandbox| [sandbox.ssh_port, sandbox.web_port]).collect();
        let ssh_port = self.settings.ssh_ports.allocate(&taken, free).ok_or_else(|| no_port("SSH"))?;
        let web_port = self.settings.web_ports.allocate(&taken, free).ok_or_else(|| no_port("the web"))?;
        let mut id = Id::new(self.world.random());
        while entries.contains_key(&id) {
            id = Id::new(self.world.random());
        }
        let created_at = self.world.now();
        Ok(Sandbox {
            id,
            state: State::Starting,
            reason: None,
            console: Vec::new(),
            backend,
            project: request.project.clone(),
            project_id: request.project_id,
            mr: request.mr,
            sha: request.sha.clone(),
            repository: request.repository.clone(),
            requested_by: request.requested_by.clone(),
            address: self.settings.listen.to_string(),
            ssh_port,
            web_port,
            host_key: String::new(),
            created_at,
            expires_at: created_at + request.ttl,
            memory_max_bytes: self.settings.limits.memory_max_bytes,
            cpu_quota_percent: self.settings.limits.cpu_quota_percent,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a daemon before this one has left. A sandbox whose unit runs is kept; a unit that nobody knows is ended; a folder without a unit is
/// that of a sandbox that was never finished, or has ended.
fn reconcile(world: &dyn World) -> BTreeMap<Id, Entry> {
    let running: Vec<Id> = match world.units() {
        Ok(units) => units.into_iter().filter(|(_, runs)| *runs).map(|(id, _)| id).collect(),
        Err(why) => {
            // Better to look after one that has ended than to forget one that runs.
            tracing::warn!("systemd did not say which sandboxes there are: {why}");
            world.saved().into_iter().map(|(id, _)| id).collect()
        }
    };
    let mut entries = BTreeMap::new();
    for (id, record) in world.saved() {
        if !running.contains(&id) || world.result(&id).is_some() {
            tracing::info!("{id}: has ended; removing what is left of it");
            world.forget(&id);
        } else if let Some(sandbox) = record {
            tracing::info!("{id}: still there, {:?}", sandbox.state);
            entries.insert(id, Entry { sandbox, made: Made::All });
        }
    }
    for id in running {
        let entry = entries.get(&id);
        if entry.is_none_or(|entry| entry.sandbox.state == State::Stopping) {
            tracing::info!("{id}: was to end, or nobody knows it: ending it");
            if let Err(why) = world.stop(&id) {
                tracing::warn!("{id}: {why}");
            }
        }
        if !entries.contains_key(&id) {
            world.forget(&id);
        }
    }
    entries
}

fn same(sandbox: &Sandbox, request: &Request) -> bool {
    sandbox.project == request.project && sandbox.mr == request.mr
}

fn no_such(id: &str) -> Refused {
    let id: String = id.chars().take(40).collect();
    Refused::NotFound(format!("there is no sandbox {id:?}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::request::tests::body;
    use crate::unit::tests::settings;

    /// A world in which nothing is real, and everything can be made to go wrong.
    #[derive(Default)]
    pub(crate) struct Fake(pub(crate) Mutex<Facts>);

    #[derive(Default)]
    pub(crate) struct Facts {
        pub(crate) units: Vec<Id>,
        pub(crate) saved: BTreeMap<Id, Option<Sandbox>>,
        pub(crate) results: BTreeMap<Id, String>,
        pub(crate) answering: Vec<u16>,
        pub(crate) busy: Vec<u16>,
        pub(crate) clock: i64,
        pub(crate) numbers: u16,
        pub(crate) no_commit: bool,
        pub(crate) no_disk: bool,
        pub(crate) no_unit: bool,
        pub(crate) deaf: bool,
    }

    impl Fake {
        pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
            self.0.lock().unwrap()
        }

        /// The unit ends as systemd would end it.
        pub(crate) fn end(&self, id: &Id, result: &str) {
            let mut facts = self.facts();
            facts.units.retain(|unit| unit != id);
            facts.results.insert(id.clone(), result.to_owned());
        }

        fn is_empty(&self) -> bool {
            let facts = self.facts();
            facts.units.is_empty() && facts.saved.is_empty()
        }
    }

    impl World for Fake {
        fn check(&self, _: &Request) -> Result<(), String> {
            if self.facts().no_commit { Err("no such commit".into()) } else { Ok(()) }
        }
        fn prepare(&self, sandbox: &Sandbox, _: &Request) -> Result<String, String> {
            self.save(sandbox)?;
            if self.facts().no_disk { Err("disk full".into()) } else { Ok("ssh-ed25519 AAAA".into()) }
        }
        fn save(&self, sandbox: &Sandbox) -> Result<(), String> {
            self.facts().saved.insert(sandbox.id.clone(), Some(sandbox.clone()));
            Ok(())
        }
        fn launch(&self, sandbox: &Sandbox, _: Duration) -> Result<(), String> {
            let mut facts = self.facts();
            if facts.no_unit {
                return Err("systemd said no".into());
            }
            facts.units.push(sandbox.id.clone());
            Ok(())
        }
        fn stop(&self, id: &Id) -> Result<(), String> {
            if self.facts().deaf {
                return Err("systemd did not answer".into());
            }
            self.end(id, "success");
            Ok(())
        }
        fn units(&self) -> Result<Vec<(Id, bool)>, String> {
            let facts = self.facts();
            if facts.deaf {
                Err("systemd did not answer".into())
            } else {
                Ok(facts.units.iter().map(|id| (id.clone(), true)).collect())
            }
        }
        fn saved(&self) -> Vec<(Id, Option<Sandbox>)> {
            self.facts().saved.clone().into_iter().collect()
        }
        fn result(&self, id: &Id) -> Option<String> {
            self.facts().results.get(id).cloned()
        }
        fn banner(&self, sandbox: &Sandbox) -> bool {
            self.facts().answering.contains(&sandbox.ssh_port)
        }
        fn console(&self, _: &Id) -> Vec<String> {
            vec!["Kernel panic".into()]
        }
        fn forget(&self, id: &Id) {
            let mut facts = self.facts();
            facts.saved.remove(id);
            facts.results.remove(id);
        }
        fn port_is_free(&self, port: u16) -> bool {
            !self.facts().busy.contains(&port)
        }
        fn random(&self) -> u16 {
            let mut facts = self.facts();
            facts.numbers += 1;
            facts.numbers
        }
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_800_000_000 + self.facts().clock).unwrap()
        }
    }

    pub(crate) fn keeper(world: &Arc<Fake>) -> Arc<Keeper> {
        Keeper::new(settings(), Ok("user-mode-linux 6.12.113".into()), Arc::<Fake>::clone(world))
    }

    fn request(mr: u64) -> Request {
        let mut body = body();
        body["mr"] = mr.into();
        Request::check(serde_json::from_value(body).unwrap(), &settings().limits).unwrap()
    }

    /// Waits until the thread that makes a sandbox has done its part.
    fn made(keeper: &Keeper) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while keeper.lock().values().any(|entry| matches!(entry.made, Made::Disk | Made::Unit)) {
            assert!(std::time::Instant::now() < deadline, "a sandbox is never made");
            std::thread::yield_now();
        }
    }

    fn start(keeper: &Arc<Keeper>, mr: u64) -> Sandbox {
        let sandbox = keeper.start(request(mr)).unwrap();
        assert_eq!(sandbox.state, State::Starting);
        made(keeper);
        sandbox
    }

    #[test]
    fn a_sandbox_from_start_to_end() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        let sandbox = start(&keeper, 1);
        assert_eq!((sandbox.ssh_port, sandbox.web_port), (2200, 3100));
        keeper.look(true);
        assert_eq!(keeper.show("sb-0001").unwrap().state, State::Starting);
        world.facts().answering.push(2200);
        keeper.look(false);
        let shown = keeper.show("sb-0001").unwrap();
        assert_eq!((shown.state, shown.host_key.as_str()), (State::Ready, "ssh-ed25519 AAAA"));
        assert_eq!(keeper.stop("sb-0001").unwrap().state, State::Stopping);
        keeper.look(false);
        assert_eq!(keeper.list(), []);
        assert!(world.is_empty());
        assert!(matches!(keeper.stop("sb-0001"), Err(Refused::NotFound(_))));
    }

    #[test]
    fn there_are_never_more_than_two() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        world.facts().busy = vec![2201, 3100];
        let first = start(&keeper, 1);
        let second = start(&keeper, 2);
        assert_eq!((first.ssh_port, first.web_port, second.ssh_port, second.web_port), (2200, 3101, 2202, 3102));
        assert!(matches!(keeper.start(request(1)), Err(Refused::Exists(_))));
        assert!(matches!(keeper.start(request(3)), Err(Refused::Capacity(_))));
        // One that is told to end has its place until it is gone.
        world.facts().deaf = true;
        assert!(matches!(keeper.stop("sb-0001"), Err(Refused::System(_))));
        assert!(matches!(keeper.start(request(3)), Err(Refused::Capacity(_))));
        world.facts().deaf = false;
        keeper.look(true);
        keeper.look(true);
        assert_eq!(start(&keeper, 3).ssh_port, 2200);
    }

    #[test]
    fn what_cannot_be_made_leaves_a_reason_and_nothing_else() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        world.facts().no_commit = true;
        assert_eq!(keeper.start(request(1)), Err(Refused::BadRequest("no such commit".into())));
        world.facts().no_commit = false;
        for (no_disk, reason) in [(true, "disk full"), (false, "systemd said no")] {
            world.facts().no_disk = no_disk;
            world.facts().no_unit = !no_disk;
            let id = start(&keeper, 1).id;
            let shown = keeper.show(id.as_str()).unwrap();
            assert_eq!((shown.state, shown.reason.as_deref()), (State::Failed, Some(reason)));
            assert_eq!(keeper.list().len(), 1, "the one that failed before it is forgotten");
            assert!(world.is_empty());
        }
        world.facts().clock += 601;
        keeper.look(true);
        assert_eq!(keeper.list(), []);
    }

    #[test]
    fn one_that_never_answers_is_given_up() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        start(&keeper, 1);
        world.facts().clock += 300;
        keeper.look(false);
        let shown = keeper.show("sb-0001").unwrap();
        assert_eq!((shown.state, shown.console.as_slice()), (State::Failed, ["Kernel panic".to_owned()].as_slice()));
        keeper.look(false);
        assert!(world.is_empty());
        keeper.stop("sb-0001").unwrap();
        assert_eq!(keeper.list(), []);
    }

    #[test]
    fn an_end_from_outside_is_seen() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        for (result, left) in [("success", 0), ("timeout", 0), ("signal", 1)] {
            let id = start(&keeper, 1).id;
            world.end(&id, result);
            keeper.look(false);
            assert_eq!(keeper.list().len(), left, "{result}");
            assert!(world.is_empty());
        }
        // A unit that is gone without a word.
        let id = start(&keeper, 2).id;
        world.facts().units.clear();
        keeper.look(true);
        assert_eq!(keeper.show(id.as_str()).unwrap().state, State::Failed);
    }

    #[test]
    fn a_sandbox_expires() {
        let world = Arc::new(Fake::default());
        let keeper = keeper(&world);
        start(&keeper, 1);
        world.facts().answering.push(2200);
        keeper.look(false);
        world.facts().clock += 600;
        keeper.look(false);
        keeper.look(false);
        assert_eq!(keeper.list(), []);
        assert!(world.is_empty());
    }

    #[test]
    fn a_new_daemon_keeps_what_runs_and_removes_the_rest() {
        let world = Arc::new(Fake::default());
        let first = keeper(&world);
        let kept = start(&first, 1).id;
        let ended = start(&first, 2).id;
        {
            let mut facts = world.facts();
            facts.units.retain(|id| *id != ended); // it ended while no daemon was there
            facts.units.push(Id::new(0x77)); // nobody knows it
            facts.saved.insert(Id::new(0x88), None); // half-made
        }
        let second = keeper(&world);
        assert_eq!(
            second.list().iter().map(|sandbox| sandbox.id.clone()).collect::<Vec<_>>(),
            std::slice::from_ref(&kept)
        );
        assert_eq!(world.facts().units, std::slice::from_ref(&kept));
        assert_eq!(world.facts().saved.keys().cloned().collect::<Vec<_>>(), std::slice::from_ref(&kept));
        // One that was told to end just before is ended now.
        let mut sandbox = second.show(kept.as_str()).unwrap();
        sandbox.state = State::Stopping;
        world.save(&sandbox).unwrap();
        let third = keeper(&world);
        third.look(true);
        assert_eq!(third.list(), []);
        assert!(world.is_empty());
    }

    #[test]
    fn a_new_daemon_forgets_nothing_if_systemd_does_not_answer() {
        let world = Arc::new(Fake::default());
        let kept = start(&keeper(&world), 1).id;
        world.facts().deaf = true;
        let second = keeper(&world);
        second.look(true);
        assert_eq!(second.list()[0].id, kept);
        world.facts().deaf = false;
        second.stop(kept.as_str()).unwrap();
        second.look(true);
        assert!(world.is_empty());
    }

    #[test]
    fn without_a_backend_nothing_starts() {
        let world = Arc::new(Fake::default());
        let keeper = Keeper::new(settings(), Err("there is no /dev/kvm".into()), world);
        assert_eq!(keeper.start(request(1)), Err(Refused::NoBackend("there is no /dev/kvm".into())));
    }
}
