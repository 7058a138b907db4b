//! `unstall serve`: a server to test clients against.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use unstall::{Connection, Rejection, Server};

use crate::connect::parse_seconds;
use crate::failure::Failure;
use crate::{runtime, stdout};

mod echo;
mod packets;
mod signals;
mod sink;

const EXAMPLES: &str = "\
Paths:
  /, /echo   returns each message, text as text and binary as binary
  /packets   answers the text {\"count\":N,\"size\":B} with N binary messages of B bytes (at least 16),
             then the text {\"done\":N}; a request that is not understood gets {\"error\":\"…\"}
  /sink      checks such packets and answers the text {\"report\":true} with its counts

A packet is its index (u64, big-endian, from 0), the XXH3-64 of everything after these 16 bytes
(u64, big-endian), and a payload derived from the index. Requests may be sent without waiting for
the answer; they are answered in order.

The first line on standard output is `listening on ws://ADDRESS`, with the port really bound.
SIGINT and SIGTERM close every connection with code 1001 and end the server.

Examples:
  unstall serve
  unstall serve --listen 127.0.0.1:0 --json
  unstall serve --tls-cert server.pem --tls-key server.key";

/// Serve echoes, checked packets and a packet sink
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,

    /// Serve wss:// with the certificate chain of this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// How long connections may take to close at the end, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    drain: Duration,

    /// Print one JSON object at the end: what became of the connections
    #[arg(long)]
    json: bool,
}
