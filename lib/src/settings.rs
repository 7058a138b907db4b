//! What can be set for a connection, and the budget that connections share.

mod budget;
mod options;

pub use budget::Budget;
pub(crate) use budget::Share;
pub use options::{KeyFn, Options, Overflow, Spill, SpillFallback};
