//! `hermetic prune`: throws old sessions away.

use anyhow::ensure;
use clap::Args;

use crate::settings::Settings;
use crate::transcript::store::{self, Fate};

/// What `hermetic prune` is told.
#[derive(Args)]
pub struct PruneArguments {
    /// How many sessions stay: the latest
    #[arg(long, value_name = "N")]
    keep: usize,
    /// Throws away only the sessions' folders: transcripts with their signatures, keys and reports stay
    #[arg(long)]
    folders_only: bool,
    /// Only says what it would throw away
    #[arg(long)]
    dry_run: bool,
}

/// Throws them away, and says which, and how much room that gave.
pub fn main(arguments: &PruneArguments) -> anyhow::Result<()> {
    let PruneArguments { keep, folders_only, dry_run } = arguments;
    let artifacts = Settings::from_environment()?.artifacts;
    let sessions = store::sessions(&artifacts)?;
    let old = &sessions[..sessions.len().saturating_sub(*keep)];
    let (mut bytes, mut gone, mut failed) = (0, 0, 0);
    for session in old {
        let found = session.bytes(*folders_only);
        match if *dry_run { session.fate() } else { session.remove(*folders_only) } {
            Ok(Fate::Gone) if found == 0 => {}
            Ok(Fate::Gone) => {
                println!("spinup-{} ({} MiB)", session.name(), found.div_ceil(1 << 20));
                bytes += found;
                gone += 1;
            }
            Ok(Fate::InUse) => eprintln!("hermetic: spinup-{} is in use, and stays", session.name()),
            Err(error) => {
                failed += 1;
                eprintln!("hermetic: spinup-{}: {:#}", session.name(), anyhow::Error::from(error));
            }
        }
    }
    let word = if *dry_run { "would be" } else { "are" };
    let what = if *folders_only { "folders of sessions" } else { "sessions" };
    println!("{gone} {what} {word} thrown away, {} MiB; {} sessions stay", bytes >> 20, sessions.len() - gone);
    ensure!(failed == 0, "{failed} sessions in `{artifacts}` could not be thrown away");
    Ok(())
}
