//! The signed record of a session. Knows neither machines nor scenario files, so that a verifier needs no QEMU.

pub mod canonical;
pub mod dsse;
pub mod model;
pub mod policy;
pub mod read;
#[cfg(test)]
pub(crate) mod sample;
pub mod schema;
pub mod sign;
pub mod store;
pub mod verify;
