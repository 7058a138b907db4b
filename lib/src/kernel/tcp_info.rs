//! The kernel's `struct tcp_info` (include/uapi/linux/tcp.h).
//!
//! The structure only ever grows at its end, so each field is read at its offset. A longer
//! structure than this version knows is fine. Fields that a shorter one lacks are absent.

use std::time::Duration;

/// The bytes of a `struct tcp_info`, in this machine's byte order.
pub(super) struct TcpInfo<'a>(pub(super) &'a [u8]);

impl TcpInfo<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..offset + N)?.try_into().ok()
    }

    fn byte(&self, offset: usize) -> u8 {
        self.0.get(offset).copied().unwrap_or(0)
    }

    fn word(&self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_ne_bytes)
    }

    fn long(&self, offset: usize) -> u64 {
        self.array(offset).map_or(0, u64::from_ne_bytes)
    }

    fn millis(&self, offset: usize) -> Duration {
        Duration::from_millis(u64::from(self.word(offset).unwrap_or(0)))
    }

    fn micros(&self, offset: usize) -> Duration {
        Duration::from_micros(u64::from(self.word(offset).unwrap_or(0)))
    }

    pub(super) fn retransmits(&self) -> u8 {
        self.byte(2)
    }

    pub(super) fn probes(&self) -> u8 {
        self.byte(3)
    }

    pub(super) fn backoff(&self) -> u8 {
        self.byte(4)
    }

    pub(super) fn rto(&self) -> Duration {
        self.micros(8)
    }

    pub(super) fn mss(&self) -> u32 {
        self.word(16).unwrap_or(0)
    }

    pub(super) fn unacked(&self) -> u32 {
        self.word(24).unwrap_or(0)
    }

    pub(super) fn lost(&self) -> u32 {
        self.word(32).unwrap_or(0)
    }

    pub(super) fn last_data_sent(&self) -> Duration {
        self.millis(44)
    }

    pub(super) fn last_data_received(&self) -> Duration {
        self.millis(52)
    }

    pub(super) fn last_ack_received(&self) -> Duration {
        self.millis(56)
    }

    pub(super) fn rtt(&self) -> Duration {
        self.micros(68)
    }

    pub(super) fn congestion_window(&self) -> u32 {
        self.word(80).unwrap_or(0)
    }

    pub(super) fn total_retransmits(&self) -> u32 {
        self.word(100).unwrap_or(0)
    }

    pub(super) fn bytes_acked(&self) -> u64 {
        self.long(120)
    }

    pub(super) fn bytes_received(&self) -> u64 {
        self.long(128)
    }

    pub(super) fn not_sent(&self) -> u32 {
        self.word(144).unwrap_or(0)
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_micros(self.long(168))
    }

    pub(super) fn limited_by_peer_window(&self) -> Duration {
        Duration::from_micros(self.long(176))
    }

    pub(super) fn limited_by_send_buffer(&self) -> Duration {
        Duration::from_micros(self.long(184))
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.long(200)
    }

    pub(super) fn bytes_retransmitted(&self) -> u64 {
        self.long(208)
    }

    pub(super) fn peer_window(&self) -> Option<u32> {
        self.word(228)
    }

    pub(super) fn own_window(&self) -> Option<u32> {
        self.word(232)
    }
}
