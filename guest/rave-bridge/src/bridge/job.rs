//! One command, from being taken in to its last reply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bridge, locked, record};
use crate::audit::{AuditError, Decision, Durability, Record};
use crate::command::Command;
use crate::people::{Person, Role, Standing};
use crate::reply::{Answer, Code};
use crate::wait::Pauses;

/// How long a command that was open at the start waits for the services it needs: they may be starting too.
const RECOVERY: Duration = Duration::from_secs(120);

/// A command being worked on.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub event_id: String,
    pub room: String,
    pub sender: String,
    pub ask: Ask,
    /// Who asks, once that is known.
    pub person: Option<Person>,
    /// It was open when the bridge started.
    pub recovered: bool,
    /// When it was begun, if an earlier run of the bridge did that.
    pub begun: Option<jiff::Timestamp>,
    /// What an earlier run made, and what this one has made so far.
    pub effects: BTreeMap<String, String>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Command(Command),
    /// It needs no looking into.
    Answered(Answer),
}

impl Job {
    pub fn new(event_id: String, room: String, sender: String, ask: Ask) -> Self {
        Self { event_id, room, sender, ask, person: None, recovered: false, begun: None, effects: BTreeMap::new() }
    }

    /// The record of its coming.
    pub fn received(&self) -> Record {
        let reply = match &self.ask {
            Ask::Command(_) => None,
            Ask::Answered(answer) => Some(answer.clone()),
        };
        Record { code: reply.as_ref().map(|answer| answer.code), reply, ..self.record(Decision::Received) }
    }

    /// A record about it.
    pub fn record(&self, decision: Decision) -> Record {
        let (verb, args) = match &self.ask {
            Ask::Command(command) => (Some(command.verb().to_owned()), command.arguments()),
            Ask::Answered(_) => (None, vec![]),
        };
        Record {
            external_id: self.person.as_ref().map(|person| person.id),
            user: self.person.as_ref().map(|person| person.username.clone()),
            role: self.person.as_ref().map(|person| person.role),
            verb,
            args,
            effects: self.effects.clone(),
            ..record(decision, &self.event_id, &self.room, &self.sender)
        }
    }

    pub fn verb(&self) -> &'static str {
        match &self.ask {
            Ask::Command(command) => command.verb(),
            Ask::Answered(_) => "",
        }
    }
}

impl Bridge {
    /// Does a job, and ends it even if it panics.
    pub(super) async fn guarded<F>(self: &Arc<Self>, job: Job, work: impl FnOnce(Arc<Self>, Job) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = tokio::spawn(work(Arc::clone(self), job.clone()));
        if task.await.is_err() {
            let answer = Answer::new(Code::Internal, "The bridge failed at this command. It is written down.");
            self.end(&job, answer).await;
        }
    }

    pub(super) async fn command(self: Arc<Self>, mut job: Job) {
        let mut pauses = Pauses::within(if job.recovered { RECOVERY } else { Duration::ZERO }, Duration::from_secs(2));
        let allowed = loop {
            match self.may_be_in(&job.room).await {
                Err(_) if job.recovered && pauses.next().await => {}
                answer => break answer,
            }
        };
        match allowed {
            Ok(true) => {}
            Ok(false) => return self.end_silently(&job, "not a room for the bridge").await,
            Err(error) => {
                tracing::warn!(%error, "a room cannot be looked into");
                return self.end(&job, Answer::unavailable("homeserver")).await;
            }
        }
        let command = match &job.ask {
            Ask::Answered(answer) => return self.end(&job, answer.clone()).await,
            Ask::Command(command) => command.clone(),
        };
        // Whoever was let in before the crash need not ask again: what was begun is to be ended.
        if job.begun.is_some() && job.person.is_some() {
            self.wait_for_services(&job.sender).await;
            return self.act(job, command).await;
        }
        if job.recovered {
            self.wait_for_services(&job.sender).await;
        }
        let person = match self.people.find(&self.forge, &job.sender).await {
            Ok(Standing::Linked(person)) => person,
            Ok(Standing::NotLinked) => {
                let text = "Your Matrix account is not linked to an account of the forge. Sign in to Matrix through the forge.";
                return self.end(&job, Answer::new(Code::NotLinked, text)).await;
            }
            Ok(Standing::Blocked(_)) => {
                return self.end(&job, Answer::new(Code::Denied, "Your account of the forge is blocked.")).await;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "it cannot be said who a sender is");
                return self.end(&job, Answer::unavailable("forge")).await;
            }
        };
        let (role, needed) = (person.role, needed_role(&command));
        job.person = Some(person);
        if role < needed {
            let text = format!("This takes the role {}; yours is {}.", needed.name(), role.name());
            return self.end(&job, Answer::new(Code::Denied, text)).await;
        }
        self.act(job, command).await;
    }

    async fn act(self: &Arc<Self>, job: Job, command: Command) {
        let Some(person) = job.person.clone() else { return };
        match command {
            Command::Help(_)
            | Command::Whoami
            | Command::Status
            | Command::ProjectStatus(_)
            | Command::SandboxList
            | Command::AgentList
            | Command::AgentStatus(_) => {
                let answer = self.answer(&command, &person).await;
                self.end(&job, answer).await;
            }
            Command::AgentStart(agent) => self.start_agent(job, agent).await,
            Command::AgentStop(agent) => self.stop_agent(job, agent).await,
            Command::ProjectCreate(name) => self.create_project(job, name, person).await,
            Command::SandboxStart(project, number) => self.start_sandbox(job, project, number, person).await,
            Command::SandboxStop(id) => self.stop_sandbox(job, id, person).await,
            Command::Deploy(project) => self.ask_to_deploy(job, project, person).await,
            Command::Confirm(nonce) => self.confirm(job, nonce, person).await,
        }
    }

    /// Writes down that a job is begun. Nothing may be done before that.
    pub(super) async fn begin(&self, job: &Job) -> Result<(), AuditError> {
        match job.begun {
            Some(_) => Ok(()),
            None => self.log.write(vec![job.record(Decision::Started)], Durability::Synced).await,
        }
    }

    /// Writes down what was made on the way.
    pub(super) async fn progress(&self, job: &mut Job, effects: BTreeMap<String, String>) -> Result<(), AuditError> {
        job.effects.extend(effects);
        self.log.write(vec![job.record(Decision::Progress)], Durability::Synced).await
    }

    /// Ends a job: writes the answer down, and delivers it.
    pub(super) async fn end(self: &Arc<Self>, job: &Job, answer: Answer) {
        let answer = if job.begun.is_some() && answer.code == Code::BackendUnavailable {
            // What the other answer says is not true of a command that an earlier run began.
            let text =
                "A service could not be reached when this was taken up again. What was made before is still there.";
            Answer::new(Code::Failed, text)
        } else {
            answer
        };
        if matches!(answer.code, Code::Denied | Code::NotLinked) {
            locked(&self.limits).denied(&job.sender, Instant::now());
        }
        tracing::info!(event = job.event_id, sender = job.sender, verb = job.verb(), code = ?answer.code, "command ended");
        let record = Record { code: Some(answer.code), reply: Some(answer), ..job.record(Decision::Ended) };
        match self.log.write(vec![record.clone()], Durability::Synced).await {
            Ok(()) => self.deliver_answer(record).await,
            Err(error) => tracing::error!(%error, "a command could not be ended"),
        }
    }

    async fn end_silently(&self, job: &Job, reason: &str) {
        let ended = Record { reason: Some(reason.to_owned()), code: Some(Code::Denied), ..job.record(Decision::Ended) };
        if let Err(error) = self.log.write(vec![ended, job.record(Decision::Replied)], Durability::Synced).await {
            tracing::error!(%error, "a command could not be ended");
        }
    }

    /// Does what takes its time beside the sender's other commands.
    pub(super) fn later<F>(self: &Arc<Self>, job: Job, work: impl FnOnce(Arc<Self>, Job) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = bridge.long.acquire().await;
            bridge.guarded(job, work).await;
        });
    }

    pub(super) async fn wait_for_services(&self, sender: &str) {
        let mut pauses = Pauses::within(RECOVERY, Duration::from_secs(2));
        while self.people.find(&self.forge, sender).await.is_err() && pauses.next().await {}
    }
}

fn needed_role(command: &Command) -> Role {
    match command {
        Command::Help(_) | Command::Whoami => Role::None,
        Command::Status
        | Command::ProjectStatus(_)
        | Command::SandboxList
        | Command::SandboxStop(_)
        | Command::AgentList
        | Command::AgentStatus(_) => Role::Viewer,
        Command::ProjectCreate(_) | Command::SandboxStart(..) | Command::AgentStart(_) | Command::AgentStop(_) => {
            Role::Developer
        }
        Command::Deploy(_) | Command::Confirm(_) => Role::Maintainer,
    }
}
