//! What to send next. The order is the priority: no control packet waits for data or for credit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::connection::Phase;
use crate::limits::{CONTROL_BLOCK, millis};
use crate::number::Generation;
use crate::packet::Packet;
use crate::ping::Ping;
use crate::resume::{Hello, Welcome};
use crate::session::{Session, Side};
use crate::state::State;
use crate::time::Time;
use crate::timer::Timer;
use crate::transmit::Transmit;
use crate::util::cut_reason;

/// The kind of packet to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Hello,
    Welcome,
    Abort,
    Pong,
    Ping,
    GoAway,
    Ack,
    Credit,
    Blocked,
    Data,
    Close,
    End,
}

/// What is to be sent besides the stream of messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    pub(super) ping: Ping,
    /// GOAWAY: the window in milliseconds, and the reason.
    pub(super) go_away: Option<(u64, String)>,
    /// A block into which control packets are encoded. An idle session keeps one.
    block: BytesMut,
}

impl Signals {
    fn encode(&mut self, packet: &Packet) -> Bytes {
        if self.block.capacity() < CONTROL_BLOCK / 8 {
            self.block.reserve(CONTROL_BLOCK);
        }
        packet.encode(&mut self.block);
        self.block.split().freeze()
    }
}

impl Session {
    /// The next packet to send on the connection `generation`, as one WebSocket binary message.
    /// `None` when there is none now, or when the connection does not carry the session.
    ///
    /// Call this after any other call, whenever the connection can take a packet, until it gives
    /// `None`. A DATA packet is completed only here, so messages that are sent while the connection
    /// is busy share packets.
    ///
    /// After calling this: [`poll_timeout`](Session::poll_timeout).
    pub fn poll_transmit(&mut self, now: Time, generation: Generation) -> Option<Bytes> {
        let packet = self.poll_transmit_parts(now, generation)?;
        Some(packet.into_bytes())
    }

    /// [`poll_transmit`](Session::poll_transmit) for a connection that can write several pieces of
    /// memory. The bytes of a DATA packet are those that are kept for replay: nothing is copied.
    pub fn poll_transmit_parts(&mut self, now: Time, generation: Generation) -> Option<Transmit> {
        if !self.connection.is_current(generation) {
            return None;
        }
        let packet = match self.next_packet()? {
            Next::Data => self.transmit_data()?,
            control => {
                let packet = self.control_packet(now, control)?;
                self.signals.encode(&packet).into()
            }
        };
        self.counters.packets_sent += 1;
        Some(packet)
    }

    /// Whether [`poll_transmit`](Session::poll_transmit) would give a packet for the current
    /// connection. Ask this after [`send`](Session::send), [`taken`](Session::taken) and the like,
    /// to know whether to wake the task of the connection.
    pub fn wants_transmit(&self) -> bool {
        self.next_packet().is_some()
    }

    fn next_packet(&self) -> Option<Next> {
        match self.connection.phase {
            Phase::Detached | Phase::HelloSent => return None,
            Phase::HelloOwed => return (!self.state.is_ended()).then_some(Next::Hello),
            Phase::WelcomeOwed => return Some(Next::Welcome),
            Phase::Attached => {}
        }
        if let State::Ended { farewell, .. } = &self.state {
            return farewell.as_ref().map(|_| Next::Abort);
        }
        if self.connection.pong.is_some() {
            return Some(Next::Pong);
        }
        if self.signals.ping.is_owed() {
            return Some(Next::Ping);
        }
        if self.signals.go_away.is_some() {
            return Some(Next::GoAway);
        }
        self.next_of_stream()
    }

    /// Acknowledgement, credit, data and the end of data.
    fn next_of_stream(&self) -> Option<Next> {
        let credit_due = self.receiving.is_credit_due();
        let data = self.next_of_data();
        // An acknowledgement accompanies whatever else is sent.
        let acks = &self.receiving.acks;
        if acks.is_due(&self.config) || (acks.is_owed() && (credit_due || data.is_some())) {
            return Some(Next::Ack);
        }
        if credit_due {
            return Some(Next::Credit);
        }
        data
    }

    fn next_of_data(&self) -> Option<Next> {
        let credit = &self.sending.credit;
        if let Some(end) = self.sending.outbox.next_end() {
            if end <= credit.limit() {
                return Some(Next::Data);
            }
            return credit.owes_blocked().then_some(Next::Blocked);
        }
        if self.state.closing()?.accepting {
            return None;
        }
        if !self.connection.close_sent {
            return Some(Next::Close);
        }
        let finished = matches!(self.state, State::Finished { .. });
        (finished && !self.connection.end_sent).then_some(Next::End)
    }

    fn transmit_data(&mut self) -> Option<Transmit> {
        let credit = self.sending.credit.limit();
        let sealed = self.sending.outbox.transmit(credit)?;
        Some(sealed.packet.clone())
    }

    /// Makes the control packet, and records that it was sent.
    fn control_packet(&mut self, now: Time, next: Next) -> Option<Packet> {
        Some(match next {
            Next::Hello => self.hello(),
            Next::Welcome => self.welcome()?,
            Next::Pong => Packet::Pong(self.connection.pong.take()?),
            Next::Ping => Packet::Ping(self.signals.ping.send(now)),
            Next::GoAway => {
                let (within_millis, reason) = self.signals.go_away.take()?;
                Packet::GoAway {
                    within_millis,
                    reason,
                }
            }
            Next::Ack => {
                self.timers.stop(Timer::AckDelay);
                Packet::Ack(self.receiving.acks.tell())
            }
            Next::Credit => Packet::Credit(self.receiving.renew_credit()),
            Next::Blocked => Packet::Blocked(self.sending.credit.tell_blocked()),
            Next::Close => {
                self.connection.close_sent = true;
                let closing = self.state.closing()?;
                let (within, frame) = (closing.within, closing.frame.clone());
                Packet::Close {
                    last: self.sending.outbox.accepted(),
                    within_millis: millis(within),
                    frame,
                }
            }
            Next::End => {
                self.connection.end_sent = true;
                self.rest_if_over();
                Packet::End
            }
            Next::Abort => {
                let State::Ended { farewell, .. } = &mut self.state else {
                    return None;
                };
                let farewell = farewell.take()?;
                Packet::Abort {
                    code: farewell.code,
                    reason: farewell.reason,
                }
            }
            Next::Data => return None,
        })
    }

    fn hello(&mut self) -> Packet {
        self.connection.phase = Phase::HelloSent;
        Packet::Hello(Hello {
            id: self.id,
            token: self.agreement.tokens.latest(),
            epoch: self.agreement.epoch,
            generation: self.connection.generation,
            received: self.receiving.inbox.received(),
            acked: self.receiving.acks.ready(),
            credit: self.receiving.renew_credit(),
            max_message: self.config.announced_max_message(),
        })
    }

    fn welcome(&mut self) -> Option<Packet> {
        self.connection.phase = Phase::Attached;
        self.timers.stop(Timer::AckDelay);
        Some(Packet::Welcome(Welcome {
            token: self.agreement.tokens.latest(),
            epoch: self.agreement.epoch?,
            generation: self.connection.generation,
            received: self.receiving.inbox.received(),
            acked: self.receiving.acks.tell(),
            credit: self.receiving.renew_credit(),
            max_message: self.config.announced_max_message(),
            life_millis: millis(self.agreement.life),
        }))
    }

    /// Sends PING. [`Event::Pong`](crate::Event::Pong) brings the time until it is answered. An
    /// older PING that is not answered is forgotten.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit).
    pub fn ping(&mut self) {
        self.signals.ping.ask();
    }

    /// Server: asks the client to connect again, elsewhere or later, at a random moment within
    /// `within`. The session does not change. GOAWAY is sent once: if the connection is lost with
    /// it, call this again. Without effect on a client.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit).
    pub fn go_away(&mut self, within: Duration, reason: &str) {
        if self.side == Side::Server {
            self.signals.go_away = Some((millis(within), cut_reason(reason).to_owned()));
        }
    }
}
