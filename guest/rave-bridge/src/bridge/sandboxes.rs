//! Sandboxes: started for a merge request, stopped by who may, and looked after until they end, which their room is told.

use std::sync::Arc;
use std::time::Duration;

use super::quick::{forge_failed, sandbox_failed};
use super::{Bridge, Job, locked};
use crate::audit::{Decision, Durability, Record, effects};
use crate::forge::{MergeRequest, Project};
use crate::people::{Person, Role};
use crate::reply::{Answer, Code, tame};
use crate::sandbox::{Sandbox, SandboxError, State, Wanted};
use crate::wait::Pauses;

/// The longest pause between two looks at a sandbox that starts or ends.
const LOOK: Duration = Duration::from_secs(2);
/// How long a sandbox may take to end.
const END_WITHIN: Duration = Duration::from_secs(60);

/// What a sandbox is for.
#[derive(Debug, Clone)]
struct Purpose {
    project: Project,
    request: MergeRequest,
    sha: String,
    keys: Vec<String>,
    person: Person,
}

impl Bridge {
    pub(super) async fn start_sandbox(self: &Arc<Self>, mut job: Job, project: String, number: u64, person: Person) {
        let purpose = match self.purpose(&project, number, &person, job.begun.is_some()).await {
            Ok(purpose) => purpose,
            Err(answer) => return self.end(&job, answer).await,
        };
        job.effects.extend(effects([
            ("project", purpose.project.path_with_namespace.clone()),
            ("project_id", purpose.project.id.to_string()),
            ("mr", number.to_string()),
            ("sha", purpose.sha.clone()),
        ]));
        if self.begin(&job).await.is_err() {
            return;
        }
        self.accepted(&job, &format!("Starting a sandbox for {project} !{number}.")).await;
        self.later(job, |bridge, job| bridge.run_sandbox(job, purpose));
    }

    pub(super) async fn stop_sandbox(self: &Arc<Self>, job: Job, id: String, person: Person) {
        let missing = || Answer::new(Code::NotFound, format!("There is no sandbox {id}."));
        let owner = match self.sandboxes.find(&id).await {
            Ok(Some(sandbox)) => sandbox.requested_by,
            // An earlier run of the bridge stopped it.
            Ok(None) if job.begun.is_some() => return self.end(&job, stopped(&id)).await,
            Ok(None) => return self.end(&job, missing()).await,
            Err(error) => return self.end(&job, sandbox_failed(&error)).await,
        };
        if owner != person.username && person.role < Role::Maintainer {
            let text = "Only its owner or a maintainer may stop a sandbox.";
            return self.end(&job, Answer::new(Code::Denied, text)).await;
        }
        if self.begin(&job).await.is_err() {
            return;
        }
        self.accepted(&job, &format!("Stopping sandbox {id}.")).await;
        self.later(job, |bridge, job| async move {
            bridge.is_stopping(&id, format!("{} stopped it", person.username));
            let answer = match bridge.end_sandbox(&id).await {
                Ok(()) => stopped(&id),
                Err(answer) => answer,
            };
            bridge.end(&job, answer).await;
        });
    }

    /// Looks after sandboxes for as long as the bridge runs.
    pub async fn watch_sandboxes(self: Arc<Self>) {
        let mut looks = tokio::time::interval(self.settings.sandbox.watch_every);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let watched: Vec<_> = locked(&self.watched)
                .iter()
                .map(|(id, (record, reason))| (id.clone(), record.clone(), reason.clone()))
                .collect();
            if watched.is_empty() {
                continue;
            }
            let running = match self.sandboxes.list().await {
                Ok(running) => running,
                Err(error) => {
                    tracing::warn!(%error, "sandboxes cannot be looked after");
                    continue;
                }
            };
            for (id, started, reason) in watched {
                match running.iter().find(|sandbox| sandbox.id == id) {
                    None => self.sandbox_ended(&id, started, reason).await,
                    Some(sandbox) => self.look_after(sandbox, &started, reason.is_some()).await,
                }
            }
        }
    }

    async fn purpose(&self, name: &str, number: u64, person: &Person, begun: bool) -> Result<Purpose, Answer> {
        let failed = |error| forge_failed(&error);
        let project = self.visible_project(name, person).await?;
        let Some(request) = self.forge.merge_request(project.id, number).await.map_err(failed)? else {
            return Err(Answer::new(Code::NotFound, format!("Project {name} has no merge request !{number}.")));
        };
        if request.state != "opened" && !begun {
            return Err(Answer::new(Code::Conflict, format!("Merge request !{number} is {}.", tame(&request.state))));
        }
        let Some(sha) = request.sha.clone() else {
            return Err(Answer::new(Code::Failed, format!("Merge request !{number} has no commit.")));
        };
        let keys = self.forge.keys(person.id).await.map_err(failed)?;
        if keys.is_empty() {
            let text = "Your account has no SSH key, so you could not enter. Add a public key to your account at the forge, then try again.";
            return Err(Answer::new(Code::Failed, text));
        }
        Ok(Purpose { project, request, sha, keys, person: person.clone() })
    }

    async fn run_sandbox(self: Arc<Self>, mut job: Job, purpose: Purpose) {
        let answer = match self.ready_sandbox(&mut job, &purpose).await {
            Ok(sandbox) => self.tell_ready(&mut job, &purpose, &sandbox).await,
            Err(answer) => answer,
        };
        // Watched only once its start has ended, so that the room hears of the start first.
        let watched = (answer.code == Code::Done).then(|| job.record(Decision::Ended));
        self.end(&job, answer).await;
        if let (Some(record), Some(id)) = (watched, job.effects.get("sandbox")) {
            locked(&self.watched).insert(id.clone(), (record, None));
        }
    }

    /// A sandbox that answers. One that does not is taken away again.
    async fn ready_sandbox(&self, job: &mut Job, purpose: &Purpose) -> Result<Sandbox, Answer> {
        let failed = |error| sandbox_failed(&error);
        let made = match self.sandbox_of_earlier_run(job, purpose).await? {
            Some(sandbox) => sandbox,
            None => {
                let wanted = Wanted {
                    project: &purpose.project.path_with_namespace,
                    project_id: purpose.project.id,
                    mr: purpose.request.iid,
                    sha: &purpose.sha,
                    repository: &purpose.project.http_url_to_repo,
                    authorized_keys: &purpose.keys,
                    requested_by: &purpose.person.username,
                    ttl_seconds: self.settings.sandbox.life.as_secs(),
                };
                self.sandboxes.start(&wanted).await.map_err(failed)?
            }
        };
        let id = made.id;
        let internal = |_| Answer::new(Code::Internal, "The bridge could not write down what it did.");
        let known = effects([("sandbox", id.clone()), ("expires_at", made.expires_at.to_string())]);
        self.progress(job, known).await.map_err(internal)?;

        let mut pauses = Pauses::within(self.settings.sandbox.ready_within, LOOK);
        let why = loop {
            match self.sandboxes.find(&id).await {
                Ok(Some(sandbox)) if sandbox.state == State::Ready => return Ok(sandbox),
                Ok(Some(sandbox)) if sandbox.state == State::Failed => {
                    break sandbox.reason.map_or("it failed".to_owned(), |reason| tame(&reason));
                }
                Ok(None) => break "it ended".to_owned(),
                Ok(Some(_)) | Err(SandboxError::Unavailable(_)) if pauses.next().await => {}
                Ok(Some(_)) => {
                    break format!("it did not answer within {} s", self.settings.sandbox.ready_within.as_secs());
                }
                Err(error) => break error.to_string(),
            }
        };
        let taken_away = self.end_sandbox(&id).await.is_ok();
        job.effects.remove("sandbox");
        let rest = if taken_away { "" } else { " It could not be taken away." };
        Err(Answer::new(Code::Failed, format!("Sandbox {id} did not become ready: {why}.{rest}")))
    }

    /// The sandbox that an earlier run of the bridge made for this command, if it came so far.
    async fn sandbox_of_earlier_run(&self, job: &Job, purpose: &Purpose) -> Result<Option<Sandbox>, Answer> {
        let Some(begun) = job.begun else { return Ok(None) };
        let running = self.sandboxes.list().await.map_err(|error| sandbox_failed(&error))?;
        let known = job.effects.get("sandbox");
        let own = |sandbox: &Sandbox| match known {
            Some(id) => sandbox.id == *id,
            None => {
                sandbox.project == purpose.project.path_with_namespace
                    && sandbox.mr == purpose.request.iid
                    && sandbox.requested_by == purpose.person.username
                    // The daemon may count in whole seconds.
                    && sandbox.created_at.as_second() >= begun.as_second()
            }
        };
        match (running.into_iter().find(own), known) {
            (None, Some(id)) => {
                Err(Answer::new(Code::Failed, format!("Sandbox {id} ended while the bridge was away.")))
            }
            (found, _) => Ok(found),
        }
    }

    async fn tell_ready(&self, job: &mut Job, purpose: &Purpose, sandbox: &Sandbox) -> Answer {
        let [ssh, web] = sandbox.links();
        let where_it_is =
            format!("Sandbox {} of {} is ready: {ssh} {web}", tame(&sandbox.id), tame(&purpose.person.username));
        let until = format!("It ends at {:.0}, or when the merge request is merged or closed.", sandbox.expires_at);
        let noted = match self
            .forge
            .note(purpose.project.id, purpose.request.iid, &format!("{where_it_is}\n\n{until}"))
            .await
        {
            Ok(()) => "",
            Err(error) => {
                tracing::warn!(%error, "the note on a merge request could not be written");
                " The note on the merge request could not be written."
            }
        };
        job.effects
            .extend(effects([("ssh_port", sandbox.ssh_port.to_string()), ("web_port", sandbox.web_port.to_string())]));
        let links = vec![ssh, web, purpose.request.web_url.clone()];
        Answer::new(Code::Done, format!("{where_it_is}\n{until}{noted}")).with_links(links)
    }

    /// Ends a sandbox and returns once it is gone.
    async fn end_sandbox(&self, id: &str) -> Result<(), Answer> {
        let mut pauses = Pauses::within(END_WITHIN, LOOK);
        self.sandboxes.stop(id).await.map_err(|error| sandbox_failed(&error))?;
        while self.sandboxes.find(id).await.map_err(|error| sandbox_failed(&error))?.is_some() {
            if !pauses.next().await {
                return Err(Answer::new(
                    Code::Failed,
                    format!("Sandbox {id} has not ended within {} s.", END_WITHIN.as_secs()),
                ));
            }
        }
        Ok(())
    }

    /// Ends a sandbox whose merge request is over, or that has failed.
    async fn look_after(&self, sandbox: &Sandbox, started: &Record, is_stopping: bool) {
        if is_stopping || sandbox.state == State::Stopping {
            return;
        }
        let reason = if sandbox.state == State::Failed {
            Some(sandbox.reason.as_deref().map_or("it failed".to_owned(), tame))
        } else {
            self.over(started).await
        };
        let Some(reason) = reason else { return };
        let record = Record {
            reason: Some(reason.clone()),
            ..Record { reply: None, decision: Decision::Progress, ..started.clone() }
        };
        if self.log.write(vec![record], Durability::Synced).await.is_err() {
            return;
        }
        match self.sandboxes.stop(&sandbox.id).await {
            Ok(()) => self.is_stopping(&sandbox.id, reason),
            Err(error) => tracing::warn!(%error, "a sandbox could not be ended"),
        }
    }

    /// Why a sandbox's merge request needs none any more.
    async fn over(&self, started: &Record) -> Option<String> {
        let number = |name: &str| started.effects.get(name).and_then(|value| value.parse().ok());
        let (project, request) = (number("project_id")?, number("mr")?);
        match self.forge.merge_request(project, request).await {
            Ok(Some(request)) if request.state == "merged" || request.state == "closed" => {
                Some(format!("the merge request was {}", request.state))
            }
            Ok(Some(_)) => None,
            Ok(None) => Some("the merge request is gone".to_owned()),
            Err(error) => {
                tracing::warn!(%error, "a merge request cannot be looked at");
                None
            }
        }
    }

    async fn sandbox_ended(self: &Arc<Self>, id: &str, started: Record, reason: Option<String>) {
        let expired = || {
            let expires = started.effects.get("expires_at").and_then(|time| time.parse::<jiff::Timestamp>().ok());
            expires.is_some_and(|expires| jiff::Timestamp::now() >= expires)
        };
        let reason = match reason {
            Some(reason) => reason,
            None => match self.over(&started).await {
                Some(reason) => reason,
                None if expired() => "its time was up".to_owned(),
                None => "it was stopped".to_owned(),
            },
        };
        let effects = effects([("sandbox", id.to_owned())]);
        let text = format!("Sandbox {id} has ended: {reason}.");
        let ended = Record {
            decision: Decision::SandboxEnded,
            verb: Some("sandbox ended".to_owned()),
            args: vec![],
            code: Some(Code::Ok),
            reason: Some(reason),
            effects,
            reply: Some(Answer::new(Code::Ok, text)),
            ..started
        };
        if self.log.write(vec![ended.clone()], Durability::Synced).await.is_ok() {
            locked(&self.watched).remove(id);
            self.deliver_sandbox_end(ended).await;
        }
    }

    fn is_stopping(&self, id: &str, reason: String) {
        if let Some((_, stopping)) = locked(&self.watched).get_mut(id) {
            stopping.get_or_insert(reason);
        }
    }
}

fn stopped(id: &str) -> Answer {
    Answer::new(Code::Done, format!("Sandbox {id} is stopped."))
}
