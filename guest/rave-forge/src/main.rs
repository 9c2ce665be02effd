//! Stand-in for GitLab's REST API: real bare git repositories, merge requests, pipelines.

fn main() {}
