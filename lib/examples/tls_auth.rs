//! cargo run -p unstall --example tls_auth
//!
//! A server with TLS that knows its users by their tokens, and clients with a good and a bad one. The
//! certificate is made up here; a real server gives `tls_pem` the files that it got.

use std::fs;

use http::{HeaderMap, HeaderValue, Request, header::AUTHORIZATION};
use unstall::{
    BoxError, Client, ConnectError, Connection, Incoming, Principal, Rejection, Server,
    ServerLimits, client_config_from_pem,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    fs::write(&certificate, certified.cert.pem())?;
    fs::write(&key, certified.signing_key.serialize_pem())?;

    let server = Server::builder()
        .tls_pem(&certificate, &key)
        .authenticate(|request| async move { authenticate(request) })
        .limits(ServerLimits::default().connections_per_principal(10))
        .bind("127.0.0.1:0")
        .await?;
    let url = format!("wss://localhost:{}", server.local_addr().port());
    tokio::spawn(async move { server.serve(greet).await });

    let tls = client_config_from_pem(&certificate)?;
    for token in ["alices token", "an old token"] {
        let client = Client::new(&url)
            .tls(tls.clone())
            .headers_with(move |_attempt| async move { bearer(token) });
        match client.connect().await {
            Ok(mut connection) => {
                let greeting = connection.recv().await?.and_then(Incoming::into_message);
                println!(
                    "{token}: {}",
                    greeting.ok_or("no greeting")?.as_text().unwrap_or("?")
                );
            }
            Err(error @ ConnectError::Refused { .. }) => {
                println!("{token}: {error}");
                println!("worth another attempt: {}", error.is_retryable());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The headers of an attempt. A real client fetches a fresh token here.
fn bearer(token: &str) -> Result<HeaderMap, BoxError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// Says who the user is, or refuses the request. A real server asks its database or checks a JWT.
fn authenticate(mut request: Request<()>) -> Result<Request<()>, Rejection> {
    let header = request.headers().get(AUTHORIZATION);
    let token = header.and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
    let user = match token {
        Some("alices token") => "alice",
        _ => return Err(Rejection::unauthorized("a valid token is needed")),
    };
    request.extensions_mut().insert(Principal::new(user));
    Ok(request)
}

async fn greet(connection: Connection) {
    let request = connection.request();
    let user = request
        .as_ref()
        .and_then(|request| request.extensions().get::<Principal>());
    let greeting = user.map(|user| format!("hello, {user}"));
    // Nothing is received here. Without a receiver, what comes is discarded.
    let (sender, _) = connection.split();
    if let Some(greeting) = greeting {
        let _ = sender.send(greeting).await;
    }
    let _ = sender.ended().await;
}
