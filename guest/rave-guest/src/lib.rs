//! What the appliance's programs share: how a settings file and a secret are read, and what is said of them when they are not as they
//! must be.

mod config;
mod secret;

pub use config::{ConfigError, read};
pub use secret::{Secret, SecretError};
