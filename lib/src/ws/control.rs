//! What close frames say (RFC 6455 sections 5.5.1 and 7.4).

use unstall_proto::util::cut_reason;

use crate::reports::{Close, CloseCode, ConnectionError};

/// The payload of a close frame. A reason that does not fit is cut at a character.
pub(super) fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    [&code.as_u16().to_be_bytes(), cut_reason(reason).as_bytes()].concat()
}

/// What the peer says with the payload of its close frame.
pub(super) fn parse_close(payload: &[u8]) -> Result<Close, ConnectionError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Close {
                code: None,
                reason: String::new(),
            }),
            _ => Err(ConnectionError::Protocol(
                "a close frame has one byte, which is no code".to_owned(),
            )),
        };
    };
    let code = u16::from_be_bytes(*code);
    let Some(code) = CloseCode::new(code) else {
        let why = format!("a close frame has the code {code}, which may not be sent");
        return Err(ConnectionError::Protocol(why));
    };
    let reason = std::str::from_utf8(reason).map_err(|_| ConnectionError::InvalidText)?;
    Ok(Close {
        code: Some(code),
        reason: reason.to_owned(),
    })
}
