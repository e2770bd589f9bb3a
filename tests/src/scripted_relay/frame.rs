//! WebSocket frames as bytes (RFC 6455), for those that no library would send.

/// Sort of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message before.
    Continuation = 0,
    /// Begins a text.
    Text = 1,
    /// Begins bytes.
    Binary = 2,
}

/// Head of an unmasked frame that claims `len` bytes; what follows it is up to the caller.
pub fn frame_head(opcode: Opcode, fin: bool, len: u64) -> Vec<u8> {
    let mut head = vec![u8::from(fin) << 7 | opcode as u8];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len < 126 => head.push(len),
        (_, Ok(len)) => {
            head.push(126);
            head.extend(len.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend(len.to_be_bytes());
        }
    }
    head
}

/// A whole unmasked frame.
pub fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_head(opcode, fin, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_the_rfc_has_them() {
        assert_eq!(frame(Opcode::Text, true, b"Hello"), [0x81, 0x05, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(frame_head(Opcode::Binary, true, 256), [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(frame_head(Opcode::Binary, true, 65_536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(frame_head(Opcode::Continuation, false, 125), [0x00, 125]);
    }
}
