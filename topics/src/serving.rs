//! One connection of a node: the protocol's server value between a link and the log.

mod ahead;
mod entering;
mod publishing;
mod reading;
mod subscribed;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, Either},
    stream::FuturesUnordered,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use unstall::{CloseCode, Connection};
use unstall_proto::topics::{
    ClientHello, Opening, Publisher, ReadRequest, Server, ServerEvent, SubscriptionEnd,
    SubscriptionKey,
};

use crate::{
    access::{Given, NotGiven},
    appender::Halt,
    clock::now,
    connected::Place,
    defaults::{FAREWELL_TIMEOUT, OPENINGS, PACKETS_A_TURN},
    link::{self, LinkReceiver, LinkSender, Lost, NotSent, Received},
    log::Shared,
    node::{Node, Parts},
    store::{Appended, Publication, StoreError},
};
use ahead::Ahead;
use reading::Encoded;
use subscribed::Subscribed;

/// What a connection works with. Most connections only wait, so what is big is allocated when it is
/// needed.
pub(crate) struct Serving {
    node: Arc<Parts>,
    request: Option<Arc<http::Request<()>>>,
    server: Server,
    /// When the connection began.
    since: Instant,
    /// That of the log then. The connection closes when it changes.
    era: u64,
    permit: Option<Given>,
    /// The hook was asked. What the client sends meanwhile waits for its answer.
    is_entering: bool,
    publisher: Option<Publisher>,
    broke_protocol: bool,
    /// A packet that found no room in the link.
    stuck: Option<Bytes>,
    /// What was asked of the log and of the hook.
    asked: Asked,
    /// Batches that wait until the one before them is queued, so that their order stays.
    batches: VecDeque<(Vec<u64>, Vec<Publication>, Halt)>,
    /// Of what is handed over from now on.
    halt: Option<Halt>,
    is_submitting: bool,
    /// How many subscriptions look for their beginning.
    openings: usize,
    interests: Subscribed,
    ahead: Option<Box<Ahead>>,
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
    pub fn serve(&self, connection: Connection) -> impl Future<Output = ()> + Send + use<> {
        // An `async` block would keep room for the connection beside the future that takes it over.
        if !link::speaks_topics(&connection) {
            return Either::Left(Box::pin(refuse(connection)));
        }
        let (request, id) = (connection.request(), connection.stats().id);
        let (sender, receiver) = link::socket(connection);
        // The connection itself tells why it ended: nothing is left to be said here.
        let mut serving = Serving::new(self, request);
        serving.connection = Some(id);
        Either::Right(serving.run(sender, receiver))
    }
}

async fn refuse(connection: Connection) {
    let why = "offer the subprotocol unstall.topics.v1";
    let _ = connection.close(CloseCode::PROTOCOL_ERROR, why).await;
}

/// What came back.
enum Answer {
    Entered(Result<Given, NotGiven>),
    Opened(SubscriptionKey, Result<Opening, StoreError>),
    Read(ReadRequest, Result<Encoded, StoreError>),
    /// What was read ahead was not asked for.
    Unwanted,
    /// A batch is queued, and this is how its answer comes.
    Submitted(BoxFuture<'static, Answer>),
    Appended(Vec<u64>, Vec<Appended>),
}

/// Futures whose answers are awaited. Most connections wait for none.
#[derive(Default)]
struct Asked(Option<FuturesUnordered<BoxFuture<'static, Answer>>>);

impl Asked {
    fn push(&mut self, future: BoxFuture<'static, Answer>) {
        self.0.get_or_insert_default().push(future);
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The next answer.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    async fn next(&mut self) -> Option<Answer> {
        let answer = self.0.as_mut()?.next().await;
        self.0.take_if(|asked| asked.is_empty());
        answer
    }
}

impl Serving {
    pub(crate) fn new(node: &Node, request: Option<Arc<http::Request<()>>>) -> Box<Serving> {
        let (news, node) = (Arc::default(), &node.parts);
        // Boxed, so that the future of the connection does not hold it twice.
        Box::new(Serving {
            place: node.connected.enter(&news),
            node: node.clone(),
            request,
            server: Server::new(node.config.clone()),
            since: Instant::now(),
            era: node.log.shared.era(),
            permit: None,
            is_entering: false,
            publisher: None,
            broke_protocol: false,
            stuck: None,
            asked: Asked::default(),
            batches: VecDeque::new(),
            halt: None,
            is_submitting: false,
            openings: 0,
            interests: Subscribed::default(),
            ahead: None,
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

    /// Does all that can be done without waiting. `true`: there is more, and others had to wait long
    /// enough.
    fn progress(&mut self, sender: &LinkSender) -> Result<bool, Lost> {
        if let Some((within, reason)) = self.place.asked_to_go() {
            self.server.go_away(within, &reason);
        }
        if self.log().era() != self.era {
            // The client comes again, here or elsewhere, and is told where its positions lead.
            return Err(Lost(None));
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
            let (Some(standing), Some(interest)) = (server.standing(*key), interests.get(*key))
            else {
                return false;
            };
            interest.stands(standing);
            standing.is_moving
        });
    }

    fn moves(&mut self, key: SubscriptionKey) {
        if self.moving.capacity() == 0 {
            // Most connections have one subscription.
            self.moving.reserve_exact(1);
        }
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
                self.interests.remove(key);
            }
            ServerEvent::Publish(messages) => self.publish(messages),
            _ => {}
        }
    }

    fn end(&mut self, key: SubscriptionKey, reason: SubscriptionEnd, text: &str) {
        self.interests.remove(key);
        self.server.end(key, reason, text);
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Entered(permit) => self.entered(permit),
            Answer::Opened(key, opening) => self.opened(key, opening),
            Answer::Read(request, answer) => self.was_read(request, answer),
            Answer::Unwanted => {}
            Answer::Submitted(appended) => self.submitted(appended),
            Answer::Appended(numbers, outcomes) => self.appended(numbers, outcomes),
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
    use crate::{Limits, Log, link};

    #[tokio::test]
    async fn an_idle_connection_takes_little() {
        let node = Node::new(&Log::memory(Limits::default()).await.unwrap());
        let [(sender, receiver), _there] = link::local();
        let serving = Serving::new(&node, None).run(sender, receiver);
        let size = size_of_val(&serving) + size_of::<Serving>();
        assert!(size <= 1024, "{size} bytes");
    }
}
