//! Sandbox machines for merge requests: made, listed, ended and reaped. The daemon serves an API on a unix socket; each sandbox is a transient
//! systemd unit with a machine in it, which needs no daemon to run and to end.

pub mod settings;

pub mod api;
pub mod keeper;
pub mod life;
pub mod request;
pub mod sandbox;

pub mod ports;
pub mod unit;
pub mod world;

pub mod backend;
pub mod repository;
pub mod seed;

pub mod console;
pub mod machine;

pub mod client;
pub mod inventory;
