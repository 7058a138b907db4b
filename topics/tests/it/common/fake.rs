//! A node that answers HELLO as tests want.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::Served;

/// REJECT.
pub(crate) fn reject(reason: u8, retry_after_millis: u64, text: &str) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x03);
    packet.put_u8(reason);
    packet.put_u64(retry_after_millis);
    packet.put_slice(text.as_bytes());
    packet.freeze()
}

/// A node that answers the first packet of each connection so, and then waits. It counts its
/// connections.
pub(crate) async fn answering(answer: Bytes) -> (Served, Arc<AtomicUsize>) {
    let came = Arc::new(AtomicUsize::new(0));
    let counting = came.clone();
    let served = Served::handler(move |mut connection| {
        let answer = answer.clone();
        counting.fetch_add(1, Relaxed);
        async move {
            let _ = connection.recv().await;
            let _ = connection.send(answer).await;
            while let Ok(Some(_)) = connection.recv().await {}
        }
    })
    .await;
    (served, came)
}
