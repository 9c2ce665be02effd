//! `project create`: a project from the template, with a merge request. Each step can be taken again, so that a crash between two of
//! them is made good at the next start.

use std::sync::Arc;

use super::quick::forge_failed;
use super::{Bridge, Job};
use crate::audit::effects;
use crate::forge::{DEVELOPER, ForgeError, MergeRequest, Project};
use crate::people::Person;
use crate::reply::{Answer, Code};
use crate::template;

/// How far it came.
#[derive(Debug, Default)]
struct Made {
    project: Option<Project>,
    steps: Vec<&'static str>,
}

impl Bridge {
    pub(super) async fn create_project(self: &Arc<Self>, job: Job, name: String, person: Person) {
        if self.begin(&job).await.is_err() {
            return;
        }
        self.accepted(&job, &format!("Making the project {name}.")).await;
        self.later(job, |bridge, job| async move { bridge.make_project(job, &name, &person).await });
    }

    async fn make_project(self: Arc<Self>, mut job: Job, name: &str, person: &Person) {
        let mut made = Made::default();
        let answer = match self.steps(&mut job, name, person, &mut made).await {
            Ok(request) => {
                let links =
                    made.project.iter().map(|project| project.web_url.clone()).chain([request.web_url]).collect();
                Answer::new(Code::Done, format!("Project {name} is made, with merge request !{}.", request.iid))
                    .with_links(links)
            }
            Err(answer) => match made.project {
                None => answer,
                Some(project) => {
                    let text = format!("{} What there is: {}.", answer.text, made.steps.join(", "));
                    Answer::new(Code::Failed, text).with_links(vec![project.web_url])
                }
            },
        };
        self.end(&job, answer).await;
    }

    async fn steps(&self, job: &mut Job, name: &str, person: &Person, made: &mut Made) -> Result<MergeRequest, Answer> {
        let failed = |error| forge_failed(&error);
        let asked = format!(
            "Requested by {} through Matrix (account {}, command {}).",
            person.username, person.id, job.event_id
        );
        let project = self.own_project(job, name, &asked).await?;
        made.project = Some(project.clone());
        made.steps.push("the project");
        let internal = |_| Answer::new(Code::Internal, "The bridge could not write down what it did.");
        self.progress(job, effects([("project_id", project.id.to_string())])).await.map_err(internal)?;

        let trailer = format!("Requested-by: {} <{}>\nMatrix-Command: {}\n", person.username, job.sender, job.event_id);
        let files = template::MAIN_FILES.map(|(path, content)| (path, content.to_owned()));
        let message = format!("Start from the template\n\n{trailer}");
        self.commit(job, &project, template::MAIN, None, &message, &files).await?;
        made.steps.push("the template");
        let message = format!("{}\n\n{trailer}", template::TITLE);
        self.commit(job, &project, template::FEATURE, Some(template::MAIN), &message, &template::feature_files(name))
            .await?;
        made.steps.push("a branch with the first change");

        if self.forge.project_level(project.id, person.id).await.map_err(failed)?.is_none_or(|level| level < DEVELOPER)
        {
            self.forge.add_developer(project.id, person.id).await.map_err(failed)?;
        }
        let there = self.forge.merge_requests_from(project.id, template::FEATURE).await.map_err(failed)?;
        let request = match there.into_iter().find(|request| request.source_branch == template::FEATURE) {
            Some(request) => request,
            None => self
                .forge
                .create_merge_request(project.id, template::FEATURE, template::MAIN, template::TITLE, &asked)
                .await
                .map_err(failed)?,
        };
        job.effects.insert("mr".to_owned(), request.iid.to_string());
        Ok(request)
    }

    /// The project, made now, or by an earlier run for this very command.
    async fn own_project(&self, job: &Job, name: &str, asked: &str) -> Result<Project, Answer> {
        let conflict = || Answer::new(Code::Conflict, format!("There is a project {name} already."));
        let failed = |error| forge_failed(&error);
        match self.forge.project(name).await.map_err(failed)? {
            Some(project) if job.begun.is_some() && project.description.as_deref() == Some(asked) => Ok(project),
            Some(_) => Err(conflict()),
            None => match self.forge.create_project(name, asked).await {
                Ok(project) => Ok(project),
                Err(ForgeError::Refused { message, .. }) if message.contains("taken") => Err(conflict()),
                // It may have been made all the same; then the next answer of the forge shows it.
                Err(error @ ForgeError::Unavailable(_)) => match self.forge.project(name).await {
                    Ok(Some(project)) if project.description.as_deref() == Some(asked) => Ok(project),
                    _ => Err(Answer {
                        code: Code::Failed,
                        text: "The forge stopped answering; perhaps the project was made.".to_owned(),
                        ..forge_failed(&error)
                    }),
                },
                Err(error) => Err(failed(error)),
            },
        }
    }

    /// A commit, made now or by an earlier run.
    async fn commit(
        &self,
        job: &Job,
        project: &Project,
        branch: &str,
        start: Option<&str>,
        message: &str,
        files: &[(&str, String)],
    ) -> Result<(), Answer> {
        match self.forge.commit(project.id, branch, start, message, files).await {
            // Files or branch are there: this command made them, since the project is its own.
            Err(ForgeError::Refused { status: 400, message })
                if job.begun.is_some() && message.contains("already exists") =>
            {
                Ok(())
            }
            other => other.map_err(|error| forge_failed(&error)),
        }
    }
}
