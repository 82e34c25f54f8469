//! The log format of CRI: `2016-10-06T00:17:09.669794202Z stdout F what was written`.

use jiff::Timestamp;

/// A longer line is cut into parts of this size, as containerd does by default.
pub(crate) const LONGEST_LINE: usize = 16 << 10;

/// Which stream of a guest a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Whether a line of the log ends a line of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Partial,
    Full,
}

/// Appends one line of the log.
pub(crate) fn append_line(log: &mut Vec<u8>, now: Timestamp, source: Source, tag: Tag, text: &[u8]) {
    use std::io::Write;
    let tag = if tag == Tag::Full { "F" } else { "P" };
    // Writing to a Vec never fails.
    let _ = write!(log, "{now:.9} {} {tag} ", source.name());
    log.extend_from_slice(text);
    log.push(b'\n');
}

/// Cuts what a guest writes into lines. What follows the last newline waits for more.
#[derive(Debug)]
pub(crate) struct Lines {
    source: Source,
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, rest: Vec::new() }
    }

    /// Appends to `log` what `bytes` completes.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now: Timestamp, log: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.fill(&bytes[..end], now, log);
            append_line(log, now, self.source, Tag::Full, &self.rest);
            self.rest.clear();
            bytes = &bytes[end + 1..];
        }
        self.fill(bytes, now, log);
    }

    /// Adds to the unfinished line, and hands on full parts of it.
    fn fill(&mut self, mut bytes: &[u8], now: Timestamp, log: &mut Vec<u8>) {
        while self.rest.len() + bytes.len() > LONGEST_LINE {
            let (part, more) = bytes.split_at(LONGEST_LINE - self.rest.len());
            self.rest.extend_from_slice(part);
            append_line(log, now, self.source, Tag::Partial, &self.rest);
            self.rest.clear();
            bytes = more;
        }
        self.rest.extend_from_slice(bytes);
    }

    /// Appends a last line that has no newline, marked by `tag`.
    pub(crate) fn finish(&mut self, now: Timestamp, tag: Tag, log: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            append_line(log, now, self.source, tag, &self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2026-11-23T10:00:00.000000042Z";

    fn split(pushes: &[&[u8]]) -> Vec<String> {
        let now: Timestamp = STAMP.parse().unwrap();
        let mut lines = Lines::new(Source::Stdout);
        let mut log = Vec::new();
        for bytes in pushes {
            lines.push(bytes, now, &mut log);
        }
        lines.finish(now, Tag::Partial, &mut log);
        String::from_utf8(log).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_stamped_and_tagged() {
        assert_eq!(split(&[b"a\nb"]), [format!("{STAMP} stdout F a"), format!("{STAMP} stdout P b")]);
    }

    #[test]
    fn a_line_may_come_in_pieces_and_be_empty() {
        assert_eq!(
            split(&[b"he", b"llo\n", b"\n"]),
            [format!("{STAMP} stdout F hello"), format!("{STAMP} stdout F ")]
        );
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = vec![b'x'; 2 * LONGEST_LINE + 1];
        let lines = split(&[&long[..LONGEST_LINE - 1], &long[LONGEST_LINE - 1..], b"\n"]);
        let sizes: Vec<_> = lines.iter().map(|l| l.rsplit(' ').next().unwrap().len()).collect();
        assert_eq!(sizes, [LONGEST_LINE, LONGEST_LINE, 1]);
        assert!(lines[0].contains(" P ") && lines[1].contains(" P ") && lines[2].contains(" F "));
    }

    #[test]
    fn a_line_of_exactly_the_longest_size_is_one_line() {
        let mut line = vec![b'x'; LONGEST_LINE];
        line.push(b'\n');
        assert_eq!(split(&[&line]).len(), 1);
    }
}
