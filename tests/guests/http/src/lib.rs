//! Answers HTTP requests and writes a line to its log for each but `/quiet` and `/compute`. By path:
//!
//! - `/env` its environment, `/env/NAME` one variable
//! - `/file/PATH` a file
//! - `/echo` the request's body; `/mirror` the same piece by piece, and its trailers
//! - `/zeros/COUNT` so many bytes, and a line in its log when they are gone
//! - `/count` how many requests this instance has begun, this one included
//! - `/authority` the authority that the request names; `/header/NAME` one of its headers
//! - `/trickle/COUNT` so many lines, with a pause after each
//! - `/status/CODE` that status
//! - `/slow/MILLISECONDS` after a while
//! - `/fetch/AUTHORITY/PATH` what another server answers
//! - `/compute/COUNT` a number that takes a while to find
//! - `/trap` nothing: it traps; `/spin` nothing: it computes for ever
//! - anything else: hello, with the path

use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Http;

wasip2::http::proxy::export!(Http);

const PIECE: usize = 64 << 10;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl Guest for Http {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let path = request.path_with_query().unwrap_or_else(|| "/".into());
        if path != "/quiet" && !path.starts_with("/compute/") {
            println!("{path}");
        }
        if let Some(count) = path.strip_prefix("/trickle/") {
            return trickle(outparam, count.parse().unwrap_or(1));
        }
        if let Some(count) = path.strip_prefix("/zeros/") {
            return zeros(outparam, count.parse().unwrap_or(1));
        }
        if path == "/mirror" {
            // A client that has gone away is no reason to trap.
            let _ = mirror(outparam, &request);
            return;
        }
        let (status, body) = answer(&path, &request);
        respond(outparam, status, &body);
    }
}

type Answer = (u16, Vec<u8>);

fn answer(path: &str, request: &IncomingRequest) -> Answer {
    let mut words = path.trim_start_matches('/').splitn(2, '/');
    let (route, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match route {
        "env" => environment(rest),
        "file" => file(rest),
        "echo" => or_bad_gateway(request.consume().map_err(|()| "no body".to_owned()).and_then(read_all)),
        "compute" => (200, compute(rest.parse().unwrap_or(1)).to_string().into()),
        "count" => (200, REQUESTS.load(Ordering::Relaxed).to_string().into()),
        "authority" => (200, request.authority().unwrap_or_default().into()),
        "header" => match request.headers().get(rest).pop() {
            Some(value) => (200, value),
            None => (404, Vec::new()),
        },
        "status" => (rest.parse().unwrap_or(400), path.into()),
        "slow" => {
            std::thread::sleep(Duration::from_millis(rest.parse().unwrap_or(1000)));
            (200, format!("slow: {rest}\n").into())
        }
        "fetch" => or_bad_gateway(fetch(rest)),
        "trap" => std::process::abort(),
        "spin" => spin(),
        _ => (200, format!("hello from wasm: {path}\n").into()),
    }
}

fn environment(name: &str) -> Answer {
    if name.is_empty() {
        let mut lines: Vec<String> =
            std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
        lines.sort();
        return (200, lines.concat().into());
    }
    std::env::var(name).map_or_else(|_| (404, Vec::new()), |value| (200, value.into()))
}

fn file(path: &str) -> Answer {
    match std::fs::read(format!("/{path}")) {
        Ok(content) => (200, content),
        Err(error) => (404, format!("{error}\n").into()),
    }
}

fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

/// How many primes there are below a number.
fn compute(limit: u32) -> usize {
    let is_prime = |number: &u32| (2..*number).take_while(|d| d * d <= *number).all(|d| number % d != 0);
    (2..black_box(limit)).filter(is_prime).count()
}

fn fetch(target: &str) -> Result<Vec<u8>, String> {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let request = OutgoingRequest::new(Fields::new());
    let set = request.set_scheme(Some(&Scheme::Http)).and(request.set_authority(Some(authority)));
    set.and(request.set_path_with_query(Some(&format!("/{path}"))))
        .map_err(|()| "not an address".to_owned())?;
    let pending = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;
    pending.subscribe().block();
    let ready = pending.get().and_then(Result::ok).ok_or("no response")?;
    let response = ready.map_err(|error: ErrorCode| error.to_string())?;
    response.consume().map_err(|()| "no body".to_owned()).and_then(read_all)
}

fn read_all(body: IncomingBody) -> Result<Vec<u8>, String> {
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(PIECE as u64) {
            Ok(piece) => all.extend(piece),
            Err(StreamError::Closed) => return Ok(all),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn or_bad_gateway(result: Result<Vec<u8>, String>) -> Answer {
    result.map_or_else(|error| (502, format!("{error}\n").into()), |body| (200, body))
}

fn trickle(outparam: ResponseOutparam, count: u32) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(outparam, Ok(response));
    if let Ok(mut stream) = body.write() {
        for number in 1..=count {
            let _ = writeln!(stream, "{number}");
            let _ = std::io::Write::flush(&mut stream);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

fn zeros(outparam: ResponseOutparam, mut count: usize) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(outparam, Ok(response));
    let Ok(mut stream) = body.write() else { return };
    let piece = vec![0; PIECE];
    while count > 0 {
        let length = count.min(PIECE);
        if stream.write_all(&piece[..length]).is_err() {
            return;
        }
        count -= length;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    println!("all zeros are gone");
}

fn mirror(outparam: ResponseOutparam, request: &IncomingRequest) -> Result<(), ()> {
    let incoming = request.consume()?;
    let response = OutgoingResponse::new(Fields::new());
    let outgoing = response.body()?;
    ResponseOutparam::set(outparam, Ok(response));
    {
        let (input, mut output) = (incoming.stream()?, outgoing.write()?);
        while let Ok(piece) = input.blocking_read(PIECE as u64) {
            output.write_all(&piece).and_then(|()| std::io::Write::flush(&mut output)).map_err(drop)?;
        }
    }
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = trailers.get().and_then(Result::ok).and_then(Result::ok).flatten();
    OutgoingBody::finish(outgoing, trailers.map(|fields| fields.clone())).map_err(drop)
}

/// A client that has gone away is no reason to trap, so errors end the answer quietly.
fn respond(outparam: ResponseOutparam, status: u16, content: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    if response.set_status_code(status).is_err() {
        let _ = response.set_status_code(400);
    }
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(outparam, Ok(response));
    if let Ok(mut stream) = body.write() {
        let _ = stream.write_all(content);
        let _ = std::io::Write::flush(&mut stream);
    }
    let _ = OutgoingBody::finish(body, None);
}
