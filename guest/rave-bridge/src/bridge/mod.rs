//! The bridge itself: takes in what concerns it, works it off in order of each sender, and ends every command exactly once.

mod delivery;
mod deploy;
mod job;
mod project;
mod quick;
mod recovery;
mod rooms;
mod sandboxes;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::agents::Agents;
use crate::audit::{AuditError, BodyDigest, Decision, Durability, Log, Memory, Record, fingerprint};
use crate::directory::Directory;
use crate::forge::Forge;
use crate::intake::{Incoming, Own, Transaction, What};
use crate::limits::{Limits, Verdict};
use crate::matrix::Matrix;
use crate::people::People;
use crate::reply::{Answer, Code};
use crate::sandbox::Sandboxes;
use crate::settings::Settings;

use self::deploy::Nonces;
use self::job::{Ask, Job};

/// How many commands that take their time may run at once; the others wait for their turn.
const LONG_COMMANDS: usize = 8;

/// The bridge.
#[derive(Debug)]
pub struct Bridge {
    settings: Settings,
    log: Log,
    matrix: Matrix,
    forge: Forge,
    people: People,
    sandboxes: Sandboxes,
    agents: Agents,
    intake: tokio::sync::Mutex<Seen>,
    limits: Mutex<Limits>,
    /// What is still to do, by sender. A sender has an entry while somebody works for them.
    queues: Mutex<HashMap<String, VecDeque<Work>>>,
    /// Rooms in which no outsider was seen.
    good_rooms: Mutex<HashSet<String>>,
    nonces: Mutex<Nonces>,
    /// Sandboxes to look after: how their start ended, and why they are being stopped, if they are.
    watched: Mutex<BTreeMap<String, (Record, Option<String>)>>,
    long: tokio::sync::Semaphore,
}

#[derive(Debug)]
struct Seen {
    events: HashSet<u128>,
    encrypted: HashSet<String>,
}

/// Something to do for a sender.
#[derive(Debug)]
enum Work {
    Command(Box<Job>),
    Invitation { event_id: String, room: String, sender: String, recovered: bool },
    CheckRoom(String),
    TellEncrypted(String),
}

impl Bridge {
    /// Puts the bridge together from its settings, its log, and what the log remembers. What was left open is taken up at once.
    ///
    /// # Errors
    /// If a client cannot be made from the settings.
    pub fn new(settings: Settings, log: Log, memory: Memory) -> Result<Arc<Self>, anyhow::Error> {
        let Memory { seen, open, sandboxes, untold, encrypted, .. } = memory;
        let remember = std::time::Duration::from_secs(settings.limits.role_cache_seconds);
        let bridge = Arc::new(Self {
            log,
            matrix: Matrix::new(&settings)?,
            forge: Forge::new(&settings.forge)?,
            people: People::new(Directory::new(&settings.directory)?, remember),
            sandboxes: Sandboxes::new(&settings.sandbox)?,
            agents: Agents::new(settings.systemctl.clone()),
            intake: tokio::sync::Mutex::new(Seen { events: seen, encrypted }),
            limits: Mutex::new(Limits::new(settings.limits.clone())),
            queues: Mutex::default(),
            good_rooms: Mutex::default(),
            nonces: Mutex::default(),
            watched: Mutex::new(sandboxes.into_iter().map(|(id, record)| (id, (record, None))).collect()),
            long: tokio::sync::Semaphore::new(LONG_COMMANDS),
            settings,
        });
        bridge.recover(open, untold);
        Ok(bridge)
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who the bridge is.
    #[must_use]
    pub fn own(&self) -> Own<'_> {
        Own { user_id: &self.settings.user_id, server_name: &self.settings.server_name }
    }

    /// Takes in a transaction: writes down what is new in it, and begins to work. The same event is taken in once, however often and in
    /// whatever transaction it comes.
    ///
    /// # Errors
    /// If it could not be written down; then nothing is done.
    pub async fn take_in(self: &Arc<Self>, txn: &str, transaction: Transaction) -> Result<(), AuditError> {
        let Transaction { events, malformed } = transaction;
        let mut records = vec![];
        let mut work = vec![];
        // Held until all is on disk, so that a transaction sent twice at once is not answered before that.
        let mut seen = self.intake.lock().await;
        if malformed > 0 {
            records.push(Record {
                reason: Some(format!("{malformed} malformed events")),
                ..Record::new(Decision::Ignored)
            });
        }
        for incoming in events {
            let Incoming { event_id, room, sender, what } = incoming;
            match what {
                What::Gone => {
                    locked(&self.good_rooms).remove(&room);
                }
                What::Outsider => {
                    locked(&self.good_rooms).remove(&room);
                    work.push((sender, Work::CheckRoom(room)));
                }
                what if !seen.events.insert(fingerprint(&event_id)) => tracing::debug!(?what, "seen before"),
                What::Encrypted => {
                    if seen.encrypted.insert(room.clone()) {
                        records.push(record(Decision::Encrypted, &event_id, &room, &sender));
                        work.push((sender, Work::TellEncrypted(room)));
                    }
                }
                What::Ignored(reason) => {
                    records.push(Record {
                        reason: Some(reason.to_owned()),
                        ..record(Decision::Ignored, &event_id, &room, &sender)
                    });
                }
                What::Invitation => {
                    let reason = Some("invitation".to_owned());
                    match locked(&self.limits).take(&sender, &room, Instant::now()) {
                        Verdict::Pass => {
                            records.push(Record { reason, ..record(Decision::Received, &event_id, &room, &sender) });
                            work.push((sender.clone(), Work::Invitation { event_id, room, sender, recovered: false }));
                        }
                        Verdict::Slow { .. } | Verdict::Silence(_) => {
                            let code = Some(Code::RateLimited);
                            records.push(Record {
                                code,
                                reason,
                                ..record(Decision::Refused, &event_id, &room, &sender)
                            });
                        }
                    }
                }
                What::Command(command) => {
                    let ask = Ask::Command(command);
                    self.ask(Job::new(event_id, room, sender, ask), None, &mut records, &mut work);
                }
                What::Misused { code, text, body } => {
                    let ask = Ask::Answered(Answer::new(code, text));
                    self.ask(Job::new(event_id, room, sender, ask), Some(body), &mut records, &mut work);
                }
            }
        }
        records.iter_mut().for_each(|record| record.txn = Some(txn.to_owned()));
        self.log.write(records, Durability::Synced).await?;
        drop(seen);
        for (sender, work) in work {
            self.enqueue(sender, work);
        }
        Ok(())
    }

    /// Writes down a request that was refused at the door.
    ///
    /// # Errors
    /// If it could not be written down.
    pub async fn refused_at_the_door(
        &self,
        status: u16,
        reason: String,
        body: Option<BodyDigest>,
    ) -> Result<(), AuditError> {
        let reason = Some(format!("{status}: {reason}"));
        self.log.write(vec![Record { reason, body, ..Record::new(Decision::Http) }], Durability::Buffered).await
    }

    /// Returns once nothing can be written down any more.
    pub async fn log_failed(&self) -> String {
        self.log.failed().await
    }

    /// Asks the homeserver to reach the bridge, until it does: then it delivers at once what it has kept.
    pub async fn announce(&self) {
        let mut pauses = crate::wait::Pauses::without_end(std::time::Duration::from_secs(5));
        while let Err(error) = self.matrix.ping().await {
            tracing::debug!(%error, "not announced yet");
            pauses.next().await;
        }
    }

    /// Judges what a sender asks, and writes down what becomes of it.
    fn ask(&self, job: Job, body: Option<BodyDigest>, records: &mut Vec<Record>, work: &mut Vec<(String, Work)>) {
        let sender = job.sender.clone();
        match locked(&self.limits).take(&job.sender, &job.room, Instant::now()) {
            Verdict::Pass => {
                records.push(Record { body, ..job.received() });
                work.push((sender, Work::Command(Box::new(job))));
            }
            Verdict::Slow { retry_after } => {
                let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                let text = format!("Too many commands. Try again in {} s.", milliseconds.div_ceil(1000));
                let answer = Answer { retry_after_ms: Some(milliseconds), ..Answer::new(Code::RateLimited, text) };
                let job = Job { ask: Ask::Answered(answer), ..job };
                records.push(Record { body, ..job.received() });
                work.push((sender, Work::Command(Box::new(job))));
            }
            Verdict::Silence(reason) => {
                let code = Some(Code::RateLimited);
                records.push(Record { body, code, reason: Some(reason.to_owned()), ..job.record(Decision::Refused) });
            }
        }
    }

    fn enqueue(self: &Arc<Self>, sender: String, work: Work) {
        let mut queues = locked(&self.queues);
        if let Some(queue) = queues.get_mut(&sender) {
            queue.push_back(work);
        } else {
            queues.insert(sender.clone(), VecDeque::from([work]));
            tokio::spawn(Arc::clone(self).work_off(sender));
        }
    }

    /// Works for one sender until there is nothing left to do.
    async fn work_off(self: Arc<Self>, sender: String) {
        loop {
            let work = {
                let mut queues = locked(&self.queues);
                let next = queues.get_mut(&sender).and_then(VecDeque::pop_front);
                if next.is_none() {
                    queues.remove(&sender);
                }
                next
            };
            match work {
                None => return,
                Some(Work::Command(job)) => self.guarded(*job, Self::command).await,
                Some(Work::Invitation { event_id, room, sender, recovered }) => {
                    self.invited(&event_id, &room, &sender, recovered).await
                }
                Some(Work::CheckRoom(room)) => drop(self.may_be_in(&room).await),
                Some(Work::TellEncrypted(room)) => Arc::clone(&self).tell_encrypted(room).await,
            }
        }
    }
}

/// A record about an event.
fn record(decision: Decision, event_id: &str, room: &str, sender: &str) -> Record {
    let own = |text: &str| Some(text.to_owned());
    Record { event_id: own(event_id), room: own(room), sender: own(sender), ..Record::new(decision) }
}

/// The state behind a lock. None of it is left half changed by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
