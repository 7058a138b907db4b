//! Errors, events and statistics.

pub(crate) mod connect_error;
mod error;
mod events;
mod printable;
mod redacted_url;
mod stats;

pub use connect_error::{ConnectError, ConnectPhase};
pub use error::{
    BoxError, Close, CloseCode, ConnectionError, DeliveryError, FlushError, SessionLoss,
};
pub(crate) use events::EventLog;
pub use events::{Event, Events};
pub(crate) use printable::Brief;
pub use printable::{Printable, printable};
pub use redacted_url::RedactedUrl;
pub(crate) use stats::{Meter, Report};
pub use stats::{QueueStats, StallCause, StallStats, Stats};
