//! The `hermetic` command: the run, and everything that is done with what runs leave.

use std::process::ExitCode;

fn main() -> ExitCode {
    rave_hermetic::cli::main()
}
