//! Errors, events and statistics.

mod close;
pub(crate) mod connect_error;
#[cfg(feature = "metrics")]
pub(crate) mod counted;
mod error;
mod events;
mod printable;
mod proxy_error;
#[cfg(feature = "status")]
pub(crate) mod recoveries;
mod redacted_url;
mod stall;
mod stats;

pub use close::{Close, CloseCode};
pub use connect_error::{ConnectError, ConnectPhase};
pub use error::{BoxError, ConnectionError, DeliveryError, FlushError, SessionLoss};
pub(crate) use events::EventLog;
#[cfg(feature = "status")]
pub(crate) use events::TimedEvent;
pub use events::{Event, Events};
pub(crate) use printable::Brief;
pub use printable::{Printable, printable};
pub use proxy_error::ProxyError;
pub use redacted_url::RedactedUrl;
pub use stall::StallCause;
pub(crate) use stats::{Meter, Report};
pub use stats::{QueueStats, StallStats, Stats};
