//! libtest's arguments, with as many filter words as one likes.

use clap::Parser;
use libtest_mimic::Arguments;

use crate::scenario::model::Scenario;

/// Arguments of the run.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "hermetic",
    disable_version_flag = true,
    after_help = "A scenario runs if its name contains any of the filter words. Settings are environment variables: see README.md."
)]
pub struct RunArguments {
    /// libtest's own.
    #[command(flatten)]
    pub libtest: Arguments,
    /// More filter words.
    #[arg(value_name = "FILTER")]
    pub more_filters: Vec<String>,
}

impl RunArguments {
    /// Those of a run that was given none.
    pub fn all() -> Self {
        Self { libtest: Arguments::default(), more_filters: Vec::new() }
    }

    /// All filter words.
    pub fn filters(&self) -> Vec<String> {
        self.libtest.filter.iter().chain(&self.more_filters).cloned().collect()
    }

    /// Why libtest could not work with these arguments, if so.
    pub fn unusable(&self) -> Option<&'static str> {
        let Arguments { test_threads, ignored, bench, list, .. } = &self.libtest;
        if *test_threads == Some(0) {
            Some("--test-threads must be at least 1")
        } else if (*ignored && !*list) || *bench {
            Some("there are no ignored scenarios and no benchmarks; leave out --ignored and --bench")
        } else {
            None
        }
    }

    /// Whether a scenario is chosen.
    pub fn chooses(&self, scenario: &Scenario) -> bool {
        let matches = |word: &String| {
            if self.libtest.exact { scenario.name == *word } else { scenario.name.contains(word.as_str()) }
        };
        let filters = self.filters();
        (filters.is_empty() || filters.iter().any(matches)) && !self.libtest.skip.iter().any(matches)
    }

    /// Why nothing is chosen, for people.
    pub fn nothing_chosen(&self, scenarios: &[Scenario]) -> String {
        let filters = self.filters();
        let words = filters.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let nearest = filters.iter().filter_map(|word| nearest(word, scenarios)).next();
        let nearest = nearest.map(|name| format!("; the nearest is `{name}`")).unwrap_or_default();
        let skips = if self.libtest.skip.is_empty() { "" } else { " with these --skip" };
        if filters.is_empty() {
            format!("no scenario is left{skips}")
        } else {
            format!("no scenario's name {} {words}{skips}{nearest}", if self.libtest.exact { "is" } else { "contains" })
        }
    }
}

fn nearest<'a>(word: &str, scenarios: &'a [Scenario]) -> Option<&'a str> {
    let distance = |name: &str| {
        let parts = name.split("::").map(|part| strsim::osa_distance(part, word));
        parts.chain([strsim::osa_distance(name, word)]).min().unwrap_or(usize::MAX)
    };
    let best = scenarios.iter().map(|scenario| (distance(&scenario.name), scenario.name.as_str())).min()?;
    (best.0 <= word.len().div_ceil(2)).then_some(best.1)
}
