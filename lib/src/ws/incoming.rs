//! From the socket to whole messages. Short ones are lent where they were read; a long one takes the
//! buffer with it; fragments are put together. Whatever else comes (control frames, frames that are
//! not as they should be) is left to tungstenite, frame by frame.

use std::{
    future::Future,
    io::{self, Cursor},
    mem::MaybeUninit,
    ops::Range,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_tungstenite::tungstenite::{
    error::ProtocolError,
    protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};

use super::masking::apply_mask;
use crate::{
    defaults::{
        FRAGMENT_BYTES, IDLE_READ_BYTES, READ_BUFFER_BYTES, SPARE_BUFFER_BYTES, SPARE_BUFFERS,
    },
    messages::copying::copied,
    reports::ConnectionError,
    settings::{Account, Share},
};

/// Shorter payloads are lent, however empty the window is besides: many are read at once.
const LENT_BYTES: usize = 8 << 10;

/// What stands at the front of the stream. A text is UTF-8.
pub(super) enum Front {
    /// A message whose payload [`Incoming::lend`] lends, until more is asked for.
    Lent { text: bool, place: Range<usize> },
    /// A message with a buffer of its own.
    Long { text: bool, payload: Bytes },
    /// A frame for tungstenite, or the end: [`Incoming::poll_other`] yields it.
    Other,
    /// What makes no message.
    Refused(ConnectionError),
}

/// A payload, lent or of its own.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    Borrowed(&'a [u8]),
    Shared(Bytes),
}

impl Payload<'_> {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Payload::Borrowed(bytes) => copied(bytes),
            Payload::Shared(bytes) => bytes,
        }
    }
}

impl std::ops::Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Shared(bytes) => bytes,
        }
    }
}

pub(super) struct Incoming {
    /// The peer is a client: its frames are masked.
    masked: bool,
    limit: usize,
    window: BytesMut,
    /// What of the window was yielded, from its beginning on.
    yielded: usize,
    /// How far the window is filled: after a long message up to where the next one ends if it is as
    /// long, so that it, too, has the window for itself.
    reads: usize,
    /// What was read at once at the most since the last look.
    largest_read: usize,
    /// So much is for tungstenite.
    others: u64,
    /// A message in fragments has begun.
    fragments: Option<Fragments>,
    /// The socket is at its end.
    ended: bool,
    spare: Spare,
    /// What the window and the fragments hold. A long message's part goes on with it.
    share: Share,
    passed_on: bool,
}

impl Incoming {
    pub(super) fn new(masked: bool, limit: usize, part: &[u8]) -> Incoming {
        Incoming {
            masked,
            limit,
            window: part.into(),
            yielded: 0,
            reads: IDLE_READ_BYTES,
            largest_read: 0,
            others: 0,
            fragments: None,
            ended: false,
            spare: Spare::default(),
            share: Account::default().share(),
            passed_on: false,
        }
    }

    pub(super) fn charge(&mut self, mut share: Share) {
        share.cover_anyway(self.held());
        self.share = share;
    }

    fn held(&self) -> usize {
        let fragments = self.fragments.as_ref();
        self.window.capacity() + fragments.map_or(0, |it| it.payload.capacity())
    }

    /// Forgets what was not yielded: nothing more will be read.
    pub(super) fn discard(&mut self) {
        self.window = BytesMut::new();
        self.yielded = 0;
        self.fragments = None;
        self.give_rest_to_other();
        self.share.settle(0);
        self.share.end_passing();
    }

    /// Whether tungstenite has not read all that is for it.
    pub(super) fn is_for_other(&self) -> bool {
        self.others > 0
    }

    /// All that comes from now on is for tungstenite: the peer has closed.
    pub(super) fn give_rest_to_other(&mut self) {
        self.others = u64::MAX;
    }

    /// The next message that came in one frame, or what else there is.
    pub(super) fn poll_front<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        count: &mut u64,
    ) -> Poll<io::Result<Front>> {
        if std::mem::take(&mut self.passed_on) {
            self.share.end_passing();
            self.share.relax(self.held());
        }
        loop {
            let rest = &self.window[self.yielded..];
            let mut cursor = Cursor::new(rest);
            let needed = match FrameHeader::parse(&mut cursor) {
                Ok(Some((header, length))) => {
                    let head = cursor.position() as usize;
                    let Some(data) = self.sound(&header, length) else {
                        self.others = length.saturating_add(head as u64);
                        return Poll::Ready(Ok(Front::Other));
                    };
                    // No longer than the limit.
                    let length = length as usize;
                    if head + length <= rest.len() {
                        match self.take(data, &header, head, length) {
                            Some(front) => return Poll::Ready(Ok(front)),
                            None => continue,
                        }
                    }
                    head + length
                }
                Ok(None) => 1,
                Err(_) => {
                    self.give_rest_to_other();
                    return Poll::Ready(Ok(Front::Other));
                }
            };
            if ready!(self.poll_fill(io, cx, count, needed))? == 0 {
                self.ended = true;
                self.give_rest_to_other();
                return Poll::Ready(Ok(Front::Other));
            }
        }
    }

    /// What a frame of data holds, if it is as it should be.
    fn sound(&self, header: &FrameHeader, length: u64) -> Option<Data> {
        let OpCode::Data(data) = header.opcode else {
            return None;
        };
        let known = match data {
            Data::Text | Data::Binary => true,
            Data::Continue => self.fragments.is_some(),
            Data::Reserved(_) => false,
        };
        let plain = !(header.rsv1 || header.rsv2 || header.rsv3);
        let masked = header.mask.is_some() == self.masked;
        (known && plain && masked && length <= self.limit as u64).then_some(data)
    }

    /// The frame of data at the front is whole. `None`: a fragment that is not the last.
    fn take(
        &mut self,
        data: Data,
        header: &FrameHeader,
        head: usize,
        length: usize,
    ) -> Option<Front> {
        let begin = self.yielded + head;
        let place = begin..begin + length;
        self.yielded = place.end;
        if let Some(key) = header.mask {
            apply_mask(&mut self.window[place.clone()], key);
        }
        let text = data == Data::Text;
        match (&self.fragments, header.is_final) {
            (None, true) => Some(self.message(text, head, place)),
            (Some(_), _) if data != Data::Continue => {
                let why = ProtocolError::ExpectedFragment(data).to_string();
                Some(Front::Refused(ConnectionError::Protocol(why)))
            }
            (_, last) => self.assemble(text, place, last).unwrap_or_else(|why| {
                self.fragments = None;
                Some(Front::Refused(why))
            }),
        }
    }

    /// Adds a fragment: the message, if it is the last.
    fn assemble(
        &mut self,
        text: bool,
        place: Range<usize>,
        last: bool,
    ) -> Result<Option<Front>, ConnectionError> {
        let fragments = self.fragments.get_or_insert_with(|| Fragments::new(text));
        fragments.add(&self.window[place.clone()], self.limit)?;
        // The usual fragments go on in the same window.
        if self.window.capacity() > 2 * FRAGMENT_BYTES {
            self.window = BytesMut::from(&self.window[place.end..]);
            self.yielded = 0;
        }
        match self.fragments.take_if(|_| last) {
            None => Ok(None),
            // It ends within a character.
            Some(whole) if whole.text && whole.valid < whole.payload.len() => {
                Err(ConnectionError::InvalidText)
            }
            Some(whole) => {
                self.pass_on(whole.payload.capacity());
                Ok(Some(Front::Long {
                    text: whole.text,
                    payload: whole.payload.into(),
                }))
            }
        }
    }

    fn pass_on(&mut self, bytes: usize) {
        self.share.pass_on(bytes);
        self.passed_on = true;
    }

    /// A message that came in one frame.
    fn message(&mut self, text: bool, head: usize, place: Range<usize>) -> Front {
        let length = place.len();
        if text && std::str::from_utf8(&self.window[place.clone()]).is_err() {
            return Front::Refused(ConnectionError::InvalidText);
        }
        // What is kept must not pin far more than itself.
        if length < LENT_BYTES || length < self.window.capacity() / 3 {
            return Front::Lent { text, place };
        }
        let mut next = BytesMut::new();
        next.extend_from_slice(&self.window[place.end..]);
        let whole = std::mem::replace(&mut self.window, next).freeze();
        self.yielded = 0;
        let size = head + length;
        self.pass_on(size);
        self.reads = match size <= SPARE_BUFFER_BYTES {
            true => {
                self.spare.keep(&whole);
                size
            }
            false => IDLE_READ_BYTES,
        };
        let payload = whole.slice(place);
        Front::Long { text, payload }
    }

    pub(super) fn lend(&self, place: Range<usize>) -> Payload<'_> {
        Payload::Borrowed(&self.window[place])
    }

    /// Reads into the window, which is to hold `needed` bytes in the end.
    fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        count: &mut u64,
        needed: usize,
    ) -> Poll<io::Result<usize>> {
        let held = self.window.len() - self.yielded;
        if self.yielded > 0 {
            self.window.copy_within(self.yielded.., 0);
            self.window.truncate(held);
            self.yielded = 0;
        }
        let size = self.reads.max(needed);
        let fragments = self.fragments.as_ref();
        let whole = fragments.map_or(0, |it| it.payload.len() + needed);
        let total = size.max(self.window.capacity()) + whole;
        ready!(self.share.poll_cover_urgently(total, cx));
        let read = match size <= IDLE_READ_BYTES {
            true => ready!(poll_read_by_way_of_the_stack(
                io,
                cx,
                &mut self.window,
                size - held
            ))?,
            false => {
                if self.window.capacity() < size {
                    let mut larger = self.spare.take(size);
                    larger.extend_from_slice(&self.window);
                    self.window = larger;
                }
                ready!(poll_read(io, cx, &mut self.window, size - held))?
            }
        };
        *count += read as u64;
        self.largest_read = self.largest_read.max(read);
        if held + read >= self.reads {
            self.reads = READ_BUFFER_BYTES;
        }
        Poll::Ready(Ok(read))
    }

    /// What is for tungstenite, as far as it has come.
    pub(super) fn poll_other<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        count: &mut u64,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let limit = buffer
            .len()
            .min(usize::try_from(self.others).unwrap_or(usize::MAX));
        if limit == 0 {
            return Poll::Pending;
        }
        if self.yielded == self.window.len() && !self.ended {
            self.ended = ready!(self.poll_fill(io, cx, count, 1))? == 0;
        }
        let there = &self.window[self.yielded..];
        let size = limit.min(there.len());
        buffer[..size].copy_from_slice(&there[..size]);
        self.yielded += size;
        if self.others != u64::MAX {
            self.others -= size as u64;
        }
        Poll::Ready(Ok(size))
    }

    /// Gives back what is more than came since the last call.
    pub(super) fn shrink(&mut self) {
        let small = std::mem::take(&mut self.largest_read) < IDLE_READ_BYTES;
        if small {
            self.reads = IDLE_READ_BYTES;
            self.spare = Spare::default();
            if self.window.len() == self.yielded {
                self.window = BytesMut::new();
                self.yielded = 0;
            }
        }
        self.share.settle(self.held());
    }
}

/// The fragments of a message that is not whole yet.
struct Fragments {
    text: bool,
    payload: Vec<u8>,
    /// How much of a text is known to be UTF-8: what follows may end within a character.
    valid: usize,
}

impl Fragments {
    fn new(text: bool) -> Fragments {
        Fragments {
            text,
            payload: Vec::new(),
            valid: 0,
        }
    }

    fn add(&mut self, fragment: &[u8], limit: usize) -> Result<(), ConnectionError> {
        let size = self.payload.len() + fragment.len();
        if size > limit {
            return Err(ConnectionError::MessageTooLarge { size, limit });
        }
        if size > self.payload.capacity() {
            // Doubles, so that a long message is not copied for each fragment, but never past the
            // limit.
            let capacity = (2 * self.payload.capacity()).clamp(size, limit);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(fragment);
        if self.text {
            match std::str::from_utf8(&self.payload[self.valid..]) {
                Ok(_) => self.valid = size,
                Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
                Err(_) => return Err(ConnectionError::InvalidText),
            }
        }
        Ok(())
    }
}

/// Reads at most `limit` bytes behind what is in the buffer.
fn poll_read<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut impl BufMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut buffer = buffer.limit(limit);
    pin!(io.read_buf(&mut buffer)).poll(cx)
}

/// The same, without room in the buffer while nothing comes.
fn poll_read_by_way_of_the_stack<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut stack = [MaybeUninit::uninit(); IDLE_READ_BYTES];
    let mut there = ReadBuf::uninit(&mut stack[..limit]);
    ready!(Pin::new(io).poll_read(cx, &mut there))?;
    buffer.extend_from_slice(there.filled());
    Poll::Ready(Ok(there.filled().len()))
}

/// Buffers of long messages that were let go are used again: to ask the allocator for each costs
/// page faults.
#[derive(Default)]
struct Spare {
    kept: Vec<Bytes>,
}

impl Spare {
    /// An empty buffer of that capacity.
    fn take(&mut self, size: usize) -> BytesMut {
        let free = self.kept.iter().position(Bytes::is_unique);
        let buffer = free.and_then(|at| self.kept.swap_remove(at).try_into_mut().ok());
        // Not much larger, for the payload may be kept for long.
        match buffer.filter(|it| (size..=2 * size).contains(&it.capacity())) {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            None => BytesMut::with_capacity(size),
        }
    }

    fn keep(&mut self, buffer: &Bytes) {
        if self.kept.len() == SPARE_BUFFERS {
            self.kept.swap_remove(0);
        }
        self.kept.push(buffer.clone());
    }
}
