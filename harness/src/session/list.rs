//! `hermetic list`: what there is to ask. Boots nothing.

use std::io::Write as _;

use crate::scenario::file;
use crate::scenario::model::{Requires, Scenario};
use crate::settings::Settings;

/// Nothing was chosen.
#[derive(Debug, thiserror::Error)]
pub enum NothingChosen {
    /// No scenario's name contains any of the words.
    #[error("no scenario's name contains any of: {0}")]
    Scenarios(String),
    /// No sabotage's name contains the text.
    #[error("no sabotage of these scenarios has `{0}` in its name")]
    Sabotages(String),
}

/// Prints name, needs and summary of every scenario whose name contains one of the words, or of all.
///
/// # Errors
/// If the settings or a scenario file are not as they must be.
pub fn list(words: &[String]) -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let scenarios = file::read(&settings.scenarios)?.scenarios;
    let chosen =
        scenarios.iter().filter(|scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word)));
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        return Err(NothingChosen::Scenarios(words.join(", ")).into());
    }
    let lines = chosen.into_iter().map(line).collect::<String>();
    // Whoever looks only at the beginning (`| head`) has seen what they wanted.
    match std::io::stdout().write_all(lines.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Name, needs and summary.
fn line(scenario: &Scenario) -> String {
    let requires = match scenario.requires() {
        Requires::Nothing => "",
        Requires::Image => " [image]",
        Requires::Machine => " [machine]",
    };
    let needs = if scenario.needs.is_empty() { String::new() } else { format!(" needs {}", scenario.needs.join(", ")) };
    format!("{}{requires}{needs}\n    {}\n", scenario.name, scenario.summary)
}
