//! Prints its environment, sorted, one `NAME=value` a line; with arguments, only those names.

use std::collections::BTreeMap;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    for (name, value) in environment {
        if wanted.is_empty() || wanted.contains(&name) {
            println!("{name}={value}");
        }
    }
}
