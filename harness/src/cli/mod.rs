//! The `hermetic` command line.

mod compare;
mod export;
mod image;
mod keygen;
mod prune;
mod report;
mod reproduce;
mod verify;

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};

use crate::session::{self, RunArguments};
use crate::settings::SettingErrors;
use crate::transcript::schema;
use crate::transcript::verify::Refusal;

/// Boots an image, asks it every question that matters, and signs what it answered.
#[derive(Parser)]
#[command(
    name = "hermetic",
    version,
    after_help = "Exit codes: 0 passed; 1 could not run, or cut short; 2 wrong usage; 3 not verified; 101 a scenario failed.\n\
        Settings are environment variables (RAVE_IMAGE, SAFE_MODE, …): see README.md."
)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs scenarios; what `cargo test --test hermetic` does
    Run(RunArguments),
    /// Lists scenarios with what each needs and shows; boots nothing
    List {
        /// Only those whose name contains one of these words
        filters: Vec<String>,
    },
    /// Verifies a transcript offline: signatures, schema, form, that the summary follows from the results, and a policy
    Verify(verify::VerifyArguments),
    /// Makes a key pair for signing transcripts
    Keygen {
        /// Where the secret key goes; the public one goes beside it as .pub
        secret: Utf8PathBuf,
        /// A file whose first line is the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<Utf8PathBuf>,
    },
    /// Makes reports from a transcript: JUnit, HTML
    Report(report::ReportArguments),
    /// Says what a transcript says in the formats of others
    Export(export::ExportArguments),
    /// Holds the last of several transcripts against those before it: boot, readiness, memory, times, verdicts
    Compare(compare::CompareArguments),
    /// Joins the transcripts of runs on forks of one machine, as of one process for each scenario, into one signed transcript
    Seal {
        /// The transcripts, each with its signature beside it
        #[arg(required = true)]
        parts: Vec<Utf8PathBuf>,
    },
    /// Provides the image and prints where it is, its digests and its size
    Image {
        /// Instead, throws away the machines that earlier runs saved
        #[arg(long)]
        clean: bool,
    },
    /// Makes a run again from its transcript: the same image, machine, settings and order; says what was the same and what differs
    Reproduce(reproduce::ReproduceArguments),
    /// Throws old sessions away: what they left under the artifacts
    Prune(prune::PruneArguments),
    /// Breaks on purpose what scenarios ask about, and tells which steps notice
    Sabotage {
        /// Only scenarios whose name contains one of these words
        filters: Vec<String>,
        /// Only sabotages whose name contains this; steps that no other names are then not held against the scenario
        #[arg(long, value_name = "PART")]
        only: Option<String>,
        /// What came of it as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of transcripts
    Schema,
    /// Boots the image and opens a shell in it; or resumes a failed machine that was kept
    Shell {
        /// `<session>/<scenario>` of a machine that RAVE_KEEP_VM=1 kept
        kept: Option<String>,
    },
}

/// Runs the command that this process's arguments name.
pub fn main() -> ExitCode {
    let Command { action } = Command::parse();
    let passed = |()| ExitCode::SUCCESS;
    let done = match action {
        Action::Run(arguments) => Ok(session::main(arguments).into()),
        Action::List { filters } => session::list(&filters).map(passed),
        Action::Verify(arguments) => Ok(verify::main(&arguments)),
        Action::Keygen { secret, password_file } => keygen::main(&secret, password_file.as_deref()).map(passed),
        Action::Report(arguments) => report::main(&arguments).map(passed),
        Action::Export(arguments) => export::main(&arguments).map(passed),
        Action::Compare(arguments) => compare::main(&arguments),
        Action::Image { clean: true } => {
            session::clean(&|text| eprintln!("image: {text}")).map(passed).map_err(Into::into)
        }
        Action::Image { clean: false } => image::main().map(passed),
        Action::Reproduce(arguments) => reproduce::main(&arguments).map(Into::into),
        Action::Prune(arguments) => prune::main(&arguments).map(passed),
        Action::Seal { parts } => session::seal(&parts).map(Into::into),
        Action::Sabotage { filters, only, json } => session::sabotage(&filters, only.as_deref(), json).map(Into::into),
        Action::Schema => {
            print!("{}", schema::text());
            Ok(ExitCode::SUCCESS)
        }
        Action::Shell { kept: None } => session::shell().map(passed),
        Action::Shell { kept: Some(name) } => session::resume(&name).map(passed),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hermetic: {error:#}");
            let wrong = error.is::<SettingErrors>() || error.is::<session::NothingChosen>();
            if wrong || error.is::<session::WrongWish>() {
                session::Ended::WrongUsage.into()
            } else if error.is::<Refusal>() {
                verify::NOT_VERIFIED.into()
            } else {
                session::Ended::CouldNotRun.into()
            }
        }
    }
}

/// An error about one of several transcripts; a refusal stays one.
fn named(path: &Utf8Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Refusal>() {
        Ok(Refusal(mut reasons)) => {
            reasons.iter_mut().for_each(|reason| reason.text = format!("`{path}`: {}", reason.text));
            Refusal(reasons).into()
        }
        Err(error) => error.context(format!("could not check `{path}`")),
    }
}
