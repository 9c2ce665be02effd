//! Ordinary tests of the harness, in one binary.

mod ssh;
mod sshd;
