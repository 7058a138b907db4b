//! The promises of topics one by one, hostile peers, and what a peer can make the other one hold.
#![allow(unreachable_pub)]

mod client;
mod common;
mod hostile_client;
mod hostile_server;
mod memory;
mod publishing;
mod server;
