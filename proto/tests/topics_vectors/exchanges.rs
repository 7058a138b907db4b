//! Whole exchanges, step by step, with every byte.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use unstall_proto::topics::{
    AccessToken, Client, ClientConfig, ClientEvent, Delivery, Filter, LogInfo, Outcome,
    PublishError, Publisher, Server, ServerConfig, ServerEvent, ServerReject, StoredAt,
    SubscribeOptions, SubscribeRequest, SubscriptionEnd, SubscriptionId, SubscriptionKey, Topic,
};
use unstall_proto::{ErrorCode, ProtocolError, Time};

use crate::log::{Log, offset, payload, start};
use crate::words::{self, error_name, without_words};
use crate::{bytes, hex, list, number, read, text, unhex};

/// What a step may result in; everything else in it are its arguments.
const RESULTS: [&str; 7] = [
    "subscription",
    "number",
    "packets",
    "error",
    "items",
    "closed",
    "events",
];

struct Runner {
    millis: u64,
    log: Log,
    client: Client,
    token: AccessToken,
    client_closed: Option<u16>,
    subscriptions: Vec<SubscriptionId>,
    server_options: Value,
    node: Option<Node>,
    events: Map<String, Value>,
}

/// The server of the present connection.
struct Node {
    server: Server,
    info: LogInfo,
    closed: Option<u16>,
    asked: HashMap<u32, SubscribeRequest>,
    keys: HashMap<u32, SubscriptionKey>,
    /// The numbers of published messages without an answer.
    published: VecDeque<u64>,
}

type Results = Map<String, Value>;

fn option(options: &Value, name: &str, otherwise: u64) -> u64 {
    options[name].as_u64().unwrap_or(otherwise)
}

fn result(name: &str, value: Value) -> Results {
    Map::from_iter([(name.to_owned(), value)])
}

fn error(result: Result<(), ProtocolError>) -> Option<&'static str> {
    result.err().map(|error| error_name(error.code()))
}

impl Runner {
    fn new(exchange: &Value) -> Runner {
        let options = &exchange["client"];
        let mut config = ClientConfig::new()
            .window(option(options, "window", 1 << 20))
            .max_message(option(options, "largest_message", 8 << 20))
            .unanswered(1 << 30);
        if let Some(id) = options["publisher"].as_str() {
            config = config.publisher(Publisher {
                id: unhex(id).try_into().expect("16 bytes"),
                epoch: number(&options["epoch"]),
            });
        }
        Runner {
            millis: 0,
            log: Log::new(&exchange["log"]),
            client: Client::new(config),
            token: token(&options["token"]),
            client_closed: None,
            subscriptions: Vec::new(),
            server_options: exchange["server"].clone(),
            node: None,
            events: Map::new(),
        }
    }

    fn now(&self) -> Time {
        Time::ORIGIN.after(Duration::from_millis(self.millis))
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("there is a connection")
    }

    fn subscription(&self, step: &Value) -> SubscriptionId {
        self.subscriptions[number(&step["of"]) as usize - 1]
    }

    /// Does one step: its results.
    fn step(&mut self, step: &Value) -> Results {
        let before = (
            self.client_closed,
            self.node.as_ref().and_then(|it| it.closed),
        );
        let mut results = match text(&step["do"]) {
            "connect" => self.connect(step),
            "cut" => self.cut(),
            "carry" => self.carry(step),
            "inject" => self.inject(step),
            "append" | "remove" | "replace" | "damage" => self.change_log(step),
            "wait" => {
                self.millis += number(&step["millis"]);
                let now = self.now();
                self.client.handle_timeout(now);
                Results::new()
            }
            name => match self.tell_client(name, step) {
                Some(results) => results,
                None => self.tell_server(name, step),
            },
        };
        self.collect_events();
        let after = (
            self.client_closed,
            self.node.as_ref().and_then(|it| it.closed),
        );
        let mut closed = Map::new();
        if let Some(code) = after.0.filter(|_| after.0 != before.0) {
            closed.insert("client".to_owned(), json!(code));
        }
        if let Some(code) = after.1.filter(|_| after.1 != before.1) {
            closed.insert("server".to_owned(), json!(code));
        }
        if !closed.is_empty() {
            results.insert("closed".to_owned(), Value::Object(closed));
        }
        let events = std::mem::take(&mut self.events);
        if !events.is_empty() {
            results.insert("events".to_owned(), Value::Object(events));
        }
        results
    }

    fn connect(&mut self, step: &Value) -> Results {
        let mut options = self.server_options.clone();
        for (name, value) in step["server"].as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        let now = self.now();
        self.client.attach(now, self.token.clone());
        self.client_closed = None;
        self.node = Some(Node::new(&options));
        Results::new()
    }

    fn cut(&mut self) -> Results {
        let now = self.now();
        self.client.detach(now);
        self.client_closed = None;
        self.node = None;
        Results::new()
    }

    fn carry(&mut self, step: &Value) -> Results {
        let now = self.now();
        let from_client = text(&step["from"]) == "client";
        let mut sent = Vec::new();
        if from_client {
            sent.extend(std::iter::from_fn(|| self.client.poll_transmit(now)));
        } else {
            let (at, log) = (StoredAt::new(self.millis).expect("a time"), &self.log);
            let server = &mut self.node.as_mut().expect("there is a connection").server;
            loop {
                sent.extend(std::iter::from_fn(|| server.poll_transmit(at)));
                if !log.serve(server) && !server.wants_transmit() {
                    break;
                }
            }
        }
        let sent: Vec<Bytes> = sent.into_iter().map(|packet| packet.into_bytes()).collect();
        let packets = sent.iter().map(|packet| words::packet(packet)).collect();
        let mut results = result("packets", packets);
        let arrive = step["arrive"].as_u64().unwrap_or(u64::MAX) as usize;
        let to = if from_client { "server" } else { "client" };
        for packet in sent.into_iter().take(arrive) {
            if let Some(error) = self.handle(to, Some(packet)) {
                results.insert("error".to_owned(), json!(error));
                break;
            }
        }
        results
    }

    fn inject(&mut self, step: &Value) -> Results {
        let packet = match step["text"].is_string() {
            true => None,
            false => Some(bytes(step).into()),
        };
        match self.handle(text(&step["to"]), packet) {
            Some(error) => result("error", json!(error)),
            None => Results::new(),
        }
    }

    /// A packet, or a text message, arrives: the error, if it gives one.
    fn handle(&mut self, to: &str, packet: Option<Bytes>) -> Option<&'static str> {
        let now = self.now();
        let failed = if to == "client" {
            let failed = error(match packet {
                Some(packet) => self.client.handle_packet(now, packet),
                None => self.client.handle_text(now),
            });
            self.client_closed = self.client_closed.or(failed.map(|_| 1002));
            failed
        } else {
            let node = self.node();
            let failed = error(match packet {
                Some(packet) => node.server.handle_packet(packet),
                None => node.server.handle_text(),
            });
            node.closed = node.closed.or(failed.map(|_| 1002));
            failed
        };
        self.collect_events();
        failed
    }

    fn change_log(&mut self, step: &Value) -> Results {
        match text(&step["do"]) {
            "append" => self.log.append(&step["messages"]),
            "remove" => self.log.remove(offset(&step["through"])),
            "damage" => self.log.damaged = (offset(&step["after"]), offset(&step["through"])),
            _ => self.log = Log::new(&step["log"]),
        }
        let bounds = self.log.bounds;
        if let Some(node) = &mut self.node {
            node.server.set_end(bounds.last, bounds.last_time);
            node.server.release();
        }
        Results::new()
    }

    /// What the application tells the client. `None` if it is not for the client.
    fn tell_client(&mut self, name: &str, step: &Value) -> Option<Results> {
        Some(match name {
            "subscribe" => {
                let filter = Filter::new(text(&step["filter"])).expect("a filter");
                let mut options = SubscribeOptions::new();
                if let Some(lag) = step["largest_lag"].as_u64() {
                    options = options.max_lag(Duration::from_millis(lag));
                }
                let id = self
                    .client
                    .subscribe(filter, start(&step["start"]), options);
                self.subscriptions.push(id);
                result("subscription", json!(self.subscriptions.len()))
            }
            "unsubscribe" => {
                self.client.unsubscribe(self.subscription(step));
                Results::new()
            }
            "take" => result("items", self.take(self.subscription(step)).into()),
            "publish" => self.publish(step),
            "token" => {
                self.token = token(&step["token"]);
                self.client.set_token(self.token.clone());
                Results::new()
            }
            "ping" => {
                self.client.ping();
                Results::new()
            }
            _ => return None,
        })
    }

    fn publish(&mut self, step: &Value) -> Results {
        let Ok(topic) = Topic::new(step["topic"].as_str().unwrap_or("t")) else {
            return result("error", json!("invalid topic"));
        };
        let (kind, payload) = payload(step);
        let is_final = step["final"] == true;
        match self.client.publish(topic, kind, is_final, payload.into()) {
            Ok(number) => result("number", json!(number)),
            Err(PublishError::TooLarge { .. }) => result("error", json!("too large")),
            Err(other) => panic!("{other}"),
        }
    }

    fn take(&mut self, id: SubscriptionId) -> Vec<Value> {
        let mut items = Vec::new();
        while let Some(delivery) = self.client.poll_delivery(id) {
            match delivery {
                Delivery::Messages(batch) => {
                    self.client.taken(id, batch.cost());
                    items.extend(batch.map(|message| {
                        let mut item = json!({
                            "offset": message.offset.get(), "time": message.time.millis(),
                            "topic": message.topic.as_str(),
                        });
                        with_payload(&mut item, message.kind, &message.payload, message.is_final);
                        item
                    }));
                }
                Delivery::Gap { gap, .. } => items.push(words::gap(&gap)),
                Delivery::CaughtUp { position } | Delivery::Progress { position } => {
                    let (offset, time) = (position.offset.get(), position.time.millis());
                    items.push(json!({ "caught_up": offset, "time": time }));
                }
                Delivery::Ended { reason, .. } => {
                    items.push(json!({ "ended": words::end_name(reason) }));
                }
                other => panic!("{other:?}"),
            }
        }
        items
    }

    /// What the caller of the server answers.
    fn tell_server(&mut self, name: &str, step: &Value) -> Results {
        let bounds = self.log.bounds;
        let why = step["why"].as_str().unwrap_or_default();
        let node = self.node.as_mut().expect("there is a connection");
        match name {
            "welcome" => {
                node.info.id = bounds.log;
                node.info.first = bounds.first;
                node.info.last = bounds.last;
                node.server.welcome(&node.info);
                node.server.set_end(bounds.last, bounds.last_time);
            }
            "reject" => {
                let retry_after = Duration::from_millis(option(step, "retry_after", 0));
                let reason = words::rejection(text(&step["reason"]));
                node.server
                    .reject(ServerReject::new(reason, retry_after, why));
                node.closed = Some(1000);
            }
            "accept" => {
                let request = &node.asked[&(number(&step["of"]) as u32)];
                let opening = self.log.open(&request.start, &request.filter);
                node.server.subscribed(request.key, opening);
            }
            "end" => {
                let key = node.keys[&(number(&step["of"]) as u32)];
                node.server.end(key, words::end(text(&step["reason"])), why);
            }
            "answer" => {
                for answer in list(&step["answers"]) {
                    let number = node.published.pop_front().expect("a message");
                    node.server.published(number, outcome(answer));
                }
            }
            "expire" => node.server.expire(),
            "go_away" => {
                let within = Duration::from_millis(number(&step["within"]));
                node.server.go_away(within, why);
            }
            "abort" => {
                node.server.abort(ErrorCode::APPLICATION, why);
                node.closed = Some(1000);
            }
            other => panic!("an unknown step {other}"),
        }
        Results::new()
    }

    fn collect_events(&mut self) {
        let mut of_client = Vec::new();
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Rejected(_) | ClientEvent::Aborted { .. } = event {
                self.client_closed = self.client_closed.or(Some(1000));
            }
            of_client.extend(client_event(event));
        }
        self.report("client", of_client);
        let Some(node) = &mut self.node else { return };
        let mut of_server = Vec::new();
        while let Some(event) = node.server.poll_event() {
            node.note(&event);
            of_server.extend(server_event(event));
        }
        self.report("server", of_server);
    }

    fn report(&mut self, side: &str, events: Vec<Value>) {
        if !events.is_empty() {
            let list = self.events.entry(side).or_insert_with(|| json!([]));
            list.as_array_mut().expect("a list").extend(events);
        }
    }
}

impl Node {
    fn new(options: &Value) -> Node {
        let config = ServerConfig::new()
            .name(options["name"].as_str().unwrap_or_default())
            .subscriptions(option(options, "subscriptions", 1_000) as u32)
            .max_message(option(options, "largest_message", 8 << 20))
            .publish_window(option(options, "publish_window", 1 << 20));
        let once = option(options, "once", 120_000);
        let durability = words::durability(option(options, "durability", 1));
        let none = Log::new(&Value::Null).bounds;
        let info = LogInfo::new(none.log, none.first, none.last, durability);
        Node {
            server: Server::new(Arc::new(config)),
            info: info.once((once > 0).then(|| Duration::from_millis(once))),
            closed: None,
            asked: HashMap::new(),
            keys: HashMap::new(),
            published: VecDeque::new(),
        }
    }

    /// Keeps what later answers need.
    fn note(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::Subscribe(request) => {
                let number = request.key.number();
                self.keys.insert(number, request.key);
                self.asked.insert(number, request.clone());
            }
            ServerEvent::Publish(requests) => {
                self.published.extend(requests.iter().map(|it| it.number));
            }
            ServerEvent::Aborted { .. } => self.closed = self.closed.or(Some(1000)),
            _ => {}
        }
    }
}

fn token(value: &Value) -> AccessToken {
    AccessToken::new(value.as_str().unwrap_or_default()).expect("a token")
}

fn outcome(answer: &Value) -> Outcome {
    match answer["refused"].as_str() {
        None if answer["stored"] == 0 => Outcome::Stored(None),
        None => Outcome::Stored(Some(offset(&answer["stored"]))),
        Some(reason) => Outcome::Refused {
            reason: words::refusal(reason),
            text: answer["text"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
                .into(),
        },
    }
}

fn with_payload(item: &mut Value, kind: unstall_proto::Kind, payload: &[u8], is_final: bool) {
    let (name, value) = words::payload(kind, payload);
    item[name] = value;
    if is_final {
        item["final"] = json!(true);
    }
}

fn server_event(event: ServerEvent) -> Vec<Value> {
    match event {
        ServerEvent::Hello(hello) => {
            let (id, epoch) = match hello.publisher {
                Some(publisher) => (publisher.id, publisher.epoch),
                None => ([0; 16], 0),
            };
            vec![json!({ "hello": hex(&id), "epoch": epoch, "token": hello.token.as_str() })]
        }
        ServerEvent::Token(token) => vec![json!({ "token": token.as_str() })],
        ServerEvent::Subscribe(request) => vec![json!({
            "subscribe": request.key.number(), "filter": request.filter.as_str(),
            "largest_lag": request.max_lag.map_or(0, |lag| lag.as_millis() as u64),
            "start": words::start(&request.start),
        })],
        ServerEvent::Ended {
            key,
            reason: SubscriptionEnd::Unsubscribed,
        } => vec![json!({ "unsubscribe": key.number() })],
        // The vectors see the others in ENDED.
        ServerEvent::Ended { .. } => vec![],
        ServerEvent::Publish(requests) => {
            let requests = requests.into_iter().map(|request| {
                let topic = request.topic.as_str();
                let mut event = json!({ "publish": request.number, "topic": topic });
                with_payload(&mut event, request.kind, &request.payload, request.is_final);
                event
            });
            requests.collect()
        }
        ServerEvent::Aborted { code, .. } => vec![json!({ "aborted_by_peer": code.0 })],
        other => panic!("{other:?}"),
    }
}

fn client_event(event: ClientEvent) -> Vec<Value> {
    match event {
        ClientEvent::Welcomed(welcome) => {
            vec![json!({ "welcome": hex(&welcome.log.0), "name": welcome.name })]
        }
        ClientEvent::Rejected(reject) => vec![json!({
            "rejected": words::rejection_name(reject.reason),
            "retry_after": reject.retry_after_millis, "text": reject.text,
        })],
        ClientEvent::Aborted { code, .. } => vec![json!({ "aborted_by_peer": code.0 })],
        ClientEvent::GoAway { within, reason } => {
            vec![json!({ "go_away_within": within.as_millis() as u64, "text": reason })]
        }
        ClientEvent::Pong { round_trip } => {
            vec![json!({ "pong_after": round_trip.as_millis() as u64 })]
        }
        ClientEvent::Published {
            first,
            count,
            offset,
            durability,
        } => {
            let published = (0..count).map(|at| {
                let offset = offset.and_then(|offset| offset.checked_add(at));
                json!({
                    "published": first + at, "offset": offset.map_or(0, |offset| offset.get()),
                    "durability": durability as u8,
                })
            });
            published.collect()
        }
        ClientEvent::Refused {
            number,
            reason,
            text,
            may_be_stored,
        } => {
            let reason = words::refusal_name(reason);
            let mut event = json!({ "refused": number, "reason": reason, "text": text });
            if may_be_stored {
                event["may_be_stored"] = json!(true);
            }
            vec![event]
        }
        ClientEvent::Unknown { first, count } => {
            let unknown = (first..first + count).map(|number| json!({ "unknown": number }));
            unknown.collect()
        }
        ClientEvent::Readable(_) | ClientEvent::Room => vec![],
        other => panic!("{other:?}"),
    }
}

/// The results of a step of the vectors.
fn expected(step: &Value) -> Results {
    let step = step.as_object().expect("a step");
    let results = step
        .iter()
        .filter(|(name, _)| RESULTS.contains(&name.as_str()));
    let mut results: Results = results
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(packets) = results.get_mut("packets") {
        *packets = list(packets).iter().map(without_words).collect();
    }
    results
}

/// The first step of an exchange that does not go as written.
fn first_difference(exchange: &Value, seen: impl Fn(Results) -> Results) -> Option<String> {
    let mut runner = Runner::new(exchange);
    for (index, step) in list(&exchange["steps"]).iter().enumerate() {
        let (got, expected) = (seen(runner.step(step)), seen(expected(step)));
        if got != expected {
            let (name, what) = (&exchange["name"], &step["do"]);
            let (got, expected) = (Value::Object(got), Value::Object(expected));
            return Some(format!(
                "{name}, step {index}, {what}\n  is       {got}\n  expected {expected}\n"
            ));
        }
    }
    None
}

/// Whose turn it is among subscriptions is up to each side: their packets and events by number.
fn by_subscription(mut results: Results) -> Results {
    let number_of = |packet: &Value| {
        let hex = packet.as_str().or(packet["begins"].as_str())?;
        ("20".."28")
            .contains(&&hex[..2])
            .then(|| hex[2..10].to_owned())
    };
    if let Some(packets) = results.get_mut("packets").and_then(Value::as_array_mut) {
        packets.sort_by_key(number_of);
    }
    let events = results
        .get_mut("events")
        .and_then(|it| it["server"].as_array_mut());
    if let Some(events) = events {
        let number = |event: &Value, name: &str| event[name].as_u64();
        events.sort_by_key(|it| number(it, "subscribe").or(number(it, "unsubscribe")));
    }
    results
}

fn check(exchanges: &[Value], seen: impl Fn(Results) -> Results + Copy) {
    let exchange = exchanges.iter();
    let differences: Vec<_> = exchange
        .filter_map(|it| first_difference(it, seen))
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        exchanges.len(),
        differences.concat()
    );
}

#[test]
fn every_exchange_of_the_vectors_goes_as_written() {
    let vectors = read("topics-exchanges.json");
    let exchanges = list(&vectors);
    assert!(exchanges.len() >= 173);
    check(exchanges, |results| results);
}

/// `vectors/random_exchanges.py` runs this with a file of exchanges that it has drawn.
#[test]
fn exchanges_of_another_file_go_as_written() {
    let Ok(path) = std::env::var("UNSTALL_EXCHANGES") else {
        return;
    };
    let text = std::fs::read_to_string(path).expect("the file is there");
    let exchanges: Value = serde_json::from_str(&text).expect("the file is JSON");
    check(list(&exchanges), by_subscription);
}
