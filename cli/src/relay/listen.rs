//! Where the relay listens: `--listen`, and the base path that its URL may have.

use std::{fmt, str::FromStr};

/// The value of `--listen`: `ws://HOST:PORT/BASE`, or `HOST:PORT`. An empty host means every address
/// of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) base: String,
    /// The URL begins with `wss://`.
    pub(super) secure: bool,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listen {
            host, port, base, ..
        } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}{base}"),
            false => write!(f, "{host}:{port}{base}"),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let (secure, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            Some(_) => return Err("it begins with neither ws:// nor wss://".to_owned()),
        };
        let (address, base) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if base.contains(['?', '#']) {
            return Err(
                "its path has a query or a fragment; a base path is a path only".to_owned(),
            );
        }
        let (host, port) = address
            .rsplit_once(':')
            .ok_or("the port is missing: write ws://HOST:PORT")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Listen {
            host: if host.is_empty() { "0.0.0.0" } else { host }.to_owned(),
            port: port
                .parse()
                .map_err(|_| "its port is not a number up to 65535")?,
            base: base.to_owned(),
            secure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_scheme_and_a_base_path() {
        let listen = |text: &str| {
            let listen = Listen::from_str(text)?;
            Ok((listen.host, listen.port, listen.base, listen.secure))
        };
        let expected = |host: &str, port, base: &str, secure| {
            Ok::<_, String>((host.to_owned(), port, base.to_owned(), secure))
        };
        assert_eq!(listen("127.0.0.1:0"), expected("127.0.0.1", 0, "", false));
        assert_eq!(listen("ws://:9300"), expected("0.0.0.0", 9300, "", false));
        assert_eq!(
            listen("wss://[::1]:1/a/b"),
            expected("::1", 1, "/a/b", true)
        );
        for wrong in [
            "ws://localhost",
            "http://h:1",
            "h:99999",
            "ws://h:1/a?b",
            "",
        ] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }
}
