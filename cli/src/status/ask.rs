//! Asks a server for its status.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::{StatusCode, Uri, header, uri::Scheme};
use serde::de::DeserializeOwned;
use unstall::{RedactedUrl, printable};
use ureq::{
    Agent,
    config::{Config, ConfigBuilder},
    tls::{Certificate, RootCerts, TlsConfig},
    typestate::AgentScope,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use super::{Details, Status, VERSION};
use crate::failure::Failure;
use crate::serve::read_token;

/// The longest answer that is read: ten thousand connections and subscriptions take about 7 MB.
const ANSWER_BYTES: u64 = 64 << 20;

/// The characters of a server's own words that are repeated in an error.
const WORDS: usize = 200;

/// As whom to ask, and which servers to believe
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Identity {
    /// Show the token in this file to the server that is asked
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// Trust the certificates of this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    tls_roots: Option<PathBuf>,
}

/// The same, with what stands in the files.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    token: Option<Token>,
    roots: RootCerts,
}

/// Where to ask, and as whom.
#[derive(Debug)]
pub(crate) struct Asker {
    agent: Agent,
    /// With its scheme, and without a slash at its end.
    base: String,
    token: Option<Token>,
}

/// Its text is a secret.
#[derive(Clone)]
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why there is no status.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("no server answers at {base}: {why}; start it, or check the address")]
    Unreachable { base: String, why: String },
    #[error(
        "{base} is no unstall server that shows its status: {why}. `unstall hub` shows it, and `unstall serve` without --token"
    )]
    Foreign { base: String, why: String },
    #[error(
        "the certificate of {base} is not accepted: {why}; name those to trust with --tls-roots FILE"
    )]
    Untrusted { base: String, why: String },
    #[error("{base} asks for a token: give one with --token FILE")]
    NoToken { base: String },
    #[error("{base} does not accept the token: {why}")]
    WrongToken { base: String, why: String },
    #[error("{base} does not show its status from here: {why}")]
    Forbidden { base: String, why: String },
    #[error(
        "{base} tells version {version} of the status, and this command knows {VERSION}: use the command of that version"
    )]
    Version { base: String, version: u32 },
    #[error("nothing is known of connection {id}: it has ended some time ago, or never was")]
    Unknown { id: u64 },
}

impl Identity {
    /// Reads the files.
    pub(crate) fn read(&self) -> Result<Credentials, Failure> {
        let token = self.token.as_deref().map(read_token).transpose()?;
        let roots = self.tls_roots.as_deref().map(roots).transpose()?;
        Ok(Credentials {
            token: token.map(Token),
            roots: roots.unwrap_or(RootCerts::PlatformVerifier),
        })
    }
}

impl Asker {
    /// `url` may have a scheme of WebSockets or of HTTP, or none. `timeout` is for each question.
    pub(crate) fn new(
        url: &str,
        credentials: Credentials,
        timeout: Duration,
    ) -> Result<Asker, Failure> {
        let base = base(url)?;
        let mut config = credentials.config(timeout);
        // A proxy has no way to the loopback of this machine.
        if is_loopback(&base) {
            config = config.proxy(None);
        }
        Ok(Asker {
            agent: config.build().new_agent(),
            base,
            token: credentials.token,
        })
    }

    /// Asks at this address of this machine, whatever name the URL has. No connection is left open.
    pub(crate) fn at(
        address: SocketAddr,
        url: &str,
        credentials: Credentials,
        timeout: Duration,
    ) -> Result<Asker, Failure> {
        let config = credentials.config(timeout).proxy(None);
        let config = config.max_idle_connections(0).build();
        Ok(Asker {
            agent: Agent::with_parts(config, DefaultConnector::default(), At(address)),
            base: base(url)?,
            token: credentials.token,
        })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The present state, as it was told, and as it is read.
    fn asked(&self) -> Result<(String, Status), Problem> {
        let text = self.get("/status.json")?;
        let text = text.ok_or_else(|| self.foreign("it has no /status.json"))?;
        let status: Status = self.read(&text)?;
        self.known(status.version)?;
        Ok((text, status))
    }

    /// The present state, as it was told.
    pub(crate) fn status_text(&self) -> Result<String, Problem> {
        self.asked().map(|(text, _)| text)
    }

    /// The present state.
    pub(crate) fn status(&self) -> Result<Status, Problem> {
        self.asked().map(|(_, status)| status)
    }

    fn asked_of(&self, id: u64) -> Result<(String, Details), Problem> {
        let text = self.get(&format!("/status/connections/{id}.json"))?;
        let text = text.ok_or(Problem::Unknown { id })?;
        let details: Details = self.read(&text)?;
        self.known(details.version)?;
        Ok((text, details))
    }

    /// One connection, as it was told.
    pub(crate) fn connection_text(&self, id: u64) -> Result<String, Problem> {
        self.asked_of(id).map(|(text, _)| text)
    }

    /// One connection. It takes about a second, because the server's doctor looks twice.
    pub(crate) fn connection(&self, id: u64) -> Result<Details, Problem> {
        self.asked_of(id).map(|(_, details)| details)
    }

    /// The text of an answer. `None`: there is nothing at this path.
    fn get(&self, path: &str) -> Result<Option<String>, Problem> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(Token(token)) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let unreachable = |error: ureq::Error| {
            let (base, why) = (self.base.clone(), error.to_string());
            let why = printable(&why).to_string();
            match is_of_certificate(&error) {
                true => Problem::Untrusted { base, why },
                false => Problem::Unreachable { base, why },
            }
        };
        let mut answer = request.call().map_err(unreachable)?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES);
        let text = body
            .lossy_utf8(true)
            .read_to_string()
            .map_err(unreachable)?;
        let base = self.base.clone();
        match status {
            StatusCode::OK => Ok(Some(text)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED if self.token.is_none() => Err(Problem::NoToken { base }),
            StatusCode::UNAUTHORIZED => Err(Problem::WrongToken {
                base,
                why: words(&text),
            }),
            StatusCode::FORBIDDEN => Err(Problem::Forbidden {
                base,
                why: words(&text),
            }),
            other => Err(self.foreign(&format!("it answers {other}"))),
        }
    }

    fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, Problem> {
        serde_json::from_str(text).map_err(|_| self.foreign("its answer is something else"))
    }

    fn known(&self, version: u32) -> Result<(), Problem> {
        match version {
            VERSION => Ok(()),
            0 => Err(self.foreign("its answer is something else")),
            version => Err(Problem::Version {
                base: self.base.clone(),
                version,
            }),
        }
    }

    fn foreign(&self, why: &str) -> Problem {
        Problem::Foreign {
            base: self.base.clone(),
            why: why.to_owned(),
        }
    }
}

impl Credentials {
    fn config(&self, timeout: Duration) -> ConfigBuilder<AgentScope> {
        let tls = TlsConfig::builder().root_certs(self.roots.clone());
        Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A token is for one server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("unstall/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
    }
}

/// The only address that names lead to.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolver for At {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// The certificates of a PEM file.
fn roots(file: &Path) -> Result<RootCerts, Failure> {
    let roots = unstall::certificates_from_pem(file).map_err(Failure::because)?;
    let roots = roots.iter().map(|it| Certificate::from_der(it).to_owned());
    Ok(RootCerts::from(roots))
}

/// Whether the server's certificate is what is wrong.
fn is_of_certificate(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else {
        return false;
    };
    let inner = error.get_ref();
    let inner = inner.and_then(|it| it.downcast_ref::<unstall::rustls::Error>());
    matches!(inner, Some(unstall::rustls::Error::InvalidCertificate(_)))
}

/// What a server says in `{"error": …}`, or as text.
fn words(text: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let error = json.as_ref().and_then(|json| json["error"].as_str());
    let words: String = error.unwrap_or(text).trim().chars().take(WORDS).collect();
    printable(&words).to_string()
}

/// The address to ask, by HTTP.
fn base(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let shown = RedactedUrl::new(url);
        Failure::usage(format_args!(
            "{shown} is no address of a server: {why}. Give one such as ws://127.0.0.1:9200"
        ))
    };
    let full = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let uri: Uri = full.parse().map_err(|_| wrong("it is not a URL"))?;
    let scheme = match uri.scheme_str() {
        Some("ws" | "http") => Scheme::HTTP,
        Some("wss" | "https") => Scheme::HTTPS,
        _ => return Err(wrong("its scheme is not ws, wss, http or https")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong(
            "it has a user's name; a token is given with --token FILE",
        ));
    }
    let path = uri.path().trim_end_matches('/');
    Ok(format!("{scheme}://{authority}{path}"))
}

fn is_loopback(base: &str) -> bool {
    let uri: Option<Uri> = base.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_usual_form_are_taken() {
        for (given, asked) in [
            ("127.0.0.1:9200", "http://127.0.0.1:9200"),
            ("ws://127.0.0.1:9200", "http://127.0.0.1:9200"),
            ("ws://[::1]:9200/?a=b", "http://[::1]:9200"),
            ("wss://hub.example/", "https://hub.example"),
            ("https://hub.example/ops/", "https://hub.example/ops"),
        ] {
            assert_eq!(base(given).unwrap(), asked);
        }
        for wrong in ["ftp://a", "http://", "ws://me:s3cret@a/", "a b"] {
            let why = base(wrong).unwrap_err().into_reason();
            assert!(why.contains("is no address of a server"), "{why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
        for (base, loopback) in [
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://127.0.0.9", true),
            ("https://hub.example", false),
        ] {
            assert_eq!(is_loopback(base), loopback, "{base}");
        }
    }
}
