//! Deliveries as lines of JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use unstall_topics::{Delivery, Gap, GapReason, Message, StoredAt};

/// A message. One that is not text has `base64` in place of `text`.
#[derive(Serialize)]
struct MessageLine<'a> {
    topic: &'a str,
    offset: u64,
    /// Milliseconds since 1970.
    time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(rename = "final", skip_serializing_if = "std::ops::Not::not")]
    is_final: bool,
}

#[derive(Serialize)]
struct GapLine {
    gap: GapFields,
}

/// Messages with offsets above `after` and up to `through` are missing.
#[derive(Serialize)]
struct GapFields {
    reason: &'static str,
    /// Whether messages of the filter are missing for sure.
    certain: bool,
    after: u64,
    through: u64,
}

#[derive(Serialize)]
struct CaughtUpLine {
    caught_up: u64,
}

/// A delivery as one line of JSON, without its newline.
pub(crate) fn json(delivery: &Delivery) -> String {
    let json = match delivery {
        Delivery::Message(message) => serde_json::to_string(&message_line(message)),
        Delivery::Gap(gap) => serde_json::to_string(&GapLine {
            gap: GapFields {
                reason: reason(gap.reason),
                certain: gap.certain,
                after: gap.after.get(),
                through: gap.through.get(),
            },
        }),
        Delivery::CaughtUp(position) => serde_json::to_string(&CaughtUpLine {
            caught_up: position.offset.get(),
        }),
        // A later version's.
        _ => return "{}".to_owned(),
    };
    json.unwrap_or_default()
}

fn message_line(message: &Message) -> MessageLine<'_> {
    let text = message.as_text();
    MessageLine {
        topic: message.topic().as_str(),
        offset: message.offset().get(),
        time: (message.time() != StoredAt::UNKNOWN).then(|| message.time().millis()),
        text,
        base64: text.is_none().then(|| STANDARD.encode(message.as_bytes())),
        is_final: message.is_final(),
    }
}

/// The word for it in JSON.
fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Removed => "removed",
        GapReason::AnotherLog => "another_log",
        GapReason::Diverged => "diverged",
        GapReason::MovedAhead => "moved_ahead",
        GapReason::TooLarge => "too_large",
        GapReason::Damaged => "damaged",
        _ => "unknown",
    }
}

/// A gap in words, for people.
pub(crate) fn gap_text(gap: &Gap) -> String {
    let Gap { after, through, .. } = gap;
    let between = format!("behind offset {after} and up to {through}");
    let certain = if gap.certain { "are" } else { "may be" };
    match gap.reason {
        GapReason::Removed => {
            format!("messages {certain} missing here: those {between} were removed before they were read")
        }
        GapReason::AnotherLog => {
            "messages may be missing here: the address serves another log now, which is read from its \
             beginning"
                .to_owned()
        }
        GapReason::Diverged => format!(
            "messages may be missing here: the log has lost its end, and goes on behind offset {through}"
        ),
        GapReason::MovedAhead => {
            format!("messages {certain} missing here: those {between} were too old")
        }
        GapReason::TooLarge => format!("a message is missing here: it is too large ({between})"),
        GapReason::Damaged => {
            format!("messages {certain} missing here: those {between} cannot be read")
        }
        _ => format!("messages {certain} missing here: those {between}"),
    }
}
