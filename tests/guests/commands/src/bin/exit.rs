//! Ends with the code in its first argument, after it has said so on both outputs. Without one, or with `trap`, it traps.

fn main() {
    let wish = std::env::args().nth(1);
    println!("exit: stdout");
    eprintln!("exit: stderr");
    match wish.as_deref().map(str::parse) {
        Some(Ok(code)) => std::process::exit(code),
        _ => std::process::abort(),
    }
}
