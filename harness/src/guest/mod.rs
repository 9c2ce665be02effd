//! The way into a guest: commands over SSH and what came back. It takes an address and a key, and does not know that the
//! other end is a virtual machine.
//!
//! In reading order: the keys of both sides ([`KeyPair`], [`PublicKey`]), what came back ([`Captured`]) or why nothing did
//! ([`AskError`], [`OpenError`]), the signal that makes everybody give up ([`Stop`]), one session ([`Connection`]), and the
//! connections that are kept for a guest ([`Guest`]).

mod captured;
mod connection;
mod error;
mod identity;
mod pool;
mod stop;

pub use captured::{Captured, Exit, Unfinished};
pub use connection::{Connection, MOST_OUTPUT, Target};
pub use error::{AskError, OpenError};
pub use identity::{HostKey, Identity, KeyError, KeyPair, PublicKey};
pub use pool::{Guest, MOST_CONNECTIONS};
pub use stop::{Stop, StopReason};
