//! Reports: functions of a transcript, so that they can be made again from a verified file.

mod junit;
pub mod text;

pub use junit::junit;
