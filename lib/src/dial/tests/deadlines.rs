//! One deadline cuts every step that hangs, and the error names the step.

use super::*;

/// Accepts connections and never answers.
async fn mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    address
}

async fn phase_of_timeout(url: &str, options: &DialOptions) -> ConnectPhase {
    let options = DialOptions {
        connect_timeout: SHORT,
        ..options.clone()
    };
    let error = dial_to(url, &options).await.unwrap_err();
    assert!(error.is_retryable());
    let ConnectError::Timeout { phase, after } = error else {
        panic!("{error:?}")
    };
    assert_eq!(after, SHORT);
    phase
}

#[tokio::test]
async fn whoever_hangs_is_cut_by_the_deadline_and_named() {
    let mute = mute().await;
    let proxied = |kind: &str| {
        let proxy = Some(Proxy::parse(&RedactedUrl::new(format!("{kind}://{mute}"))).unwrap());
        DialOptions { proxy, ..options() }
    };
    let (plain, secure) = (format!("ws://{mute}/"), format!("wss://{mute}/"));
    let (direct, http, socks) = (options(), proxied("http"), proxied("socks5"));
    let target = target(&plain);
    let short = DialOptions {
        connect_timeout: SHORT,
        ..options()
    };
    let (upgrade, tls, http, socks, headers) = tokio::join!(
        phase_of_timeout(&plain, &direct),
        phase_of_timeout(&secure, &direct),
        phase_of_timeout("ws://server.invalid/", &http),
        phase_of_timeout("ws://server.invalid/", &socks),
        dial(&target, &short, std::future::pending()),
    );
    assert_eq!(upgrade, ConnectPhase::Upgrade);
    assert_eq!(tls, ConnectPhase::Tls);
    assert_eq!((http, socks), (ConnectPhase::Proxy, ConnectPhase::Proxy));
    let error = headers.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                phase: ConnectPhase::Headers,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_deadline_spans_all_the_steps() {
    let start = Instant::now();
    let deadline = Deadline::new(Duration::from_secs(10));
    let step = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(())
    };
    deadline.cover(ConnectPhase::Dns, step).await.unwrap();
    let hung = deadline
        .cover(ConnectPhase::Tls, std::future::pending::<Result<(), _>>())
        .await;
    assert!(matches!(
        hung,
        Err(ConnectError::Timeout {
            phase: ConnectPhase::Tls,
            ..
        })
    ));
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// A listener whose queue is full, so that the kernel drops every further SYN: a black hole on
/// loopback. It holds the connections that fill the queue.
struct BlackHole(
    SocketAddr,
    #[allow(dead_code)] Socket,
    #[allow(dead_code)] Vec<TcpStream>,
);

impl BlackHole {
    async fn at(address: SocketAddr) -> BlackHole {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            held.push(connected.unwrap());
            assert!(held.len() < 100, "the queue of the listener never fills");
        }
        BlackHole(address, socket, held)
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_swallows_packets_is_cut_in_the_tcp_phase() {
    let hole = BlackHole::at("127.0.0.1:0".parse().unwrap()).await;
    let phase = phase_of_timeout(&format!("ws://{}/", hole.0), &options()).await;
    assert_eq!(phase, ConnectPhase::Tcp);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dead_address_family_does_not_hold_up_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap();
    let dead = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), alive.port());
    let hole = BlackHole::at(dead).await;
    let deadline = Deadline::new(AMPLE);
    let tcp = tcp::connect_to(alive.port(), vec![hole.0, alive], &deadline)
        .await
        .unwrap();
    assert_eq!(tcp.peer_addr().unwrap(), alive);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dead_address_leaves_time_for_the_next_of_its_family() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap();
    let dead = SocketAddr::new(std::net::Ipv4Addr::new(127, 0, 0, 2).into(), alive.port());
    let hole = BlackHole::at(dead).await;
    let deadline = Deadline::new(Duration::from_secs(4));
    let tcp = tcp::connect_to(alive.port(), vec![hole.0, alive], &deadline)
        .await
        .unwrap();
    assert_eq!(tcp.peer_addr().unwrap(), alive);
}
