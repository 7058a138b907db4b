//! What has changed between two looks, as messages.

use std::cmp::Ordering;

use serde::Serialize;

use crate::{json::Row, limits::ROWS_A_MESSAGE};

/// A message of `status.rows`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Changes<'a> {
    born: Vec<&'a Row>,
    changed: Vec<&'a Row>,
    gone: Vec<u64>,
}

impl Changes<'_> {
    fn len(&self) -> usize {
        self.born.len() + self.changed.len() + self.gone.len()
    }
}

/// The changes from `before` to `after`. Both are sorted by id.
pub(crate) fn between<'a>(before: &[Row], after: &'a [Row]) -> Vec<Changes<'a>> {
    let mut messages = vec![Changes::default()];
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.id.cmp(&after.id),
        };
        if messages.last().is_some_and(|it| it.len() >= ROWS_A_MESSAGE) {
            messages.push(Changes::default());
        }
        let Some(last) = messages.last_mut() else {
            break;
        };
        match order {
            Ordering::Less => last.gone.extend(before.next().map(|row| row.id)),
            Ordering::Greater => last.born.extend(after.next()),
            Ordering::Equal => {
                if let Some((before, after)) = before.next().zip(after.next())
                    && !after.is_same(before)
                {
                    last.changed.push(after);
                }
            }
        }
    }
    messages.retain(|it| it.len() > 0);
    messages
}

/// Gives each row the moments that it had before. Both are sorted by id.
pub(crate) fn settle(before: &[Row], after: &mut [Row]) {
    let mut before = before.iter().peekable();
    for row in after {
        while before.next_if(|it| it.id < row.id).is_some() {}
        if let Some(same) = before.next_if(|it| it.id == row.id) {
            row.settle(same);
        }
    }
}
