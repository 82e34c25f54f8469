//! Stays: `stay sleep` sleeps, `stay tick MILLISECONDS` prints a numbered line that often, `stay spin` computes for
//! ever without a single call to the host. Without an argument it sleeps.

use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wish = args.first().map_or("sleep", String::as_str);
    println!("stay: {wish}");
    match wish {
        "tick" => tick(args.get(1).and_then(|text| text.parse().ok()).unwrap_or(1000)),
        "spin" => spin(),
        _ => loop {
            sleep(Duration::from_secs(3600));
        },
    }
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
