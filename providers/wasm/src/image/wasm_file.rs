//! Looks at a Wasm binary before anything else does.

use std::fs;
use std::io::Read;
use std::path::Path;

use wasmparser::Parser;

use super::artifact::WasmKind;

/// Why a file is no Wasm binary that this provider runs. Continues "image X …".
#[derive(Debug, thiserror::Error)]
pub(super) enum WasmFileError {
    #[error(
        "holds native code (.cwasm), which is never run: only this node compiles what it runs; \
         publish the .wasm file instead"
    )]
    NativeCode,
    #[error("holds WebAssembly text; publish the binary (.wasm) that it assembles to")]
    Text,
    #[error("holds a file that is neither a WebAssembly module nor a component")]
    NotWasm,
    #[error("holds a damaged WebAssembly binary: {0}")]
    Damaged(String),
    #[error("could not be read from disk: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads the whole file and walks over its sections, nested ones included. What they hold is for the compiler to judge.
pub(super) fn inspect(path: &Path) -> Result<WasmKind, WasmFileError> {
    let bytes = fs::read(path)?;
    let kind = kind_of(&bytes)?;
    for payload in Parser::new(0).parse_all(&bytes) {
        payload.map_err(|e| WasmFileError::Damaged(one_line(&e)))?;
    }
    Ok(kind)
}

/// The kind of a file that [`inspect`] has seen before.
pub(super) fn peek(path: &Path) -> Result<WasmKind, WasmFileError> {
    let mut header = Vec::with_capacity(8);
    fs::File::open(path)?.take(8).read_to_end(&mut header)?;
    kind_of(&header)
}

/// The kind, by the first bytes only.
pub(super) fn kind_of(bytes: &[u8]) -> Result<WasmKind, WasmFileError> {
    const ELF: &[u8] = b"\x7fELF";
    if bytes.starts_with(ELF) {
        return Err(WasmFileError::NativeCode);
    }
    if Parser::is_component(bytes) {
        return Ok(WasmKind::Component);
    }
    if Parser::is_core_wasm(bytes) {
        return Ok(WasmKind::Module);
    }
    match bytes.trim_ascii_start() {
        text if text.starts_with(b"(module") || text.starts_with(b"(component") => Err(WasmFileError::Text),
        _ => Err(WasmFileError::NotWasm),
    }
}

fn one_line(error: &wasmparser::BinaryReaderError) -> String {
    format!("{} at byte {}", error.message().lines().next().unwrap_or_default(), error.offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(bytes: &[u8]) -> Result<WasmKind, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let inspected = inspect(file.path()).map_err(|e| e.to_string());
        if let Ok(kind) = &inspected {
            assert_eq!(peek(file.path()).unwrap(), *kind);
        }
        inspected
    }

    #[test]
    fn modules_and_components_are_told_apart() {
        let module = wat::parse_str("(module (func) (data \"x\"))").unwrap();
        let component = wat::parse_str("(component (core module (func)))").unwrap();
        assert_eq!(inspected(&module), Ok(WasmKind::Module));
        assert_eq!(inspected(&component), Ok(WasmKind::Component));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (bytes, reason) in [
            (&b"\x7fELF\x02\x01\x01"[..], "native code"),
            (b"", "neither"),
            (b"\0asm", "neither"),
            (b"\0asm\x02\0\0\0", "neither"),
            (b"\0asm\x0a\0\x01\0", "neither"),
            (b"#!/bin/sh\n", "neither"),
            (b"\x1f\x8b\x08\0\0\0\0\0", "neither"),
            (b"\n  (module)", "text"),
        ] {
            let message = inspected(bytes).unwrap_err();
            assert!(message.contains(reason), "{bytes:?}: {message}");
        }
    }

    #[test]
    fn truncation_is_noticed() {
        // One section, so that no cut leaves a smaller valid binary: those only the digest tells.
        let binary = b"\0asm\x01\0\0\0\0\x0a\x01xabcdefgh";
        assert_eq!(inspected(binary), Ok(WasmKind::Module));
        for end in 9..binary.len() {
            let message = inspected(&binary[..end]).unwrap_err();
            assert!(message.contains("damaged"), "cut at {end}: {message}");
        }
    }
}
