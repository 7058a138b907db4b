//! A small HTTP client, and an `EventSource` as HTML's specification describes it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// Far longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// An answer whose head is read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<Box<dyn Read>>,
}

/// The body of an answer that comes in chunks (RFC 9112, section 7.1).
struct Chunks {
    stream: BufReader<TcpStream>,
    left: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            if size.trim().is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.left = usize::from_str_radix(size.trim(), 16).unwrap();
            self.ended = self.left == 0;
        }
        let most = self.left.min(to.len());
        let count = self.stream.read(&mut to[..most])?;
        self.left -= count;
        if self.left == 0 && count > 0 {
            self.stream.read_exact(&mut [0; 2])?;
        }
        Ok(count)
    }
}

/// Sends a request and reads the head of its answer. `line` is as in `GET /path`.
pub(crate) fn request(address: &str, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    if !headers
        .iter()
        .any(|it| it.to_lowercase().starts_with("host:"))
    {
        head += &format!("host: {address}\r\n");
    }
    if line.starts_with("POST") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    headers.iter().for_each(|it| head += &format!("{it}\r\n"));
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    // The server may refuse before all is sent.
    let _ = stream.write_all(body);
    let mut stream = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = next();
    let status = status
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("{line}: {status:?}"));
    let status = status.parse().unwrap();
    let headers: Vec<_> = std::iter::from_fn(|| {
        let line = next();
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    })
    .collect();
    let is = |name: &str, value: &str| headers.iter().any(|(n, v)| n == name && v == value);
    let body: Box<dyn Read> = match is("transfer-encoding", "chunked") {
        true => Box::new(Chunks {
            stream,
            left: 0,
            ended: false,
        }),
        false => Box::new(stream),
    };
    Answer {
        status,
        headers,
        body: BufReader::new(body),
    }
}

pub(crate) fn get(address: &str, path: &str, headers: &[&str]) -> Answer {
    request(address, &format!("GET {path}"), headers, b"")
}

pub(crate) fn post(address: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    request(address, &format!("POST {path}"), headers, body)
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    /// The one JSON object that it is.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The lines of JSON that it is.
    pub(crate) fn lines(self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect()
    }

    /// The events of an answer that is a stream of them.
    pub(crate) fn events(self) -> Events {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        Events {
            body: self.body,
            last_id: String::new(),
            retry: None,
        }
    }
}

/// An event as a page gets it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) last_id: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// Interprets a stream of events (HTML, section 9.2.6).
pub(crate) struct Events {
    body: BufReader<Box<dyn Read>>,
    /// What a page would send as `Last-Event-ID`.
    pub(crate) last_id: String,
    pub(crate) retry: Option<u64>,
}

impl Events {
    /// The next event. `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            match self.body.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if data.is_empty() {
                    kind.clear();
                    continue;
                }
                data.pop();
                let last_id = self.last_id.clone();
                let kind = if kind.is_empty() {
                    "message".to_owned()
                } else {
                    kind
                };
                return Some(Event {
                    kind,
                    data,
                    last_id,
                });
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_owned(),
                "data" => data += &format!("{value}\n"),
                "id" if !value.contains('\0') => self.last_id = value.to_owned(),
                "retry" => self.retry = value.parse().ok(),
                _ => {}
            }
        }
    }
}
