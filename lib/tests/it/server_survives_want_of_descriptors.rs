//! If the process has no file descriptors left, the server pauses, counts the errors, and goes on.
#![cfg(target_os = "linux")]

use crate::common::{
    net::{bind, is_alive},
    process::{again, passed},
    until,
};
use tokio::net::TcpStream;
use unstall::Server;

/// The test runs itself again in a process of its own, because the limit is the process's.
#[test]
fn a_server_without_file_descriptors_waits_for_some_and_goes_on() {
    let output = again("ulimit -n 64;", module_path!(), "inside").output();
    passed(&output.unwrap());
}

#[tokio::test]
#[ignore = "run by the test above, under its own limit"]
async fn inside() {
    let server = bind(Server::builder()).await;
    let address = server.local_addr();
    // The clients take every descriptor that is left. The server's `accept` gets none.
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(address).await {
        clients.push(client);
    }
    assert!(!clients.is_empty());
    until("accept has failed", || server.stats().accept_errors > 1).await;
    clients.clear();
    is_alive(&server).await;
    println!("{:?}", server.stats());
}
