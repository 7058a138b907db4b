//! The fuzz targets, which the tests of unstall-proto and unstall have as well.

// The tests use more of them.
#[allow(dead_code)]
#[path = "../../proto/tests/targets/mod.rs"]
mod targets;

pub use targets::{decode, pair, session, topics_decode, topics_peer};
pub use unstall::inflate;
