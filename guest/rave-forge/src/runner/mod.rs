//! `rave-forge runner`: asks the API for jobs, as any runner of GitLab does, and runs them one after the other.

mod client;
mod executor;
mod job;

pub use executor::Executor;
pub use job::run;
