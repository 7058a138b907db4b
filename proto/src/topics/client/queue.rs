//! What a subscription delivers next.

use std::collections::VecDeque;

use super::super::position::Position;
use super::super::terms::Gap;
use super::delivery::{Delivery, MessageBatch};
use crate::util;

/// Batches of small records are joined up to this many bytes, so that packets with few messages do
/// not take much more memory than their cost.
const JOIN_BELOW: usize = 1024;

/// What was received and not handed over. Messages are bounded by credit, and everything else is
/// joined, so that a server cannot make it many.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(VecDeque<Delivery>);

impl Queue {
    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let next = self.0.pop_front();
        util::trim(&mut self.0);
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push_batch(&mut self, batch: MessageBatch) {
        let Some(Delivery::Messages(before)) = self.0.back_mut() else {
            return self.push(Delivery::Messages(batch));
        };
        if let Err(batch) = before.join(batch, JOIN_BELOW) {
            self.push(Delivery::Messages(batch));
        }
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        util::push_back(&mut self.0, delivery);
    }

    /// The marks behind the last message: gaps and CAUGHT_UPs.
    fn marks(&self) -> usize {
        let is_mark = |delivery: &&Delivery| {
            !matches!(delivery, Delivery::Messages(_) | Delivery::Ended { .. })
        };
        self.0.len() - self.0.iter().rev().take_while(is_mark).count()
    }

    /// CAUGHT_UP. Of those between two messages the last one counts.
    pub(super) fn push_mark(&mut self, mut caught_up: bool, position: Position) {
        let mut marks = self.0.iter().skip(self.marks());
        let before = marks.position(|mark| !matches!(mark, Delivery::Gap { .. }));
        if let Some(before) = before {
            let before = self.0.remove(self.marks() + before);
            caught_up |= matches!(before, Some(Delivery::CaughtUp { .. }));
        }
        self.push(match caught_up {
            true => Delivery::CaughtUp { position },
            false => Delivery::Progress { position },
        });
    }

    /// GAP. Those between two messages are one for each reason, so a server cannot make them many.
    /// It stands where the first one came, because what is behind it says that nothing else is
    /// missing.
    pub(super) fn push_gap(&mut self, gap: Gap, place: Position) {
        let mut found = false;
        let marks = self.marks();
        for mark in self.0.iter_mut().skip(marks) {
            match mark {
                Delivery::Gap {
                    gap: before,
                    position,
                } if found || before.reason == gap.reason => {
                    if !found {
                        before.through = gap.through;
                        before.certain |= gap.certain;
                    }
                    found = true;
                    *position = place;
                }
                Delivery::CaughtUp { position } | Delivery::Progress { position } if found => {
                    *position = place;
                }
                _ => {}
            }
        }
        if !found {
            self.push(Delivery::Gap {
                gap,
                position: place,
            });
        }
    }
}
