//! Scenarios: what a file says ([`model`]), how it is read and checked, how an answer is judged, and the run itself.

pub mod model;

mod check;
mod document;
pub mod file;

pub mod expect;
