//! One connection of a node: the protocol's server value between a link and the log.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use unstall::{CloseCode, Connection};
use unstall_proto::topics::{
    AccessToken, Block, ClientHello, LogInfo, Offset, Opening, Outcome, PublishRequest, Publisher,
    ReadRequest, Refusal, RejectReason, Server, ServerEvent, ServerReject, SubscribeRequest,
    SubscriptionEnd, SubscriptionKey,
};

use crate::{
    access::{self, Denied, Given, NotGiven, Visitor},
    appender::{Halt, may_come_again},
    clock::now,
    connected::Place,
    defaults::{
        FAREWELL_TIMEOUT, HELLO_TIMEOUT, ONCE_MARGIN, OPENINGS, PACKETS_A_TURN, READ_LATER,
    },
    interest::Interest,
    link::{self, LinkReceiver, LinkSender, Lost, NotSent, Received},
    log::{Log, Shared, block},
    message::copied,
    node::Node,
    place,
    store::{Appended, Chunk, Publication, Read, StoreError},
    tail::Found,
};

/// What a connection works with. Most connections only wait, so what is big is allocated when it is
/// needed.
pub(crate) struct Serving {
    node: Node,
    request: Option<Arc<http::Request<()>>>,
    server: Server,
    /// When the connection began.
    since: Instant,
    permit: Option<Given>,
    /// The hook was asked. What the client sends meanwhile waits for its answer.
    is_entering: bool,
    publisher: Option<Publisher>,
    broke_protocol: bool,
    /// A packet that found no room in the link.
    stuck: Option<Bytes>,
    /// What was asked of the log and of the hook.
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Batches that wait until the one before them is queued, so that their order stays.
    batches: VecDeque<(Vec<u64>, Vec<Publication>, Halt)>,
    /// Of what is handed over from now on.
    halt: Halt,
    is_submitting: bool,
    /// How many subscriptions look for their beginning.
    openings: usize,
    interests: HashMap<SubscriptionKey, Interest>,
    /// Subscriptions whose place changes. Whoever watches is told where they come to rest.
    moving: Vec<SubscriptionKey>,
    /// The connection's number, for whoever watches.
    connection: Option<u64>,
    news: Arc<Notify>,
    place: Place,
}

impl Node {
    /// Serves one client, until its connection ends.
    ///
    /// A connection that did not agree to [`SUBPROTOCOL`](crate::SUBPROTOCOL) is closed.
    ///
    /// Cancel safety: if dropped, the connection closes. Messages that the client has published and
    /// that have no answer are stored or not, as after any lost connection.
    pub async fn serve(&self, connection: Connection) {
        if !link::speaks_topics(&connection) {
            let why = "offer the subprotocol unstall.topics.v1";
            let _ = connection.close(CloseCode::PROTOCOL_ERROR, why).await;
            return;
        }
        let (request, id) = (connection.request(), connection.stats().id);
        let (sender, receiver) = link::socket(connection);
        // The connection itself tells why it ended: nothing is left to be said here.
        let mut serving = Serving::new(self, request);
        serving.connection = Some(id);
        serving.run(sender, receiver).await;
    }
}

/// What came back.
enum Answer {
    Entered(Result<Given, NotGiven>),
    Opened(SubscriptionKey, Result<Opening, StoreError>),
    Read(ReadRequest, Result<Chunk, StoreError>),
    /// A batch is queued, and this is how its answer comes.
    Submitted(BoxFuture<'static, Answer>),
    Appended(Vec<u64>, Vec<Appended>),
}

impl Serving {
    pub(crate) fn new(node: &Node, request: Option<Arc<http::Request<()>>>) -> Box<Serving> {
        let news = Arc::default();
        // Boxed, so that the future of the connection does not hold it twice.
        Box::new(Serving {
            place: node.connected.enter(&news),
            node: node.clone(),
            request,
            server: Server::new(node.config.clone()),
            since: Instant::now(),
            permit: None,
            is_entering: false,
            publisher: None,
            broke_protocol: false,
            stuck: None,
            asked: FuturesUnordered::new(),
            batches: VecDeque::new(),
            halt: Halt::default(),
            is_submitting: false,
            openings: 0,
            interests: HashMap::new(),
            moving: Vec::new(),
            connection: None,
            news,
        })
    }

    /// Serves until the link is lost, or the protocol says that it is over.
    pub(crate) async fn run(mut self: Box<Self>, sender: LinkSender, mut receiver: LinkReceiver) {
        loop {
            let more = match self.progress(&sender) {
                Ok(more) => more,
                Err(Lost(_)) => return,
            };
            self.tell_standings();
            if self.server.is_over() {
                // Boxed, as what follows: most connections only wait, so their futures are small.
                return Box::pin(self.farewell(sender)).await;
            }
            if self.turn(&sender, &mut receiver, more).await.is_err() {
                return;
            }
        }
    }

    /// Tells the client why it is over, if it reads, and closes the connection.
    async fn farewell(mut self: Box<Self>, sender: LinkSender) {
        let telling = async {
            if let Some(stuck) = self.stuck.take() {
                let _ = sender.send(stuck).await;
            }
            while let Some(packet) = self.server.poll_transmit(now()) {
                let _ = sender.send(packet.into_bytes()).await;
            }
        };
        let _ = timeout(FAREWELL_TIMEOUT, telling).await;
        sender.close(self.close_code(), "").await;
    }

    /// Waits until something happens, and takes it in.
    async fn turn(
        &mut self,
        sender: &LinkSender,
        receiver: &mut LinkReceiver,
        more: bool,
    ) -> Result<(), Lost> {
        let deadline = self.deadline().map(|at| Box::pin(sleep_until(at)));
        let stuck = self
            .stuck
            .clone()
            .map(|packet| Box::pin(sender.send(packet)));
        let has_deadline = deadline.is_some();
        tokio::select! {
            received = receiver.recv(), if self.wants_input() => self.received(received?),
            Some(answer) = self.asked.next(), if !self.asked.is_empty() => self.answered(answer),
            () = self.news.notified() => {}
            sent = maybe(stuck), if self.stuck.is_some() => {
                self.stuck = None;
                sent?;
            }
            () = maybe(deadline), if has_deadline => self.on_time()?,
            () = tokio::task::yield_now(), if more => {}
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        self.server.wants_input() && !self.is_entering && self.openings < OPENINGS
    }

    /// The next moment at which something is due: the client has to say who it is, or its permit ends.
    fn deadline(&self) -> Option<Instant> {
        match &self.permit {
            Some(permit) => {
                let left = permit.expires?.duration_since(SystemTime::now());
                // The clock of the system may be set.
                let left = left.unwrap_or_default().min(Duration::from_secs(86_400));
                Some(Instant::now() + left)
            }
            None if self.is_entering => None,
            None => Some(self.since + HELLO_TIMEOUT),
        }
    }

    fn on_time(&mut self) -> Result<(), Lost> {
        let silent = self.permit.is_none() && self.since.elapsed() >= HELLO_TIMEOUT;
        self.look_at_permit();
        match silent {
            true => Err(Lost(None)),
            false => Ok(()),
        }
    }

    /// Does all that can be done without waiting. `true`: there is more, and others had to wait long
    /// enough.
    fn progress(&mut self, sender: &LinkSender) -> Result<bool, Lost> {
        if let Some((within, reason)) = self.place.asked_to_go() {
            self.server.go_away(within, &reason);
        }
        let mut packets = 0;
        loop {
            let bounds = self.log().tail.bounds();
            self.server.set_end(bounds.last, bounds.last_time);
            while let Some(event) = self.server.poll_event() {
                self.handle(event);
            }
            while self.stuck.is_none() {
                if packets == PACKETS_A_TURN {
                    return Ok(true);
                }
                let Some(packet) = self.server.poll_transmit(now()) else {
                    break;
                };
                packets += 1;
                match sender.try_send(packet.into_bytes()) {
                    Ok(()) => {}
                    Err(NotSent::Full(packet)) => self.stuck = Some(packet),
                    Err(NotSent::Lost) => return Err(Lost(None)),
                }
            }
            // What was sent has made room to read.
            let mut reads = 0;
            while let Some(read) = self.server.poll_read() {
                self.read(read);
                reads += 1;
            }
            if reads == 0 || self.stuck.is_some() {
                return Ok(false);
            }
        }
    }

    /// Tells those who watch how the subscriptions stand that have moved.
    fn tell_standings(&mut self) {
        let (server, interests) = (&self.server, &self.interests);
        self.moving.retain(|key| {
            let (Some(standing), Some(interest)) = (server.standing(*key), interests.get(key))
            else {
                return false;
            };
            interest.stands(standing);
            standing.is_moving
        });
    }

    fn moves(&mut self, key: SubscriptionKey) {
        if !self.moving.contains(&key) {
            self.moving.push(key);
        }
    }

    fn received(&mut self, received: Received) {
        self.look_at_permit();
        let handled = match received {
            Received::Packet(packet) => self.server.handle_packet(packet),
            Received::Text => self.server.handle_text(),
        };
        if let Err(error) = handled {
            tracing::debug!(%error, "a client of topics broke the protocol");
            self.broke_protocol = true;
        }
    }

    fn handle(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Hello(ClientHello {
                token, publisher, ..
            }) => {
                self.publisher = publisher;
                self.enter(token);
            }
            ServerEvent::Token(token) => self.enter(token),
            ServerEvent::Subscribe(request) => self.subscribe(request),
            ServerEvent::Ended { key, .. } => {
                self.interests.remove(&key);
            }
            ServerEvent::Publish(messages) => self.publish(messages),
            _ => {}
        }
    }

    /// Asks the hook.
    fn enter(&mut self, token: AccessToken) {
        self.is_entering = true;
        let (access, request) = (self.node.access.clone(), self.request.clone());
        self.asked.push(Box::pin(async move {
            let visitor = Visitor::new(token.as_str(), request.as_deref());
            Answer::Entered(access::enter(&*access, visitor).await)
        }));
    }

    fn entered(&mut self, permit: Result<Given, NotGiven>) {
        self.is_entering = false;
        let is_new = self.permit.is_none();
        match permit {
            Ok(permit) => {
                let ended: Vec<_> = self
                    .server
                    .subscriptions()
                    .filter(|(_, filter)| !permit.may_subscribe(filter))
                    .map(|(key, _)| key)
                    .collect();
                self.permit = Some(permit);
                for key in ended {
                    self.end(key, SubscriptionEnd::NotAllowed, "");
                }
                if is_new {
                    self.welcome();
                }
            }
            Err(why) => self.not_entered(is_new, &why),
        }
    }

    fn not_entered(&mut self, is_new: bool, why: &NotGiven) {
        let (reject, end, text) = match why {
            NotGiven::Denied(Denied(text)) => {
                let (reject, end) = (RejectReason::NotAllowed, SubscriptionEnd::NotAllowed);
                (reject, end, text.as_str())
            }
            NotGiven::Unavailable(text) => {
                let (reject, end) = (RejectReason::Unavailable, SubscriptionEnd::Unavailable);
                (reject, end, *text)
            }
        };
        if is_new {
            let reject = ServerReject::new(reject, Duration::ZERO, text);
            return self.server.reject(reject);
        }
        self.permit = Some(Given::nothing());
        self.server.end_all(end, text);
        self.interests.clear();
    }

    fn welcome(&mut self) {
        let log = self.log();
        let bounds = log.tail.bounds();
        let durability = log.store.durability();
        let once = log.store.once();
        let once = once.map(|once| once.saturating_sub(once / ONCE_MARGIN));
        let info = LogInfo::new(log.store.id(), bounds.first, bounds.last, durability).once(once);
        self.server.welcome(&info);
    }

    /// Ends what the permit allowed, if it has expired.
    fn look_at_permit(&mut self) {
        if self.permit.as_ref().is_some_and(Given::has_expired) {
            self.permit = Some(Given::nothing());
            self.server.expire();
            self.interests.clear();
        }
    }

    fn subscribe(&mut self, request: SubscribeRequest) {
        let key = request.key;
        let allowed = self
            .permit
            .as_ref()
            .is_some_and(|permit| permit.may_subscribe(&request.filter));
        if !allowed {
            return self.end(key, SubscriptionEnd::NotAllowed, "");
        }
        let log = &self.node.log.shared;
        let end = || log.tail.bounds().last;
        let interest = log
            .interests
            .add(&request.filter, self.connection, &self.news, end);
        self.interests.insert(key, interest);
        self.openings += 1;
        let log = self.node.log.shared.clone();
        self.asked.push(Box::pin(async move {
            Answer::Opened(key, place::find(&log, &request.filter, request.start).await)
        }));
    }

    fn opened(&mut self, key: SubscriptionKey, opening: Result<Opening, StoreError>) {
        self.openings -= 1;
        self.moves(key);
        match opening {
            Ok(opening) => self.server.subscribed(key, opening),
            Err(error) => self.end(key, SubscriptionEnd::Unavailable, &error.to_string()),
        }
    }

    fn end(&mut self, key: SubscriptionKey, reason: SubscriptionEnd, text: &str) {
        self.interests.remove(&key);
        self.server.end(key, reason, text);
    }

    /// Reads from the tail if it has the messages, and else asks the store.
    fn read(&mut self, request: ReadRequest) {
        self.moves(request.key);
        if !request.latest {
            let interest = self.interests.get(&request.key);
            let quiet = interest.map_or(request.after, |it| it.quiet_through(request.after));
            if quiet > request.after {
                let nothing = Arc::new(Block::new([]));
                let through = quiet.min(request.through);
                return self
                    .server
                    .read(request.key, nothing, through, Offset::START);
            }
            match self.log().tail.find(request.after) {
                Found::Block(block) => {
                    let through = block.offsets().map_or(request.after, |(_, last)| last);
                    self.log().counters.cache_hit();
                    // What is in the tail is whole, whatever retention did to the store.
                    return self.server.read(request.key, block, through, Offset::START);
                }
                Found::End => {
                    let nothing = Arc::new(Block::new([]));
                    let through = self.log().tail.bounds().last;
                    return self
                        .server
                        .read(request.key, nothing, through, Offset::START);
                }
                Found::Behind => {}
            }
        }
        let (log, reads) = (self.node.log.shared.clone(), self.node.reads.clone());
        self.asked.push(Box::pin(async move {
            // It is never closed.
            let _turn = reads.acquire_owned().await;
            log.counters.store_read();
            let ReadRequest {
                after,
                through,
                max_bytes,
                ..
            } = request;
            let read = Read::new(after, through, request.filter.clone(), max_bytes);
            let chunk = match request.latest {
                true => log.store.read_latest(read).await,
                false => log.store.read(read).await,
            };
            if matches!(
                chunk,
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
            ) {
                tokio::time::sleep(READ_LATER).await;
            }
            Answer::Read(request, chunk)
        }));
    }

    fn publish(&mut self, messages: Vec<PublishRequest>) {
        let mut numbers = Vec::with_capacity(messages.len());
        let mut batch = Vec::with_capacity(messages.len());
        let publisher = self.publisher;
        for message in messages {
            let permit = self.permit.as_ref();
            let permit = permit.filter(|permit| permit.may_publish(&message.topic));
            // `Some(None)` if it publishes without an id.
            let publisher = permit.and_then(|permit| match publisher {
                Some(publisher) => permit.publisher(publisher).map(Some),
                None => Some(None),
            });
            let Some(publisher) = publisher else {
                let refused = Outcome::refused(Refusal::NotAllowed);
                self.server.published(message.number, refused);
                continue;
            };
            numbers.push(message.number);
            let payload = copied(message.payload);
            let mut publication = Publication::new(message.topic, message.kind, payload);
            publication.is_final = message.is_final;
            publication.publisher = publisher.map(|publisher| (publisher, message.number));
            batch.push(publication);
        }
        if !batch.is_empty() {
            self.batches.push_back((numbers, batch, self.halt.clone()));
            self.submit();
        }
    }

    /// Queues the next batch, if the one before it is queued.
    fn submit(&mut self) {
        if self.is_submitting {
            return;
        }
        let Some((numbers, batch, halt)) = self.batches.pop_front() else {
            return;
        };
        self.is_submitting = true;
        let log: Log = self.node.log.clone();
        self.asked.push(Box::pin(async move {
            let answer = log.submit(batch, halt).await;
            Answer::Submitted(Box::pin(async move {
                Answer::Appended(numbers, answer.outcome().await)
            }))
        }));
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Entered(permit) => self.entered(permit),
            Answer::Opened(key, opening) => self.opened(key, opening),
            Answer::Read(request, Ok(chunk)) => self.read_from_store(&request, &chunk),
            Answer::Read(request, Err(error)) => self.read_failed(&request, &error),
            Answer::Submitted(appended) => {
                self.asked.push(appended);
                self.is_submitting = false;
                self.submit();
            }
            Answer::Appended(numbers, outcomes) => {
                // From now on the server value itself keeps what the client sends too early.
                if outcomes.iter().any(may_come_again) {
                    self.halt = Halt::default();
                }
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    self.server.published(number, told(outcome));
                }
            }
        }
    }

    fn read_from_store(&mut self, request: &ReadRequest, chunk: &Chunk) {
        let key = request.key;
        let Some((block, taken)) = block(&chunk.messages, &request.filter, usize::MAX) else {
            let nothing = Arc::new(Block::new([]));
            return self.server.read(key, nothing, chunk.through, chunk.first);
        };
        let through = match block.offsets() {
            Some((_, last)) if taken < chunk.messages.len() => last,
            _ => chunk.through,
        };
        self.server.read(key, Arc::new(block), through, chunk.first);
    }

    fn read_failed(&mut self, request: &ReadRequest, error: &StoreError) {
        tracing::warn!(%error, filter = %request.filter, "a subscription could not read");
        match error {
            StoreError::Damaged { through, .. } => {
                self.server.read_damaged(request.key, *through, false);
            }
            _ => {
                self.interests.remove(&request.key);
                self.server.read_failed(request.key, &error.to_string());
            }
        }
    }

    fn close_code(&self) -> CloseCode {
        match self.broke_protocol {
            true => CloseCode::PROTOCOL_ERROR,
            false => CloseCode::NORMAL,
        }
    }

    fn log(&self) -> &Shared {
        &self.node.log.shared
    }
}

/// What a client is told of a message.
fn told(appended: Appended) -> Outcome {
    match appended {
        Appended::Stored { offset, .. } => Outcome::Stored(Some(offset)),
        Appended::Before(offset) => Outcome::Stored(offset),
        Appended::Refused(refusal) => Outcome::refused(refusal),
    }
}

/// The future, if there is one.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, link};

    #[tokio::test]
    async fn an_idle_connection_takes_little() {
        let node = Node::new(&Log::memory(Limits::default()).await.unwrap());
        let [(sender, receiver), _there] = link::local();
        let serving = Serving::new(&node, None).run(sender, receiver);
        let size = size_of_val(&serving) + size_of::<Serving>();
        assert!(size <= 1024, "{size} bytes");
    }
}
