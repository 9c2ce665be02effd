//! `cargo test --test hermetic`: the run, with libtest's arguments.

use std::process::ExitCode;

use clap::Parser as _;
use rave_hermetic::session::{self, RunArguments};

// Returned, not passed to `exit`: whatever still owns a machine has to be dropped.
fn main() -> ExitCode {
    session::main(RunArguments::parse()).into()
}
