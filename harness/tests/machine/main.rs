//! The machine and whole runs, on a real QEMU with the microguest: started, watched, asked, lost, ended.

mod microguest;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod vm;
