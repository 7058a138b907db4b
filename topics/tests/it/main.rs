//! The promises of topics, over real sockets.

mod common;
mod once_and_in_order;
