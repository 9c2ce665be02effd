//! `hermetic report`: reports made again from a verified transcript.

use camino::Utf8Path;

use crate::report;
use crate::transcript::store;

/// Writes the JUnit report of a transcript; one that does not verify has none.
pub fn main(transcript: &Utf8Path, junit: Option<&Utf8Path>) -> anyhow::Result<()> {
    let (transcript, _) = super::verify::check(transcript, None)?;
    let xml = report::junit(&transcript)?;
    match junit {
        Some(path) => Ok(store::write_whole(path, xml.as_bytes())?),
        None => {
            print!("{xml}");
            Ok(())
        }
    }
}
