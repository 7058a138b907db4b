//! The fuzz targets. Each takes a script of bytes and panics when a promise is broken. They are
//! here because the tests run them as well, on what was found and on random scripts.

pub mod decode;
pub mod pair;
pub mod script;
pub mod session;
pub mod topics_decode;
pub mod topics_peer;
pub mod world;
