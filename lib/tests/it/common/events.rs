//! Waiting for the events of a connection.

use std::{sync::Arc, time::Duration};

use unstall::{ConnectionError, Event, Events, StallCause, Stats};

use super::limit;

/// Waits for the first event for which `pick` returns something.
pub(crate) async fn wait_for<T>(events: &mut Events, pick: impl Fn(&Event) -> Option<T>) -> T {
    let mut seen = Vec::new();
    while let Some(event) = limit(events.recv()).await {
        if let Some(picked) = pick(&event) {
            return picked;
        }
        seen.push(event);
    }
    panic!("the connection ended without the event; there were {seen:?}");
}

/// Waits for an event and returns it.
pub(crate) async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    wait_for(events, |event| wanted(event).then(|| event.clone())).await
}

/// Waits until a connection is lost. Returns why.
pub(crate) async fn disconnected(events: &mut Events) -> Arc<ConnectionError> {
    wait_for(events, |event| match event {
        Event::Disconnected { why, .. } => Some(why.clone()),
        _ => None,
    })
    .await
}

/// Waits until the wait before the next attempt begins. Returns its length.
pub(crate) async fn reconnecting(events: &mut Events) -> Duration {
    wait_for(events, |event| match event {
        Event::Reconnecting { after, .. } => Some(*after),
        _ => None,
    })
    .await
}

/// Waits until a session is resumed.
pub(crate) async fn resumed(events: &mut Events) {
    event(events, |event| matches!(event, Event::Resumed { .. })).await;
}

/// Waits for the end of the connection. Returns why it ended.
pub(crate) async fn ended(events: &mut Events) -> Option<Arc<ConnectionError>> {
    wait_for(events, |event| match event {
        Event::Ended { why } => Some(why.clone()),
        _ => None,
    })
    .await
}

/// Waits for the event that a wait has lasted long. Returns how long it had lasted.
pub(crate) async fn stalled(events: &mut Events, wanted: StallCause) -> Duration {
    wait_for(events, |event| match event {
        Event::Stalled { cause, since } if *cause == wanted => Some(*since),
        _ => None,
    })
    .await
}

/// Waits for the event that a wait has ended. Returns how long it had lasted.
pub(crate) async fn moving(events: &mut Events, wanted: StallCause) -> Duration {
    wait_for(events, |event| match event {
        Event::Moving { cause, after } if *cause == wanted => Some(*after),
        _ => None,
    })
    .await
}

/// All events from now on, up to the end of the connection.
pub(crate) async fn rest(events: &mut Events) -> Vec<Event> {
    let mut rest = Vec::new();
    while let Some(event) = limit(events.recv()).await {
        rest.push(event);
    }
    rest
}

/// Whether a connection waits for this cause now.
pub(crate) fn waits(stats: &Stats, cause: StallCause) -> bool {
    stats.stalled_by().any(|other| other == cause)
}
