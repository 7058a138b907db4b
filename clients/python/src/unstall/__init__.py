"""WebSocket streams that never stall, never lose a message in silence, and never eat memory."""
