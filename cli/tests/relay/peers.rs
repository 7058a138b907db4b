//! The programs at both ends, which are tokio-tungstenite, and a network in between that cuts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::support::Raw;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) type Peer = WebSocketStream<TcpStream>;
type Answer = Result<Response<()>, Box<Response<Option<String>>>>;

/// A server whose connections are handled by a function, and which remembers their requests.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request<()>>>>,
}

impl Upstream {
    pub(crate) async fn start<F>(handle: impl Fn(Peer) -> F + Send + Sync + 'static) -> Upstream
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Upstream::answering(|_, response| Ok(response), handle).await
    }

    /// It answers each request as `answer` says.
    pub(crate) async fn answering<F>(
        answer: impl Fn(&Request<()>, Response<()>) -> Answer + Send + Sync + 'static,
        handle: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Upstream
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, shared) = (requests.clone(), Arc::new((answer, handle)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, shared) = (seen.clone(), shared.clone());
                tokio::spawn(async move {
                    #[allow(clippy::result_large_err, reason = "tungstenite asks for it")]
                    let upgrade = |request: &Request<()>, response: Response<()>| {
                        seen.lock().unwrap().push(request.clone());
                        shared.0(request, response).map_err(|refusal| *refusal)
                    };
                    if let Ok(ws) = accept_hdr_async(stream, upgrade).await {
                        shared.1(ws).await;
                    }
                });
            }
        });
        Upstream { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request<()>> {
        self.requests.lock().unwrap().clone()
    }
}

/// Sends everything back, until the connection ends.
pub(crate) async fn echo(mut ws: Peer) {
    while let Some(Ok(message)) = ws.next().await {
        if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
            return;
        }
    }
}

/// A refusal with this status.
pub(crate) fn refusal(status: u16, header: (&'static str, &'static str), body: &str) -> Answer {
    let refusal = Response::builder().status(status);
    let refusal = refusal.header(header.0, header.1);
    Err(Box::new(refusal.body(Some(body.to_owned())).unwrap()))
}

/// Connects with these headers.
pub(crate) async fn connect(
    url: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Raw, HeaderMap), Error> {
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        let value = value.parse().unwrap();
        match *name {
            "connection" => request.headers_mut().insert(*name, value).is_some(),
            name => request.headers_mut().append(name, value),
        };
    }
    let (ws, response) = connect_async(request).await?;
    Ok((ws, response.headers().clone()))
}

pub(crate) async fn open(url: &str) -> Raw {
    connect(url, &[]).await.unwrap().0
}

/// The status, the headers and the body with which a request is refused.
pub(crate) async fn refused(url: &str) -> (u16, HeaderMap, String) {
    match connect(url, &[]).await {
        Err(Error::Http(response)) => {
            let (head, body) = response.into_parts();
            let body = String::from_utf8(body.unwrap_or_default()).unwrap();
            (head.status.as_u16(), head.headers, body)
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// Receives texts that are the numbers of this range, one after the other.
pub(crate) async fn numbers<S>(from: &mut S, range: std::ops::Range<u64>)
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    for number in range {
        let message = tokio::time::timeout(DEADLINE, from.next()).await;
        let message = message.expect("in time").unwrap().unwrap();
        assert_eq!(message.to_text().unwrap(), number.to_string());
    }
}

/// The code and reason with which the peer closes, and how many messages came before.
pub(crate) async fn closed<S>(ws: &mut WebSocketStream<S>) -> (u64, Option<(u16, String)>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut before = 0;
    let end = async {
        loop {
            match ws.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|it| (it.code.into(), it.reason.to_string()));
                }
                Some(Ok(message)) if message.is_text() || message.is_binary() => before += 1,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Some((1006, String::new())),
            }
        }
    };
    let end = tokio::time::timeout(DEADLINE, end).await;
    (before, end.expect("the connection ends"))
}

pub(crate) async fn close<S>(ws: &mut WebSocketStream<S>, code: u16, reason: &str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let reason = reason.to_owned().into();
    let code = CloseCode::from(code);
    ws.close(Some(CloseFrame { code, reason })).await.unwrap();
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A network between two programs that cuts all connections at once, and can refuse new ones.
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    /// The number of cuts so far, and whether connections are refused.
    state: watch::Sender<(u64, bool)>,
    /// How many connections there were.
    pub(crate) connections: watch::Receiver<u64>,
}

impl Network {
    pub(crate) async fn to(server: &str) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel((0, false));
        let (count, connections) = watch::channel(0);
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if watched.borrow().1 {
                    continue;
                }
                count.send_modify(|count| *count += 1);
                let (server, mut watched) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    let cuts = watched.borrow_and_update().0;
                    let Ok(mut server) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.wait_for(|state| state.0 > cuts) => {}
                    }
                });
            }
        });
        Network {
            address,
            state,
            connections,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.0 += 1);
    }

    /// Cuts, and refuses connections from now on.
    pub(crate) fn stop(&self) {
        self.state.send_modify(|state| *state = (state.0 + 1, true));
    }
}
