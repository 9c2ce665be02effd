//! The machine and whole runs, on a real QEMU with the microguest: started, watched, asked, lost, saved and forked, ended.

mod diagnostics;
mod faults;
mod fork;
mod kept;
mod microguest;
mod nix;
mod reproduce;
mod run;
mod sabotage;
#[path = "../support/mod.rs"]
mod support;
mod vm;
