//! `hermetic report`: reports made again from a verified transcript.

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use crate::report;
use crate::report::compare::{Band, compare, not_comparable};
use crate::report::html::{self, Page};
use crate::report::session::Session;
use crate::transcript::store;

/// What `hermetic report` is told.
#[derive(Args)]
pub struct ReportArguments {
    /// The transcript; one that does not verify has no report
    transcript: Utf8PathBuf,
    /// Where the JUnit XML goes; standard output if no file is given at all
    #[arg(long, value_name = "FILE")]
    junit: Option<Utf8PathBuf>,
    /// Where the page goes; best beside the transcript, so that its links find the session's folder
    #[arg(long, value_name = "FILE")]
    html: Option<Utf8PathBuf>,
    /// An earlier transcript that the page holds this one against
    #[arg(long, value_name = "TRANSCRIPT", requires = "html")]
    against: Option<Utf8PathBuf>,
}

/// Writes what was asked for.
pub fn main(arguments: &ReportArguments) -> anyhow::Result<()> {
    let ReportArguments { transcript: path, junit, html, against } = arguments;
    let (transcript, _) = super::verify::check(path, &[])?;
    if let Some(file) = html {
        let earlier = against.as_ref().map(|path| {
            let checked = super::verify::check(path, &[]);
            checked.map(|(transcript, _)| transcript).map_err(|error| super::named(path, error))
        });
        let earlier = earlier.transpose()?;
        let folder = parent(path).join(&transcript.test_session_id);
        let mut session = Session::read(&folder);
        session.linked &= same(parent(path), parent(file));
        let against = earlier.map(|earlier| {
            let mut comparison = compare(&[&earlier], &transcript, Band::default());
            if let Some(why) = not_comparable(&earlier, &transcript) {
                comparison.rows.clear();
                comparison.differences.insert(0, format!("times and sizes are not compared: {why}"));
            }
            comparison
        });
        let file_name = path.file_name().unwrap_or_default();
        let page = Page { transcript: &transcript, file_name, session: &session, against: against.as_ref() };
        store::write_whole(file, html::html(&page)?.as_bytes())?;
    }
    match junit {
        Some(file) => store::write_whole(file, report::junit(&transcript)?.as_bytes())?,
        None if html.is_none() => print!("{}", report::junit(&transcript)?),
        None => {}
    }
    Ok(())
}

fn parent(path: &Utf8Path) -> &Utf8Path {
    path.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."))
}

fn same(one: &Utf8Path, other: &Utf8Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}
