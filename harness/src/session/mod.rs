//! One run, as one sentence of functions: settings, scenarios, the image, the machine, the trials, the transcript.

mod about;
mod arguments;
mod baseline;
mod diagnostics;
mod follow_up;
mod forks;
mod kept;
mod list;
mod machine;
mod profile;
mod reproduce;
mod room;
mod run;
mod sabotage;
mod schedule;
mod seal;
mod shared;
mod shell;

pub use arguments::RunArguments;
pub use kept::clean;
pub use list::{NothingChosen, list};
pub use reproduce::{Missing, Wish, WrongWish, reproduce};
pub use run::{Ended, main, watch_signals};
pub use sabotage::sabotage;
pub use seal::seal;
pub use shell::{resume, shell};
