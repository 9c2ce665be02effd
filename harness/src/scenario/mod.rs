//! Scenarios: what a file says, how it is read and checked, how an answer is judged, and the run itself.
//!
//! A file goes one way: [`file`] finds and opens it, `document` parses it into keys and values that know their lines, `check`
//! makes of it what the rest of the crate works with ([`model`]) or says everything that is wrong. The runner asks the questions;
//! [`expect`] compares the answers. For authors there is `scenarios/README.md`.

pub mod model;

pub mod file;

mod document;

mod check;

pub mod expect;
