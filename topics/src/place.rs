//! Where a subscription begins in the log (SPEC-TOPICS.md, "Subscribing").

use unstall_proto::topics::{Filter, LogBounds, Opening, Position, Start, StoredAt};

use crate::{
    log::Shared,
    store::{Bounds, Read, Seek, StoreError},
};

/// Finds out where a subscription begins.
pub(crate) async fn find(
    log: &Shared,
    filter: &Filter,
    start: Start,
) -> Result<Opening, StoreError> {
    let bounds = log_bounds(log, log.tail.bounds());
    Ok(match start {
        Start::Beginning => Opening::beginning(&bounds),
        Start::Now => Opening::now(&bounds),
        Start::After(position) => {
            let (bounds, found) = look(log, position).await?;
            Opening::after(&bounds, position, found)
        }
        Start::Last(count) => {
            let filter = filter.clone();
            let after = log.store.seek(Seek::Last { filter, count }).await?;
            Opening::sought(&bounds, after)
        }
        Start::Since(time) => Opening::sought(&bounds, log.store.seek(Seek::Since(time)).await?),
        Start::Latest(None) => Opening::latest(&bounds, None, StoredAt::UNKNOWN),
        Start::Latest(Some(snapshot)) => {
            let (bounds, found) = look(log, snapshot.end).await?;
            Opening::latest(&bounds, Some(snapshot), found)
        }
        // A start that this version does not know is not decoded.
        _ => return Err(StoreError::Unsupported("this start is not known".into())),
    })
}

/// What the log has for a position: its bounds, and the time of the message there.
async fn look(log: &Shared, position: Position) -> Result<(LogBounds, StoredAt), StoreError> {
    let mut bounds = log.tail.bounds();
    if position.log != log.store.id() {
        return Ok((log_bounds(log, bounds), StoredAt::UNKNOWN));
    }
    if position.offset > bounds.last {
        // This node may only be behind.
        bounds = log.store.bounds().await?;
    }
    let found = time_at(log, position, bounds).await?;
    Ok((log_bounds(log, bounds), found))
}

/// When the message at a position was stored, if it is still there.
async fn time_at(log: &Shared, at: Position, bounds: Bounds) -> Result<StoredAt, StoreError> {
    let there = bounds.first <= at.offset && at.offset < bounds.last;
    if !there || at.time == StoredAt::UNKNOWN {
        return Ok(StoredAt::UNKNOWN);
    }
    let read = Read::new(at.offset.before(), at.offset, Filter::all(), 1);
    match log.store.read(read).await {
        Ok(chunk) => Ok(chunk
            .messages
            .first()
            .map_or(StoredAt::UNKNOWN, |message| message.time)),
        // Whoever reads on meets the damage, if it is behind the position.
        Err(StoreError::Damaged { .. }) => Ok(StoredAt::UNKNOWN),
        Err(error) => Err(error),
    }
}

fn log_bounds(log: &Shared, bounds: Bounds) -> LogBounds {
    LogBounds {
        log: log.store.id(),
        first: bounds.first,
        last: bounds.last,
        last_time: bounds.last_time,
    }
}
