//! A server whose process ran out of file descriptors pauses, counts, and goes on.
#![cfg(target_os = "linux")]

use crate::common::{
    net::{connect, until},
    process::test_name,
};
use tokio::net::TcpStream;
use unstall::Server;

/// The test runs itself again under a limit of its own, for the limit is the process's.
#[test]
fn a_server_without_file_descriptors_waits_for_some_and_goes_on() {
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64 && exec \"$0\" --exact \"$1\" --ignored --nocapture",
        ])
        .arg(this)
        .arg(test_name(module_path!(), "inside"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
}

#[tokio::test]
#[ignore = "run by the test above, under its own limit"]
async fn inside() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    // Every descriptor that is left goes to clients; the server's `accept` gets none.
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(address).await {
        clients.push(client);
    }
    assert!(!clients.is_empty());
    until("accept has failed", || server.stats().accept_errors > 1).await;
    clients.clear();
    let client = connect(address).await;
    drop(client);
    println!("{:?}", server.stats());
}
