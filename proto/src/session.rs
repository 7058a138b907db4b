//! The session: it only delegates. What it knows lies in the files of the same names.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::ack::Acks;
use crate::credit::{ReceiveCredit, SendCredit};
use crate::error::{HandleError, ProtocolError, SendError};
use crate::event::{EndReason, Event, Events, Incoming};
use crate::inbox::{Bounds, Inbox};
use crate::limits::{
    Acknowledge, CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Config, MAX_GO_AWAY, MIN_MAX_MESSAGE,
    message_cost, millis,
};
use crate::message::{Kind, Payload};
use crate::number::{Generation, Offset, Position, Seq};
use crate::outbox::Outbox;
use crate::packet::{Packet, cut_reason};
use crate::ping::Ping;
use crate::records::Records;
use crate::resume::{Epoch, SessionId, Token, Tokens};
use crate::state::{Link, LinkState, State};
use crate::stats::{Counters, Stats, Wait};
use crate::time::Time;
use crate::timer::{Timer, Timers};

/// Which side of a session this is. They differ in the resume exchange and in GOAWAY only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It connects, and opens or resumes the session.
    Client,
    /// It answers.
    Server,
}

/// One session of `unstall.v1`: a value that outlives its connections.
///
/// The crate's front page shows the run loop. A session is driven from one place at a time; it
/// holds no lock, task, clock or socket.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) side: Side,
    pub(crate) config: Config,
    pub(crate) id: SessionId,
    /// The server's; `None` on a client that was never welcomed.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) tokens: Tokens,
    pub(crate) state: State,
    pub(crate) link: Link,
    pub(crate) outbox: Outbox,
    pub(crate) send_credit: SendCredit,
    pub(crate) inbox: Inbox,
    pub(crate) receive_credit: ReceiveCredit,
    pub(crate) acks: Acks,
    pub(crate) ping: Ping,
    pub(crate) timers: Timers,
    pub(crate) events: Events,
    /// The largest message that the peer accepts, once it is known.
    pub(crate) peer_max_message: Option<u64>,
    /// How long the session lives without a connection.
    pub(crate) life: Duration,
    /// GOAWAY to be sent: the window in milliseconds, and the reason.
    pub(crate) go_away: Option<(u64, String)>,
    /// The cost of the message that found no room.
    pub(crate) wanted: Option<u64>,
    /// The application was told that nothing more comes.
    pub(crate) end_told: bool,
    pub(crate) control: BytesMut,
    pub(crate) counters: Counters,
}

impl Session {
    pub(crate) fn new(side: Side, config: Config, id: SessionId, token: Token) -> Session {
        let config = config.settled();
        Session {
            side,
            id,
            epoch: None,
            tokens: Tokens::new(token),
            state: State::Open,
            link: Link::default(),
            outbox: Outbox::new(config.replay),
            send_credit: SendCredit::default(),
            inbox: Inbox::default(),
            receive_credit: ReceiveCredit::new(config.window, config.max_window),
            acks: Acks::default(),
            ping: Ping::default(),
            timers: Timers::default(),
            events: Events::default(),
            peer_max_message: None,
            life: config.session_life,
            go_away: None,
            wanted: None,
            end_told: false,
            control: BytesMut::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Accepts a message for delivery: the sequence number of its last record, which
    /// [`acknowledged`](Session::acknowledged) reaches when it is delivered. It is encoded at
    /// once; the caller keeps what it borrowed.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit), when the connection can take
    /// a packet. Sending several messages before lets them share one.
    ///
    /// # Errors
    /// [`SendError::Full`]: wait for [`Event::Writable`] and send it again. Before the peer has
    /// told its largest message, one of more than [`MIN_MAX_MESSAGE`] bytes waits as well. The
    /// other errors are final.
    #[inline]
    pub fn send<'a>(&mut self, payload: impl Into<Payload<'a>>) -> Result<Seq, SendError> {
        let payload = payload.into();
        let size = payload.as_bytes().len() as u64;
        self.check_sending(size)?;
        let pushed = self.outbox.push(payload);
        self.count_pushed(pushed, size)
    }

    /// The same for a payload that the caller shares: of a long message, slices are kept until it
    /// is acknowledged; nothing of it is copied. If it is text it must be UTF-8, which is not looked
    /// at here; the peer refuses what is not.
    ///
    /// A slice keeps all of the memory alive that it is a slice of, while what is kept is counted by
    /// its own length.
    ///
    /// After calling this: the same as after [`send`](Session::send).
    ///
    /// # Errors
    /// As those of `send`.
    pub fn send_shared(&mut self, kind: Kind, payload: &Bytes) -> Result<Seq, SendError> {
        let size = payload.len() as u64;
        self.check_sending(size)?;
        let pushed = self.outbox.push_shared(kind, payload);
        self.count_pushed(pushed, size)
    }

    /// Records without any, with room for a whole packet where an acknowledged one was: whoever
    /// encodes saves the allocator the work. `None` when no such room is left.
    pub fn spare_records(&mut self) -> Option<Records> {
        self.outbox.spare_records()
    }

    /// Whether a message of that size may be sent now, but for the room there is.
    #[inline]
    fn check_sending(&mut self, size: u64) -> Result<(), SendError> {
        if !self.state.is_accepting() {
            return Err(SendError::Closed);
        }
        match size > MIN_MAX_MESSAGE {
            true => self.check_size(size),
            false => Ok(()),
        }
    }

    #[inline]
    fn count_pushed(&mut self, pushed: Option<Seq>, size: u64) -> Result<Seq, SendError> {
        if pushed.is_some() {
            self.counters.messages_sent += 1;
        } else {
            self.wanted = Some(message_cost(size));
        }
        pushed.ok_or(SendError::Full)
    }

    /// Accepts messages that are encoded already, all at once: the sequence number of the last.
    /// Each is one record. `records` is empty afterwards.
    ///
    /// After calling this: the same as after [`send`](Session::send).
    ///
    /// # Errors
    /// As those of `send`, for all of them: none is accepted, and `records` is as it was.
    pub fn send_records(&mut self, records: &mut Records) -> Result<Seq, SendError> {
        if !self.state.is_accepting() {
            return Err(SendError::Closed);
        }
        let messages = records.messages();
        match self.outbox.push_records(records) {
            Some(seq) => {
                self.counters.messages_sent += messages;
                Ok(seq)
            }
            None => {
                self.wanted = Some(records.cost());
                Err(SendError::Full)
            }
        }
    }

    /// Whether a message of that size, which not every peer takes, may be sent to this one.
    fn check_size(&mut self, size: u64) -> Result<(), SendError> {
        let limit = self.max_send_message();
        if size <= limit {
            return Ok(());
        }
        if self.peer_max_message.is_none() && size <= self.config.max_message {
            self.wanted = Some(message_cost(size));
            return Err(SendError::Full);
        }
        Err(SendError::TooLarge { size, limit })
    }

    /// The largest message that can be sent now, in bytes: the smaller one of both sides' limits;
    /// [`MIN_MAX_MESSAGE`] before the peer's is known.
    pub fn max_send_message(&self) -> u64 {
        self.peer_max_message
            .unwrap_or(MIN_MAX_MESSAGE)
            .min(self.config.max_message)
    }

    /// A packet came on the connection `generation`: one WebSocket binary message. Messages in it
    /// are slices of it.
    ///
    /// After calling this: [`recv`](Session::recv), [`poll_event`](Session::poll_event),
    /// [`poll_transmit`](Session::poll_transmit), [`poll_timeout`](Session::poll_timeout).
    ///
    /// # Errors
    /// After any error: send what `poll_transmit` still gives, close the connection, and call
    /// [`detach`](Session::detach). [`HandleError::is_resumable`] says whether the session goes
    /// on; if not, [`Event::Ended`] has come.
    pub fn handle_packet(
        &mut self,
        now: Time,
        generation: Generation,
        packet: Bytes,
    ) -> Result<(), HandleError> {
        self.handle(now, generation, || Packet::decode(packet))
    }

    /// A WebSocket text message came on the connection `generation`. Packets are binary messages, so
    /// the peer broke the protocol: the session ends as after a packet that cannot be read.
    ///
    /// After calling this: the same as after [`handle_packet`](Session::handle_packet).
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`], unless the session has ended already; or
    /// [`HandleError::Superseded`].
    pub fn handle_text(&mut self, now: Time, generation: Generation) -> Result<(), HandleError> {
        let error = ProtocolError::Malformed("a text message");
        self.handle(now, generation, || Err(error))
    }

    fn handle(
        &mut self,
        now: Time,
        generation: Generation,
        packet: impl FnOnce() -> Result<Packet, ProtocolError>,
    ) -> Result<(), HandleError> {
        if !self.link.is_current(generation) {
            return Err(HandleError::Superseded);
        }
        // Nothing that a peer says after the end matters, well-formed or not.
        if self.state.is_ended() || self.state.peer_has_ended() {
            return Ok(());
        }
        self.counters.packets_received += 1;
        let result = match packet() {
            Ok(packet) => self.dispatch(now, packet),
            Err(error) => Err(error.into()),
        };
        if let Err(HandleError::Protocol(error)) = &result {
            self.fail(now, generation, error.clone());
        }
        result
    }

    fn dispatch(&mut self, now: Time, packet: Packet) -> Result<(), HandleError> {
        match packet {
            Packet::Unknown(_) => {
                self.counters.ignored += 1;
                return Ok(());
            }
            Packet::Welcome(welcome) => return Ok(self.handle_welcome(&welcome)?),
            Packet::Reject(rejection) => return Err(self.handle_reject(now, rejection)),
            _ => {}
        }
        if self.link.state != LinkState::Attached {
            return Err(ProtocolError::Unexpected("a packet before WELCOME").into());
        }
        self.tokens.confirm();
        Ok(self.handle_attached(now, packet)?)
    }

    fn handle_attached(&mut self, now: Time, packet: Packet) -> Result<(), ProtocolError> {
        match packet {
            Packet::Data { first, records } => self.handle_data(first, records)?,
            Packet::Ack(seq) => self.handle_ack(seq)?,
            Packet::Credit(limit) => self.send_credit.raise(limit),
            Packet::Blocked(limit) => {
                self.receive_credit
                    .peer_blocked(limit, self.inbox.progress());
            }
            Packet::Ping(number) => self.link.pong = Some(number),
            Packet::Pong(number) => {
                if let Some(round_trip) = self.ping.answer(now, number) {
                    self.events.push(Event::Pong { round_trip });
                }
            }
            Packet::Close {
                last,
                within_millis,
                frame,
            } => self.handle_close(now, last, within_millis, frame)?,
            Packet::End => self.handle_end()?,
            Packet::Abort { code, reason } => {
                self.end(EndReason::AbortedByPeer { code, reason }, None);
            }
            Packet::GoAway {
                within_millis,
                reason,
            } if self.side == Side::Client => {
                let within = Duration::from_millis(within_millis).min(MAX_GO_AWAY);
                self.events.push(Event::GoAway { within, reason });
            }
            Packet::GoAway { .. } => return Err(ProtocolError::Unexpected("GOAWAY from a client")),
            _ => {
                return Err(ProtocolError::Unexpected(
                    "a handshake on an attached connection",
                ));
            }
        }
        Ok(())
    }

    fn handle_data(&mut self, first: Seq, records: Bytes) -> Result<(), ProtocolError> {
        let closing = self.state.closing();
        let bounds = Bounds {
            credit: &self.receive_credit,
            max_message: self.config.max_message,
            last: closing.and_then(|closing| closing.peer.as_ref().map(|(last, _)| *last)),
        };
        self.inbox.accept(first, records, &bounds)
    }

    pub(crate) fn handle_ack(&mut self, seq: Seq) -> Result<(), ProtocolError> {
        self.outbox.acknowledge(seq)?;
        self.check_writable();
        self.check_finished();
        Ok(())
    }

    /// Reports once that the message that found no room may find it now.
    pub(crate) fn check_writable(&mut self) {
        let fits = |cost| self.peer_max_message.is_some() && cost <= self.outbox.room();
        if self.wanted.is_some_and(fits) {
            self.wanted = None;
            self.events.push(Event::Writable);
        }
    }

    /// The next thing for the application, in order: messages, and at last the end. Handing over
    /// is not taking: the peer is told nothing yet, so that messages may wait elsewhere.
    ///
    /// After calling this: [`taken`](Session::taken), when the application has them.
    pub fn recv(&mut self) -> Option<Incoming> {
        if let Some(batch) = self.inbox.pop() {
            return Some(Incoming::Messages(batch));
        }
        if self.end_told {
            return None;
        }
        let end = match &self.state {
            State::Ended {
                reason: EndReason::Closed(frame),
                ..
            } => Incoming::Closed(frame.clone()),
            State::Ended { reason, .. } => Incoming::Discontinuity(reason.clone()),
            other => Incoming::Closed(other.closing()?.peer.as_ref()?.1.clone()),
        };
        self.end_told = true;
        Some(end)
    }

    /// The application has taken all messages up to `position`. This renews the peer's credit
    /// and, unless the application acknowledges by hand, acknowledges them. Cumulative: report
    /// once for many. A position before the last one reported has no effect.
    ///
    /// `false`, and nothing changes, when no message that [`recv`](Session::recv) has handed over
    /// ends there. A position of another session is found out mostly, not always.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) if
    /// [`wants_transmit`](Session::wants_transmit), and [`poll_timeout`](Session::poll_timeout).
    pub fn taken(&mut self, now: Time, position: Position) -> bool {
        let valid = self.take_up_to(position);
        if self.config.acknowledge == Acknowledge::WhenTaken {
            self.acknowledge_taken(now, self.inbox.taken());
        }
        valid
    }

    /// Does not hold the acknowledgement back any longer. `true`: one is owed, and
    /// [`poll_transmit`](Session::poll_transmit) gives it.
    pub fn hurry_acknowledgement(&mut self) -> bool {
        self.acks.hurry();
        self.acks.is_owed()
    }

    /// The application has processed all messages up to `position`, and so has taken them.
    /// Needed only with [`Acknowledge::ByHand`]. The rest is as with [`taken`](Session::taken).
    ///
    /// Nothing is kept for messages that were taken and not processed. The peer keeps them, up to
    /// its own replay limit.
    pub fn acknowledge(&mut self, now: Time, position: Position) -> bool {
        let valid = self.take_up_to(position);
        if valid {
            self.acknowledge_taken(now, position);
        }
        valid
    }

    fn take_up_to(&mut self, position: Position) -> bool {
        let valid = self.inbox.take_up_to(position);
        self.receive_credit.grow_if_starved(self.inbox.progress());
        valid
    }

    fn acknowledge_taken(&mut self, now: Time, position: Position) {
        if self.state.is_ended() {
            return;
        }
        self.acks.advance(position);
        if self.acks.is_owed() {
            self.timers
                .start(Timer::AckDelay, now, self.config.ack_delay);
        }
        self.check_finished();
    }

    /// The time has come that [`poll_timeout`](Session::poll_timeout) gave, or any other: calling
    /// it too early, or too often, does no harm.
    ///
    /// After calling this: [`poll_event`](Session::poll_event),
    /// [`poll_transmit`](Session::poll_transmit), [`poll_timeout`](Session::poll_timeout).
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::AckDelay => self.acks.hurry(),
                Timer::Handshake => {
                    let generation = self.link.generation;
                    self.detach(now, generation);
                    self.events.push(Event::HandshakeTimedOut(generation));
                }
                Timer::Expiry => self.end(EndReason::Expired, None),
                Timer::Close => self.close_timed_out(),
            }
        }
    }

    /// When [`handle_timeout`](Session::handle_timeout) is to be called next; `None`: not until
    /// another call changes it.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The next thing that happened. Call it after any other call, until it gives `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Asks the peer for a sign of life; [`Event::Pong`] brings the round trip. One at a time: an
    /// older one that is not answered is forgotten.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit).
    pub fn ping(&mut self) {
        self.ping.ask();
    }

    /// Server: asks the client to connect again, elsewhere or later, at a random moment within
    /// `within`. The session is not touched. It is said once: when the connection is lost with
    /// it, say it again.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit).
    pub fn go_away(&mut self, within: Duration, reason: &str) {
        if self.side == Side::Server {
            self.go_away = Some((millis(within), cut_reason(reason).to_owned()));
        }
    }

    /// Which side this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The last connection's number.
    pub fn generation(&self) -> Generation {
        self.link.generation
    }

    /// Whether `generation` is the connection that carries the session now. If not, close it.
    pub fn is_current(&self, generation: Generation) -> bool {
        self.link.is_current(generation)
    }

    /// Whether a connection carries the session and the resume exchange is done.
    pub fn is_attached(&self) -> bool {
        self.link.is_attached()
    }

    /// The WebSocket close code with which this side closes the session's connection
    /// (RFC 6455, section 7.4.1): 1002 when the session ended because the peer broke the protocol,
    /// 1000 otherwise. After an error of [`handle_packet`](Session::handle_packet), use
    /// [`HandleError::close_code`], which knows of errors that do not end the session as well.
    pub fn close_code(&self) -> u16 {
        match &self.state {
            State::Ended {
                reason: EndReason::Protocol(_),
                ..
            } => CLOSE_PROTOCOL_ERROR,
            _ => CLOSE_NORMAL,
        }
    }

    /// The last record that was accepted for sending.
    pub fn accepted(&self) -> Seq {
        self.outbox.accepted()
    }

    /// The last record that was handed to the current connection, or that its peer has.
    pub fn transmitted(&self) -> Seq {
        self.outbox.transmitted()
    }

    /// What the accepted records cost that this connection has not carried yet.
    pub fn unsent(&self) -> u64 {
        self.outbox.unsent()
    }

    /// The last record that the peer has acknowledged. Everything accepted is delivered once
    /// this reaches [`accepted`](Session::accepted).
    pub fn acknowledged(&self) -> Seq {
        self.outbox.acked()
    }

    /// How much more can be accepted, in bytes as credit counts them.
    pub fn room(&self) -> u64 {
        self.outbox.room()
    }

    /// What sending waits for, if anything is to be sent or acknowledged.
    pub fn waits_for(&self) -> Option<Wait> {
        let unsent = self.outbox.next_end();
        if self.outbox.is_delivered() && self.wanted.is_none() {
            return None;
        }
        if !self.link.is_attached() {
            return Some(Wait::Connection);
        }
        match unsent {
            Some(end) if end > self.send_credit.limit() => Some(Wait::Credit),
            Some(_) => Some(Wait::Transport),
            None if self.wanted.is_some() => Some(Wait::Replay),
            None => Some(Wait::Acknowledgement),
        }
    }

    /// Whether the peer has said that it waits for credit, which it gets when the application takes
    /// what it received.
    pub fn holds_peer_back(&self) -> bool {
        self.receive_credit.holds_peer_back()
    }

    /// The counters and gauges of this moment.
    pub fn stats(&self) -> Stats {
        let progress = self.inbox.progress();
        Stats {
            counters: self.counters,
            duplicates: self.inbox.duplicates(),
            send_memory: self.outbox.memory(),
            receive_memory: self.inbox.memory(),
            unacknowledged_cost: self.outbox.cost(),
            untaken_cost: progress.received.since(progress.taken),
            window: self.receive_credit.window(),
            credit: self.send_credit.limit().since(self.outbox.sent_end()),
            granted: self.receive_credit.granted().since(progress.received),
        }
    }

    /// How far the peer may send, as credit counts.
    pub fn granted(&self) -> Offset {
        self.receive_credit.granted()
    }
}
