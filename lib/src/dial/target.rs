//! Parsing of WebSocket URLs (RFC 6455 section 3).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::reports::{ConnectError, RedactedUrl};

/// Where to dial and what to ask for.
#[derive(Clone)]
pub(crate) struct Target {
    /// Whether to use TLS: `wss` and `https`.
    pub(crate) secure: bool,
    /// The host: a name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The `Host` header. It has the port only if that is not the scheme's default.
    pub(crate) host_header: HeaderValue,
    /// Path and query of the request; never empty. The query may contain a secret token.
    pub(crate) path: Uri,
    /// `Authorization: Basic`, from the URL's user information.
    pub(crate) authorization: Option<HeaderValue>,
    /// The password of the user information.
    pub(crate) password: Option<String>,
}

/// Scheme, user information, host and port of a URL, for servers and proxies alike.
pub(crate) struct Authority {
    pub(crate) scheme: String,
    pub(crate) credentials: Option<(String, String)>,
    /// As in the URL: an IPv6 address keeps its brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) rest: Uri,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("secure", &self.secure)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Parses `url`. The schemes `http` and `https` mean `ws` and `wss`.
    pub(crate) fn parse(url: &RedactedUrl) -> Result<Target, ConnectError> {
        let bad = |why: String| ConnectError::Url {
            url: url.clone(),
            why,
        };
        let Authority {
            scheme,
            credentials,
            host,
            port,
            rest,
        } = Authority::parse(url.reveal(), "ws:// or wss://").map_err(bad)?;
        let secure = match scheme.as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(bad("its scheme is neither ws nor wss".into())),
        };
        if secure && !cfg!(feature = "tls") {
            return Err(bad(
                "it needs TLS: enable the feature `tls` of unstall".into()
            ));
        }
        let own_port = if secure { 443 } else { 80 };
        let port = port.unwrap_or(own_port);
        let host_header = if port == own_port {
            host.clone()
        } else {
            format!("{host}:{port}")
        };
        let path = rest.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('?') {
            format!("/{path}")
        } else {
            path.to_owned()
        };
        Ok(Target {
            secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            host_header: HeaderValue::try_from(host_header).map_err(|e| bad(e.to_string()))?,
            path: Uri::try_from(path).map_err(|e| bad(e.to_string()))?,
            authorization: credentials.as_ref().map(|(user, pw)| basic(user, pw)),
            password: credentials.map(|(_, password)| password),
        })
    }

    /// `host:port`, with brackets around an IPv6 address; for messages and for `CONNECT`.
    pub(crate) fn host_and_port(&self) -> String {
        host_and_port(&self.host, self.port)
    }
}

impl Authority {
    /// `schemes` names the valid schemes, for the error.
    pub(crate) fn parse(url: &str, schemes: &str) -> Result<Authority, String> {
        let no_scheme = || format!("it has no scheme: put {schemes} in front");
        if !url.contains("://") {
            return Err(no_scheme());
        }
        // RFC 6455 section 3: "Fragment identifiers are meaningless in the context of WebSocket
        // URIs and MUST NOT be used on these URIs."
        if url.contains('#') {
            return Err(
                "it has a fragment (#…), which these URLs must not have; write a # in a \
                        password as %23"
                    .into(),
            );
        }
        if !url.is_ascii() {
            return Err(
                "it has characters beyond ASCII: write names in Punycode (xn--…) and \
                        percent-encode the rest"
                    .into(),
            );
        }
        let rest: Uri = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let scheme = rest.scheme_str().ok_or_else(no_scheme)?;
        let authority = rest.authority().ok_or("it has no host")?;
        let credentials = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((user, _)) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                Some((decode(user)?, decode(password)?))
            }
        };
        let host = authority.host();
        if host.is_empty() || host == "[]" {
            return Err("it has no host".into());
        }
        // `port_u16` is `None` also for a port that is empty or too large.
        let after_host = authority.as_str().rsplit('@').next().unwrap_or_default();
        if after_host.len() > host.len() && authority.port_u16().is_none() {
            return Err(
                "its port is not a number from 1 to 65535; write a / or ? in a password as %2F \
                 or %3F"
                    .into(),
            );
        }
        if authority.port_u16() == Some(0) {
            return Err("port 0 cannot be dialed".into());
        }
        Ok(Authority {
            scheme: scheme.to_ascii_lowercase(),
            credentials,
            host: host.to_owned(),
            port: authority.port_u16(),
            rest: rest.clone(),
        })
    }
}

fn decode(part: &str) -> Result<String, String> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| "its user information is not UTF-8".into())
}

pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// `Basic` credentials (RFC 7617), marked as a secret.
pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}"))
        .expect("base64 is made of characters that a header value may have");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, ConnectError> {
        Target::parse(&RedactedUrl::new(url))
    }

    #[test]
    fn a_url_is_taken_apart() {
        let target = parse("wss://feed.example/stream?a=b").unwrap();
        assert!(target.secure);
        assert_eq!((target.host.as_str(), target.port), ("feed.example", 443));
        assert_eq!(target.host_header, "feed.example");
        assert_eq!(target.path.to_string(), "/stream?a=b");

        let target = parse("ws://[::1]:9100").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 9100));
        assert_eq!(target.host_header, "[::1]:9100");
        assert_eq!(target.path.to_string(), "/");
        assert_eq!(target.host_and_port(), "[::1]:9100");

        let target = parse("HTTP://h?q").unwrap();
        assert_eq!(
            (target.secure, target.port, target.path.to_string()),
            (false, 80, "/?q".into())
        );
    }

    #[test]
    fn user_information_becomes_basic_credentials() {
        let target = parse("ws://al%40ice:p%3Aw@h/").unwrap();
        let value = target.authorization.unwrap();
        assert_eq!(
            value,
            format!("Basic {}", STANDARD.encode("al@ice:p:w")).as_str()
        );
        assert!(value.is_sensitive());
    }

    #[test]
    fn what_is_known_of_a_target_can_be_printed_without_its_secrets() {
        let target = parse("ws://user:secret@h/?token=secret").unwrap();
        assert!(!format!("{target:?}").contains("secret"), "{target:?}");
    }

    #[test]
    fn a_bad_url_says_what_is_wrong_and_keeps_the_password_to_itself() {
        for (url, why) in [
            ("feed.example/stream", "scheme"),
            ("/stream", "scheme"),
            ("ftp://feed.example", "neither ws nor wss"),
            ("ws://h/#top", "fragment"),
            ("ws://h:0/", "port 0"),
            ("ws://h:99999/", "port"),
            ("ws://bücher.example/", "Punycode"),
            ("ws://u:secret@h:x/", ""),
            ("ws://u:secret@h/#f", "fragment"),
            ("ws://u:secret#1@h/", "%23"),
            ("ws://u:secret/1@h/", "%2F"),
            ("ws://u:secret?1@h/", "%3F"),
            ("u:secret@h/", "no scheme"),
            ("", ""),
        ] {
            let error = parse(url).expect_err(url);
            assert!(!error.is_retryable());
            let text = error.to_string();
            assert!(text.contains(why), "{url}: {text}");
            assert!(!text.contains("secret"), "{text}");
            let debug = format!("{error:?}");
            assert!(!debug.contains("secret"), "{debug}");
        }
    }
}
