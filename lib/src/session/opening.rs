//! HELLO with the upgrade: a new session opens without a round trip of its own (SPEC.md section 9).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use unstall_proto::{self as proto, SessionId, Time, Token};
#[cfg(feature = "server")]
use unstall_proto::{Generation, Hello, Seq};

use super::random;
use crate::settings::Options;

/// The header of the request that carries HELLO, and of the answer that says that it was taken.
pub(crate) const HELLO_HEADER: HeaderName = HeaderName::from_static("unstall-hello");

/// The length of HELLO, 81 bytes, in base64 without padding.
#[cfg(feature = "server")]
const HELLO_LENGTH: usize = 108;

/// The value of the header in the answer.
const TAKEN: HeaderValue = HeaderValue::from_static("taken");

/// The name and the first token of a client's session that is about to be opened.
pub(crate) struct Opening {
    id: SessionId,
    token: Token,
    /// A request has carried HELLO, and its answer did not come. The server may have the session.
    asked_before: bool,
}

impl Opening {
    pub(crate) fn new() -> Opening {
        Opening {
            id: SessionId(random()),
            token: Token(random()),
            asked_before: false,
        }
    }

    /// The next attempt begins, and the last one has failed. If its request carried HELLO, the server may
    /// have taken it. So the same session goes on, with a HELLO that has to be a packet.
    pub(crate) fn again(&mut self) {
        self.asked_before = true;
    }

    /// A session that begins with this HELLO.
    pub(super) fn session(&self, options: &Options) -> proto::Session {
        let mut session = proto::Session::client(options.session_config(), self.id, self.token);
        if self.asked_before
            && let Some(generation) = session.attach(Time::ORIGIN)
        {
            session.detach(Time::ORIGIN, generation);
        }
        session
    }

    /// HELLO of the session's first connection, as a header of the request.
    pub(crate) fn header(&self, options: &Options) -> Option<HeaderValue> {
        if self.asked_before {
            return None;
        }
        let mut session = self.session(options);
        let generation = session.attach(Time::ORIGIN)?;
        let hello = session.poll_transmit(Time::ORIGIN, generation)?;
        let mut header = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(hello)).ok()?;
        // It has the token.
        header.set_sensitive(true);
        Some(header)
    }
}

/// Whether the answer to a request with HELLO says that the server has taken it.
pub(crate) fn is_taken(answer: &HeaderMap) -> bool {
    answer.get(HELLO_HEADER) == Some(&TAKEN)
}

/// Says in the answer that HELLO was taken.
#[cfg(feature = "server")]
pub(crate) fn tell_taken(answer: &mut HeaderMap) {
    answer.insert(HELLO_HEADER, TAKEN);
}

/// Takes HELLO out of a request, so that the application does not see the token. `None` if there is
/// none that opens a session: the client then sends HELLO as its first packet.
#[cfg(feature = "server")]
pub(crate) fn take_hello(request: &mut HeaderMap) -> Option<Hello> {
    let mut values = request.get_all(HELLO_HEADER).iter();
    let hello = match (values.next(), values.next()) {
        (Some(value), None) => read(value),
        _ => None,
    };
    request.remove(HELLO_HEADER);
    hello
}

#[cfg(feature = "server")]
fn read(value: &HeaderValue) -> Option<Hello> {
    // Not longer than HELLO is, so that nothing larger is decoded.
    if value.len() != HELLO_LENGTH {
        return None;
    }
    let packet = URL_SAFE_NO_PAD.decode(value.as_bytes()).ok()?;
    let hello = Hello::from_packet(packet.into()).ok()?;
    let opens = hello.epoch.is_none()
        && hello.generation == Generation::new(1)
        && hello.received == Seq::ZERO
        && hello.acked == Seq::ZERO;
    opens.then_some(hello)
}
