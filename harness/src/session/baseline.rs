//! Earlier transcripts that a run is held against while it goes on, so that it can warn when it has left their band.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use camino::Utf8Path;

use crate::report::compare::{Band, Values};
use crate::scenario::facts::Facts;
use crate::transcript::model::{MachineRecord, ScenarioRecord};
use crate::transcript::{read, store};

/// The built-in variable.
const FACT: &str = "baseline.above";
/// How many transcripts of a folder are taken: the latest.
const MOST: usize = 10;
/// How many values are named.
const NAMED: usize = 20;

/// The earlier runs, or why there are none.
pub type Earlier = Result<Vec<Values>, String>;

/// Reads a transcript, or the latest of a folder, each with its signature beside it.
///
/// # Errors
/// If one of them does not verify.
pub fn read(path: Option<&Utf8Path>) -> anyhow::Result<Earlier> {
    let Some(path) = path else { return Ok(Err("no earlier transcripts were named in RAVE_BASELINE".to_owned())) };
    let files = match path.is_dir() {
        true => store::sessions(path)?.iter().map(store::Session::transcript).filter(|file| file.is_file()).collect(),
        false => vec![path.to_owned()],
    };
    if files.is_empty() {
        return Ok(Err(format!("`{path}`, which RAVE_BASELINE names, holds no transcript yet")));
    }
    let latest = &files[files.len().saturating_sub(MOST)..];
    let values = |file: &camino::Utf8PathBuf| {
        let checked = read::check(file, &[]).with_context(|| format!("RAVE_BASELINE: `{file}` is not taken"));
        checked.map(|(transcript, _)| Values::of(&transcript))
    };
    latest.iter().map(values).collect::<anyhow::Result<Vec<_>>>().map(Ok)
}

/// What a run has found so far.
#[derive(Default)]
pub struct Found {
    /// The results.
    pub records: Mutex<Vec<ScenarioRecord>>,
    /// The machine and the name of its guest.
    pub machine: OnceLock<(MachineRecord, String)>,
}

/// From now on scenarios can ask which values of the run are above the band of the earlier ones.
pub fn offer(facts: &Facts, earlier: Earlier, found: &Arc<Found>) {
    let found = Arc::clone(found);
    facts.set_live(FACT, move || {
        let earlier = earlier.as_ref().map_err(Clone::clone)?;
        let records = found.records.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = found.machine.get();
        let guest = machine.map_or("none", |(_, guest)| guest);
        let now = Values::so_far(machine.map(|(machine, _)| machine), guest, records.iter());
        let above = now.above(earlier, Band::default());
        let above = above.map_err(|why| format!("none of the transcripts in RAVE_BASELINE can be compared: {why}"))?;
        let mut text = String::new();
        for row in above.iter().take(NAMED) {
            let _ = writeln!(text, "{}", row.text());
        }
        if above.len() > NAMED {
            let _ = writeln!(text, "and {} more", above.len() - NAMED);
        }
        Ok(text)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::sample;

    fn asked(earlier: Earlier) -> Result<String, String> {
        let (facts, found) = (Facts::default(), Arc::default());
        offer(&facts, earlier, &found);
        let now = sample::transcript();
        let machine = now.machine.clone().unwrap();
        found.machine.set((machine, now.rave_version.clone())).unwrap();
        found.records.lock().unwrap().extend(now.results().cloned());
        facts.get(FACT)
    }

    fn ready_after(ms: u64) -> Values {
        let mut earlier = sample::transcript();
        earlier.machine.as_mut().unwrap().ready_ms = Some(ms);
        Values::of(&earlier)
    }

    #[test]
    fn what_is_above_the_band_is_named_and_nothing_is_an_empty_text() {
        // The sample's machine was ready after 100 s.
        assert_eq!(asked(Ok(vec![ready_after(100_000)])), Ok(String::new()));
        assert_eq!(asked(Ok(vec![ready_after(200_000)])), Ok(String::new()));
        assert_eq!(asked(Ok(vec![ready_after(50_000)])), Ok("machine.ready: 50000 → 100000 ms (+100 %)\n".into()));
        assert_eq!(asked(Err("no".into())), Err("no".into()));
        let mut other = sample::transcript();
        other.rave_version = "P6-production".into();
        let why = asked(Ok(vec![Values::of(&other)])).unwrap_err();
        assert!(why.ends_with("the guest is P6-production in one and P6-reference in the other"), "{why}");
    }
}
