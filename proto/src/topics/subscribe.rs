//! SUBSCRIBE, with its starts (SPEC-TOPICS.md, "Packets").

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::MIN_CREDIT;
use super::position::{LogId, Offset, Position, StoredAt};
use super::terms::{Snapshot, Start};
use crate::error::ProtocolError;
use crate::limits::MAX_MILLIS;
use crate::wire::Fields;

/// The first byte of SUBSCRIBE.
pub(super) const KIND: u8 = 0x20;

/// The fields of SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribe {
    /// The number of the subscription on this connection.
    pub subscription: u32,
    /// The first credit.
    pub credit: u64,
    /// How old the next message may be before the server moves ahead, in milliseconds. 0: never.
    pub max_lag_millis: u64,
    /// Where it begins.
    pub start: Start,
    /// The filter, as it came. It may be no valid one.
    pub filter: Bytes,
}

impl Subscribe {
    pub(super) fn decode(packet: &Bytes) -> Result<Subscribe, ProtocolError> {
        let mut fields = Fields(&packet[1..]);
        let subscription = fields.u32()?;
        let credit = fields.u64()?;
        if credit < MIN_CREDIT {
            return Err(ProtocolError::Malformed("a first credit that is too small"));
        }
        let max_lag_millis = fields.millis()?;
        let start = decode_start(&mut fields)?;
        let filter = packet.slice_ref(fields.rest());
        Ok(Subscribe {
            subscription,
            credit,
            max_lag_millis,
            start,
            filter,
        })
    }

    pub(super) fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(KIND);
        buf.put_u32(self.subscription);
        buf.put_u64(self.credit);
        buf.put_u64(self.max_lag_millis.min(MAX_MILLIS));
        match self.start {
            Start::Beginning => buf.put_u8(0),
            Start::Now => buf.put_u8(1),
            Start::After(place) => {
                buf.put_u8(2);
                position(buf, place);
            }
            Start::Last(count) => number(buf, 3, count.into()),
            Start::Latest(snapshot) => {
                let Snapshot { end, through } = snapshot.unwrap_or(NO_SNAPSHOT);
                buf.put_u8(4);
                position(buf, end);
                buf.put_u64(through.get());
            }
            Start::Since(time) => number(buf, 5, time.millis()),
        }
        buf.put_slice(&self.filter);
    }
}

/// *latest* from the beginning.
const NO_SNAPSHOT: Snapshot = Snapshot {
    end: Position {
        log: LogId::NONE,
        offset: Offset::START,
        time: StoredAt::UNKNOWN,
    },
    through: Offset::START,
};

fn position(buf: &mut BytesMut, position: Position) {
    buf.put_slice(&position.log.0);
    buf.put_u64(position.offset.get());
    buf.put_u64(position.time.millis());
}

fn number(buf: &mut BytesMut, start: u8, number: u64) {
    buf.put_u8(start);
    buf.put_u64(number);
}

fn decode_position(fields: &mut Fields<'_>) -> Result<Position, ProtocolError> {
    Ok(Position {
        log: LogId(fields.array()?),
        offset: Offset::decode(fields)?,
        time: StoredAt::decode(fields)?,
    })
}

fn decode_start(fields: &mut Fields<'_>) -> Result<Start, ProtocolError> {
    Ok(match fields.u8()? {
        0 => Start::Beginning,
        1 => Start::Now,
        2 => Start::After(decode_position(fields)?),
        3 => match u32::try_from(fields.u64()?) {
            Ok(count @ 1..) => Start::Last(count),
            _ => return Err(ProtocolError::Malformed("a count that is out of its range")),
        },
        4 => {
            let snapshot = Snapshot {
                end: decode_position(fields)?,
                through: Offset::decode(fields)?,
            };
            if snapshot != NO_SNAPSHOT && snapshot.end.log == LogId::NONE {
                return Err(ProtocolError::Malformed("a snapshot of no log"));
            }
            Start::Latest((snapshot != NO_SNAPSHOT).then_some(snapshot))
        }
        5 => Start::Since(StoredAt::decode(fields)?),
        _ => return Err(ProtocolError::Malformed("a start that does not exist")),
    })
}
