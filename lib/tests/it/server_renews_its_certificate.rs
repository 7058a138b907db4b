//! A server shows another certificate while it runs.

use std::sync::Arc;

use unstall::{Client, ConnectError, Connection, Message, Server, ServerCertificate};

use crate::common::{
    limit,
    net::{Certificate, echo_server},
    plain,
};

fn read(certificate: &Certificate) -> ServerCertificate {
    let directory = certificate.directory();
    ServerCertificate::from_pem(directory.join("cert.pem"), directory.join("key.pem")).unwrap()
}

async fn connect(server: &Server, trusts: &Certificate) -> Result<Connection, ConnectError> {
    let url = format!("wss://localhost:{}/", server.local_addr().port());
    let client = Client::new(url).tls(trusts.client()).without_reconnect();
    limit(client.connect()).await
}

async fn echoes(connection: &mut Connection) {
    connection.send("hello").await.unwrap();
    assert_eq!(
        plain(limit(connection.recv()).await),
        Message::from("hello")
    );
}

#[tokio::test]
async fn new_connections_see_a_renewed_certificate_and_open_ones_go_on() {
    let (old, new) = (Certificate::new(), Certificate::new());
    let shown = Arc::new(read(&old));
    let server = echo_server(Server::builder().tls(shown.config().unwrap())).await;
    let mut before = connect(&server, &old).await.unwrap();
    echoes(&mut before).await;
    shown.renew(read(&new));
    let mut after = connect(&server, &new).await.unwrap();
    echoes(&mut after).await;
    assert!(connect(&server, &old).await.is_err());
    echoes(&mut before).await;
}
