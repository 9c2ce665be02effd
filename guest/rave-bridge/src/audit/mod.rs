//! The audit log: what the bridge decided, one JSON line each, on disk before it is acted upon. Each line carries a keyed hash over
//! itself and the hash before it, so that no line can be changed, taken out or put in without the key. It is also the bridge's only
//! memory: which events were seen, and which commands were begun and not ended.
//!
//! What the chain cannot show is that whole lines are missing at the end; the journal of the service has their number.

mod chain;
mod memory;
mod record;
mod writer;

pub use chain::{Broken, Verified, verify};
pub use memory::{Memory, Open, fingerprint};
pub use record::{BodyDigest, Decision, Record, effects, hex};
pub use writer::{AuditError, Durability, Log, open};
