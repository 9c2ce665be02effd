//! `hermetic reproduce`: makes a run again from its transcript.

use camino::Utf8PathBuf;
use clap::Args;

use crate::report::compare::Band;
use crate::session::{self, Ended, Wish};

/// What `hermetic reproduce` is told.
#[derive(Args)]
pub struct ReproduceArguments {
    /// The transcript; one that does not verify is not made again
    transcript: Utf8PathBuf,
    /// One scenario of it; all without
    scenario: Option<String>,
    /// Opens a shell on the scenario's machine when it has been asked
    #[arg(long)]
    shell: bool,
    /// Builds the image anew where it is not here, and says whether that is the same
    #[arg(long)]
    build: bool,
    /// A key one of which must have signed it; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// How far times and sizes may be from the recorded ones, percent
    #[arg(long, value_name = "PERCENT", default_value_t = Band::default().percent)]
    band: u64,
}

/// Verifies the transcript, makes the run again, and says what was the same and what differs.
pub fn main(arguments: &ReproduceArguments) -> anyhow::Result<Ended> {
    let ReproduceArguments { transcript: path, scenario, shell, build, keys, band } = arguments;
    let trusted = keys.iter().map(|key| super::verify::read_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    let (recorded, _) = super::verify::check(path, &trusted).map_err(|error| super::named(path, error))?;
    let band = Band { percent: *band, ..Band::default() };
    let wish = Wish { recorded: &recorded, scenario: scenario.as_deref(), shell: *shell, build: *build, band };
    session::reproduce(&wish)
}
