//! Words between the workers of a run, over the connection that is measured.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    Result,
    engine::{Rx, Tx},
    payload::{Tally, word},
};

/// Says to the peer that the next part begins.
pub(crate) async fn say(tx: &mut impl Tx) -> Result<()> {
    tx.send(&word()).await?;
    tx.flush().await
}

/// Waits for the peer's `nth` word.
pub(crate) async fn hear(rx: &mut impl Rx, tally: &mut Tally, nth: u64) -> Result<()> {
    rx.receive_until(tally, |tally| tally.words >= nth).await
}

/// Waits a moment for the peer to leave first, so that no reset destroys the last word.
pub(crate) async fn let_go(rx: &mut impl Rx) {
    let _ = timeout(Duration::from_millis(50), rx.receive(&mut |_| {})).await;
}
