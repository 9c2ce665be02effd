//! The real bridge, between a homeserver, a forge, a sandbox daemon, a database and a service manager that are made here.

mod agent;
mod commands;
mod crash;
mod directory;
mod door;
mod fakes;
mod fuzz;
mod postgresql;
mod rooms;
mod security;
mod world;
