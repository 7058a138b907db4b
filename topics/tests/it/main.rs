//! The promises of topics, over real sockets. Each module has one of them.

mod access;
mod another_log;
mod architecture;
mod cancellation;
mod common;
mod cut_anywhere;
mod gives_up;
mod history_meets_live;
mod hostile;
mod nodes;
mod once_and_in_order;
mod retention;
mod runtimes;
mod secrets_are_not_compressed;
mod stalls_alone;
mod starts;
mod stats;
mod store_ends;
