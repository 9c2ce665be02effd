//! The calls of the forge's REST API (GitLab's, version 4) that the bridge makes, as its own account.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::{self, Answered};
use crate::reply::tame;
use crate::settings;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// How long making something may take: there is git behind it.
const DEED: Duration = Duration::from_secs(60);
/// The access level of a developer.
pub const DEVELOPER: u32 = 30;

/// The way to the forge.
#[derive(Debug)]
pub struct Forge {
    client: reqwest::Client,
    url: String,
    token: HeaderValue,
    /// The group in which everything happens.
    pub group: String,
}

/// Why the forge did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// It does not answer, or not as a forge would.
    #[error("the forge does not answer: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("the forge refused ({status}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// Its reason.
        message: String,
    },
}

/// An account.
#[derive(Debug, Deserialize)]
pub struct User {
    /// Its name.
    pub username: String,
    /// `active`, or another state in which it may do nothing.
    pub state: String,
}

/// A project.
#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    /// Its number.
    pub id: u64,
    /// Its full path.
    pub path_with_namespace: String,
    /// Where a browser finds it.
    pub web_url: String,
    /// Where git finds it.
    pub http_url_to_repo: String,
    /// Its text.
    pub description: Option<String>,
    /// The branch it is deployed from; none while it is empty.
    pub default_branch: Option<String>,
}

/// A merge request.
#[derive(Debug, Clone, Deserialize)]
pub struct MergeRequest {
    /// Its number in the project.
    pub iid: u64,
    /// `opened`, `merged`, `closed` or `locked`.
    pub state: String,
    /// The branch it would merge.
    pub source_branch: String,
    /// The commit at its head.
    pub sha: Option<String>,
    /// Where a browser finds it.
    pub web_url: String,
}

/// A pipeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    /// Its number.
    pub id: u64,
    /// Its state.
    pub status: String,
    /// Where a browser finds it.
    pub web_url: Option<String>,
    /// What started it.
    pub source: Option<String>,
    /// When.
    pub created_at: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct Member {
    access_level: u32,
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize)]
struct Anything {}

impl Forge {
    /// Prepares the way; nothing is asked yet.
    ///
    /// # Errors
    /// If the CA cannot be read.
    pub fn new(settings: &settings::Forge) -> Result<Self, anyhow::Error> {
        use anyhow::Context as _;
        let mut builder = http::client(DEED);
        if let Some(path) = &settings.ca {
            let pem = std::fs::read(path).with_context(|| format!("could not read the CA `{}`", path.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("`{}` holds no CA certificate in PEM", path.display()))?;
            builder = builder.https_only(true).tls_certs_only(certificates);
        }
        let mut token =
            HeaderValue::from_str(settings.token.expose()).context("the forge's token is no header value")?;
        token.set_sensitive(true);
        Ok(Self { client: builder.build()?, url: settings.url.clone(), token, group: settings.group.clone() })
    }

    /// Whether the forge answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn version(&self) -> Result<(), ForgeError> {
        self.get::<Anything>("version", &[]).await.map(drop)
    }

    /// An account by its number.
    ///
    /// # Errors
    /// If the forge does not answer.
    pub async fn user(&self, id: u64) -> Result<Option<User>, ForgeError> {
        self.find(&format!("users/{id}"), &[]).await
    }

    /// An account's level in the group.
    ///
    /// # Errors
    /// If the forge does not answer.
    pub async fn group_level(&self, user: u64) -> Result<Option<u32>, ForgeError> {
        let member: Option<Member> =
            self.find(&format!("groups/{}/members/all/{user}", http::segment(&self.group)), &[]).await?;
        Ok(member.map(|member| member.access_level))
    }

    /// A project of the group, whoever may see it.
    ///
    /// # Errors
    /// If the forge does not answer.
    pub async fn project(&self, name: &str) -> Result<Option<Project>, ForgeError> {
        self.find(&format!("projects/{}", http::segment(&format!("{}/{name}", self.group))), &[]).await
    }

    /// An account's level in a project.
    ///
    /// # Errors
    /// If the forge does not answer.
    pub async fn project_level(&self, project: u64, user: u64) -> Result<Option<u32>, ForgeError> {
        let member: Option<Member> = self.find(&format!("projects/{project}/members/all/{user}"), &[]).await?;
        Ok(member.map(|member| member.access_level))
    }

    /// Makes a private project in the group.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn create_project(&self, name: &str, description: &str) -> Result<Project, ForgeError> {
        let group: Numbered = self.get(&format!("namespaces/{}", http::segment(&self.group)), &[]).await?;
        let body = json!({ "name": name, "path": name, "namespace_id": group.id, "visibility": "private", "description": description });
        self.post("projects", &body).await
    }

    /// Commits files to a branch, which is made from `start` if that is given.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn commit(
        &self,
        project: u64,
        branch: &str,
        start: Option<&str>,
        message: &str,
        files: &[(&str, String)],
    ) -> Result<(), ForgeError> {
        let actions: Vec<Value> = files
            .iter()
            .map(|(path, content)| json!({ "action": "create", "file_path": path, "content": content }))
            .collect();
        let mut body = json!({ "branch": branch, "commit_message": message, "actions": actions });
        if let Some(start) = start {
            body["start_branch"] = json!(start);
        }
        self.post::<Anything>(&format!("projects/{project}/repository/commits"), &body).await.map(drop)
    }

    /// Makes an account a developer of a project.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn add_developer(&self, project: u64, user: u64) -> Result<(), ForgeError> {
        let body = json!({ "user_id": user, "access_level": DEVELOPER });
        self.post::<Anything>(&format!("projects/{project}/members"), &body).await.map(drop)
    }

    /// The merge requests of a project that are open.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn open_merge_requests(&self, project: u64) -> Result<Vec<MergeRequest>, ForgeError> {
        self.get(&format!("projects/{project}/merge_requests"), &[("state", "opened")]).await
    }

    /// The merge requests of a project from one branch, in any state.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn merge_requests_from(&self, project: u64, branch: &str) -> Result<Vec<MergeRequest>, ForgeError> {
        self.get(&format!("projects/{project}/merge_requests"), &[("source_branch", branch)]).await
    }

    /// Opens a merge request.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn create_merge_request(
        &self,
        project: u64,
        from: &str,
        to: &str,
        title: &str,
        description: &str,
    ) -> Result<MergeRequest, ForgeError> {
        let body = json!({ "source_branch": from, "target_branch": to, "title": title, "description": description, "remove_source_branch": true });
        self.post(&format!("projects/{project}/merge_requests"), &body).await
    }

    /// A merge request by its number.
    ///
    /// # Errors
    /// If the forge does not answer.
    pub async fn merge_request(&self, project: u64, iid: u64) -> Result<Option<MergeRequest>, ForgeError> {
        self.find(&format!("projects/{project}/merge_requests/{iid}"), &[]).await
    }

    /// Writes a note on a merge request.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn note(&self, project: u64, iid: u64, text: &str) -> Result<(), ForgeError> {
        self.post::<Anything>(&format!("projects/{project}/merge_requests/{iid}/notes"), &json!({ "body": text }))
            .await
            .map(drop)
    }

    /// The SSH public keys of an account.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn keys(&self, user: u64) -> Result<Vec<String>, ForgeError> {
        let keys: Vec<Key> = self.get(&format!("users/{user}/keys"), &[]).await?;
        Ok(keys.into_iter().map(|key| key.key).collect())
    }

    /// The pipelines of a branch, the newest first.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn pipelines(&self, project: u64, branch: &str) -> Result<Vec<Pipeline>, ForgeError> {
        self.get(&format!("projects/{project}/pipelines"), &[("ref", branch)]).await
    }

    /// Starts a pipeline on a branch.
    ///
    /// # Errors
    /// If the forge does not answer or refuses.
    pub async fn start_pipeline(&self, project: u64, branch: &str) -> Result<Pipeline, ForgeError> {
        self.post(&format!("projects/{project}/pipeline"), &json!({ "ref": branch })).await
    }

    async fn find<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<T>, ForgeError> {
        match self.get(path, query).await {
            Ok(found) => Ok(Some(found)),
            Err(ForgeError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, ForgeError> {
        let request = self.client.request(Method::GET, format!("{}/{path}", self.url)).query(query).timeout(QUESTION);
        self.call(path, request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ForgeError> {
        self.call(path, self.client.request(Method::POST, format!("{}/{path}", self.url)).json(body)).await
    }

    async fn call<T: DeserializeOwned>(&self, path: &str, request: reqwest::RequestBuilder) -> Result<T, ForgeError> {
        let request = request.header(HeaderName::from_static("private-token"), self.token.clone());
        let Answered { status, body } = http::send(request).await.map_err(ForgeError::Unavailable)?;
        match status {
            200..=299 => T::deserialize(body)
                .map_err(|error| ForgeError::Unavailable(format!("{path}: an answer of another shape: {error}"))),
            // The bridge's own token is refused, or the forge has no time: it is not the sender's doing.
            401 | 408 | 429 | 500.. => Err(ForgeError::Unavailable(format!("{path}: status {status}"))),
            _ => Err(ForgeError::Refused { status, message: message(&body) }),
        }
    }
}

/// GitLab's reasons come as a text, a list or a map of lists, under `message` or `error`.
fn message(body: &Value) -> String {
    fn flat(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            Value::Array(values) => values.iter().map(flat).collect::<Vec<_>>().join(", "),
            Value::Object(fields) => {
                fields.iter().map(|(field, value)| format!("{field} {}", flat(value))).collect::<Vec<_>>().join(", ")
            }
            _ => "no reason given".to_owned(),
        }
    }
    tame(&flat(body.get("message").or_else(|| body.get("error")).unwrap_or(&Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_a_reason_can_be_shown() {
        let check = |body: Value, expected: &str| assert_eq!(message(&body), expected);
        check(json!({ "message": "404 Project Not Found" }), "404 Project Not Found");
        check(
            json!({ "message": ["Another open merge request already exists"] }),
            "Another open merge request already exists",
        );
        check(json!({ "message": { "name": ["has already been taken"] } }), "name has already been taken");
        check(json!({ "error": "ref is missing" }), "ref is missing");
        check(Value::Null, "no reason given");
    }
}
