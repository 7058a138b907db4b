//! The words that the vectors have for what the values say.

use serde_json::{Value, json};
use unstall_proto::topics::{
    Durability, Gap, GapReason, LogId, Offset, Position, Refusal, RejectReason, Snapshot, Start,
    StoredAt, SubscriptionEnd,
};
use unstall_proto::{ErrorCode, Kind};

use crate::hex;

/// The name of an error, as SPEC.md gives it.
pub(crate) fn error_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::MALFORMED => "MALFORMED",
        ErrorCode::UNKNOWN_KIND => "UNKNOWN_KIND",
        ErrorCode::UNEXPECTED => "UNEXPECTED",
        ErrorCode::SEQUENCE_GAP => "SEQUENCE_GAP",
        ErrorCode::CREDIT_EXCEEDED => "CREDIT_EXCEEDED",
        ErrorCode::MESSAGE_TOO_LARGE => "MESSAGE_TOO_LARGE",
        ErrorCode::INVALID_TEXT => "INVALID_TEXT",
        ErrorCode::INCONSISTENT => "INCONSISTENT",
        other => panic!("an error that topics do not have: {other:?}"),
    }
}

const REFUSALS: [(Refusal, &str); 8] = [
    (Refusal::NotAllowed, "not allowed"),
    (Refusal::InvalidTopic, "invalid topic"),
    (Refusal::TooLarge, "too large"),
    (Refusal::Full, "full"),
    (Refusal::Fenced, "fenced"),
    (Refusal::Expired, "expired"),
    (Refusal::Unknown, "unknown"),
    (Refusal::Unavailable, "unavailable"),
];

const ENDS: [(SubscriptionEnd, &str); 7] = [
    (SubscriptionEnd::Unsubscribed, "unsubscribed"),
    (SubscriptionEnd::Final, "final"),
    (SubscriptionEnd::NotAllowed, "not allowed"),
    (SubscriptionEnd::Expired, "expired"),
    (SubscriptionEnd::InvalidFilter, "invalid filter"),
    (SubscriptionEnd::TooMany, "too many subscriptions"),
    (SubscriptionEnd::Unavailable, "unavailable"),
];

const REJECTIONS: [(RejectReason, &str); 3] = [
    (RejectReason::NotAllowed, "not allowed"),
    (RejectReason::Full, "full"),
    (RejectReason::Unavailable, "unavailable"),
];

const GAPS: [(GapReason, &str); 6] = [
    (GapReason::Removed, "removed"),
    (GapReason::AnotherLog, "another log"),
    (GapReason::Diverged, "diverged"),
    (GapReason::MovedAhead, "moved ahead"),
    (GapReason::TooLarge, "too large"),
    (GapReason::Damaged, "damaged"),
];

const DURABILITIES: [Durability; 5] = [
    Durability::Memory,
    Durability::Disk,
    Durability::Quorum,
    Durability::QuorumDisk,
    Durability::DiskLater,
];

fn word<T: Copy + PartialEq>(words: &[(T, &'static str)], value: T) -> &'static str {
    let mut words = words.iter();
    words.find(|(known, _)| *known == value).expect("a word").1
}

fn value<T: Copy>(words: &[(T, &'static str)], word: &str) -> T {
    let mut words = words.iter();
    words.find(|(_, known)| *known == word).expect("a value").0
}

pub(crate) fn refusal_name(refusal: Refusal) -> &'static str {
    word(&REFUSALS, refusal)
}

pub(crate) fn refusal(name: &str) -> Refusal {
    value(&REFUSALS, name)
}

pub(crate) fn end_name(end: SubscriptionEnd) -> &'static str {
    word(&ENDS, end)
}

pub(crate) fn end(name: &str) -> SubscriptionEnd {
    value(&ENDS, name)
}

pub(crate) fn rejection_name(reason: RejectReason) -> &'static str {
    word(&REJECTIONS, reason)
}

pub(crate) fn rejection(name: &str) -> RejectReason {
    value(&REJECTIONS, name)
}

pub(crate) fn durability(number: u64) -> Durability {
    DURABILITIES[number as usize]
}

pub(crate) fn gap(gap: &Gap) -> Value {
    json!({
        "gap": word(&GAPS, gap.reason), "certain": u8::from(gap.certain), "after": gap.after.get(),
        "through": gap.through.get(),
    })
}

/// The fields of *latest* from the beginning.
pub(crate) const NO_SNAPSHOT: Snapshot = Snapshot {
    end: Position {
        log: LogId::NONE,
        offset: Offset::START,
        time: StoredAt::UNKNOWN,
    },
    through: Offset::START,
};

pub(crate) fn start(start: &Start) -> Value {
    match start {
        Start::Beginning => json!({ "name": "beginning" }),
        Start::Now => json!({ "name": "now" }),
        Start::After(position) => json!({
            "name": "after", "log": hex(&position.log.0), "offset": position.offset.get(),
            "time": position.time.millis(),
        }),
        Start::Last(count) => json!({ "name": "last", "count": count }),
        Start::Latest(snapshot) => {
            let Snapshot { end, through } = snapshot.unwrap_or(NO_SNAPSHOT);
            json!({
                "name": "latest", "log": hex(&end.log.0), "end": end.offset.get(),
                "time": end.time.millis(), "offset": through.get(),
            })
        }
        Start::Since(time) => json!({ "name": "since", "time": time.millis() }),
        other => panic!("a start without a name: {other:?}"),
    }
}

/// A payload as the vectors have it.
pub(crate) fn payload(kind: Kind, payload: &[u8]) -> (&'static str, Value) {
    let text = || std::str::from_utf8(payload).expect("text is UTF-8");
    match kind {
        Kind::Text if payload.len() <= 64 => ("text", json!(text())),
        Kind::Binary if payload.len() <= 64 => ("hex", json!(hex(payload))),
        Kind::Text => {
            let one = text().chars().next().expect("a character").to_string();
            let times = payload.len() / one.len();
            assert!(text() == one.repeat(times), "one character many times");
            ("repeat", json!({ "text": one, "times": times }))
        }
        Kind::Binary => {
            assert!(payload.iter().all(|byte| *byte == payload[0]));
            let repeat = json!({ "byte": payload[0], "length": payload.len() });
            ("repeat", repeat)
        }
    }
}

/// A packet as the vectors have it, without the words that are free: those of ABORT, and of ENDED
/// `unavailable`.
pub(crate) fn packet(packet: &[u8]) -> Value {
    if packet.len() <= 256 {
        return without_words(&json!(hex(packet)));
    }
    let hash = packet.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let begins = hex(&packet[..64]);
    json!({ "begins": begins, "length": packet.len(), "fnv1a": format!("{hash:016x}") })
}

pub(crate) fn without_words(packet: &Value) -> Value {
    match packet.as_str() {
        Some(hex) if hex.starts_with("1a") => json!(hex[..6]),
        Some(hex) if hex.starts_with("27") && hex[10..].starts_with("07") => json!(hex[..12]),
        _ => packet.clone(),
    }
}
