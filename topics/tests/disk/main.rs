//! The store `Embedded` when processes are killed, disks are full, and files are damaged.

#![cfg(feature = "embedded")]

mod common;
mod damaged;
mod directory;
#[cfg(target_os = "linux")]
mod full;
#[cfg(unix)]
mod killed;
#[cfg(target_os = "linux")]
mod refusing;
