//! The fuzz targets. Each takes a script of bytes and panics when a promise is broken; the tests
//! of unstall-proto run them as well, on what was found and on the wire vectors.

pub mod decode;
pub mod pair;
#[path = "../../proto/tests/model/pair.rs"]
pub mod pair_world;
pub mod script;
pub mod session;
