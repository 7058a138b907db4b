//! One file for each thing that is measured.

pub(crate) mod catch_up;
pub(crate) mod durable;
pub(crate) mod failover;
pub(crate) mod fanout;
pub(crate) mod filter;
pub(crate) mod idle;
#[cfg(feature = "jetstream")]
pub(crate) mod jetstream;
pub(crate) mod publish;
pub(crate) mod retention;
pub(crate) mod stopped;
