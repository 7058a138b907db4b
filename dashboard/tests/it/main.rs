//! The promises of the dashboard, over loopback. What is counted over the whole process is in `tests/alone.rs`.

mod access;
mod bounds;
mod common;
mod live;
