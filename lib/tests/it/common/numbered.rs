//! Messages that carry their number in a stream.

use unstall::{Message, Receiver, Sender};

use super::{limit, plain};

/// Message `number` of a stream. It has `len` bytes, but at least eight.
pub(crate) fn numbered(number: u64, len: usize) -> Message {
    let mut payload = vec![number as u8; len.max(8)];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Message::from(payload)
}

/// The number in the message's first bytes.
pub(crate) fn number(message: &Message) -> u64 {
    let first = message.as_bytes().first_chunk();
    u64::from_be_bytes(*first.expect("a numbered message"))
}

/// Sends the messages with these numbers, in order.
pub(crate) async fn send(sender: &Sender, numbers: std::ops::Range<u64>, len: usize) {
    for number in numbers {
        sender.send(numbered(number, len)).await.unwrap();
    }
}

/// Receives the messages with these numbers, in order, and nothing else.
pub(crate) async fn receive(receiver: &mut Receiver, numbers: std::ops::Range<u64>, len: usize) {
    for number in numbers {
        let received = plain(limit(receiver.recv()).await);
        assert!(received == numbered(number, len), "{number} was due");
    }
}
