//! The process that compiles one module: bytes from an image's author in, native code out.
//!
//! Its limits keep a module that is a bomb from taking the node down, and one that takes the compiler over from doing
//! anything here. What it answers is going to run all the same.

use std::io::{Read, Write};
use std::process::ExitCode;

use wasmtime::Engine;

use super::confine::{Limits, confine};
use crate::engine::compile_settings;

/// Environment variable with the address space that the child may use, in bytes.
pub(super) const MEMORY_VARIABLE: &str = "CORACLE_COMPILE_MEMORY";
/// Environment variable with the processor time that the child may use, in seconds.
pub(super) const CPU_VARIABLE: &str = "CORACLE_COMPILE_CPU";

/// Exit code of a child that refuses its input; one line on standard error says why.
pub(super) const REFUSED: u8 = 65;
/// Exit code of a child that could not do its work, whatever the input.
const FAILED: u8 = 70;

/// Compiles the WebAssembly on standard input to standard output, and says on standard error why it does not.
///
/// This is the whole of the process that [`CompilerCommand`](super::CompilerCommand) starts: call it first thing,
/// before threads or files are opened, since it takes rights away from the process for good.
pub fn compile_child() -> ExitCode {
    let limits = Limits { memory_bytes: number(MEMORY_VARIABLE), cpu_seconds: number(CPU_VARIABLE) };
    let outcome = confine(&limits)
        .map_err(|e| Failure { code: FAILED, message: format!("cannot limit the compiler: {e}") })
        .and_then(|()| compile());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            // Nobody is left to tell if this fails; the exit code says enough.
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::from(code)
        }
    }
}

struct Failure {
    code: u8,
    message: String,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn compile() -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure {
        code: FAILED,
        message: format!("cannot {what}: {error}"),
    };
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm).map_err(|e| failed("read the module", &e))?;
    let engine = Engine::new(&compile_settings()).map_err(|e| failed("set up the compiler", &e))?;
    let native = translate(&engine, &wasm).map_err(|message| Failure { code: REFUSED, message })?;
    let mut out = std::io::stdout().lock();
    out.write_all(&native).and_then(|()| out.flush()).map_err(|e| failed("write native code", &e))
}

/// Compiles what is WebAssembly, and says what the rest is.
pub(super) fn translate(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, String> {
    if Engine::detect_precompiled(wasm).is_some() {
        return Err("it is native code that another program compiled; only WebAssembly itself is run".into());
    }
    let compiled = match wasm {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => engine.precompile_module(wasm),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => engine.precompile_component(wasm),
        [0, b'a', b's', b'm', version @ ..] => {
            let version = &version[..version.len().min(4)];
            return Err(format!(
                "it has a version of the WebAssembly format that is not known: {version:02x?}"
            ));
        }
        _ => return Err("it is not WebAssembly: the first four bytes are not \\0asm".into()),
    };
    compiled.map_err(|error| one_line(&error))
}

/// The whole chain of causes in one line of bounded length.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    const LONGEST: usize = 600;
    let text = format!("{error:#}");
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wasm: &[u8]) -> String {
        translate(&Engine::new(&compile_settings()).unwrap(), wasm).unwrap_err()
    }

    #[test]
    fn what_is_not_webassembly_is_refused_by_name() {
        assert!(refusal(b"").contains("not WebAssembly"));
        assert!(refusal(b"#!/bin/sh\n").contains("not WebAssembly"));
        assert!(refusal(b"\0asm\x0a\0\x01\0").contains("version"));
        assert!(refusal(b"\0asm").contains("version"));
        let module = wat::parse_str("(module (func (export \"_start\")))").unwrap();
        assert!(!refusal(&module[..module.len() - 3]).is_empty());
        assert!(!refusal(&module[..module.len() - 3]).contains('\n'));
    }

    #[test]
    fn native_code_is_refused_even_if_it_would_load() {
        let engine = Engine::new(&compile_settings()).unwrap();
        let native = translate(&engine, &wat::parse_str("(module)").unwrap()).unwrap();
        assert!(refusal(&native).contains("native code"), "{}", refusal(&native));
    }

    #[test]
    fn shared_memory_is_off() {
        let shared = wat::parse_str("(module (memory 1 2 shared))").unwrap();
        assert!(refusal(&shared).contains("threads"), "{}", refusal(&shared));
    }
}
