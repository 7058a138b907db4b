//! The command `unstall`.
fn main() {}
