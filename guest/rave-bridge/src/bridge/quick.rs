//! Commands that are answered at once: questions, and agents.

use std::sync::Arc;

use super::{Bridge, Job};
use crate::agent::AgentType;
use crate::agents::AgentError;
use crate::command::{Command, USAGE};
use crate::forge::{ForgeError, Project};
use crate::people::{Person, Role};
use crate::reply::{Answer, Code, tame};
use crate::sandbox::SandboxError;
use crate::template;

impl Bridge {
    /// Answers a question. Nothing is changed by it.
    pub(super) async fn answer(&self, command: &Command, person: &Person) -> Answer {
        match command {
            Command::Help(about) => help(about.as_deref()),
            Command::Whoami => whoami(person),
            Command::Status => self.status().await,
            Command::ProjectStatus(name) => self.project_status(name, person).await.unwrap_or_else(|answer| answer),
            Command::SandboxList => self.sandbox_list().await,
            Command::AgentStatus(agent) => self.agent_states(&[*agent]).await,
            _ => self.agent_states(&AgentType::ALL).await,
        }
    }

    /// A project of the group, if the person may see it. To whom may not, it is not there.
    pub(super) async fn visible_project(&self, name: &str, person: &Person) -> Result<Project, Answer> {
        let project = self.forge.project(name).await.map_err(|error| forge_failed(&error))?;
        if let Some(project) = project {
            let level = self.forge.project_level(project.id, person.id).await.map_err(|error| forge_failed(&error))?;
            if Role::of(level) >= Role::Viewer {
                return Ok(project);
            }
        }
        Err(Answer::new(Code::NotFound, format!("There is no project {name}, or it is not yours to see.")))
    }

    async fn status(&self) -> Answer {
        let (forge, sandboxes, agents) =
            tokio::join!(self.forge.version(), self.sandboxes.list(), self.agents.states(&AgentType::ALL));
        let up = |good: bool| if good { "up" } else { "down" };
        let sandboxes = match sandboxes {
            Ok(list) => format!("sandboxes up ({} running)", list.len()),
            Err(_) => "sandboxes down".to_owned(),
        };
        let agents = match agents {
            Ok(states) => format!(
                "{} of {} agents running",
                states.iter().filter(|state| *state == "active").count(),
                states.len()
            ),
            Err(_) => "agents unknown".to_owned(),
        };
        // The answer itself shows that the bridge, the homeserver and its database are there.
        Answer::new(Code::Ok, format!("Bridge up, chat up, forge {}, {sandboxes}, {agents}.", up(forge.is_ok())))
    }

    async fn project_status(&self, name: &str, person: &Person) -> Result<Answer, Answer> {
        let project = self.visible_project(name, person).await?;
        let failed = |error| forge_failed(&error);
        let open = self.forge.open_merge_requests(project.id).await.map_err(failed)?;
        let branch = project.default_branch.as_deref().unwrap_or(template::MAIN);
        let pipelines = self.forge.pipelines(project.id, branch).await.map_err(failed)?;
        let pipeline = pipelines
            .first()
            .map_or("no pipeline yet".to_owned(), |last| format!("last pipeline {}", tame(&last.status)));
        let requests = match open.as_slice() {
            [] => "no open merge request".to_owned(),
            some => format!(
                "open merge requests: {}",
                some.iter().map(|request| format!("!{}", request.iid)).collect::<Vec<_>>().join(", ")
            ),
        };
        let mut links = vec![project.web_url.clone()];
        links.extend(open.into_iter().map(|request| request.web_url));
        Ok(Answer::new(Code::Ok, format!("{}: {requests}; {branch}: {pipeline}.", project.path_with_namespace))
            .with_links(links))
    }

    async fn sandbox_list(&self) -> Answer {
        match self.sandboxes.list().await {
            Ok(list) if list.is_empty() => Answer::new(Code::Ok, "No sandbox is running."),
            Ok(list) => {
                let lines: Vec<String> = list
                    .iter()
                    .map(|one| {
                        let state = format!("{:?}", one.state).to_lowercase();
                        format!(
                            "{}: {} !{}, {state}, for {}",
                            tame(&one.id),
                            tame(&one.project),
                            one.mr,
                            tame(&one.requested_by)
                        )
                    })
                    .collect();
                Answer::new(Code::Ok, lines.join("\n"))
            }
            Err(error) => sandbox_failed(&error),
        }
    }

    async fn agent_states(&self, agents: &[AgentType]) -> Answer {
        match self.agents.states(agents).await {
            Ok(states) => {
                let lines: Vec<String> =
                    agents.iter().zip(states).map(|(agent, state)| format!("{}: {state}", agent.name())).collect();
                Answer::new(Code::Ok, lines.join("\n"))
            }
            Err(error) => Answer::new(Code::Failed, format!("The agents' state cannot be had: {error}.")),
        }
    }

    pub(super) async fn start_agent(self: &Arc<Self>, job: Job, agent: AgentType) {
        if self.begin(&job).await.is_ok() {
            let answer = agent_answer(agent, "started", self.agents.start(agent).await);
            self.end(&job, answer).await;
        }
    }

    pub(super) async fn stop_agent(self: &Arc<Self>, job: Job, agent: AgentType) {
        if self.begin(&job).await.is_ok() {
            let answer = agent_answer(agent, "stopped", self.agents.stop(agent).await);
            self.end(&job, answer).await;
        }
    }
}

fn agent_answer(agent: AgentType, done: &str, result: Result<(), AgentError>) -> Answer {
    match result {
        Ok(()) => Answer::new(Code::Ok, format!("Agent {} is {done}.", agent.name())),
        Err(error) => Answer::new(Code::Failed, format!("Agent {} could not be {done}: {error}", agent.name())),
    }
}

fn help(about: Option<&str>) -> Answer {
    let chosen: Vec<String> = USAGE
        .iter()
        .filter(|(verb, ..)| about.is_none_or(|about| *verb == about || verb.split(' ').next() == Some(about)))
        .map(|(_, usage, what)| format!("!rave {usage}: {what}"))
        .collect();
    if chosen.is_empty() {
        Answer::new(Code::UnknownCommand, "There is no such command. `!rave help` lists those there are.")
    } else {
        Answer::new(Code::Ok, chosen.join("\n"))
    }
}

fn whoami(person: &Person) -> Answer {
    Answer::new(
        Code::Ok,
        format!("You are {} at the forge, with the role {}.", tame(&person.username), person.role.name()),
    )
}

/// What to say when the forge did not do what was asked.
pub(super) fn forge_failed(error: &ForgeError) -> Answer {
    tracing::warn!(%error, "the forge failed");
    match error {
        ForgeError::Unavailable(_) => Answer::unavailable("forge"),
        ForgeError::Refused { message, .. } => Answer::new(Code::Failed, format!("The forge refused: {message}.")),
    }
}

/// What to say when the sandbox daemon did not do what was asked.
pub(super) fn sandbox_failed(error: &SandboxError) -> Answer {
    tracing::warn!(%error, "the sandbox daemon failed");
    match error {
        SandboxError::Unavailable(_) => Answer::unavailable("sandbox service"),
        SandboxError::Refused { status: 503, message, .. } => {
            Answer::new(Code::BackendUnavailable, format!("No sandbox can be made here: {message}."))
        }
        SandboxError::Refused { status: 409, error, .. } if error == "capacity" => {
            Answer::new(Code::Conflict, "All sandboxes are in use. Stop one, or wait until one ends.")
        }
        SandboxError::Refused { status: 409, .. } => {
            Answer::new(Code::Conflict, "This merge request has a sandbox already.")
        }
        SandboxError::Refused { message, .. } => {
            Answer::new(Code::Failed, format!("The sandbox service refused: {message}."))
        }
    }
}
