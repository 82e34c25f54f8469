//! Needs a function that no host provides.

#[cfg(target_family = "wasm")]
#[link(wasm_import_module = "coracle:test/absent")]
unsafe extern "C" {
    safe fn nothing() -> i32;
}

#[cfg(target_family = "wasm")]
fn main() {
    println!("{}", nothing());
}

#[cfg(not(target_family = "wasm"))]
fn main() {}
