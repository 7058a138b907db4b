//! MESSAGES packets from what a subscription has in hand.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::super::block::Block;
use super::super::super::limits::{MIN_SLICE, PACKET_FILL};
use super::super::super::packet::{MESSAGES_HEAD, kind};
use super::{Context, Stage, Subscription};
use crate::transmit::Transmit;

impl Subscription {
    /// MESSAGES, as far as a packet and the credit go.
    pub(super) fn next_messages(
        &mut self,
        context: Context,
        buf: &mut BytesMut,
    ) -> Option<Transmit> {
        let block = self.hand.as_ref()?.block.clone();
        let run = self.next_run(&block, context, PACKET_FILL)?;
        let ends = run.end == self.hand.as_ref()?.end;
        if block.size(run.clone()) >= MIN_SLICE || ends || block.all_match(&self.filter) {
            self.advance(&block, run.clone());
            if run.start == 0 && self.key.number == 1 {
                return Some(block.packet(run.end).into());
            }
            self.put_head(buf);
            let head = buf.split().freeze();
            return Some(Transmit::new(head, block.slice(run)));
        }
        Some(self.gather(&block, run, context).into())
    }

    /// Short runs between messages that the filter leaves out, copied into one packet.
    fn gather(&mut self, block: &Block, first: Range<usize>, context: Context) -> Bytes {
        let mut packet = BytesMut::with_capacity(PACKET_FILL);
        self.put_head(&mut packet);
        let mut run = Some(first);
        while let Some(records) = run {
            packet.extend_from_slice(&block.slice(records.clone()));
            self.advance(block, records);
            self.skip(context);
            let room = PACKET_FILL.saturating_sub(packet.len());
            let goes_on = self.gap.is_none() && self.begun.is_none() && !self.is_ending();
            run = match goes_on && room > 0 {
                true => self.next_run(block, context, room),
                false => None,
            };
            run = run.filter(|run| block.size(run.clone()) <= room);
        }
        packet.freeze()
    }

    fn put_head(&self, buf: &mut BytesMut) {
        buf.reserve(MESSAGES_HEAD);
        buf.put_u8(kind::MESSAGES);
        buf.put_u32(self.key.number);
    }

    /// The records in hand that follow each other, match, and fit into so many bytes and the
    /// credit. A single record is not held to the bytes.
    fn next_run(&mut self, block: &Block, context: Context, bytes: usize) -> Option<Range<usize>> {
        let hand = self.hand.as_ref()?;
        let next = hand.next;
        let bound = match self.stage {
            Stage::Live => hand.end,
            _ => hand.end.min(block.find(self.target.0)),
        };
        if next >= bound {
            return None;
        }
        let left = self.credit_left();
        let cost = block.cost(next..next + 1);
        if cost > left {
            self.needs = cost;
            if self.begun.is_none() {
                self.hand = None;
            }
            return None;
        }
        self.needs = 0;
        let fit = block.fit(next..bound, bytes.saturating_sub(MESSAGES_HEAD), left);
        let end = self.matching_end(block, next..fit.max(next + 1), context);
        Some(next..end)
    }

    /// The end of the records from `records.start` on that may be sent: the message of the first one
    /// may.
    fn matching_end(&self, block: &Block, records: Range<usize>, context: Context) -> usize {
        let all_match = block.all_match(&self.filter);
        let all_fit = block.largest() <= context.max_message;
        if all_match && all_fit && !self.is_topic {
            return records.end;
        }
        let mut next = records.start;
        while next < records.end {
            if next > records.start {
                let matches = all_match || self.filter.matches(block.topic(next));
                let fits = all_fit || block.length(next) <= context.max_message;
                if !matches || !fits {
                    break;
                }
            }
            let is_final = block.is_final(next);
            next = block.message_end(next);
            if self.is_topic && is_final {
                break;
            }
        }
        next.min(records.end)
    }

    /// These records are sent.
    fn advance(&mut self, block: &Block, records: Range<usize>) {
        self.sent += block.cost(records.clone());
        if let Some(hand) = &mut self.hand {
            hand.next = records.end;
        }
        let last = records.end - 1;
        let offset = block.offset(last);
        if block.ends_message(last) {
            self.place = offset;
            self.begun = None;
            self.end_if_final(block.is_final(last));
        } else {
            let begin = block.find(offset.before());
            if begin > records.start {
                self.place = block.offset(begin - 1);
            }
            self.begun = Some((offset, (records.end - begin) as u32));
        }
        self.told(self.place);
    }
}
