//! `rules`: whether a job is in a pipeline, and when it starts then.

use std::collections::BTreeMap;

use serde_json::Value;

use super::file::Starts;

/// One rule; the first that holds decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    condition: Option<Vec<Vec<Term>>>,
    /// Nothing: `never`.
    starts: Option<Starts>,
    allow_failure: Option<bool>,
}

/// `$NAME`, `$NAME == "text"`, `$NAME != "text"`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Set(String),
    Equal(String, Option<String>),
    Unequal(String, Option<String>),
}

impl Rule {
    /// Reads a rule of a job.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value, at: &str) -> Result<Self, String> {
        let fields = value.as_object().ok_or_else(|| format!("{at} config should be an array of hashes"))?;
        let mut rule = Self { condition: None, starts: Some(Starts::OnSuccess), allow_failure: None };
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("if", Value::String(text)) => {
                    rule.condition =
                        Some(condition(text).ok_or_else(|| format!("{at}:rule if invalid expression syntax"))?);
                }
                ("when", Value::String(word)) if word == "never" => rule.starts = None,
                ("when", Value::String(word)) => {
                    rule.starts =
                        Some(Starts::read(word).ok_or_else(|| format!("{at}:rule when unknown value: {word}"))?);
                }
                ("allow_failure", Value::Bool(flag)) => rule.allow_failure = Some(*flag),
                ("if" | "when" | "allow_failure", _) => return Err(format!("{at}:rule {key} is of the wrong kind")),
                _ => return Err(format!("{at}:rule config contains unknown keys: {key}")),
            }
        }
        Ok(rule)
    }
}

/// What the rules of a job say: nothing if it is not in the pipeline, else when it starts and whether it may fail.
#[must_use]
pub fn decide(rules: &[Rule], variables: &BTreeMap<String, String>) -> Option<(Starts, Option<bool>)> {
    let rule = rules.iter().find(|rule| rule.condition.as_ref().is_none_or(|any| holds(any, variables)))?;
    rule.starts.map(|starts| (starts, rule.allow_failure))
}

fn holds(any: &[Vec<Term>], variables: &BTreeMap<String, String>) -> bool {
    let value = |name: &String| variables.get(name);
    let term = |term: &Term| match term {
        Term::Set(name) => value(name).is_some_and(|value| !value.is_empty()),
        Term::Equal(name, text) => value(name) == text.as_ref(),
        Term::Unequal(name, text) => value(name) != text.as_ref(),
    };
    any.iter().any(|all| all.iter().all(term))
}

fn condition(text: &str) -> Option<Vec<Vec<Term>>> {
    text.split("||").map(|all| all.split("&&").map(|one| term(one.trim())).collect()).collect()
}

fn term(text: &str) -> Option<Term> {
    let name = |text: &str| {
        let name = text.trim().strip_prefix('$')?;
        super::file::is_variable(name).then(|| name.to_owned())
    };
    let literal = |text: &str| match text.trim() {
        "null" => Some(None),
        quoted => {
            let inner = ['"', '\''].into_iter().find_map(|mark| quoted.strip_prefix(mark)?.strip_suffix(mark))?;
            (!inner.contains(['"', '\''])).then(|| Some(inner.to_owned()))
        }
    };
    if let Some((left, right)) = text.split_once("==") {
        Some(Term::Equal(name(left)?, literal(right)?))
    } else if let Some((left, right)) = text.split_once("!=") {
        Some(Term::Unequal(name(left)?, literal(right)?))
    } else {
        Some(Term::Set(name(text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rules: Value, expected: Option<Starts>) {
        let variables =
            BTreeMap::from([("CI_PIPELINE_SOURCE".to_owned(), "push".to_owned()), ("E".to_owned(), String::new())]);
        let rules: Vec<_> = rules.as_array().unwrap().iter().map(|rule| Rule::read(rule, "r").unwrap()).collect();
        assert_eq!(decide(&rules, &variables).map(|(starts, _)| starts), expected);
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        check(json!([{ "if": "$CI_PIPELINE_SOURCE == \"push\"" }]), Some(Starts::OnSuccess));
        check(json!([{ "if": "$CI_PIPELINE_SOURCE == 'merge_request_event'" }]), None);
        check(json!([{ "if": "$CI_PIPELINE_SOURCE != 'push'" }, { "when": "manual" }]), Some(Starts::Manual));
        check(json!([{ "if": "$E || $CI_PIPELINE_SOURCE && $X == null", "when": "always" }]), Some(Starts::Always));
        check(json!([{ "if": "$E" }]), None);
        check(json!([{ "when": "never" }]), None);
    }

    #[test]
    fn a_rule_that_is_not_understood_is_an_error() {
        for bad in [
            json!({ "if": "$A =~ /x/" }),
            json!({ "if": "A" }),
            json!({ "changes": [] }),
            json!({ "when": "soon" }),
            json!(1),
        ] {
            assert!(Rule::read(&bad, "r").is_err(), "{bad}");
        }
    }
}
