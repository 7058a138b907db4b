//! cargo run -p unstall --example file_transfer
//!
//! Moves a file, or the one that is named: `cargo run -p unstall --example file_transfer -- FILE`.
//! The receiver acknowledges by hand, once the bytes are on its disk. So when `delivered()` returns,
//! the file is stored and not only sent. Sender and receiver run in this process.

use std::path::{Path, PathBuf};

use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};
use unstall::{BoxError, Client, CloseCode, Connection, Incoming, Options, Server};

const CHUNK: usize = 64 * 1024;
/// How many chunks are written between two waits for the disk.
const CHUNKS_PER_SYNC: usize = 64;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let file = match std::env::args_os().nth(1) {
        Some(file) => PathBuf::from(file),
        None => made_up_file(folder.path()).await?,
    };
    let stored = folder.path().join("stored");

    let server = Server::builder()
        .options(Options::default().acknowledge_by_hand(true))
        .bind("127.0.0.1:0")
        .await?;
    let client = Client::new(format!("ws://{}", server.local_addr())).require_session();
    let target = stored.clone();
    tokio::spawn(async move {
        while let Some(connection) = server.accept().await {
            if let Err(error) = receive(connection, &target).await {
                eprintln!("a file was not stored: {error}");
            }
        }
    });

    let bytes = send(&client, &file).await?;
    println!("{bytes} bytes are on the receiver's disk");
    println!(
        "the copy is the same: {}",
        fs::read(&file).await? == fs::read(&stored).await?
    );
    Ok(())
}

/// Sends the file, and returns its size once the receiver has stored it.
async fn send(client: &Client, file: &Path) -> Result<u64, BoxError> {
    let connection = client.clone().without_fresh_session().connect().await?;
    let mut file = File::open(file).await?;
    let (mut chunk, mut sent) = (vec![0; CHUNK], 0);
    loop {
        let len = file.read(&mut chunk).await?;
        // The last chunk is an empty message. `send` waits while the receiver is behind.
        connection.send(&chunk[..len]).await?;
        sent += len as u64;
        if len == 0 {
            break;
        }
    }
    connection.delivered().await?;
    let _ = connection.close(CloseCode::NORMAL, "").await;
    Ok(sent)
}

/// Stores one file, and acknowledges what the disk has.
async fn receive(mut connection: Connection, target: &Path) -> Result<(), BoxError> {
    let mut file = File::create(target).await?;
    let mut unsynced = 0;
    while let Some(incoming) = connection.recv().await? {
        let Incoming::Message(chunk) = incoming else {
            return Err("the session was lost".into());
        };
        file.write_all(chunk.as_bytes()).await?;
        unsynced += 1;
        if chunk.is_empty() || unsynced == CHUNKS_PER_SYNC {
            file.sync_data().await?;
            connection.acknowledge();
            unsynced = 0;
        }
    }
    Ok(())
}

/// A file of 8 MB.
async fn made_up_file(folder: &Path) -> std::io::Result<PathBuf> {
    let path = folder.join("made up");
    let content: Vec<u8> = (0..8_000_000u32).map(|at| (at / 251) as u8).collect();
    fs::write(&path, content).await?;
    Ok(path)
}
