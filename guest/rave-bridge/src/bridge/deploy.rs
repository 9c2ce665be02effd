//! `deploy` and `confirm`: running the pipeline of the default branch, which is asked for twice.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::quick::forge_failed;
use super::{Bridge, Job, locked};
use crate::audit::{effects, hex};
use crate::forge::Pipeline;
use crate::people::Person;
use crate::reply::{Answer, Code, tame};
use crate::template;

/// How long a confirmation is waited for.
const WAIT: Duration = Duration::from_secs(60);
/// How many confirmations are waited for at once; the oldest gives way.
const MANY: usize = 256;

/// What waits to be confirmed. It does not outlive the bridge: whoever confirms too late asks again.
#[derive(Debug, Default)]
pub(super) struct Nonces(Vec<Pending>);

#[derive(Debug)]
struct Pending {
    nonce: String,
    sender: String,
    room: String,
    project: String,
    until: Instant,
}

impl Nonces {
    fn ask(&mut self, sender: &str, room: &str, project: &str, now: Instant) -> io::Result<String> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let nonce = hex(&bytes);
        self.0.retain(|pending| now < pending.until);
        if self.0.len() >= MANY {
            self.0.remove(0);
        }
        let own = str::to_owned;
        self.0.push(Pending {
            nonce: nonce.clone(),
            sender: own(sender),
            room: own(room),
            project: own(project),
            until: now + WAIT,
        });
        Ok(nonce)
    }

    /// The project that is confirmed: once, in time, by the same sender in the same room.
    fn confirm(&mut self, nonce: &str, sender: &str, room: &str, now: Instant) -> Option<String> {
        let fits = |pending: &Pending| {
            pending.nonce == nonce && pending.sender == sender && pending.room == room && now < pending.until
        };
        let position = self.0.iter().position(fits)?;
        Some(self.0.remove(position).project)
    }
}

impl Bridge {
    pub(super) async fn ask_to_deploy(self: &Arc<Self>, job: Job, name: String, person: Person) {
        let answer = match self.visible_project(&name, &person).await {
            Err(answer) => answer,
            Ok(_) => {
                let nonce = locked(&self.nonces).ask(&job.sender, &job.room, &name, Instant::now());
                match nonce {
                    Ok(nonce) => {
                        let text =
                            format!("To deploy {name}, write within {} s: !rave confirm {nonce}", WAIT.as_secs());
                        Answer::new(Code::Confirm, text)
                    }
                    Err(error) => {
                        tracing::error!(%error, "no random numbers");
                        Answer::new(Code::Internal, "The bridge could not make a nonce.")
                    }
                }
            }
        };
        self.end(&job, answer).await;
    }

    pub(super) async fn confirm(self: &Arc<Self>, mut job: Job, nonce: String, person: Person) {
        let name = match job.effects.get("project").filter(|_| job.begun.is_some()) {
            Some(name) => name.clone(),
            None => {
                let confirmed = locked(&self.nonces).confirm(&nonce, &job.sender, &job.room, Instant::now());
                confirmed.unwrap_or_default()
            }
        };
        if name.is_empty() {
            let text =
                "There is nothing to confirm with that: it was used, came too late, or belongs to somebody else.";
            return self.end(&job, Answer::new(Code::NotFound, text)).await;
        }
        job.effects.extend(effects([("project", name.clone())]));
        if self.begin(&job).await.is_err() {
            return;
        }
        self.accepted(&job, &format!("Deploying {name}.")).await;
        self.later(job, |bridge, mut job| async move {
            let answer = bridge.deploy(&mut job, &name, &person).await.unwrap_or_else(|answer| answer);
            bridge.end(&job, answer).await;
        });
    }

    async fn deploy(&self, job: &mut Job, name: &str, person: &Person) -> Result<Answer, Answer> {
        let failed = |error| forge_failed(&error);
        let project = self.visible_project(name, person).await?;
        let branch = project.default_branch.as_deref().unwrap_or(template::MAIN);
        let started = match job.begun {
            Some(begun) => self
                .forge
                .pipelines(project.id, branch)
                .await
                .map_err(failed)?
                .into_iter()
                .find(|pipeline| is_ours(pipeline, begun)),
            None => None,
        };
        let pipeline = match started {
            Some(pipeline) => pipeline,
            None => self.forge.start_pipeline(project.id, branch).await.map_err(failed)?,
        };
        job.effects.extend(effects([("pipeline", pipeline.id.to_string())]));
        let text = format!("{name}: pipeline {} runs on {branch}, now {}.", pipeline.id, tame(&pipeline.status));
        Ok(Answer::new(Code::Done, text).with_links(pipeline.web_url.into_iter().collect()))
    }
}

/// Whether an earlier run of the bridge started this pipeline.
fn is_ours(pipeline: &Pipeline, begun: jiff::Timestamp) -> bool {
    pipeline.source.as_deref() == Some("api")
        && pipeline.created_at.is_some_and(|created| created.as_second() >= begun.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_for_its_sender_in_its_room_and_time() {
        let (mut nonces, start) = (Nonces::default(), Instant::now());
        let mut ask = |project: &str| nonces.ask("@m:x", "!r", project, start).unwrap();
        let (first, second) = (ask("one"), ask("two"));
        let mut confirm = |nonce: &str, sender, room, seconds| {
            nonces.confirm(nonce, sender, room, start + Duration::from_secs(seconds))
        };
        assert_eq!(confirm(&first, "@d:x", "!r", 1), None);
        assert_eq!(confirm(&first, "@m:x", "!other", 1), None);
        assert_eq!(confirm("0000", "@m:x", "!r", 1), None);
        assert_eq!(confirm(&first, "@m:x", "!r", 59).as_deref(), Some("one"));
        assert_eq!(confirm(&first, "@m:x", "!r", 59), None);
        assert_eq!(confirm(&second, "@m:x", "!r", 60), None);
    }
}
