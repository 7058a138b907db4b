//! Where a log is kept: `--store`, `--max-bytes` and `--max-age`.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use unstall::{RedactedUrl, printable};
use unstall_topics::{
    Embedded, Limits, Log, Memory,
    jetstream::{JetStream, async_nats::ConnectOptions},
};

use crate::failure::Failure;

/// Where a log is kept, and how much of it
#[derive(Clone, Debug, Args)]
pub(crate) struct Store {
    /// Where messages are kept: memory, a directory, or nats://HOST:PORT/STREAM (several hosts with
    /// commas between)
    #[arg(long, value_name = "STORE", default_value = "memory")]
    store: Place,

    /// Remove the oldest messages above so many bytes, for example 500000000 or 2GiB. Default 64 MiB
    /// in memory and 1 GiB in a directory
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_bytes: Option<u64>,

    /// Remove messages that are older than so many seconds, or with a unit: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    max_age: Option<Duration>,

    /// Log in to NATS with the user's credentials in this file, as `nsc` writes them. A user and a
    /// password, or a token, stand in the address: nats://USER:PASSWORD@HOST:PORT/STREAM
    #[arg(long, value_name = "FILE")]
    nats_credentials: Option<PathBuf>,

    /// Trust the certificates in this PEM file for tls://HOST:PORT/STREAM, too
    #[arg(long, value_name = "FILE")]
    nats_ca: Option<PathBuf>,
}

/// The value of `--store`.
#[derive(Clone)]
pub(crate) enum Place {
    Memory,
    Directory(PathBuf),
    Nats {
        servers: Vec<String>,
        stream: String,
    },
}

impl fmt::Debug for Place {
    // Servers may have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory => f.write_str("memory"),
            Place::Directory(directory) => directory.fmt(f),
            Place::Nats { stream, .. } => write!(f, "nats://…/{stream}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if text == "memory" {
            return Ok(Place::Memory);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text.is_empty() {
                true => Err("a store is memory, a directory, or nats://HOST:PORT/STREAM".into()),
                false => Ok(Place::Directory(text.into())),
            };
        };
        let parts = rest.rsplit_once('/');
        match (scheme, parts) {
            ("nats" | "tls", Some((hosts, stream))) if !hosts.is_empty() && !stream.is_empty() => {
                let server = |host: &str| match host.split_once("://") {
                    Some(_) => host.to_owned(),
                    None => format!("{scheme}://{host}"),
                };
                Ok(Place::Nats {
                    servers: hosts.split(',').map(server).collect(),
                    stream: stream.to_owned(),
                })
            }
            ("nats" | "tls", _) => Err("a store on NATS is nats://HOST:PORT/STREAM".into()),
            _ => Err("a store is memory, a directory, or nats://HOST:PORT/STREAM".into()),
        }
    }
}

impl Store {
    /// Opens the log.
    pub(crate) async fn open(&self) -> Result<Log, Failure> {
        let mut limits = Limits::default();
        if let Some(bytes) = self.max_bytes {
            limits = limits.max_bytes(bytes);
        }
        limits = limits.max_age(self.max_age);
        let opened = match &self.store {
            Place::Memory => Log::with_store(Memory::new(limits)).await,
            Place::Directory(directory) => {
                let store = Embedded::open(directory, limits).await;
                Log::with_store(store.map_err(Failure::because)?).await
            }
            Place::Nats { servers, stream } => {
                let mut builder = JetStream::builder(servers.clone(), stream.clone())
                    .connect_options(self.login().await?);
                if let Some(bytes) = self.max_bytes {
                    builder = builder.max_bytes(bytes);
                }
                if let Some(age) = self.max_age {
                    builder = builder.max_age(age);
                }
                let store = builder.open().await.map_err(|error| {
                    let names: Vec<_> = servers.iter().map(RedactedUrl::new).collect();
                    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                    let error = error.to_string();
                    Failure::work(format_args!("{}: {}", names.join(","), printable(&error)))
                })?;
                Log::with_store(store).await
            }
        };
        opened.map_err(Failure::because)
    }

    /// Who the client of NATS is, and whom it trusts.
    async fn login(&self) -> Result<ConnectOptions, Failure> {
        let mut options = ConnectOptions::new().name("unstall");
        if let Some(file) = &self.nats_credentials {
            options = options.credentials_file(file).await.map_err(|error| {
                let name = file.display();
                Failure::work(format_args!("cannot read the credentials {name}: {error}"))
            })?;
        }
        if let Some(file) = &self.nats_ca {
            options = options.add_root_certificates(file.clone());
        }
        Ok(options)
    }
}

/// A number of bytes, with a unit or without: `1000`, `64KiB`, `2G`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("the units are KiB, MiB, GiB and TiB".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a number of bytes".to_owned())?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "not a number of bytes above 0".to_owned())
}

/// A length of time, with a unit or in seconds: `90`, `15m`, `1.5h`, `7d`.
fn parse_age(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let unit = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("the units are s, m, h and d".to_owned()),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "not a length of time".to_owned())?;
    let age = Duration::try_from_secs_f64(number * unit);
    age.ok()
        .filter(|age| *age >= Duration::from_millis(1))
        .ok_or_else(|| "not a length of time of at least a millisecond".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_memory_a_directory_or_a_stream() {
        let shown = |text: &str| text.parse::<Place>().map(|place| format!("{place:?}"));
        assert_eq!(shown("memory"), Ok("memory".into()));
        assert_eq!(shown("some/where"), Ok("\"some/where\"".into()));
        assert_eq!(shown("nats://u:secret@a:1/S"), Ok("nats://…/S".into()));
        let Ok(Place::Nats { servers, stream }) = "nats://a:1,b:2/S".parse() else {
            panic!("two servers");
        };
        assert_eq!(
            (servers, &*stream),
            (vec!["nats://a:1".into(), "nats://b:2".into()], "S")
        );
        for wrong in ["", "nats://a:1", "nats:///S", "nats://a:1/", "redis://a/b"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_and_ages_have_units() {
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_age("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_age("1.5h"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "0", "-1", "GiB", "1XB", "99999999999TiB", "ü"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "-1", "d", "1w", "nan", "inf", "1e300d", "ü"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
