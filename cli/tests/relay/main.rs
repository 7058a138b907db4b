//! `unstall relay`, between programs that know nothing of it.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bounded;
mod file;
mod foreign;
mod hostile;
mod pair;
mod passes;
mod peers;
mod records;
#[cfg(unix)]
mod reload;
mod rotation;
mod rules;
mod serves;
mod systemd;
mod tls;
