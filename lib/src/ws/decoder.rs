//! From the socket to whole messages and control frames, by the rules of RFC 6455.

use std::{
    io,
    ops::Range,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::{
    Failure,
    header::{Header, Opcode},
    inflate::{Inflated, Inflater},
    masking::apply_mask,
    utf8::Utf8,
    window::Window,
};
use crate::{
    defaults::{LENT_BYTES, READ_BUFFER_BYTES, SPARE_BUFFER_BYTES},
    reports::ConnectionError,
    settings::{Account, Share},
};

/// What the decoder found. A text is UTF-8.
pub(super) enum Decoded {
    /// A message whose payload [`Decoder::payload`] lends until more is asked for.
    Lent { text: bool, place: Range<usize> },
    /// A compressed message whose payload [`Decoder::inflated`] lends until more is asked for.
    LentInflated { text: bool, size: usize },
    /// A message with a buffer of its own.
    Owned { text: bool, payload: Bytes },
    /// So many bytes of a message that is not whole yet.
    Part(usize),
    /// A control frame, whose payload [`Decoder::payload`] lends.
    Control { opcode: Opcode, place: Range<usize> },
    /// The socket is at its end.
    End,
}

pub(super) struct Decoder {
    /// The peer is a client: its frames are masked.
    masked: bool,
    limit: usize,
    window: Window,
    /// How much of the first payload in the window is unmasked and checked. The rest of it has not
    /// arrived.
    done: usize,
    /// Of the text that is being received.
    utf8: Utf8,
    /// The message of which fragments have come.
    fragments: Option<Fragments>,
    /// Inflates compressed messages, if compression was agreed.
    inflater: Option<Box<Inflater>>,
    /// Covers the window, the fragments and the inflater. The bytes of a long message are passed on with it.
    share: Share,
    passed_on: bool,
}

/// What [`Decoder::poll_compressed`] found.
enum Compressed {
    Decoded(Decoded),
    /// So many bytes have to arrive first.
    Needs(usize),
    /// The next frame is none of a compressed message.
    No,
}

const WITHIN_ANOTHER: &str = "a message begins within another message";

fn protocol(why: &str) -> ConnectionError {
    ConnectionError::Protocol(why.to_owned())
}

fn broken(why: &str) -> Failure {
    Failure::Broken(protocol(why))
}

/// The fragments of a message that is not whole yet.
struct Fragments {
    text: bool,
    payload: Vec<u8>,
}

impl Decoder {
    /// `masked`: the peer is a client. `leftover` was read before.
    pub(super) fn new(masked: bool, limit: usize, leftover: &[u8]) -> Decoder {
        Decoder {
            masked,
            limit,
            window: Window::new(leftover),
            done: 0,
            utf8: Utf8::default(),
            fragments: None,
            inflater: None,
            share: Account::default().share(),
            passed_on: false,
        }
    }

    /// From now on messages may be compressed.
    pub(super) fn inflate(&mut self, inflater: Inflater) {
        self.inflater = Some(Box::new(inflater));
    }

    /// From now on what it holds counts in this account.
    pub(super) fn charge(&mut self, account: &Account) {
        self.share = account.share();
        self.share.cover_anyway(self.held());
    }

    pub(super) fn held(&self) -> usize {
        self.window.held() + self.besides()
    }

    /// What it holds besides the window.
    fn besides(&self) -> usize {
        let fragments = self.fragments.as_ref();
        let inflater = self.inflater.as_ref();
        fragments.map_or(0, |it| it.payload.capacity()) + inflater.map_or(0, |it| it.held())
    }

    /// Bytes ever read from the socket.
    pub(super) fn count(&self) -> u64 {
        self.window.count()
    }

    /// The payload of what was decoded last, until more is decoded.
    #[inline]
    pub(super) fn payload(&self, place: Range<usize>) -> &[u8] {
        self.window.get(place)
    }

    /// The beginning of the last compressed message, until more is decoded.
    #[inline]
    pub(super) fn inflated(&self, size: usize) -> &[u8] {
        self.inflater.as_ref().map_or(&[], |it| it.lent(size))
    }

    /// The next message or control frame, or a part of a message. Each frame and each read is
    /// returned, so that the caller can bound its turn whatever the peer sends.
    #[inline(always)]
    pub(super) fn poll_next<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Decoded, Failure>> {
        if std::mem::take(&mut self.passed_on) {
            self.share.end_passing();
            self.share.relax(self.held());
        }
        let mut read = 0;
        loop {
            let mut needed = 1;
            let compressed = match self.inflater {
                None => Compressed::No,
                Some(_) => ready!(self.poll_compressed(cx)).map_err(Failure::Broken)?,
            };
            match compressed {
                Compressed::Decoded(decoded) => return Poll::Ready(Ok(decoded)),
                Compressed::Needs(_) if read > 0 => return Poll::Ready(Ok(Decoded::Part(read))),
                Compressed::Needs(bytes) => needed = bytes,
                Compressed::No => {
                    let rest = self.window.rest();
                    let header = Header::parse(rest, self.masked).map_err(broken)?;
                    if let Some((header, head)) = header {
                        let there = rest.len() - head;
                        let length = self.check(&header).map_err(Failure::Broken)?;
                        self.prepare(&header, head, length.min(there))
                            .map_err(Failure::Broken)?;
                        if length <= there {
                            return self.frame(&header, head, length, cx);
                        }
                        if read > 0 {
                            return Poll::Ready(Ok(Decoded::Part(read)));
                        }
                        needed = length.saturating_add(head);
                    }
                }
            }
            let besides = self.besides();
            let (window, share) = (&mut self.window, &mut self.share);
            let filled: io::Result<_> = ready!(window.poll_fill(io, cx, needed, share, besides));
            read = filled.map_err(|error| Failure::Broken(error.into()))?;
            if read == 0 {
                return Poll::Ready(Ok(Decoded::End));
            }
        }
    }

    /// The next frame, if its message is compressed: inflates some of what has come of it.
    #[inline(never)]
    fn poll_compressed(&mut self, cx: &Context<'_>) -> Poll<Result<Compressed, ConnectionError>> {
        let Some(inflater) = &mut self.inflater else {
            return Poll::Ready(Ok(Compressed::No));
        };
        if inflater.frame().is_none() {
            let header =
                Header::parse_extended(self.window.rest(), self.masked).map_err(protocol)?;
            let Some((header, head)) = header else {
                return Poll::Ready(Ok(Compressed::Needs(1)));
            };
            let continues = inflater.has_begun() && !header.opcode.is_control();
            if !header.is_compressed && !continues {
                return Poll::Ready(Ok(Compressed::No));
            }
            let begins = header.opcode != Opcode::Continuation;
            if begins && (continues || self.fragments.is_some()) {
                return Poll::Ready(Err(protocol(WITHIN_ANOTHER)));
            }
            inflater.begin_frame(&header, self.limit)?;
            self.window.advance(head);
            self.done = 0;
        }
        let window = self.window.held();
        ready!(inflater.poll_room(self.limit, &mut self.share, window, cx));
        let Some(frame) = inflater.frame() else {
            return Poll::Ready(Ok(Compressed::No));
        };
        let (mask, left) = (frame.mask, frame.left);
        let there = self.window.rest().len().min(left);
        if let Some(mut key) = mask {
            key.rotate_left(self.done % 4);
            apply_mask(&mut self.window.rest_mut()[self.done..there], key);
        }
        let step = inflater.step(&self.window.rest()[..there], self.limit)?;
        self.done = there - step.taken;
        self.window.advance(step.taken);
        if inflater.is_text() {
            self.utf8.push(inflater.fresh(&step))?;
        }
        if step.is_whole {
            self.utf8.end()?;
            let decoded = self.inflated_message();
            return Poll::Ready(Ok(Compressed::Decoded(decoded)));
        }
        let goes_on = step.work > 0 || left == step.taken;
        Poll::Ready(Ok(match goes_on {
            true => Compressed::Decoded(Decoded::Part(step.work)),
            false => Compressed::Needs(left.min(READ_BUFFER_BYTES)),
        }))
    }

    /// A compressed message is whole.
    fn inflated_message(&mut self) -> Decoded {
        match self.inflater.as_mut().map(|it| it.finish()) {
            Some(Inflated::Owned {
                text,
                payload,
                capacity,
            }) => {
                self.pass_on(capacity);
                Decoded::Owned { text, payload }
            }
            Some(Inflated::Lent { text, size }) => Decoded::LentInflated { text, size },
            None => Decoded::Part(0),
        }
    }

    /// Checks that this frame may come now. Returns the length of its payload.
    #[inline(always)]
    fn check(&self, header: &Header) -> Result<usize, ConnectionError> {
        let before = match (header.opcode, &self.fragments) {
            (Opcode::Text | Opcode::Binary, None) => 0,
            (Opcode::Continuation, Some(begun)) => begun.payload.len(),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(header.length as usize),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(protocol(WITHIN_ANOTHER));
            }
            (Opcode::Continuation, None) => {
                return Err(protocol("a fragment continues no message"));
            }
        };
        let limit = self.limit;
        let size =
            usize::try_from(header.length).map_or(usize::MAX, |it| it.saturating_add(before));
        match size <= limit {
            true => Ok(size - before),
            false => Err(ConnectionError::MessageTooLarge { size, limit }),
        }
    }

    /// Unmasks what has arrived of the first payload, and checks it if it is text. So text that is not
    /// UTF-8 is refused before the rest of its message arrives.
    #[inline(always)]
    fn prepare(
        &mut self,
        header: &Header,
        head: usize,
        there: usize,
    ) -> Result<(), ConnectionError> {
        let fresh = &mut self.window.rest_mut()[head + self.done..head + there];
        if let Some(mut key) = header.mask {
            key.rotate_left(self.done % 4);
            apply_mask(fresh, key);
        }
        self.done = there;
        let begun = self.fragments.as_ref();
        match header.opcode {
            Opcode::Text => self.utf8.push(fresh),
            Opcode::Continuation if begun.is_some_and(|it| it.text) => self.utf8.push(fresh),
            _ => Ok(()),
        }
    }

    /// The first frame of the window is whole.
    #[inline(always)]
    fn frame(
        &mut self,
        header: &Header,
        head: usize,
        length: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Decoded, Failure>> {
        let opcode = header.opcode;
        let last = header.is_final && !opcode.is_control();
        let alone = last && opcode != Opcode::Continuation;
        if !alone && !opcode.is_control() {
            ready!(self.reserve(opcode, length, cx));
        }
        self.done = 0;
        let frame = self.window.advance(head + length);
        let place = frame.start + head..frame.end;
        if opcode.is_control() {
            return Poll::Ready(Ok(Decoded::Control { opcode, place }));
        }
        if last {
            self.utf8.end().map_err(Failure::Broken)?;
        }
        Poll::Ready(Ok(match alone {
            true => self.message(opcode == Opcode::Text, place, head + length),
            false => self.assemble(place, last),
        }))
    }

    /// Makes room for a fragment. The room doubles, so that a long message is not copied for each
    /// fragment, but it never exceeds the limit.
    fn reserve(&mut self, opcode: Opcode, length: usize, cx: &Context<'_>) -> Poll<()> {
        let begun = self.fragments.get_or_insert_with(|| Fragments {
            text: opcode == Opcode::Text,
            payload: Vec::new(),
        });
        let payload = &mut begun.payload;
        let size = payload.len() + length;
        if size > payload.capacity() {
            let capacity = payload.capacity().saturating_mul(2).clamp(size, self.limit);
            let inflater = self.inflater.as_ref();
            let held = self.window.held() + capacity + inflater.map_or(0, |it| it.held());
            ready!(self.share.poll_cover_urgently(held, cx));
            payload.reserve_exact(capacity - payload.len());
        }
        Poll::Ready(())
    }

    /// Adds a fragment, for which there is room.
    fn assemble(&mut self, place: Range<usize>, last: bool) -> Decoded {
        let part = Decoded::Part(place.len());
        let Some(begun) = &mut self.fragments else {
            return part;
        };
        begun.payload.extend_from_slice(self.window.get(place));
        self.window.after_fragment();
        match self.fragments.take_if(|_| last) {
            None => part,
            Some(Fragments { text, payload }) => {
                self.pass_on(payload.capacity());
                let payload = payload.into();
                Decoded::Owned { text, payload }
            }
        }
    }

    /// A message that came in one frame of `size` bytes.
    #[inline(always)]
    fn message(&mut self, text: bool, place: Range<usize>, size: usize) -> Decoded {
        let length = place.len();
        if length < LENT_BYTES || !self.window.is_filled_by(length) {
            return Decoded::Lent { text, place };
        }
        self.pass_on(size);
        let payload = self.window.give_away(place, size);
        Decoded::Owned { text, payload }
    }

    /// A message with a buffer of its own leaves. A long one counts until the next call of
    /// `poll_next`, unless a queue takes its bytes over before.
    fn pass_on(&mut self, size: usize) {
        if size > SPARE_BUFFER_BYTES {
            self.share.pass_on(size);
            self.passed_on = true;
        }
    }

    /// Frees memory that recent traffic did not need.
    pub(super) fn shrink(&mut self) {
        if let Some(inflater) = &mut self.inflater {
            inflater.shrink();
        }
        self.window.shrink();
        self.share.settle(self.held());
    }

    /// Forgets what has arrived of the next message, because nothing more is read.
    pub(super) fn discard(&mut self) {
        self.window.clear();
        self.fragments = None;
        if let Some(inflater) = &mut self.inflater {
            inflater.discard();
        }
        self.share.settle(0);
        self.share.end_passing();
    }
}
