//! The session protocol `unstall.v1`.
