//! Messages of this side: accepting them, and what sending them waits for.

use bytes::Bytes;

use crate::credit::SendCredit;
use crate::error::ProtocolError;
use crate::event::Event;
use crate::limits::{Config, MIN_MAX_MESSAGE, message_cost};
use crate::number::Seq;
use crate::outbox::Outbox;
use crate::payload::{Kind, Payload};
use crate::records::Records;
use crate::session::Session;
use crate::stats::Wait;

/// Why [`Session::send`] did not accept a message. The caller still has it: `send` only borrows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room for it until the peer acknowledges more. Send it again after
    /// [`Event::Writable`].
    #[error("the replay buffer is full; send again when the session is writable")]
    Full,
    /// It is larger than the peer accepts. Sending it again fails again.
    #[error("the message has {size} bytes and the limit is {limit}")]
    TooLarge {
        /// The size of the message, in bytes.
        size: u64,
        /// The largest message that can be sent, in bytes.
        limit: u64,
    },
    /// The session is closing or has ended. Sending it again fails again.
    #[error("the session is closed for sending")]
    Closed,
}

/// What this side sends.
#[derive(Clone, Debug, Hash)]
pub(super) struct Sending {
    pub(super) outbox: Outbox,
    pub(super) credit: SendCredit,
    /// The cost of the message that was refused last for lack of room.
    wanted: Option<u64>,
}

impl Sending {
    pub(super) fn new(config: &Config) -> Sending {
        Sending {
            outbox: Outbox::new(config.replay),
            credit: SendCredit::default(),
            wanted: None,
        }
    }
}

impl Session {
    /// Accepts a message for delivery. Returns the sequence number of its last record: the message
    /// is delivered once [`acknowledged`](Session::acknowledged) reaches it. The message is encoded
    /// at once; the caller keeps what it borrowed.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit), when the connection can take
    /// a packet. Messages that are sent before that share packets.
    ///
    /// # Errors
    /// [`SendError::Full`]: wait for [`Event::Writable`] and send the message again. Until the
    /// peer's largest message is known, this is also the answer to one of more than
    /// [`MIN_MAX_MESSAGE`] bytes. The other errors are final.
    #[inline]
    pub fn send<'a>(&mut self, payload: impl Into<Payload<'a>>) -> Result<Seq, SendError> {
        let payload = payload.into();
        let size = payload.as_bytes().len() as u64;
        self.check_sending(size)?;
        let pushed = self.sending.outbox.push(payload);
        self.count_pushed(pushed, size)
    }

    /// [`send`](Session::send) for a payload that the caller shares. Of a long message, slices are
    /// kept until it is acknowledged, and nothing is copied. Text must be UTF-8: this is not
    /// checked here, and the peer ends the session over text that is not.
    ///
    /// A slice keeps all the memory that it is a slice of. [`Stats`](crate::Stats) count the length
    /// of the payload only.
    ///
    /// After calling this: the same as after [`send`](Session::send).
    ///
    /// # Errors
    /// Those of [`send`](Session::send).
    pub fn send_shared(&mut self, kind: Kind, payload: &Bytes) -> Result<Seq, SendError> {
        let size = payload.len() as u64;
        self.check_sending(size)?;
        let pushed = self.sending.outbox.push_shared(kind, payload);
        self.count_pushed(pushed, size)
    }

    /// Accepts messages that are encoded already, all at once. Returns the sequence number of the
    /// last one; each has one record. `records` is empty afterwards.
    ///
    /// After calling this: the same as after [`send`](Session::send).
    ///
    /// # Errors
    /// Those of [`send`](Session::send), for all messages together: none is accepted, and `records`
    /// does not change.
    pub fn send_records(&mut self, records: &mut Records) -> Result<Seq, SendError> {
        if !self.state.is_accepting() {
            return Err(SendError::Closed);
        }
        let messages = records.messages();
        match self.sending.outbox.push_records(records) {
            Some(seq) => {
                self.counters.messages_sent += messages;
                Ok(seq)
            }
            None => {
                self.sending.wanted = Some(records.cost());
                Err(SendError::Full)
            }
        }
    }

    /// Empty records in the block of an acknowledged packet, which saves an allocation. `None` when
    /// no block is left over.
    pub fn spare_records(&mut self) -> Option<Records> {
        self.sending.outbox.spare_records()
    }

    /// Frees the memory that acknowledged packets have left for the next ones. A session that sends
    /// again allocates it again. Call it now and then, for example with each ping: a session that
    /// stops in the middle of much traffic keeps up to 2 MiB until then.
    pub fn shrink(&mut self) {
        self.sending.outbox.shrink();
    }

    /// Checks all that can forbid a message of that size, except room for it.
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

    /// Checks the size of a message that not every peer accepts.
    fn check_size(&mut self, size: u64) -> Result<(), SendError> {
        let limit = self.max_send_message();
        if size <= limit {
            return Ok(());
        }
        if self.agreement.peer_max_message.is_none() && size <= self.config.max_message {
            self.sending.wanted = Some(message_cost(size));
            return Err(SendError::Full);
        }
        Err(SendError::TooLarge { size, limit })
    }

    #[inline]
    fn count_pushed(&mut self, pushed: Option<Seq>, size: u64) -> Result<Seq, SendError> {
        if pushed.is_some() {
            self.counters.messages_sent += 1;
        } else {
            self.sending.wanted = Some(message_cost(size));
        }
        pushed.ok_or(SendError::Full)
    }

    /// The largest message that can be sent now, in bytes: the smaller one of both sides' limits,
    /// or [`MIN_MAX_MESSAGE`] until the peer's limit is known.
    pub fn max_send_message(&self) -> u64 {
        self.agreement
            .peer_max_message
            .unwrap_or(MIN_MAX_MESSAGE)
            .min(self.config.announced_max_message())
    }

    /// The peer acknowledges everything up to `seq`.
    pub(super) fn handle_ack(&mut self, seq: Seq) -> Result<(), ProtocolError> {
        self.sending.outbox.acknowledge(seq)?;
        self.check_writable();
        self.check_finished();
        Ok(())
    }

    /// Reports once that the message that was refused last may fit now.
    pub(super) fn check_writable(&mut self) {
        let room = self.sending.outbox.room();
        let known = self.agreement.peer_max_message.is_some();
        if self
            .sending
            .wanted
            .is_some_and(|cost| known && cost <= room)
        {
            self.sending.wanted = None;
            self.events.push(Event::Writable);
        }
    }

    /// The last record that was accepted for sending.
    pub fn accepted(&self) -> Seq {
        self.sending.outbox.accepted()
    }

    /// The last record that was given to the current connection, or that its peer named as
    /// received.
    pub fn transmitted(&self) -> Seq {
        self.sending.outbox.transmitted()
    }

    /// The last record that the peer has acknowledged. Everything accepted is delivered once this
    /// reaches [`accepted`](Session::accepted).
    pub fn acknowledged(&self) -> Seq {
        self.sending.outbox.acked()
    }

    /// The cost of the accepted records that were not given to the current connection, as credit
    /// counts it.
    pub fn unsent(&self) -> u64 {
        self.sending.outbox.unsent()
    }

    /// The cost of what can still be accepted, as credit counts it.
    pub fn room(&self) -> u64 {
        self.sending.outbox.room()
    }

    /// What sending waits for. `None` when everything accepted is acknowledged.
    pub fn waits_for(&self) -> Option<Wait> {
        let Sending {
            outbox,
            credit,
            wanted,
        } = &self.sending;
        if outbox.is_delivered() && wanted.is_none() {
            return None;
        }
        if !self.connection.is_attached() {
            return Some(Wait::Connection);
        }
        match outbox.next_end() {
            Some(end) if end > credit.limit() => Some(Wait::Credit),
            Some(_) => Some(Wait::Transport),
            None if wanted.is_some() => Some(Wait::Replay),
            None => Some(Wait::Acknowledgement),
        }
    }
}
