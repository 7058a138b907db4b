//! What control packets are made of: their kinds and their fields (SPEC.md, "Packets").

use crate::error::ProtocolError;
use crate::limits::{MAX_MILLIS, MAX_REASON};

/// The first byte of each kind of packet.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const WELCOME: u8 = 0x02;
    pub(crate) const REJECT: u8 = 0x03;
    pub(crate) const DATA: u8 = 0x10;
    pub(crate) const ACK: u8 = 0x11;
    pub(crate) const CREDIT: u8 = 0x12;
    pub(crate) const BLOCKED: u8 = 0x13;
    pub(crate) const PING: u8 = 0x14;
    pub(crate) const PONG: u8 = 0x15;
    pub(crate) const CLOSE: u8 = 0x18;
    pub(crate) const END: u8 = 0x19;
    pub(crate) const ABORT: u8 = 0x1a;
    pub(crate) const GO_AWAY: u8 = 0x1b;
    /// Unknown kinds from here on are ignored. Unknown kinds below are an error.
    pub(crate) const IGNORABLE: u8 = 0x80;
}

/// The bytes before the records of a DATA packet: the kind and the first sequence number.
pub(crate) const DATA_HEADER: usize = 9;

/// The fields of a control packet that are not read yet.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(ProtocolError::Malformed("cut short"));
        };
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A time in milliseconds.
    pub(crate) fn millis(&mut self) -> Result<u64, ProtocolError> {
        match self.u64()? {
            millis @ 0..=MAX_MILLIS => Ok(millis),
            _ => Err(ProtocolError::Malformed("a time of more than ten years")),
        }
    }

    /// The rest of the packet.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The rest of the packet as text.
    pub(crate) fn reason(&mut self) -> Result<String, ProtocolError> {
        let bytes = self.rest();
        if bytes.len() > MAX_REASON {
            return Err(ProtocolError::Malformed("a reason of more than 123 bytes"));
        }
        match std::str::from_utf8(bytes) {
            Ok(reason) => Ok(reason.to_owned()),
            Err(_) => Err(ProtocolError::Malformed("a reason that is not UTF-8")),
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), ProtocolError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(ProtocolError::Malformed("bytes left over")),
        }
    }
}
