//! A DNS client of its own, which asks no host function for names: `dns SERVER NAME` sends a question for addresses (RFC 1035)
//! over UDP, repeats it over TCP if the answer says that it is cut off, and prints the IPv4 addresses of the answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::ExitCode;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const RECURSION_DESIRED: u16 = 1 << 8;
const TRUNCATED: u16 = 1 << 9;
/// Who asks for no more gets no more over UDP.
const LARGEST_DATAGRAM: usize = 512;
const POINTER: u8 = 0b1100_0000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        [server, name] => ask(server, name),
        _ => Err(io::Error::other("usage: dns SERVER NAME")),
    };
    match result {
        Ok(addresses) => {
            addresses.iter().for_each(|address| println!("{address}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(server: &str, name: &str) -> io::Result<Vec<Ipv4Addr>> {
    let question = question(name)?;
    let mut answer = over_udp(server, &question)?;
    if number(&answer, 2)? & TRUNCATED != 0 {
        answer = over_tcp(server, &question)?;
    }
    addresses(&answer).ok_or_else(damaged)
}

fn question(name: &str) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    for field in [7, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        message.push(length.ok_or_else(|| io::Error::other("not a name"))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(TYPE_A.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Ok(message)
}

fn over_udp(server: &str, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = vec![0; LARGEST_DATAGRAM];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn over_tcp(server: &str, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(server)?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    connection.read_exact(&mut answer)?;
    Ok(answer)
}

/// The addresses of an answer; None if it is cut off somewhere.
fn addresses(message: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (questions, answers) = (number(message, 4).ok()?, number(message, 6).ok()?);
    let mut at = HEADER;
    for _ in 0..questions {
        at = after_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = after_name(message, at)?;
        let (kind, length) = (number(message, at).ok()?, number(message, at + 8).ok()?);
        let data = message.get(at + 10..at + 10 + usize::from(length))?;
        if let (TYPE_A, Ok(address)) = (kind, <[u8; 4]>::try_from(data)) {
            found.push(address.into());
        }
        at += 10 + usize::from(length);
    }
    Some(found)
}

/// Where the name that begins here ends.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & POINTER == POINTER => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

fn number(message: &[u8], at: usize) -> io::Result<u16> {
    let bytes = message.get(at..at + 2).ok_or_else(damaged)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn damaged() -> io::Error {
    io::Error::other("the answer is cut off")
}
