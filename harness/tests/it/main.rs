//! Ordinary tests of the harness, in one binary. None of them boots a machine.

mod baseline;
mod evidence;
mod flake;
mod forgeries;
mod nix;
mod prune;
mod reproduce;
mod run;
mod scenarios;
mod ssh;
mod sshd;
#[path = "../support/mod.rs"]
mod support;
