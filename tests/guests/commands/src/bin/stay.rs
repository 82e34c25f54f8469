//! Stays: `stay sleep` sleeps, `stay tick MILLISECONDS` prints a numbered line that often, `stay spin` computes for
//! ever without a single call to the host. Without an argument it sleeps.
//!
//! Run beside itself it does something and ends: `stay exit CODE`, `stay env NAME`, `stay trap`, `stay flood BYTES` writes
//! so much, `stay echo` repeats its input until that ends, `stay terminal` says which of its streams are one.

use std::hint::black_box;
use std::io::{self, IsTerminal, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wish = args.first().map_or("sleep", String::as_str);
    let argument = args.get(1).map_or("", String::as_str);
    match wish {
        "exit" => {
            eprintln!("stay: ends with {argument}");
            exit(argument.parse().unwrap_or(1))
        }
        "env" => return println!("{}", std::env::var(argument).unwrap_or_default()),
        "trap" => std::process::abort(),
        "flood" => return flood(argument.parse().unwrap_or(0)),
        "echo" => {
            // Whoever reads may have gone away.
            let _ = io::copy(&mut io::stdin(), &mut io::stdout());
            return;
        }
        "terminal" => return terminal(),
        _ => println!("stay: {wish}"),
    }
    match wish {
        "tick" => tick(args.get(1).and_then(|text| text.parse().ok()).unwrap_or(1000)),
        "spin" => spin(),
        _ => loop {
            sleep(Duration::from_secs(3600));
        },
    }
}

fn flood(bytes: usize) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(&vec![b'x'; bytes]);
}

fn terminal() {
    let are = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    println!("{are:?}");
}

fn tick(milliseconds: u64) {
    for count in 1_u64.. {
        println!("tick {count}");
        sleep(Duration::from_millis(milliseconds));
    }
}

fn spin() {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}
