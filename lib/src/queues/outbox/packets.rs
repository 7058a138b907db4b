//! Empty packets for short messages.

use unstall_proto::Records;

/// Makes empty packets, or has them from packets that are done with.
#[derive(Default)]
pub(super) struct Packets {
    /// Packets to use again, because each new allocation of that size costs page faults.
    pub(super) spare: Vec<Records>,
    /// The connection writes packets as frames, where they are.
    pub(super) for_frames: bool,
}

impl Packets {
    /// A spare packet, or a new one with room for that many bytes.
    pub(super) fn take(&mut self, room: impl FnOnce() -> usize) -> Records {
        let packet = self.spare.pop();
        let packet = packet.unwrap_or_else(|| Records::with_capacity(room()));
        match self.for_frames {
            true => packet.for_frames(),
            false => packet,
        }
    }
}
