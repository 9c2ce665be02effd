//! Pipelines: what a file asks for, making one, and moving it on as its jobs end.

mod advance;
mod create;
mod file;
mod rules;

pub use advance::{advance, cancel};
pub use create::{Event, Refusal, create};
pub use file::{Config, Job, Starts, is_variable, read};

/// The file that says what a pipeline does.
pub const FILE: &str = ".gitlab-ci.yml";
