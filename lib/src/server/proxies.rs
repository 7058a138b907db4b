//! The addresses of clients behind reverse proxies.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, header::FORWARDED};
use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::holder::Network;
use crate::defaults::PROXY_HEADER_BYTES;

/// The addresses that a request came from. It is an extension of the request, in the authentication
/// hook and in [`Connection::request`](crate::Connection::request). A request over a Unix socket has
/// none, unless a trusted proxy reports one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerAddr {
    /// The client's address. The port is 0 if a [trusted proxy](TrustedProxies) did not report it.
    pub client: SocketAddr,
    /// The proxy's address, if a trusted proxy reported the client's address.
    pub proxy: Option<SocketAddr>,
}

/// Stands for a client without an address, such as that of a Unix socket. No connection comes from it.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl PeerAddr {
    pub(crate) fn direct(client: SocketAddr) -> PeerAddr {
        let proxy = None;
        PeerAddr { client, proxy }
    }

    pub(crate) fn of(client: Option<SocketAddr>) -> PeerAddr {
        PeerAddr::direct(client.unwrap_or(NOWHERE))
    }

    /// The same, if the client's address is known.
    pub(crate) fn known(self) -> Option<PeerAddr> {
        (self.client != NOWHERE).then_some(self)
    }

    pub(crate) fn network(self) -> Network {
        Network::of(self.known().map(|known| known.client))
    }

    fn told(self, client: SocketAddr) -> PeerAddr {
        let own = self.known().map(|known| known.client);
        let proxy = self.proxy.or(own);
        PeerAddr { client, proxy }
    }
}

/// The reverse proxies in front of a server, and how they report a client's address.
///
/// Headers of other senders are ignored, because anybody can send one. Limits count by the address
/// that a trusted proxy reports, and [`Connection::peer_addr`](crate::Connection::peer_addr) returns it.
///
/// ```
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use unstall::{Server, TrustedProxies};
/// let proxies = TrustedProxies::new(["10.0.0.0/8", "2001:db8::7"])?.x_forwarded_for();
/// let builder = Server::builder().trusted_proxies(proxies);
/// # let _ = builder;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    /// Whether a client without an address is a proxy.
    unix: bool,
    proxy_protocol: bool,
    header: Option<Header>,
}

/// A header that lists the addresses that a request came through, the client first.
#[derive(Debug, Clone, Copy)]
enum Header {
    Forwarded,
    XForwardedFor,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A proxy's address is neither an IP address nor a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// The proxies at these addresses: IP addresses, or networks such as `10.0.0.0/8`. `unix:` means
    /// every client of a Unix socket, as in nginx. Set next how they report a client's address.
    ///
    /// # Errors
    /// One of them is neither.
    pub fn new<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<TrustedProxies, InvalidNetwork> {
        let network = |text: &str| {
            let network = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| InvalidNetwork(text.to_owned()))
        };
        let mut unix = false;
        let mut networks = Vec::new();
        for address in addresses {
            match address.as_ref() {
                "unix:" => unix = true,
                address => networks.push(network(address)?),
            }
        }
        Ok(TrustedProxies {
            networks: networks.into(),
            unix,
            proxy_protocol: false,
            header: None,
        })
    }

    /// Each TCP connection from them begins with a header of the PROXY protocol, version 1 or 2
    /// (HAProxy's `send-proxy`, the load balancers of clouds). A connection without one is closed.
    ///
    /// It has no effect with axum, where the listener has to read the header, and none on streams
    /// other than TCP.
    pub fn proxy_protocol(mut self) -> TrustedProxies {
        self.proxy_protocol = true;
        self
    }

    /// They send the header `Forwarded` (RFC 7239). The last address in it that is not a trusted
    /// proxy's is the client's.
    pub fn forwarded(mut self) -> TrustedProxies {
        self.header = Some(Header::Forwarded);
        self
    }

    /// They send the header `X-Forwarded-For`. The last address in it that is not a trusted proxy's
    /// is the client's.
    pub fn x_forwarded_for(mut self) -> TrustedProxies {
        self.header = Some(Header::XForwardedFor);
        self
    }

    fn trusts(&self, address: SocketAddr) -> bool {
        if address == NOWHERE {
            return self.unix;
        }
        let ip = address.ip().to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Reads the header of the PROXY protocol and not a byte more, if one is due from this peer.
    pub(crate) async fn read_preface(
        &self,
        tcp: &mut TcpStream,
        peer: PeerAddr,
    ) -> io::Result<PeerAddr> {
        if !self.proxy_protocol || !self.trusts(peer.client) {
            return Ok(peer);
        }
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut buffer = vec![0; PROXY_HEADER_BYTES];
        let mut filled = 0;
        while filled < buffer.len() {
            // Peek first, because the bytes after the header must stay in the socket.
            let more = tcp.peek(&mut buffer[filled..]).await?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = ProxyHeader::parse(&buffer[..filled + more], ParseConfig::default());
            match header.map(|(header, length)| (header.proxied_address().cloned(), length)) {
                Ok((address, length)) => {
                    tcp.read_exact(&mut buffer[filled..length]).await?;
                    // A header without an address means that the proxy itself connects, for a
                    // health check.
                    return Ok(address.map_or(peer, |address| peer.told(address.source)));
                }
                // The header is incomplete, so all of these bytes belong to it.
                Err(Error::BufferTooShort) => {
                    tcp.read_exact(&mut buffer[filled..filled + more]).await?;
                    filled += more;
                }
                Err(_) => {
                    return Err(invalid(
                        "a trusted proxy sent no header of the PROXY protocol",
                    ));
                }
            }
        }
        Err(invalid(
            "a trusted proxy sent a header of the PROXY protocol that is too long",
        ))
    }

    /// The client's address, from the headers of the request as far as they can be trusted.
    pub(crate) fn read_headers(&self, headers: &HeaderMap, peer: PeerAddr) -> PeerAddr {
        let Some(header) = self.header.filter(|_| self.trusts(peer.client)) else {
            return peer;
        };
        let mut told = peer;
        // Each proxy appends the address that it got the request from. So the list is read
        // backwards, as long as its sender is trusted.
        for address in header.addresses(headers) {
            let Some(address) = address else { break };
            told = told.told(address);
            if !self.trusts(address) {
                break;
            }
        }
        told
    }
}

impl Header {
    /// The addresses in the header, the last one first; `None` for an element that is not an
    /// address.
    fn addresses(self, headers: &HeaderMap) -> impl Iterator<Item = Option<SocketAddr>> {
        let name = match self {
            Header::Forwarded => FORWARDED,
            Header::XForwardedFor => X_FORWARDED_FOR,
        };
        let lines = headers.get_all(name).into_iter().rev();
        // A line that is not text counts as one element that is not an address.
        let elements = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
        elements.map(move |element| match self {
            Header::Forwarded => forwarded_for(element).and_then(address),
            Header::XForwardedFor => address(element.trim()),
        })
    }
}

/// The value of `for` in one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// An address with or without a port; port 0 if there is none.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>();
    let address = ip
        .map(|ip| SocketAddr::new(ip, 0))
        .or_else(|_| text.parse());
    // Nobody has this address, and `NOWHERE` means something else.
    address
        .ok()
        .filter(|address| !address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    const PROXY: &str = "10.0.0.7:4711";

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "127.0.0.1", "2001:db8::7"]).unwrap()
    }

    fn told(proxies: &TrustedProxies, peer: &str, name: &'static str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        let peer = PeerAddr::direct(peer.parse().unwrap());
        let told = proxies.read_headers(&headers, peer);
        assert_eq!(told.proxy.is_some(), told.client != peer.client);
        told.client.to_string()
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_clients() {
        let proxies = proxies().x_forwarded_for();
        let told = |lines: &[&str]| told(&proxies, PROXY, "x-forwarded-for", lines);
        assert_eq!(told(&["192.0.2.1"]), "192.0.2.1:0");
        assert_eq!(told(&["192.0.2.1:99"]), "192.0.2.1:99");
        assert_eq!(told(&["2001:db8::1"]), "[2001:db8::1]:0");
        assert_eq!(told(&["[2001:db8::1]:99"]), "[2001:db8::1]:99");
        // Addresses that the client itself sent stand left of the address that the first trusted
        // proxy saw.
        assert_eq!(told(&["198.51.100.9, 192.0.2.1, 10.1.1.1"]), "192.0.2.1:0");
        assert_eq!(
            told(&["198.51.100.9", "192.0.2.1", "10.1.1.1"]),
            "192.0.2.1:0"
        );
        assert_eq!(
            told(&["10.1.1.1, 10.2.2.2"]),
            "10.1.1.1:0",
            "a client of the own network"
        );
        assert_eq!(told(&[]), PROXY);
        assert_eq!(told(&["unknown"]), PROXY);
        assert_eq!(told(&["192.0.2.1, unknown, 10.1.1.1"]), "10.1.1.1:0");
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        let header = ["192.0.2.1"];
        let trusting = proxies().x_forwarded_for();
        let stranger = "198.51.100.9:5";
        assert_eq!(
            told(&trusting, stranger, "x-forwarded-for", &header),
            stranger
        );
        assert_eq!(
            told(&trusting, PROXY, "forwarded", &["for=192.0.2.1"]),
            PROXY
        );
        assert_eq!(told(&proxies(), PROXY, "x-forwarded-for", &header), PROXY);
        let mapped = "[::ffff:10.0.0.7]:4711";
        assert_eq!(
            told(&trusting, mapped, "x-forwarded-for", &header),
            "192.0.2.1:0"
        );
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let proxies = proxies().forwarded();
        let told = |lines: &[&str]| told(&proxies, PROXY, "forwarded", lines);
        assert_eq!(told(&["for=192.0.2.43"]), "192.0.2.43:0");
        assert_eq!(
            told(&["For=\"[2001:db8:cafe::17]:4711\";proto=https"]),
            "[2001:db8:cafe::17]:4711"
        );
        assert_eq!(
            told(&["for=192.0.2.60;proto=http;by=203.0.113.43, for=10.3.3.3"]),
            "192.0.2.60:0"
        );
        // An open quotation mark from the client must not hide the elements after it.
        assert_eq!(told(&["for=\"evil, for=192.0.2.60"]), "192.0.2.60:0");
        assert_eq!(told(&["for=_hidden"]), PROXY);
        assert_eq!(told(&["by=10.1.1.1"]), PROXY);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let error = TrustedProxies::new(["10.0.0.0/8", "localhost"]).unwrap_err();
        assert!(error.to_string().contains("\"localhost\""), "{error}");
    }

    /// The outcome for a connection that begins with these parts, and the bytes left to read.
    async fn preface(parts: &[&[u8]]) -> (io::Result<PeerAddr>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (mut tcp, peer) = listener.accept().await.unwrap();
        let send = async {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let proxies = proxies().proxy_protocol();
        let peer = PeerAddr::direct(peer);
        let (told, ()) = tokio::join!(proxies.read_preface(&mut tcp, peer), send);
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest).await.unwrap();
        (told, rest)
    }

    #[tokio::test]
    async fn the_proxy_protocol_is_read_to_its_end_and_not_further() {
        let text = b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n".to_vec();
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
        binary.extend([192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 1, 0xbb]);
        binary.extend(b"\x04\0\x04abcd");
        for header in [text, binary] {
            let one: Vec<_> = [&header[..], b"GET /"].concat();
            let bytes: Vec<_> = one.chunks(1).collect();
            for parts in [&[&one[..]][..], &[&header, b"GET /"], &bytes] {
                let (told, rest) = preface(parts).await;
                let told = told.unwrap();
                assert_eq!(told.client, "192.0.2.1:5000".parse().unwrap());
                assert!(told.proxy.is_some());
                assert_eq!(rest, b"GET /");
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_connects_for_itself_keeps_its_address() {
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let (told, rest) = preface(&[header, b"rest"]).await;
            let told = told.unwrap();
            assert!(told.client.ip().is_loopback() && told.proxy.is_none());
            assert_eq!(rest, b"rest");
        }
    }

    #[tokio::test]
    async fn a_preface_that_is_none_or_too_long_ends_the_connection() {
        let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        long.resize(70_000, 0);
        for parts in [
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            b"PROXY TCP4 300.0.0.1 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 ",
            &long,
        ] {
            let (told, _) = preface(&[parts]).await;
            assert!(told.is_err(), "{told:?}");
        }
    }
}
