//! The appliance's Matrix bridge: takes `!rave` commands from rooms and does what their sender may do.
//!
//! The way of a command: [`server`] takes a transaction from the homeserver → [`intake`] and [`command`] read it → [`limits`] judges →
//! [`audit`] writes it down → the homeserver has its answer → [`bridge`] finds out who asks ([`people`]), does it, and replies.

pub mod agent;
pub mod agents;
pub mod audit;
pub mod bridge;
pub mod command;
pub mod directory;
pub mod forge;
pub mod intake;
pub mod limits;
pub mod matrix;
pub mod people;
pub mod reply;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod template;

mod http;
mod wait;
