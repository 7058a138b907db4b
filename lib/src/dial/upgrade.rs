//! The client's half of the WebSocket handshake (RFC 6455 section 4.1).

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Empty;

use super::DialOptions;
use super::exchange::{Answer, exchange};
use super::secrets::Secrets;
use super::target::Target;
use crate::dial::Wanted;
use crate::reports::{ConnectError, RedactedUrl, connect_error};
use crate::session::opening::{HELLO_HEADER, is_taken};
use crate::settings::Compression;
use crate::spans;
use crate::ws;
use crate::ws::extension::{self, CompressionAgreed};
use crate::ws::headers::{has_token, of_handshake};
use crate::ws::transport::{HelloSent, Transport, Upgraded};
use unstall_proto::SUBPROTOCOL;

/// Refuses headers that would break the handshake.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), ConnectError> {
    let hello = headers.contains_key(HELLO_HEADER).then_some(HELLO_HEADER);
    match hello.or_else(|| of_handshake(headers)) {
        None => Ok(()),
        Some(name) => Err(ConnectError::Header {
            name: name.to_string(),
            why: "the handshake sets it; there are Client::subprotocol and Options::compression"
                .into(),
        }),
    }
}

/// The subprotocols that are offered, and whether the server must agree to one.
struct Offer {
    names: Vec<String>,
    required: bool,
}

impl Offer {
    /// Both sides agree on one name only (RFC 6455 section 1.9). So the application's own
    /// subprotocols replace the offer of a session, unless a session is required.
    fn new(options: &DialOptions) -> Offer {
        let own = &options.subprotocols;
        match options.session {
            Wanted::Required => Offer {
                names: vec![SUBPROTOCOL.to_owned()],
                required: true,
            },
            // A server without sessions will do: the connection is plain then.
            Wanted::Offered if own.is_empty() => Offer {
                names: vec![SUBPROTOCOL.to_owned()],
                required: false,
            },
            Wanted::Offered | Wanted::Never => Offer {
                names: own.clone(),
                required: options.subprotocol_required && !own.is_empty(),
            },
        }
    }

    fn is_session(&self) -> bool {
        self.names.iter().any(|name| name == SUBPROTOCOL)
    }
}

/// Asks the server at the other end of `transport` for a WebSocket.
pub(super) async fn upgrade(
    transport: Transport,
    target: &Target,
    options: &DialOptions,
    mut headers: HeaderMap,
) -> Result<Upgraded, ConnectError> {
    spans::inject(&mut headers);
    let key = ws::new_key();
    let offer = Offer::new(options);
    let secrets = Secrets::of(target, &headers);
    let compression = options.compression.as_ref();
    let mut request = request(target, &offer.names, headers, &key)?;
    if let Some(compression) = compression {
        let extensions = extension::offer(compression);
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    let hello = options.hello.as_ref().filter(|_| offer.is_session());
    if let Some(hello) = hello {
        request.headers_mut().insert(HELLO_HEADER, hello.clone());
    }
    let host = target.host_and_port();
    match exchange(transport, request).await {
        Err(error) if error.is_parse() => Err(ConnectError::NotWebSocket {
            host,
            why: format!("its answer is not HTTP/1.1 ({error})"),
        }),
        Err(error) => Err(match connect_error::tls_failure(&error) {
            Some(source) => ConnectError::Tls {
                host: target.host.clone(),
                source,
            },
            None => ConnectError::Interrupted {
                host,
                source: error.into(),
            },
        }),
        Ok(Answer::Refused(head, body)) => Err(ConnectError::Refused {
            status: head.status(),
            body: secrets.hidden(body),
            retry_after: connect_error::retry_after(head.headers()),
            headers: Box::new(connect_error::hidden(head.headers())),
            location: text(head.headers(), header::LOCATION).map(RedactedUrl::new),
        }),
        Ok(Answer::Switched(mut head, transport, leftover)) => {
            *head.headers_mut() = ws::headers::copied(head.headers());
            // The HTTP client's own, of no use to anybody else.
            *head.extensions_mut() = Extensions::new();
            let agreed = check(&head, &offer, &key, compression, host)?;
            let (peer, local) = (transport.peer(), transport.local());
            Ok(Upgraded {
                transport,
                leftover,
                subprotocol: agreed.0,
                compression: agreed.1,
                hello: match hello {
                    None => HelloSent::Never,
                    Some(_) if is_taken(head.headers()) => HelloSent::Taken,
                    Some(_) => HelloSent::Unanswered,
                },
                response: Some(Arc::new(head)),
                peer,
                local,
            })
        }
    }
}

fn request(
    target: &Target,
    subprotocols: &[String],
    mut headers: HeaderMap,
    key: &str,
) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let value = |name: HeaderName, value: String| {
        HeaderValue::try_from(value).map_err(|error| ConnectError::Header {
            name: name.to_string(),
            why: error.to_string(),
        })
    };
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, target.host_header.clone());
    }
    if let Some(authorization) = &target.authorization {
        headers
            .entry(header::AUTHORIZATION)
            .or_insert_with(|| authorization.clone());
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    headers.insert(
        header::SEC_WEBSOCKET_KEY,
        value(header::SEC_WEBSOCKET_KEY, key.to_owned())?,
    );
    if !subprotocols.is_empty() {
        let offer = value(header::SEC_WEBSOCKET_PROTOCOL, subprotocols.join(", "))?;
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.path.clone();
    *request.headers_mut() = headers;
    Ok(request)
}

/// Checks the server's 101, and returns the subprotocol and the extension that it chose.
fn check(
    head: &Response<()>,
    offer: &Offer,
    key: &str,
    compression: Option<&Compression>,
    host: String,
) -> Result<(Option<String>, Option<CompressionAgreed>), ConnectError> {
    let headers = head.headers();
    let wrong = |why: &str| ConnectError::NotWebSocket {
        host,
        why: why.into(),
    };
    // RFC 6455 section 4.1: "validate the server's response as follows".
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err(wrong("its answer lacks `Upgrade: websocket`"));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(wrong("its answer lacks `Connection: Upgrade`"));
    }
    if text(headers, header::SEC_WEBSOCKET_ACCEPT) != Some(ws::accept_key(key.as_bytes()).as_str())
    {
        return Err(wrong(
            "its Sec-WebSocket-Accept does not fit the key of the request",
        ));
    }
    let agreed = match compression {
        None if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) => {
            return Err(wrong("it chose an extension, and none was offered"));
        }
        None => None,
        Some(offered) => extension::check_answer(offered, headers).map_err(|why| wrong(&why))?,
    };
    Ok((chosen_subprotocol(headers, offer)?, agreed))
}

/// The subprotocol that the server chose.
fn chosen_subprotocol(headers: &HeaderMap, offer: &Offer) -> Result<Option<String>, ConnectError> {
    let mut chosen = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let (first, second) = (chosen.next(), chosen.next());
    let Some(first) = first else {
        // As in browsers: an application that offers subprotocols goes on to speak one of them.
        return match offer.required {
            false => Ok(None),
            true => Err(ConnectError::subprotocol(&offer.names, None)),
        };
    };
    let name = String::from_utf8_lossy(first.as_bytes()).trim().to_owned();
    if second.is_some() || !offer.names.contains(&name) {
        return Err(ConnectError::subprotocol(&offer.names, Some(&name)));
    }
    Ok(Some(name))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}
