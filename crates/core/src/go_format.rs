//! What Go prints, where files and hashes have to be the same byte for byte.

use std::fmt::Write;

use serde::Serialize;

/// JSON as Go's `encoding/json` writes it: with `<`, `>`, `&`, U+2028 and U+2029 escaped. They occur in strings only.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    Ok(text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029"))
}

/// `DeepHashObject` of a string: FNV-1a over what the dump of it looks like (`pkg/util/hash`).
pub(crate) fn hash_string(text: &str) -> u32 {
    fnv1a(format!("(string){text}").as_bytes())
}

/// `DeepHashObject` of bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u32 {
    let mut dump = String::from("([]uint8)[");
    for (i, byte) in bytes.iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(dump, "{separator}{byte}");
    }
    dump.push(']');
    fnv1a(dump.as_bytes())
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
