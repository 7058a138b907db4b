//! Answers to published messages, on their way to who waits for them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use unstall_proto::topics::Offset;

use crate::publish_error::PublishError;

/// Those who wait for answers, in the order of the numbers of their messages.
#[derive(Debug, Default)]
pub(crate) struct Answers(VecDeque<Waiting>);

/// Who waits for the answers to messages with consecutive numbers.
#[derive(Debug)]
struct Waiting {
    left: usize,
    results: Vec<Result<Offset, PublishError>>,
    to: oneshot::Sender<Vec<Result<Offset, PublishError>>>,
}

impl Answers {
    /// Waits for the answers to the next `count` messages.
    pub(crate) fn expect(
        &mut self,
        count: usize,
    ) -> oneshot::Receiver<Vec<Result<Offset, PublishError>>> {
        let (to, results) = oneshot::channel();
        self.0.push_back(Waiting {
            left: count,
            results: Vec::with_capacity(count),
            to,
        });
        results
    }

    /// The next message has its answer.
    pub(crate) fn answer(&mut self, result: Result<Offset, PublishError>) {
        let Some(first) = self.0.front_mut() else {
            return;
        };
        first.results.push(result);
        first.left -= 1;
        if first.left == 0
            && let Some(done) = self.0.pop_front()
        {
            // Who published may be gone.
            let _ = done.to.send(done.results);
        }
    }
}
