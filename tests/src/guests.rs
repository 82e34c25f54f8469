//! The guest modules: `cargo xtask guests` builds small ones from tests/guests into the repository, and `cargo xtask setup`
//! those that bring a language's runtime along into the bed.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::programs;

fn path(name: &str) -> Result<PathBuf> {
    let file = format!("{name}.wasm");
    let small = programs::repository().join("tests/guests/wasm").join(&file);
    if small.is_file() { Ok(small) } else { programs::bed(&format!("guests/{file}")) }
}

/// The bytes of a guest.
pub fn bytes(name: &str) -> Result<Vec<u8>> {
    let path = path(name)?;
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// The start of a file as wasmtime's compiler writes it: an ELF header with wasmtime's OS/ABI and its flag for a
/// module. It is enough to be recognised as native code; there is no code in it.
pub fn native_code() -> Vec<u8> {
    const OSABI_WASMTIME: u8 = 200;
    const EF_WASMTIME_MODULE: u32 = 1;
    let mut header = vec![0; 64];
    // Magic, 64 bit, little-endian, version 1.
    header[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, OSABI_WASMTIME]);
    // e_version, e_flags, e_ehsize, e_shentsize.
    header[20] = 1;
    header[48..52].copy_from_slice(&EF_WASMTIME_MODULE.to_le_bytes());
    header[52] = 64;
    header[58] = 64;
    header
}
