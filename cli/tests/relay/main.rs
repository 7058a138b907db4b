//! `unstall relay`, between programs that know nothing of it.

#[path = "../support/mod.rs"]
mod support;

mod bounded;
mod foreign;
mod hostile;
mod pair;
mod passes;
mod peers;
mod records;
mod rotation;
mod rules;
mod serves;
mod systemd;
