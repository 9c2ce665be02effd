//! Boots the image that ships, asks it every question that matters, and signs what it answered.
//!
//! Modules in reading order: what the run was told ([`settings`]), the one loop that waits ([`wait`]), what is
//! booted ([`image`]), the machine it is booted in ([`vm`]), the way in ([`guest`]), the questions ([`scenario`]), the signed
//! record ([`transcript`]), what is made from it ([`report`]), the run that ties them together ([`session`]), and the command line
//! ([`cli`]).

mod error;
mod group;
mod hex;
pub mod interrupt;
pub mod settings;
pub mod wait;

pub mod image;

pub mod vm;

pub mod guest;

pub mod scenario;

pub mod transcript;

pub mod report;

pub mod session;

pub mod cli;
