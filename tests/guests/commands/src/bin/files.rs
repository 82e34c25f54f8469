//! Works on files, one command an argument: `cat PATH`, `ls PATH` (without hidden names), `write PATH TEXT`, `append PATH TEXT`, `rm PATH`,
//! `link OLD NEW`, `rename OLD NEW`, `never PATH TEXT` tries to read PATH very often, and fails if it ever has TEXT in it.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut words = args.iter().map(String::as_str);
    while let Some(command) = words.next() {
        let path = words.next().unwrap_or_default();
        let result = match command {
            "cat" => fs::read(path).and_then(|content| io::stdout().write_all(&content)),
            "ls" => list(path),
            "write" => fs::write(path, words.next().unwrap_or_default()),
            "append" => append(path, words.next().unwrap_or_default()),
            "rm" => fs::remove_file(path),
            "link" => fs::hard_link(path, words.next().unwrap_or_default()),
            "rename" => fs::rename(path, words.next().unwrap_or_default()),
            "never" => never(path, words.next().unwrap_or_default()),
            _ => Err(io::Error::other("unknown command")),
        };
        if let Err(error) = result {
            eprintln!("{command} {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn list(path: &str) -> io::Result<()> {
    let entries: io::Result<Vec<_>> = fs::read_dir(path)?.collect();
    let names = entries?.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    for name in names {
        println!("{name}");
    }
    Ok(())
}

fn append(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

fn never(path: &str, text: &str) -> io::Result<()> {
    for _ in 0..20_000 {
        if fs::read(path).is_ok_and(|content| content == text.as_bytes()) {
            return Err(io::Error::other("it was read"));
        }
    }
    Ok(())
}
