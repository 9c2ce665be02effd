//! Reports: functions of a transcript, so that they can be made again from a verified file.

mod boot;
pub mod compare;
pub mod html;
pub mod in_toto;
pub mod journal;
mod junit;
pub mod reproduce;
pub mod session;
pub mod text;

pub use junit::junit;
