//! Takes memory, a MiB at a time and every page touched, until there is no more or the mebibytes in its first argument
//! are reached; then says how much it has and ends well.

fn main() {
    const MEBIBYTE: usize = 1 << 20;
    let limit = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while taken.len() < limit {
        taken.push(std::hint::black_box(vec![1; MEBIBYTE]));
    }
    println!("oom: {} MiB", taken.len());
}
