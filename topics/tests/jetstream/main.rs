//! A log over NATS JetStream keeps the promises of a store, over real servers.
//!
//! `.ci/nats-server` installs the server. Without it these tests say that they are skipped, unless
//! `CI` is set.

mod cluster;
mod common;
mod conformance;
mod logins;
mod losses;
mod once;
mod reading;
mod replaced;
mod servers;
mod settings;
