//! What to send next. The order is the priority: control never waits behind data or credit.

use bytes::{Bytes, BytesMut};

use crate::limits::millis;
use crate::number::{Generation, Offset};
use crate::packet::{Packet, append};
use crate::resume::{Hello, Welcome};
use crate::session::Session;
use crate::state::{LinkState, State};
use crate::time::Time;
use crate::timer::Timer;

/// Control packets are encoded into blocks of so many bytes: many share one allocation, and an idle
/// session keeps no more than one.
const CONTROL_BLOCK: usize = 128;

/// The packet to send next.
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

/// A packet to send, in two parts: one behind the other they are the WebSocket binary message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The packet, or all of it before `body`.
    pub head: Bytes,
    /// The payload of a long record that was sent by [`Session::send_shared`], as it lies in that
    /// message; else empty.
    pub body: Bytes,
}

impl Transmit {
    /// The length of the packet in bytes.
    #[allow(clippy::len_without_is_empty)] // No packet is empty.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The packet in one piece, copied if it is not.
    pub fn into_bytes(self) -> Bytes {
        if self.body.is_empty() {
            return self.head;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        append(&self.body, |piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

/// A packet in one piece.
impl From<Bytes> for Transmit {
    fn from(head: Bytes) -> Transmit {
        let body = Bytes::new();
        Transmit { head, body }
    }
}

impl Session {
    /// The next packet to send on the connection `generation`, as one WebSocket binary message;
    /// `None` when there is none now, or when the connection is not the current one.
    ///
    /// Call it whenever the connection can take a packet, after any other call, until it gives
    /// `None`. A data packet is sealed only here, so what is sent while the connection is busy
    /// shares packets.
    ///
    /// After calling this: [`poll_timeout`](Session::poll_timeout).
    pub fn poll_transmit(&mut self, now: Time, generation: Generation) -> Option<Bytes> {
        let packet = self.poll_transmit_parts(now, generation)?;
        Some(packet.into_bytes())
    }

    /// [`poll_transmit`](Session::poll_transmit) for a carrier that writes several pieces of memory
    /// at once: the bytes of a data packet are those kept for replay; nothing is copied.
    pub fn poll_transmit_parts(&mut self, now: Time, generation: Generation) -> Option<Transmit> {
        if !self.link.is_current(generation) {
            return None;
        }
        let packet = match self.next_packet()? {
            Next::Data => self.transmit_data()?,
            control => {
                let packet = self.control_packet(now, control)?;
                if self.control.capacity() < CONTROL_BLOCK / 8 {
                    self.control.reserve(CONTROL_BLOCK);
                }
                packet.encode(&mut self.control);
                self.control.split().freeze().into()
            }
        };
        self.counters.packets_sent += 1;
        Some(packet)
    }

    /// Whether [`poll_transmit`](Session::poll_transmit) would give a packet to the current
    /// connection. Ask after [`send`](Session::send), [`taken`](Session::taken) and the like
    /// to know whether the connection's carrier is to be woken.
    pub fn wants_transmit(&self) -> bool {
        self.next_packet().is_some()
    }

    fn next_packet(&self) -> Option<Next> {
        match self.link.state {
            LinkState::Detached | LinkState::HelloSent => return None,
            LinkState::HelloOwed => return (!self.state.is_ended()).then_some(Next::Hello),
            LinkState::WelcomeOwed => return Some(Next::Welcome),
            LinkState::Attached => {}
        }
        if let State::Ended { farewell, .. } = &self.state {
            return farewell.as_ref().map(|_| Next::Abort);
        }
        if self.link.pong.is_some() {
            return Some(Next::Pong);
        }
        if self.ping.is_owed() {
            return Some(Next::Ping);
        }
        if self.go_away.is_some() {
            return Some(Next::GoAway);
        }
        self.next_of_stream()
    }

    /// Acknowledgement, credit, data and the end of data.
    fn next_of_stream(&self) -> Option<Next> {
        let credit_due = self.receive_credit.is_due(self.inbox.progress());
        let data = self.next_of_data();
        // An acknowledgement goes along with whatever is sent anyway.
        let acks = &self.acks;
        if acks.is_due(&self.config) || (acks.is_owed() && (credit_due || data.is_some())) {
            return Some(Next::Ack);
        }
        if credit_due {
            return Some(Next::Credit);
        }
        data
    }

    fn next_of_data(&self) -> Option<Next> {
        if let Some(end) = self.outbox.next_end() {
            if end <= self.send_credit.limit() {
                return Some(Next::Data);
            }
            return self.send_credit.owes_blocked().then_some(Next::Blocked);
        }
        if self.state.closing()?.accepting {
            return None;
        }
        if !self.link.close_sent {
            return Some(Next::Close);
        }
        let finished = matches!(self.state, State::Finished { .. });
        (finished && !self.link.end_sent).then_some(Next::End)
    }

    fn transmit_data(&mut self) -> Option<Transmit> {
        let sealed = self.outbox.transmit(self.send_credit.limit())?;
        Some(sealed.packet.clone())
    }

    /// Makes the control packet, and notes that it was sent.
    fn control_packet(&mut self, now: Time, next: Next) -> Option<Packet> {
        Some(match next {
            Next::Hello => self.hello(),
            Next::Welcome => self.welcome()?,
            Next::Pong => Packet::Pong(self.link.pong.take()?),
            Next::Ping => Packet::Ping(self.ping.send(now)),
            Next::GoAway => {
                let (within_millis, reason) = self.go_away.take()?;
                Packet::GoAway {
                    within_millis,
                    reason,
                }
            }
            Next::Ack => {
                self.timers.stop(Timer::AckDelay);
                Packet::Ack(self.acks.tell())
            }
            Next::Credit => Packet::Credit(self.renew_credit()),
            Next::Blocked => Packet::Blocked(self.send_credit.tell_blocked()),
            Next::Close => {
                self.link.close_sent = true;
                let closing = self.state.closing()?;
                let (within, frame) = (closing.within, closing.frame.clone());
                Packet::Close {
                    last: self.outbox.accepted(),
                    within_millis: millis(within),
                    frame,
                }
            }
            Next::End => {
                self.link.end_sent = true;
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
        self.link.state = LinkState::HelloSent;
        Packet::Hello(Hello {
            id: self.id,
            token: self.tokens.latest(),
            epoch: self.epoch,
            generation: self.link.generation,
            received: self.inbox.received(),
            acked: self.acks.ready(),
            credit: self.renew_credit(),
            max_message: self.config.max_message,
        })
    }

    fn welcome(&mut self) -> Option<Packet> {
        self.link.state = LinkState::Attached;
        self.timers.stop(Timer::AckDelay);
        Some(Packet::Welcome(Welcome {
            token: self.tokens.latest(),
            epoch: self.epoch?,
            generation: self.link.generation,
            received: self.inbox.received(),
            acked: self.acks.tell(),
            credit: self.renew_credit(),
            max_message: self.config.max_message,
            life_millis: millis(self.life),
        }))
    }

    fn renew_credit(&mut self) -> Offset {
        self.receive_credit.renew(self.inbox.progress())
    }
}
