//! Follows the stream: one reader of the whole log for this process, and one that looks at the stream's
//! leader now and then.
//!
//! The reader is a pull consumer without a filter. When it breaks it is made anew, from the last
//! message on, and not from the one behind it: so it shows whether the stream still has that message.
//! If the stream has another one there, or none for some seconds, it has lost its end.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use unstall_proto::topics::{Offset, StoredAt};

use super::{
    api::{Failure, Get, Info, NO_STREAM},
    consumer::{Broken, Deliver, Delivery},
    limits::{
        BRIDGE_INTERVAL, BRIDGE_MESSAGES, BRIDGE_REQUESTS, HEARTBEAT, LOOK_INTERVAL,
        LOST_END_AFTER, VERB_RETRY,
    },
    message::{Received, found as found_message},
    settings,
    shared::Shared,
};

/// Two heartbeats are missing, and a little.
const PATIENCE: Duration = Duration::from_millis(2 * HEARTBEAT.as_millis() as u64 + 100);

/// Deliveries that are kept and told of at once.
const DELIVERIES_A_TURN: usize = 512;

/// Why the reader begins anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the stream has lost its end")]
    WentBack,
}

/// Reads the whole log, until the store has ended or is dropped.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut link = shared.api.link.watch();
    while shared.over().is_none() && link.wait_for(Option::is_some).await.is_ok() {
        let interrupted = tokio::select! {
            interrupted = read(&shared) => interrupted,
            // There may be a new connection while the old one still seems to live.
            _ = link.changed() => Err(Interrupted::Broken(Broken::Lost)),
        };
        if let Err(why) = interrupted {
            tracing::debug!(%why, "the reader of the log begins anew");
        }
        sleep(VERB_RETRY).await;
    }
}

async fn read(shared: &Shared) -> Result<(), Interrupted> {
    let mut anew = shared.anew.subscribe();
    let (last, time) = shared.tail().last();
    let mut known = Some((last, time)).filter(|_| last > Offset::START);
    let deliver = Deliver::From(last);
    let consumer = shared.consumer(None, deliver);
    let mut consumer = tokio::select! {
        consumer = consumer => consumer?,
        never = bridge(shared) => match never {},
    };
    // The consumer delivers again what came over the bridge.
    let (mut place, _) = shared.tail().last();
    let mut heard = Instant::now();
    let mut received = Vec::with_capacity(DELIVERIES_A_TURN);
    loop {
        consumer.keep_asking().await?;
        let patience = PATIENCE.saturating_sub(heard.elapsed());
        let delivery = tokio::select! {
            delivery = consumer.next(patience) => delivery?,
            _ = anew.changed() => return Err(Interrupted::WentBack),
        };
        heard = Instant::now();
        let mut next = Some(delivery);
        while let Some(delivery) = next.take() {
            match delivery {
                Delivery::Heartbeat | Delivery::Over(_) => {}
                Delivery::Message(message) => match known.take() {
                    Some(known) if message.offset() <= known.0 => {
                        check(shared, known, &message).await?
                    }
                    _ if message.offset() <= place => {}
                    _ => {
                        place = message.offset();
                        received.push(message);
                    }
                },
            }
            if received.len() < DELIVERIES_A_TURN {
                next = consumer.try_next().transpose()?;
            }
        }
        shared.received(&mut received);
    }
}

/// The first delivery is the last message that was known, unless retention has removed it.
async fn check(
    shared: &Shared,
    (last, time): (Offset, StoredAt),
    message: &Received,
) -> Result<(), Interrupted> {
    if message.offset() == last && !message.time().contradicts(time) {
        return Ok(());
    }
    shared.go_back(last.before()).await?;
    Err(Interrupted::WentBack)
}

/// Reads the log message by message from the stream's leader, while no consumer can be made: that
/// needs another leader, which is elected by itself and may take seconds longer.
async fn bridge(shared: &Shared) -> Infallible {
    loop {
        sleep(BRIDGE_INTERVAL).await;
        if let Err(error) = cross(shared).await {
            tracing::debug!(%error, "the stream's leader gives no messages");
        }
    }
}

async fn cross(shared: &Shared) -> Result<(), Failure> {
    let (last, time) = shared.tail().last();
    let end = shared.info().await?.bounds().last;
    if end <= last {
        return Ok(());
    }
    let known = shared.api.get(Get::At(last.get())).await?;
    if known.is_some_and(|known| known.time.contradicts(time)) {
        // The consumer will show it, too.
        return Ok(());
    }
    let offsets = last.get() + 1..=end.get().min(last.get() + BRIDGE_MESSAGES);
    let mut found = stream::iter(offsets)
        .map(|offset| shared.api.get(Get::At(offset)))
        .buffered(BRIDGE_REQUESTS);
    let mut received = Vec::new();
    // Ends where retention has cut.
    while let Some(Some(message)) = found.next().await.transpose()? {
        received.push(found_message(&shared.subjects, message));
    }
    shared.info().await?;
    shared.received(&mut received);
    Ok(())
}

/// Looks at the stream's leader now and then, until the store is dropped.
pub(super) async fn look(shared: Arc<Shared>, id: String) {
    let mut suspicion = Suspicion::default();
    loop {
        sleep(LOOK_INTERVAL).await;
        match shared.info().await {
            Ok(info) => {
                if let Some(why) = not_the_log(&shared, &info, &id) {
                    return shared.end(why);
                }
                shared.first_is(info.bounds().first);
                if let Err(error) = compare(&shared, &info, &mut suspicion).await {
                    tracing::debug!(%error, "the stream cannot be compared");
                }
                suspicion.missing = None;
            }
            // A server that just started may not know its streams yet.
            Err(Failure::Refused {
                code: NO_STREAM, ..
            }) => {
                let since = *suspicion.missing.get_or_insert_with(Instant::now);
                if since.elapsed() >= LOST_END_AFTER {
                    return shared.end(format!(
                        "the stream {} was deleted; open another log",
                        shared.api.stream
                    ));
                }
            }
            Err(_) if shared.over().is_some() => return,
            Err(error) => tracing::debug!(%error, "the stream's leader does not answer"),
        }
    }
}

/// What may be wrong, if it stays so.
#[derive(Debug, Default)]
struct Suspicion {
    /// The stream is not there, since then.
    missing: Option<Instant>,
    /// The leader has less than was read, since then.
    short: Option<Instant>,
    /// The leader had more than was read at the last look, which was up to here.
    behind: Option<Offset>,
}

/// Why the stream is not the log, or no log any more.
fn not_the_log(shared: &Shared, info: &Info, id: &str) -> Option<String> {
    let stream = &shared.api.stream;
    if settings::id(&info.config) != Some(id) {
        return Some(format!(
            "the stream {stream} got another id; open the log again"
        ));
    }
    let faults = settings::faults(&info.config);
    if !faults.is_empty() {
        let faults = faults.join("; ");
        return Some(format!(
            "the stream {stream} was changed and is no log any more: {faults}"
        ));
    }
    let same = |prefix: &str| prefix == shared.subjects.prefix();
    match settings::subjects(&info.config) {
        Ok(subjects) if same(subjects.prefix()) => None,
        _ => Some(format!(
            "the subjects of the stream {stream} were changed; open the log again"
        )),
    }
}

async fn compare(shared: &Shared, info: &Info, suspicion: &mut Suspicion) -> Result<(), Failure> {
    let leader = info.bounds().last;
    let (last, _) = shared.tail().last();
    let before = suspicion.behind.take();
    if leader >= last {
        suspicion.short = None;
    }
    if leader < last {
        let since = *suspicion.short.get_or_insert_with(Instant::now);
        if since.elapsed() >= LOST_END_AFTER {
            suspicion.short = None;
            shared.go_back(leader).await?;
        }
    } else if leader > last {
        // The reader's server lives, but gets nothing from the leader: try another one.
        if before == Some(last) {
            shared.anew.send_modify(|anew| *anew += 1);
        } else {
            suspicion.behind = Some(last);
        }
    }
    Ok(())
}
