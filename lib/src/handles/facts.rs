//! What every handle tells of its connection. It is written once, for the three kinds of handles.

/// The methods that [`Connection`](crate::Connection), [`Sender`](crate::Sender) and
/// [`Receiver`](crate::Receiver) have alike. `$shared` is the way from the handle to what it shares
/// with the pump.
macro_rules! tells_of_its_connection {
    ($handle:ty, $($shared:ident).+) => {
        impl $handle {
            /// The peer's address, or `None` if it is not known.
            ///
            /// - On a client that dials through a proxy it is the proxy's address.
            /// - On a server behind [trusted proxies](crate::TrustedProxies) it is the client's own
            ///   address. Its port is 0 if the proxy did not tell the port.
            /// - It is not known before a [lazy client](crate::Client::connect_lazy) has connected,
            ///   nor on streams that are not TCP.
            ///
            /// A new connection of a client or a session may have another address. This is the one
            /// of the latest.
            pub fn peer_addr(&self) -> Option<::std::net::SocketAddr> {
                self.$($shared).+.identity().peer_addr()
            }

            /// This side's address of the latest TCP connection, or `None` if it is not known.
            pub fn local_addr(&self) -> Option<::std::net::SocketAddr> {
                self.$($shared).+.identity().local
            }

            /// The subprotocol that both sides agreed to (RFC 6455 section 1.9) on the latest
            /// connection, or `None` if there was no agreement. It is `unstall.v1` in a session.
            ///
            /// [`Connection::from_websocket`](crate::Connection::from_websocket) cannot know the
            /// subprotocol of the stream that it takes over, so there it is `None`.
            pub fn subprotocol(&self) -> Option<String> {
                self.$($shared).+.identity().subprotocol
            }

            /// Whether both sides agreed, on the latest connection, to compress messages
            /// ([`Options::compression`](crate::Options::compression)).
            pub fn is_compressed(&self) -> bool {
                self.$($shared).+.identity().compressed
            }

            /// On a server, the head of the latest upgrade request: path, headers, and the
            /// extensions that the [authentication hook](crate::ServerBuilder::authenticate) left.
            /// On a client it is `None`.
            pub fn request(&self) -> Option<::std::sync::Arc<::http::Request<()>>> {
                self.$($shared).+.identity().request
            }

            /// On a client, the head of the server's latest answer to the upgrade request, such as
            /// cookies and the name of the node. On a server it is `None`.
            pub fn response(&self) -> Option<::std::sync::Arc<::http::Response<()>>> {
                self.$($shared).+.identity().response
            }

            /// Whether the peer agreed to a session (`unstall.v1`), in which nothing is lost in
            /// silence over broken connections.
            ///
            /// It speaks of the latest connection. It is `false` until a
            /// [lazy client](crate::Client::connect_lazy) has connected.
            pub fn is_session(&self) -> bool {
                self.$($shared).+.is_session()
            }

            /// A snapshot of the connection's counters, queues and stalls.
            pub fn stats(&self) -> crate::reports::Stats {
                self.$($shared).+.stats()
            }

            /// What happens to the connection, from the oldest event that is kept. The last
            /// [`EVENT_BACKLOG`](crate::defaults::EVENT_BACKLOG) (256) are kept.
            pub fn events(&self) -> crate::reports::Events {
                self.$($shared).+.events()
            }
        }
    };
}

pub(super) use tells_of_its_connection;
