//! The machine, on a real QEMU with the microguest: started, watched, lost, ended.

mod microguest;
mod vm;
