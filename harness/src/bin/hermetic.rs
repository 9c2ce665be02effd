//! The `hermetic` command.
fn main() {}
