//! The TCP proxy between two peers, which injects faults.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Action, Direction, Fault, Schedule};
use crate::time::later;

/// Bytes passed on at once. Small, so that the proxy adds little to the kernel's buffers.
const PIECE_BYTES: usize = 16 << 10;

/// The most bytes that a connection swallows in each direction. Beyond that it freezes.
const SWALLOWED_BYTES: usize = 8 << 20;

/// The longest CONNECT request.
const CONNECT_BYTES: usize = 8 << 10;

/// The timeout for connecting to the server, which listens or does not.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// The target of connections.
#[derive(Debug)]
pub(crate) enum Route {
    /// This server, whose address may change.
    To(watch::Receiver<SocketAddr>),
    /// The target that the client names in a CONNECT request (RFC 9110 §9.3.6).
    Asked,
}

/// The effects of the faults so far.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Connections with a lower number are cut.
    cut_below: u64,
    reset: bool,
    frozen: Frozen,
    delayed_until: Instant,
    delayed_by: Duration,
    refused_until: Instant,
}

/// Connections with a number lower than `below` pass nothing on.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    below: u64,
    until: Instant,
    /// They still accept bytes.
    swallow: bool,
}

#[derive(Debug)]
struct Proxy {
    route: Route,
    schedule: Mutex<Schedule>,
    weather: watch::Sender<Weather>,
    struck: mpsc::UnboundedSender<(Instant, Fault)>,
}

/// Starts the proxy. Returns its address, and a channel of the faults as they strike. It lives as
/// long as the runtime.
pub(crate) async fn start(
    route: Route,
    schedule: Schedule,
) -> io::Result<(SocketAddr, mpsc::UnboundedReceiver<(Instant, Fault)>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let now = Instant::now();
    let weather = Weather {
        cut_below: 0,
        reset: false,
        frozen: Frozen {
            below: 0,
            until: now,
            swallow: false,
        },
        delayed_until: now,
        delayed_by: Duration::ZERO,
        refused_until: now,
    };
    // It holds as many entries as there are faults.
    let (struck, strikes) = mpsc::unbounded_channel();
    let proxy = Arc::new(Proxy {
        route,
        schedule: Mutex::new(schedule),
        weather: watch::Sender::new(weather),
        struck,
    });
    tokio::spawn(proxy.accept(listener));
    Ok((address, strikes))
}

impl Proxy {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        for number in 0.. {
            let Ok((client, _)) = listener.accept().await else {
                // No file descriptor was free, or the client had left.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            if Instant::now() < self.weather.borrow().refused_until {
                reset(&client);
                continue;
            }
            let proxy = self.clone();
            tokio::spawn(async move { proxy.carry(number, client).await });
        }
    }

    /// Serves one connection, until either end closes it or a fault cuts it.
    async fn carry(&self, number: u64, mut client: TcpStream) {
        let Ok(mut server) = self.connect(&mut client).await else {
            if matches!(self.route, Route::To(_)) {
                reset(&client);
            }
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let with_reset = {
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = server.split();
            let both = async {
                tokio::try_join!(
                    self.pass(number, Direction::Up, client_read, server_write),
                    self.pass(number, Direction::Down, server_read, client_write),
                )
            };
            let mut weather = self.weather.subscribe();
            tokio::select! {
                biased;
                cut = weather.wait_for(|weather| number < weather.cut_below) => {
                    cut.is_ok_and(|weather| weather.reset)
                }
                // When one side is reset, the other is reset as well.
                ended = both => ended.is_err(),
            }
        };
        if with_reset {
            reset(&client);
            reset(&server);
        }
    }

    async fn connect(&self, client: &mut TcpStream) -> io::Result<TcpStream> {
        let server = async {
            match &self.route {
                Route::To(server) => {
                    let server = *server.borrow();
                    TcpStream::connect(server).await
                }
                Route::Asked => tunnel(client).await,
            }
        };
        timeout(UPSTREAM_TIMEOUT, server).await?
    }

    /// Passes on one direction of one connection.
    async fn pass(
        &self,
        number: u64,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut held = BytesMut::with_capacity(PIECE_BYTES);
        loop {
            let mut ended = read_piece(&mut from, &mut held).await? == 0;
            loop {
                ended |= self.hold_back(number, &mut from, &mut held).await?;
                let (len, fault) = self.schedule.lock().unwrap().pass(direction, held.len());
                to.write_all(&held.split_to(len)).await?;
                match fault {
                    Some(fault) => self.strike(fault, number),
                    None => break,
                }
            }
            if ended {
                return to.shutdown().await;
            }
        }
    }

    /// Waits while nothing may pass. Never returns on a connection that is cut. Returns `true` if
    /// the stream ended while it was swallowed.
    async fn hold_back(
        &self,
        number: u64,
        from: &mut (impl AsyncRead + Unpin),
        held: &mut BytesMut,
    ) -> io::Result<bool> {
        let weather = *self.weather.borrow();
        let now = Instant::now();
        if number < weather.cut_below {
            std::future::pending::<()>().await;
        }
        let frozen = weather.frozen;
        let mut ended = false;
        if number < frozen.below {
            let thaw = sleep_until(frozen.until);
            tokio::pin!(thaw);
            while frozen.swallow && !ended && held.len() < SWALLOWED_BYTES {
                tokio::select! {
                    () = &mut thaw => return Ok(false),
                    // Bytes that a peer has written still pass after it has given the connection
                    // up.
                    len = read_piece(from, held) => ended = len.unwrap_or(0) == 0,
                }
            }
            thaw.await;
        }
        if now < weather.delayed_until {
            tokio::time::sleep(weather.delayed_by).await;
        }
        Ok(ended)
    }

    fn strike(&self, fault: Fault, number: u64) {
        let now = Instant::now();
        self.weather.send_modify(|weather| match fault.action {
            Action::Cut { reset } => {
                weather.cut_below = weather.cut_below.max(number + 1);
                weather.reset = reset;
            }
            Action::Refuse(lasts) => {
                weather.cut_below = weather.cut_below.max(number + 1);
                weather.reset = true;
                weather.refused_until = later(now, lasts);
            }
            Action::Freeze(lasts) | Action::Swallow(lasts) => {
                weather.frozen = Frozen {
                    below: number + 1,
                    until: later(now, lasts),
                    swallow: matches!(fault.action, Action::Swallow(_)),
                }
            }
            Action::Delay { lasts, by } => {
                weather.delayed_until = later(now, lasts);
                weather.delayed_by = by;
            }
            // These are faults of the processes. The verifier injects them.
            Action::Restart(_) | Action::Kill(_) | Action::Slow(..) => {}
        });
        let _ = self.struck.send((now, fault));
    }
}

/// Reads available bytes, up to one piece. Returns their number: 0 at the end.
async fn read_piece(from: &mut (impl AsyncRead + Unpin), held: &mut BytesMut) -> io::Result<usize> {
    held.reserve(PIECE_BYTES);
    from.take(PIECE_BYTES as u64).read_buf(held).await
}

/// Makes the drop of this socket a reset, which destroys bytes under way.
fn reset(socket: &TcpStream) {
    // It fails only on a socket that is closed already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Connects to the target that the client names, and answers the request.
async fn tunnel(client: &mut TcpStream) -> io::Result<TcpStream> {
    let target = read_connect(client).await?;
    let connected = TcpStream::connect(target).await;
    let answer = match &connected {
        Ok(_) => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        Err(error) => {
            let body = error.to_string();
            let len = body.len();
            format!("HTTP/1.1 502 Bad Gateway\r\ncontent-length: {len}\r\n\r\n{body}")
        }
    };
    client.write_all(answer.as_bytes()).await?;
    if connected.is_err() {
        client.shutdown().await?;
    }
    connected
}

/// Reads a CONNECT request. Returns the `HOST:PORT` that it names.
async fn read_connect(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut client = pin!(client.take(CONNECT_BYTES as u64));
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte, because the bytes after the head belong to the tunnel. It is done once per
        // connection.
        head.push(client.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let target = line
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    target
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("not a CONNECT request"))
}
