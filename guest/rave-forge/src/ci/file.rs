//! `.gitlab-ci.yml`: a subset of GitLab's, and whatever is not in it is an error that says so.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::rules::Rule;

/// The largest file that is read.
const LARGEST: usize = 64 << 10;
/// The most jobs of a pipeline.
const JOBS: usize = 50;

/// A file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The stages in order, with `.pre` and `.post`.
    pub stages: Vec<String>,
    /// The jobs in the order of the file.
    pub jobs: Vec<Job>,
}

/// A job as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Its lines, those before the script included.
    pub script: Vec<String>,
    /// The tags a runner must have.
    pub tags: Vec<String>,
    /// Variables for its environment.
    pub variables: BTreeMap<String, String>,
    /// Whether the pipeline goes on when it fails.
    pub allow_failure: bool,
    /// Its own time limit, in seconds.
    pub timeout: Option<u64>,
    /// When it starts, if no rule says otherwise.
    pub starts: Starts,
    /// When it is there at all.
    pub rules: Option<Vec<Rule>>,
}

/// When a job starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// When all before it went well.
    OnSuccess,
    /// When something before it failed.
    OnFailure,
    /// When all before it has ended.
    Always,
    /// When somebody says so.
    Manual,
}

impl Starts {
    /// As files and the database write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OnSuccess => "on_success",
            Self::OnFailure => "on_failure",
            Self::Always => "always",
            Self::Manual => "manual",
        }
    }

    pub(super) fn read(word: &str) -> Option<Self> {
        [Self::OnSuccess, Self::OnFailure, Self::Always, Self::Manual].into_iter().find(|starts| starts.word() == word)
    }
}

/// Reads a file.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn read(text: &str) -> Result<Config, String> {
    if text.len() > LARGEST {
        return Err(format!("the file is larger than {} KiB", LARGEST >> 10));
    }
    let Document(entries) = serde_saphyr::from_str(text).map_err(|error| {
        let message = error.to_string();
        format!("Invalid configuration format: {}", message.lines().next().unwrap_or_default())
    })?;
    let mut usual = Usual::default();
    let mut stages = ["build", "test", "deploy"].map(str::to_owned).to_vec();
    let mut jobs = Vec::new();
    for (key, value) in entries {
        match key.as_str() {
            "stages" => stages = texts(&value, "stages")?,
            "variables" => usual.variables = variables(&value, "variables")?,
            "before_script" => usual.before_script = texts(&value, "before_script")?,
            "default" => usual.read_default(&value)?,
            hidden if hidden.starts_with('.') => {}
            name if name.is_empty() || name.len() > 255 => {
                return Err("jobs name must be 1 to 255 characters long".to_owned());
            }
            _ => jobs.push((key, value)),
        }
    }
    if jobs.is_empty() {
        return Err("jobs config should contain at least one visible job".to_owned());
    }
    if jobs.len() > JOBS {
        return Err(format!("jobs config has more than {JOBS} jobs"));
    }
    stages.insert(0, ".pre".to_owned());
    stages.push(".post".to_owned());
    let jobs = jobs.iter().map(|(name, value)| job(name, value, &usual, &stages)).collect::<Result<_, _>>()?;
    Ok(Config { stages, jobs })
}

/// What holds for every job that does not say otherwise.
#[derive(Default)]
struct Usual {
    before_script: Vec<String>,
    tags: Vec<String>,
    timeout: Option<u64>,
    variables: BTreeMap<String, String>,
}

impl Usual {
    fn read_default(&mut self, value: &Value) -> Result<(), String> {
        let Value::Object(fields) = value else { return Err("default config should be a hash".to_owned()) };
        for (key, value) in fields {
            match key.as_str() {
                "before_script" => self.before_script = texts(value, "default:before_script")?,
                "tags" => self.tags = texts(value, "default:tags")?,
                "timeout" => self.timeout = Some(seconds(value, "default")?),
                _ => return Err(format!("default config contains unknown keys: {key}")),
            }
        }
        Ok(())
    }
}

fn job(name: &str, value: &Value, usual: &Usual, stages: &[String]) -> Result<Job, String> {
    let Value::Object(fields) = value else { return Err(format!("jobs {name} config should be a hash")) };
    let mut job = Job {
        name: name.to_owned(),
        stage: "test".to_owned(),
        script: Vec::new(),
        tags: usual.tags.clone(),
        variables: usual.variables.clone(),
        allow_failure: false,
        timeout: usual.timeout,
        starts: Starts::OnSuccess,
        rules: None,
    };
    let mut before = usual.before_script.clone();
    let mut manual_may_fail = true;
    for (key, value) in fields {
        let at = || format!("jobs:{name}:{key}");
        match key.as_str() {
            "script" => job.script = texts(value, &at())?,
            "before_script" => before = texts(value, &at())?,
            "stage" => job.stage = text(value).ok_or_else(|| format!("{} config should be a string", at()))?,
            "tags" => job.tags = texts(value, &at())?,
            "variables" => job.variables.extend(variables(value, &at())?),
            "timeout" => job.timeout = Some(seconds(value, &format!("jobs:{name}"))?),
            "allow_failure" => {
                job.allow_failure = value.as_bool().ok_or_else(|| format!("{} should be a boolean value", at()))?;
                manual_may_fail = false;
            }
            "when" => {
                let word = value.as_str().unwrap_or_default();
                job.starts = Starts::read(word)
                    .ok_or_else(|| format!("{} should be one of: on_success, on_failure, always, manual", at()))?;
            }
            "needs" if value.as_array().is_some_and(Vec::is_empty) => {}
            "needs" => return Err(format!("{} is not supported but as an empty list", at())),
            "rules" => {
                let rules = value.as_array().ok_or_else(|| format!("{} config should be an array of hashes", at()))?;
                job.rules = Some(rules.iter().map(|rule| Rule::read(rule, &at())).collect::<Result<_, _>>()?);
            }
            _ => return Err(format!("jobs:{name} config contains unknown keys: {key}")),
        }
    }
    if job.script.is_empty() {
        return Err(format!("jobs:{name} script can't be blank"));
    }
    if !stages.contains(&job.stage) {
        return Err(format!(
            "{name} job: chosen stage {} does not exist; available stages are {}",
            job.stage,
            stages.join(", ")
        ));
    }
    // As in GitLab, nobody waits for a job that somebody has to start.
    job.allow_failure |= job.starts == Starts::Manual && manual_may_fail;
    before.append(&mut job.script);
    job.script = before;
    Ok(job)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A text or a list of them.
fn texts(value: &Value, at: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{at} config should be a string or an array of strings");
    let found = match value {
        Value::Array(values) => values.iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong)?,
        other => vec![text(other).ok_or_else(wrong)?],
    };
    if found.iter().any(|text| text.contains('\0')) { Err(wrong()) } else { Ok(found) }
}

fn variables(value: &Value, at: &str) -> Result<BTreeMap<String, String>, String> {
    let wrong = || format!("{at} config should be a hash of key value pairs");
    let fields = value.as_object().ok_or_else(wrong)?;
    let pair = |(key, value): (&String, &Value)| {
        let value = text(value).filter(|value| !value.contains('\0'))?;
        is_variable(key).then(|| (key.clone(), value))
    };
    fields.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)
}

/// Whether a text can be the name of a variable.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `90`, `10m`, `1h 30m`, `2 minutes`.
fn seconds(value: &Value, at: &str) -> Result<u64, String> {
    let wrong = || format!("{at} timeout should be a duration");
    if let Some(number) = value.as_u64() {
        return Ok(number.max(1));
    }
    let text = value.as_str().ok_or_else(wrong)?.replace(' ', "");
    let (mut total, mut number, mut unit) = (0_u64, String::new(), String::new());
    let mut add = |number: &mut String, unit: &mut String| -> Option<()> {
        let factor = match unit.as_str() {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        number.clear();
        unit.clear();
        Some(())
    };
    for character in text.chars() {
        if character.is_ascii_digit() {
            if !unit.is_empty() {
                add(&mut number, &mut unit).ok_or_else(wrong)?;
            }
            number.push(character);
        } else {
            unit.push(character);
        }
    }
    add(&mut number, &mut unit).ok_or_else(wrong)?;
    if total == 0 { Err(wrong()) } else { Ok(total) }
}

/// The file's keys in their order, which is the order of the jobs.
struct Document(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of jobs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Document(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, expected: &str) {
        assert_eq!(read(text).unwrap_err(), expected);
    }

    #[test]
    fn a_file_is_read_in_its_order() {
        let config = read(
            "stages: [one, two]\nvariables: {A: 1}\nbefore_script: [echo before]\n\
             z:\n  stage: one\n  script: echo z\n  tags: [linux]\n  timeout: 1h 30m\n\
             a:\n  stage: two\n  before_script: []\n  script: [echo a, \"echo b\"]\n  variables: {A: two}\n  allow_failure: true\n.hidden: 1\n",
        )
        .unwrap();
        assert_eq!(config.stages, [".pre", "one", "two", ".post"]);
        let [z, a] = config.jobs.as_slice() else { panic!("{config:?}") };
        assert_eq!(
            (z.name.as_str(), z.script.as_slice(), z.timeout),
            ("z", ["echo before".to_owned(), "echo z".to_owned()].as_slice(), Some(5400))
        );
        assert_eq!((a.script.len(), a.variables["A"].as_str(), a.allow_failure), (2, "two", true));
    }

    #[test]
    fn what_is_not_supported_is_said() {
        refused("a:\n  script: x\n  image: y", "jobs:a config contains unknown keys: image");
        refused(
            "a:\n  stage: x\n  script: x",
            "a job: chosen stage x does not exist; available stages are .pre, build, test, deploy, .post",
        );
        refused("a: {}", "jobs:a script can't be blank");
        refused("a: 1", "jobs a config should be a hash");
        refused("stages: [a]", "jobs config should contain at least one visible job");
        refused("a:\n  script: {}", "jobs:a:script config should be a string or an array of strings");
        refused("a:\n  script: x\n  timeout: soon", "jobs:a timeout should be a duration");
        refused("a:\n  script: x\n  needs: [b]", "jobs:a:needs is not supported but as an empty list");
        refused("default: {image: x}\na:\n  script: x", "default config contains unknown keys: image");
        refused("variables: {'a b': 1}\na:\n  script: x", "variables config should be a hash of key value pairs");
        assert!(read("a: [").unwrap_err().starts_with("Invalid configuration format"));
        assert!(read("").is_err() && read("- a").is_err());
        assert!(read(&format!("a: {}", "x".repeat(70_000))).is_err());
    }
}
