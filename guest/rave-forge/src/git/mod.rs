//! Git, by its own program: nothing here knows of users or the database.

mod branches;
mod commit;
mod diff;
mod merge;
mod read;
mod run;

pub use branches::Moved;
pub use commit::{Action, Author, Change, ChangeError};
pub use merge::Tried;
pub use read::{Commit, Entry};
pub use run::{Git, GitError, Repository, clean};

/// What stands for "no commit".
pub const NOTHING: &str = "0000000000000000000000000000000000000000";
