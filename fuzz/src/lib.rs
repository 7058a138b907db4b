//! The fuzz targets, which the tests of unstall-proto have as well.

#[path = "../../proto/tests/targets/mod.rs"]
mod targets;

pub use targets::{decode, pair, session};
