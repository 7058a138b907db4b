//! WebSocket streams that never stall.
