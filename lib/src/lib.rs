//! WebSocket streams that never stall.

pub mod doctor;
mod kernel;
