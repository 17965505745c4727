//! WebSocket frames, as small as tests need them.

use std::io::Read;

/// The head of a request that becomes a WebSocket, with the key of RFC 6455's example.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Makes a frame with a final fragment from a client.
pub fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
    let mask = [7, 1, 200, 99];
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(body.len()).expect("a test's frame is small") {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("below 126")),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads a frame of a server: its opcode and body.
pub fn read_frame(stream: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long)?;
        length = usize::from(u16::from_be_bytes(long));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head[0] & 15, body))
}
