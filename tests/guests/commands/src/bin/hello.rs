//! Says hello, then its arguments, one a line.

fn main() {
    println!("hello from wasm");
    for arg in std::env::args().skip(1) {
        println!("{arg}");
    }
}
