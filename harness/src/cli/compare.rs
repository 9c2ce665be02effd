//! `hermetic compare`: has the last of several transcripts left the band of those before it?

use std::process::ExitCode;

use anyhow::ensure;
use camino::Utf8PathBuf;
use clap::Args;

use crate::report::compare::{Band, compare, not_comparable};
use crate::session::Ended;
use crate::transcript::model::Transcript;

/// What `hermetic compare` is told.
#[derive(Args)]
pub struct CompareArguments {
    /// Transcripts, oldest first; the last is held against the median of those before it
    #[arg(required = true, num_args = 2.., value_name = "TRANSCRIPT")]
    transcripts: Vec<Utf8PathBuf>,
    /// A key one of which must have signed each of them; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// How far a value may be from the median, percent
    #[arg(long, value_name = "PERCENT", default_value_t = Band::default().percent)]
    band: u64,
    /// Milliseconds that are no difference
    #[arg(long, value_name = "MS", default_value_t = Band::default().floor_ms)]
    floor_ms: u64,
    /// MiB that are no difference
    #[arg(long, value_name = "MIB", default_value_t = Band::default().floor_mib)]
    floor_mib: u64,
    /// Prints the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the comparison; the exit code says whether a value is above the band.
pub fn main(arguments: &CompareArguments) -> anyhow::Result<ExitCode> {
    let CompareArguments { transcripts: paths, keys, band, floor_ms, floor_mib, json } = arguments;
    let trusted = keys.iter().map(|key| super::verify::read_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    let read = |path: &Utf8PathBuf| {
        let checked = super::verify::check(path, &trusted);
        Ok(checked.map_err(|error| super::named(path, error))?.0)
    };
    let transcripts = paths.iter().map(read).collect::<anyhow::Result<Vec<Transcript>>>()?;
    let Some(((latest, latest_path), earlier)) =
        transcripts.last().zip(paths.last()).zip(transcripts.split_last().map(|(_, earlier)| earlier))
    else {
        anyhow::bail!("there is nothing to compare");
    };
    for (transcript, path) in earlier.iter().zip(paths) {
        let why = not_comparable(transcript, latest).unwrap_or_default();
        ensure!(why.is_empty(), "`{path}` and `{latest_path}` cannot be compared: {why}");
    }
    let band = Band { percent: *band, floor_ms: *floor_ms, floor_mib: *floor_mib };
    let comparison = compare(&earlier.iter().collect::<Vec<_>>(), latest, band);
    if *json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print!("{}", comparison.text());
    }
    Ok(if comparison.is_worse() { Ended::Failed } else { Ended::Passed }.into())
}
