//! TCP, for component hosts: `tcp serve ADDRESS` echoes every line of every connection, one connection after another, and
//! `tcp pipe ADDRESS` all bytes as they come; `tcp call ADDRESS TEXT` sends a line and prints the answer, with the addresses of
//! both ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

const PIECE: usize = 64 << 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", address] => serve(address, echo),
        ["pipe", address] => serve(address, pipe),
        ["call", address, text] => call(address, text),
        _ => Err(io::Error::other("usage: tcp serve ADDRESS | tcp pipe ADDRESS | tcp call ADDRESS TEXT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, answer: impl Fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (connection, peer) = listener.accept()?;
        if let Err(error) = answer(connection) {
            eprintln!("{peer}: {error}");
        }
    }
}

fn echo(connection: TcpStream) -> io::Result<()> {
    // WASI has no duplicate of a socket, but a shared reference reads and writes.
    for line in BufReader::new(&connection).lines() {
        writeln!(&connection, "{}", line?)?;
    }
    Ok(())
}

fn pipe(mut connection: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            length => connection.write_all(&buffer[..length])?,
        }
    }
}

fn call(address: &str, text: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    println!("from {} to {}", connection.local_addr()?, connection.peer_addr()?);
    writeln!(connection, "{text}")?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    print!("{answer}");
    Ok(())
}
