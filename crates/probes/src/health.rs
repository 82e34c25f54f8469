//! The two messages of `grpc.health.v1` that a check needs, in gRPC's framing. They are so small that generated code
//! would be most of the crate.

use bytes::{BufMut, Bytes, BytesMut};

/// How a service is (`HealthCheckResponse.ServingStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServingStatus(u64);

impl ServingStatus {
    pub(crate) const SERVING: Self = Self(1);
}

impl std::fmt::Display for ServingStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("UNKNOWN"),
            1 => f.write_str("SERVING"),
            2 => f.write_str("NOT_SERVING"),
            3 => f.write_str("SERVICE_UNKNOWN"),
            other => write!(f, "{other}"),
        }
    }
}

/// The length of gRPC's prefix: whether the message is compressed, and its size.
const PREFIX: usize = 5;
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;
const SERVICE_TAG: u64 = 1 << 3 | LENGTH_DELIMITED;
const STATUS_TAG: u64 = 1 << 3 | VARINT;

/// A framed `HealthCheckRequest`.
pub(crate) fn encode_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        put_varint(&mut message, SERVICE_TAG);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend(message);
    framed.freeze()
}

/// The status in a framed `HealthCheckResponse`; none if it is no such message.
pub(crate) fn decode_response(framed: &[u8]) -> Option<ServingStatus> {
    let (prefix, rest) = framed.split_at_checked(PREFIX)?;
    let (compressed, size) = (prefix[0], u32::from_be_bytes(prefix[1..].try_into().ok()?));
    let mut message = rest.get(..usize::try_from(size).ok()?)?;
    if compressed != 0 {
        return None;
    }
    let mut status = ServingStatus(0);
    while !message.is_empty() {
        let tag = get_varint(&mut message)?;
        if tag == STATUS_TAG {
            status = ServingStatus(get_varint(&mut message)?);
            continue;
        }
        // Fields of later versions are skipped.
        let skip = match tag & 7 {
            VARINT => get_varint(&mut message).map(|_| 0)?,
            FIXED_64 => 8,
            LENGTH_DELIMITED => get_varint(&mut message)?,
            FIXED_32 => 4,
            _ => return None,
        };
        message = message.get(usize::try_from(skip).ok()?..)?;
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn get_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_protoc_makes_them() {
        assert_eq!(encode_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(encode_request("abc")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'b', b'c']);
        let long = encode_request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn responses_are_read_whatever_else_is_in_them() {
        let decode = |message: &[u8]| {
            let framed = [&[0, 0, 0, 0, message.len() as u8], message].concat();
            decode_response(&framed).map(|s| s.to_string())
        };
        assert_eq!(decode(&[]).as_deref(), Some("UNKNOWN"));
        assert_eq!(decode(&[8, 1]).as_deref(), Some("SERVING"));
        assert_eq!(decode(&[8, 2]).as_deref(), Some("NOT_SERVING"));
        assert_eq!(decode(&[8, 3]).as_deref(), Some("SERVICE_UNKNOWN"));
        assert_eq!(decode(&[8, 9]).as_deref(), Some("9"));
        assert_eq!(decode(&[0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 8, 1]).as_deref(), Some("SERVING"));
        for broken in [&[8][..], &[0x12, 9, 1], &[8, 0x80], &[0xff; 11], &[0x0f]] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
        assert_eq!(decode_response(&[0, 0, 0, 0]), None);
        assert_eq!(decode_response(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(decode_response(&[0, 0, 0, 0, 9, 8, 1]), None, "cut off");
    }
}
