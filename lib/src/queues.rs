//! The queues between the application and the pump, each bounded in bytes.

pub(crate) mod inbox;
pub(crate) mod items;
pub(crate) mod outbox;
pub(crate) mod spill;
