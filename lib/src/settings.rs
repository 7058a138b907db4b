//! The options of a connection, and the budget that connections share.

mod account;
mod budget;
mod compression;
mod eviction;
mod options;
mod terms;
#[cfg(test)]
mod tests;

pub(crate) use account::{Account, Share};
pub use budget::Budget;
pub(crate) use budget::WeakBudget;
pub use compression::Compression;
pub(crate) use eviction::Evictable;
pub use options::{KeyFn, Options, Overflow, Spill, SpillFallback};
pub(crate) use terms::Terms;
