//! Goes through a session as `sessions.json` has it, step by step. `examples/session_scripts.rs` shares it.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use unstall_proto::{
    Acknowledge, CloseFrame, Config, EndReason, Epoch, ErrorCode, Event, Fate, Generation,
    HandleError, Hello, Incoming, Kind, Payload, Position, ProtocolError, Rejection, SendError,
    Session, SessionId, Side, Time, Token,
};

pub(crate) struct Runner {
    now: Time,
    client: Session,
    server: Option<Session>,
    server_config: Config,
    on_client: Generation,
    on_server: Option<Generation>,
    /// A REJECT that the client is still to be told.
    reject: Option<Bytes>,
    epoch: u64,
    tokens: u8,
    /// The client has a connection that the server has not heard of.
    greeting: bool,
    /// How far each application has taken.
    taken: [Position; 2],
}

fn config(options: &Value) -> Config {
    let mut config = Config::new();
    for (name, value) in options.as_object().expect("options") {
        let number = value.as_u64();
        let number = || number.expect("a number");
        config = match name.as_str() {
            "window" => config.window(number()),
            "largest_window" => config.max_window(number()),
            "largest_message" => config.max_message(number()),
            "replay" => config.replay(number()),
            "expiry" => config.session_life(Duration::from_millis(number())),
            "acknowledge_by_hand" => config.acknowledge(Acknowledge::ByHand),
            other => panic!("an unknown option {other}"),
        };
    }
    config
}

impl Runner {
    pub(crate) fn new(session: &Value) -> Runner {
        let client = config(&session["client"]);
        Runner {
            now: Time::ORIGIN,
            client: Session::client(client, SessionId([1; 16]), Token([2; 16])),
            server: None,
            server_config: config(&session["server"]),
            on_client: Generation::ZERO,
            on_server: None,
            reject: None,
            epoch: 7,
            tokens: 0xa0,
            greeting: false,
            taken: [Position::START; 2],
        }
    }

    /// Whether the server has a session.
    #[allow(dead_code, reason = "the example draws steps by it")]
    pub(crate) fn has_server(&self) -> bool {
        self.server.is_some()
    }

    /// Whether the client has a connection that the server has not heard of.
    #[allow(dead_code, reason = "the example draws steps by it")]
    pub(crate) fn is_greeting(&self) -> bool {
        self.greeting
    }

    /// Whether the client can be given a connection.
    #[allow(dead_code, reason = "the example draws steps by it")]
    pub(crate) fn client_wants_connection(&self) -> bool {
        self.client.wants_connection()
    }

    fn session(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Client => &mut self.client,
            Side::Server => self.server.as_mut().expect("the server has the session"),
        }
    }

    /// Does one step: its results.
    pub(crate) fn step(&mut self, step: &Value) -> Map<String, Value> {
        let mut results = Map::new();
        let mut result = |name: &str, value: Value| {
            results.insert(name.to_owned(), value);
        };
        let now = self.now;
        match step["do"].as_str().expect("a step") {
            "connect" => {
                self.on_client = self
                    .client
                    .attach(now)
                    .expect("the client wants a connection");
                self.on_server = None;
                self.greeting = true;
                result("generation", json!(self.on_client.get()));
            }
            "carry" => {
                let (packets, error) = self.carry(side(&step["from"]));
                result("packets", json!(packets));
                if let Some(error) = error {
                    result("error", error);
                }
            }
            "lose" => {
                let packets = self.packets_of(side(&step["from"]));
                result("packets", packets.iter().map(|p| packet_value(p)).collect());
            }
            "inject" if step["text"].is_string() => {
                let to = side(&step["to"]);
                let generation = self.generation(to);
                let refused = self.session(to).handle_text(now, generation);
                if let Err(error) = self.handled(to, refused) {
                    result("error", error);
                }
            }
            "inject" => {
                let to = side(&step["to"]);
                let mut packet = unhex(step["hex"].as_str().expect("hex"));
                if step["repeat"].is_object() {
                    packet.extend(repeated(&step["repeat"]));
                }
                if let Err(error) = self.handle(to, packet.into()) {
                    result("error", error);
                }
            }
            "cut" => self.detach(side(&step["side"])),
            "send" => {
                let sent = self.send(step);
                match sent {
                    Ok(seq) => result("seq", json!(seq)),
                    Err(error) => result("error", json!(error)),
                }
            }
            "take" => {
                for (name, value) in self.take(side(&step["side"])) {
                    result(name, value);
                }
            }
            "undelivered" => {
                let list = self
                    .session(side(&step["side"]))
                    .undelivered()
                    .map(|message| {
                        let mut value = payload_value(message.kind, &message.payload);
                        value["fate"] = match message.fate {
                            Fate::NotSent => json!("not sent"),
                            Fate::MaybeDelivered => json!("maybe delivered"),
                        };
                        value
                    });
                let list: Value = list.collect();
                result("messages", list);
            }
            "wait" => {
                self.now = now.after(Duration::from_millis(number(&step["millis"])));
                let now = self.now;
                self.client.handle_timeout(now);
                if let Some(server) = &mut self.server {
                    server.handle_timeout(now);
                }
            }
            other => self.control(other, step),
        }
        let events = self.events();
        if !events.is_empty() {
            results.insert("events".to_owned(), Value::Object(events));
        }
        results
    }

    /// The steps without a result of their own.
    fn control(&mut self, name: &str, step: &Value) {
        let now = self.now;
        let reason = step["reason"].as_str().unwrap_or_default();
        let within = Duration::from_millis(step["within"].as_u64().unwrap_or_default());
        match name {
            "close" => {
                let code = u16::try_from(number(&step["code"])).expect("a close code");
                let frame = CloseFrame::new(code, reason);
                self.session(side(&step["side"])).close(now, frame, within);
            }
            "abort" => self.session(side(&step["side"])).abort(reason),
            "ping" => self.session(side(&step["side"])).ping(),
            "acknowledge" => {
                let side = side(&step["side"]);
                let end = self.taken[side as usize];
                assert!(self.session(side).acknowledge(now, end));
            }
            "go_away" => self.session(Side::Server).go_away(within, reason),
            "restart" => {
                self.server = None;
                self.on_server = None;
                self.epoch = number(&step["epoch"]);
            }
            other => panic!("an unknown step {other}"),
        }
    }

    fn send(&mut self, step: &Value) -> Result<u64, &'static str> {
        let session = self.session(side(&step["side"]));
        let bytes;
        let payload = if let Some(text) = step["text"].as_str() {
            Payload::Text(text)
        } else {
            bytes = match step["hex"].as_str() {
                Some(hex) => unhex(hex),
                None => repeated(&step["repeat"]),
            };
            Payload::Binary(&bytes)
        };
        session
            .send(payload)
            .map(|seq| seq.get())
            .map_err(|error| match error {
                SendError::Full => "full",
                SendError::TooLarge { .. } => "too large",
                _ => "closed",
            })
    }

    fn take(&mut self, side: Side) -> Vec<(&'static str, Value)> {
        let now = self.now;
        let mut taken = self.taken[side as usize];
        let session = self.session(side);
        let (mut messages, mut end) = (Vec::new(), None);
        while let Some(incoming) = session.recv() {
            match incoming {
                Incoming::Messages(batch) => {
                    taken = batch.end();
                    assert!(session.taken(now, taken));
                    messages.extend(batch.map(|m| payload_value(m.kind, &m.payload)));
                }
                Incoming::Closed(_) => end = Some(json!("closed")),
                Incoming::Discontinuity(reason) => {
                    end = Some(json!({ "discontinuity": reason_value(&reason) }));
                }
                other => panic!("{other:?}"),
            }
        }
        self.taken[side as usize] = taken;
        let mut results = vec![("messages", Value::Array(messages))];
        results.extend(end.map(|end| ("end", end)));
        results
    }

    /// All that one side wants to send now.
    fn packets_of(&mut self, from: Side) -> Vec<Bytes> {
        let now = self.now;
        let generation = match from {
            Side::Client => Some(self.on_client),
            Side::Server => self.on_server,
        };
        let mut packets = Vec::new();
        if from == Side::Server {
            packets.extend(self.reject.take());
        }
        if let Some(generation) = generation {
            let session = self.session(from);
            packets.extend(std::iter::from_fn(|| {
                session.poll_transmit(now, generation)
            }));
        }
        packets
    }

    fn carry(&mut self, from: Side) -> (Vec<Value>, Option<Value>) {
        let packets = self.packets_of(from);
        let values = packets.iter().map(|packet| packet_value(packet)).collect();
        let to = if from == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        for packet in packets {
            if let Err(error) = self.handle(to, packet) {
                self.detach(from);
                return (values, Some(error));
            }
        }
        (values, None)
    }

    fn handle(&mut self, to: Side, packet: Bytes) -> Result<(), Value> {
        let now = self.now;
        if to == Side::Server && self.greeting {
            self.greet(packet);
            return Ok(());
        }
        let generation = self.generation(to);
        let result = self.session(to).handle_packet(now, generation, packet);
        self.handled(to, result)
    }

    /// The connection of that side.
    fn generation(&self, side: Side) -> Generation {
        match side {
            Side::Client => self.on_client,
            Side::Server => self.on_server.unwrap_or(Generation::ZERO),
        }
    }

    fn handled(&mut self, to: Side, result: Result<(), HandleError>) -> Result<(), Value> {
        result.map_err(|error| {
            // A farewell is sent before the connection is lost.
            if self.session(to).is_over() || error.is_resumable() {
                self.detach(to);
            }
            match error {
                HandleError::Protocol(error) => json!(error_name(&error)),
                HandleError::Rejected(rejection) => json!(rejection_name(rejection)),
                HandleError::Superseded => json!("not the current connection"),
                other => panic!("{other}"),
            }
        })
    }

    fn greet(&mut self, packet: Bytes) {
        self.greeting = false;
        let hello = Hello::from_packet(packet).expect("HELLO comes first");
        let token = Token([self.tokens; 16]);
        self.tokens += 1;
        let epoch = Epoch(NonZeroU64::new(self.epoch).expect("an epoch"));
        let result = match self.server.as_mut().filter(|server| !server.is_over()) {
            Some(server) => server.resume(&hello, token),
            None => Session::server(self.server_config.clone(), &hello, epoch, token).map(
                |(session, generation)| {
                    self.server = Some(session);
                    generation
                },
            ),
        };
        match result {
            Ok(generation) => self.on_server = Some(generation),
            Err(rejection) => self.reject = Some(rejection.to_packet()),
        }
    }

    fn detach(&mut self, side: Side) {
        let now = self.now;
        let (on_client, on_server) = (self.on_client, self.on_server);
        match (side, on_server) {
            (Side::Client, _) => self.client.detach(now, on_client),
            (Side::Server, Some(generation)) => self.session(side).detach(now, generation),
            (Side::Server, None) => {}
        }
    }

    fn events(&mut self) -> Map<String, Value> {
        let mut events = Map::new();
        let sessions = [
            ("client", Some(&mut self.client)),
            ("server", self.server.as_mut()),
        ];
        for (name, session) in sessions {
            let Some(session) = session else { continue };
            let list: Vec<_> = std::iter::from_fn(|| session.poll_event()).collect();
            if !list.is_empty() {
                events.insert(name.to_owned(), list.iter().map(event_value).collect());
            }
        }
        events
    }
}

fn side(value: &Value) -> Side {
    match value.as_str().expect("a side") {
        "client" => Side::Client,
        "server" => Side::Server,
        other => panic!("an unknown side {other}"),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// One byte many times.
fn repeated(repeat: &Value) -> Vec<u8> {
    vec![number(&repeat["byte"]) as u8; number(&repeat["length"]) as usize]
}

fn payload_value(kind: Kind, payload: &[u8]) -> Value {
    if payload.len() > 64 {
        let same = payload.iter().all(|byte| *byte == payload[0]);
        assert!(same, "long payloads of the vectors repeat one byte");
        return json!({ "repeat": { "byte": payload[0], "length": payload.len() } });
    }
    match kind {
        Kind::Text => json!({ "text": std::str::from_utf8(payload).expect("text is UTF-8") }),
        Kind::Binary => json!({ "hex": hex(payload) }),
    }
}

fn packet_value(packet: &[u8]) -> Value {
    if packet.len() <= 256 {
        return json!(hex(packet));
    }
    let hash = packet.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let begins = hex(&packet[..64]);
    json!({ "begins": begins, "length": packet.len(), "fnv1a": format!("{hash:016x}") })
}

fn rejection_name(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Expired => "expired",
        Rejection::Unknown => "unknown",
        Rejection::NotYours => "not yours",
        Rejection::Superseded => "superseded",
        Rejection::Full { .. } => "full",
        Rejection::Inconsistent => "inconsistent",
        other => panic!("{other}"),
    }
}

fn reason_value(reason: &EndReason) -> Value {
    match reason {
        EndReason::Closed(frame) => json!({ "closed": frame.code, "reason": frame.reason }),
        EndReason::CloseTimedOut => json!("close timed out"),
        EndReason::Aborted { reason } => json!({ "aborted": reason }),
        EndReason::AbortedByPeer { code, .. } => json!({ "aborted_by_peer": code.0 }),
        EndReason::Rejected(rejection) => json!({ "rejected": rejection_name(*rejection) }),
        EndReason::Protocol(error) => json!({ "protocol": error_name(error) }),
        EndReason::Expired => json!("expired"),
        other => panic!("{other:?}"),
    }
}

fn event_value(event: &Event) -> Value {
    match event {
        Event::Opened => json!("opened"),
        Event::Resumed {
            generation,
            replayed,
        } => {
            json!({ "resumed": generation.get(), "replayed": replayed })
        }
        Event::HandshakeTimedOut(generation) => json!({ "handshake_timed_out": generation.get() }),
        Event::Writable => json!("writable"),
        Event::Pong { round_trip } => json!({ "pong_after": round_trip.as_millis() as u64 }),
        Event::GoAway { within, reason } => {
            json!({ "go_away_within": within.as_millis() as u64, "reason": reason })
        }
        Event::Closing(frame) => json!({ "closing": frame.code, "reason": frame.reason }),
        Event::Ended(reason) => json!({ "ended": reason_value(reason) }),
        other => panic!("{other:?}"),
    }
}

/// The name of an error, as SPEC.md gives it.
pub(crate) fn error_name(error: &ProtocolError) -> &'static str {
    match error.code() {
        ErrorCode::MALFORMED => "MALFORMED",
        ErrorCode::UNKNOWN_KIND => "UNKNOWN_KIND",
        ErrorCode::UNEXPECTED => "UNEXPECTED",
        ErrorCode::SEQUENCE_GAP => "SEQUENCE_GAP",
        ErrorCode::SEQUENCE_EXHAUSTED => "SEQUENCE_EXHAUSTED",
        ErrorCode::CREDIT_EXCEEDED => "CREDIT_EXCEEDED",
        ErrorCode::INVALID_ACK => "INVALID_ACK",
        ErrorCode::MESSAGE_TOO_LARGE => "MESSAGE_TOO_LARGE",
        ErrorCode::INVALID_TEXT => "INVALID_TEXT",
        ErrorCode::INCONSISTENT => "INCONSISTENT",
        other => panic!("an error without a name: {other:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits");
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digits).collect()
}
