//! The way into a guest: commands over SSH and what came back. It takes an address and a key, and does not know that the
//! other end is a virtual machine.

mod captured;

pub use captured::{Captured, Exit};
