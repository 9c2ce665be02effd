//! Stand-in for GitLab's REST API (v4): real bare git repositories, merge requests merged by git, pipelines whose state changes because a
//! job ended. In reading order:

pub mod settings;

pub mod app;
pub mod db;
pub mod error;

pub mod access;
pub mod auth;
pub mod page;
pub mod params;
pub mod text;

pub mod ci;
pub mod follow;
pub mod git;
pub mod merge;
pub mod worker;

pub mod api;
pub mod smart_http;

pub mod accounts;
pub mod runner;
pub mod setup;
