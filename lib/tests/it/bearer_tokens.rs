//! A page in a browser shows its token among the subprotocols. The server takes it as it takes the header,
//! never agrees to it, and never tells it.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest},
};
use unstall::{BearerToken, Client, ConnectError, Rejection, Server, axum::Upgrade};

const TOKEN: &str = "s3cret.token-of_a~page";

fn offer(token: &str) -> String {
    format!("unstall.bearer.{}", URL_SAFE_NO_PAD.encode(token))
}

fn check(headers: &http::HeaderMap) -> Result<(), Rejection> {
    match BearerToken::of(headers) {
        Some(token) if token.is(TOKEN) => Ok(()),
        Some(_) => Err(Rejection::forbidden("another token is needed")),
        None => Err(Rejection::unauthorized("a token is needed")),
    }
}

async fn guarded() -> Server {
    Server::builder()
        // Not even a server that names it agrees to it.
        .subprotocols([offer(TOKEN), "chat".to_owned()])
        .authenticate(|request| async move { check(request.headers()).map(|()| request) })
        .bind("127.0.0.1:0")
        .await
        .unwrap()
}

async fn application() -> SocketAddr {
    async fn feed(upgrade: Upgrade, headers: http::HeaderMap) -> axum::response::Response {
        use axum::response::IntoResponse;
        match check(&headers) {
            Ok(()) => upgrade
                .subprotocols([offer(TOKEN), "chat".to_owned()])
                .on_upgrade(|mut connection| async move {
                    while let Ok(Some(_)) = connection.recv().await {}
                }),
            Err(rejection) => rejection.into_response(),
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/", axum::routing::any(feed));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The status of an upgrade with these offers and this header, and the subprotocol that was agreed to.
async fn ask(server: SocketAddr, offers: &str, header: Option<&str>) -> (u16, Option<String>) {
    let mut request = format!("ws://{server}/").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", offers.parse().unwrap());
    if let Some(header) = header {
        headers.insert("authorization", header.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((_, response)) => {
            let agreed = response.headers().get("sec-websocket-protocol");
            let agreed = agreed.map(|name| name.to_str().unwrap().to_owned());
            (response.status().as_u16(), agreed)
        }
        Err(Error::Http(response)) => {
            let told = format!("{response:?}");
            assert!(
                !told.contains(TOKEN) && !told.contains(&offer(TOKEN)),
                "{told}"
            );
            (response.status().as_u16(), None)
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn server_and_extractor_take_the_token_of_a_page_and_agree_to_the_other_offer() {
    let server = guarded().await;
    for address in [server.local_addr(), application().await] {
        let good = offer(TOKEN);
        let chat = Some("chat".to_owned());
        for offers in [format!("chat, {good}"), format!("{good}, chat")] {
            assert_eq!(ask(address, &offers, None).await, (101, chat.clone()));
        }
        let wrong = offer("another");
        let header = format!("Bearer {TOKEN}");
        for (offers, header, status) in [
            ("chat".to_owned(), None, 401),
            (format!("chat, {wrong}"), None, 403),
            (format!("chat, {good}, {wrong}"), None, 401),
            (format!("chat, {good}="), None, 401),
            // The header counts.
            (format!("chat, {wrong}"), Some(&*header), 101),
            (format!("chat, {good}"), Some("Bearer another"), 403),
        ] {
            assert_eq!(ask(address, &offers, header).await.0, status, "{offers}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_the_only_offer_is_not_agreed_to() {
    let server = guarded().await;
    let client = Client::new(format!("ws://{}/", server.local_addr()));
    let client = client.subprotocol(offer(TOKEN));
    let error = client.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Subprotocol { .. }), "{error}");
    let told = format!("{error} {error:?} {client:?}");
    assert!(told.contains("unstall.bearer.…"), "{told}");
    assert!(!told.contains(&offer(TOKEN)[..20]), "{told}");
}

#[tokio::test]
async fn a_session_has_the_token_in_its_request_and_does_not_print_it() {
    let server = guarded().await;
    let client = Client::new(format!("ws://{}/", server.local_addr()));
    let client = client.header("authorization", format!("Bearer {TOKEN}"));
    let _connection = client.connect().await.unwrap();
    let served = server.accept().await.unwrap();
    assert!(served.is_session());
    let request = served.request().unwrap();
    assert!(BearerToken::of(request.headers()).unwrap().is(TOKEN));
    let told = format!("{request:?} {served:?}");
    assert!(!told.contains(TOKEN), "{told}");
}
