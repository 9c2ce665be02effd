//! Scenarios: what a file says ([`file`], [`model`]), who asks ([`accounts`]) whom ([`guests`]), how an answer is judged ([`expect`]), how
//! the questions are put ([`runner`], [`http`], [`host`]), and what is kept of the answers ([`evidence`], [`mask`]).

pub mod model;

mod check;
mod document;
pub mod file;

pub mod accounts;

pub mod guests;

pub mod expect;

pub mod facts;

pub mod host;

pub mod http;

pub mod mask;

pub mod evidence;

pub mod runner;
