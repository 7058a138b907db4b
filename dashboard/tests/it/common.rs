//! A server with a page, and a small HTTP client.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use unstall::{Connection, Server, ServerBuilder};
use unstall_dashboard::{Dashboard, DashboardBuilder};

/// Far longer than anything takes here.
const AMPLE: Duration = Duration::from_secs(60);

/// Sends back what it gets.
async fn echo(mut connection: Connection) {
    while let Ok(Some(unstall::Incoming::Message(message))) = connection.recv().await {
        if connection.send(message).await.is_err() {
            return;
        }
    }
}

pub(crate) async fn serve(dashboard: DashboardBuilder) -> SocketAddr {
    serve_with(dashboard, Server::builder()).await
}

pub(crate) async fn serve_with(dashboard: DashboardBuilder, builder: ServerBuilder) -> SocketAddr {
    let dashboard: Dashboard = dashboard.start().await;
    let server = dashboard.on(builder).bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    tokio::spawn(async move { server.serve(dashboard.beside(echo)).await });
    address
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks with these headers. Without one that names a host, it is the address.
pub(crate) async fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut head = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|it| it.starts_with("host:")) {
            head += &format!("host: {address}\r\n");
        }
        headers.iter().for_each(|it| head += &format!("{it}\r\n"));
        stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(AMPLE, asking).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// Asks until it holds.
pub(crate) async fn until(
    address: SocketAddr,
    path: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let asking = async {
        loop {
            let json = get(address, path, &[]).await.json();
            if holds(&json) {
                return json;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let last = tokio::time::timeout(AMPLE, asking).await;
    last.unwrap_or_else(|_| panic!("it never held: {path}"))
}
