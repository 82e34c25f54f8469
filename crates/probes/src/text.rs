//! Words for what went wrong, as Go has them.

use std::error::Error;
use std::io;
use std::time::Duration;

/// An error of the operating system without Rust's way of writing it: `connection refused`.
pub(crate) fn io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match text.chars().next() {
        Some(first) if error.raw_os_error().is_some() => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

/// An error of a connection: what lies under it where that is the operating system, else its own words.
pub(crate) fn connection_error(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.raw_os_error().is_some()
        {
            return io_error(io);
        }
        cause = inner.source();
    }
    // The cause of an error of HTTP itself is more than its class, which is all that `error` alone says.
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// `host:port`, IPv6 in brackets (`net.JoinHostPort`).
pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A duration in whole seconds as Go prints it: `1s`, `1m30s`.
pub(crate) fn duration(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

/// What begins with these bytes, cut at the limit; bytes that are no text are replaced.
pub(crate) fn limited(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned();
    if text.len() > limit {
        let end = (0..=limit).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(io_error(&refused), "connection refused");
        assert_eq!(io_error(&io::Error::other("Odd")), "Odd");
        assert_eq!(join_host_port("fd00::1", 80), "[fd00::1]:80");
        assert_eq!(duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn the_limit_holds_for_bytes_that_are_no_text() {
        assert_eq!(limited(b"abc", 2), "ab");
        assert_eq!(limited(&[0xff; 10], 10).len(), 9, "three replacements of three bytes each");
        assert_eq!(limited("aü".as_bytes(), 2), "a");
    }
}
