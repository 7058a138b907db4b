//! What the subcommands of topics share.

pub(crate) mod lines;
pub(crate) mod nodes;
pub(crate) mod start;
pub(crate) mod store;
