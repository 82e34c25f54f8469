//! Which streams a request asks for.

/// The streams that a client wants, from the query of its request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// It sends input.
    pub stdin: bool,
    /// It wants the output.
    pub stdout: bool,
    /// It wants the error output.
    pub stderr: bool,
    /// It wants a terminal.
    pub tty: bool,
}

/// A query that asks for nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("you must specify at least 1 of stdin, stdout, stderr")]
pub struct NoStreams;

impl Options {
    /// Reads `input`, `output`, `error` and `tty`, each `1` (`NewOptions`). A terminal has no error output.
    ///
    /// # Errors
    /// It asks for no stream.
    pub fn from_query(query: &str) -> Result<Self, NoStreams> {
        let is_set = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).is_some_and(|(_, value)| value == "1")
        };
        let tty = is_set("tty");
        let (stdin, stdout, stderr) = (is_set("input"), is_set("output"), is_set("error") && !tty);
        if !stdin && !stdout && !stderr {
            return Err(NoStreams);
        }
        Ok(Self { stdin, stdout, stderr, tty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let options = |stdin, stdout, stderr, tty| Ok(Options { stdin, stdout, stderr, tty });
        for (query, expected) in [
            ("input=1&output=1&error=1&command=x", options(true, true, true, false)),
            ("output=1&error=1&tty=1", options(false, true, false, true)),
            ("output=true", Err(NoStreams)),
            ("output=0&output=1", Err(NoStreams)),
            ("error=1&tty=1", Err(NoStreams)),
            ("tty=1", Err(NoStreams)),
            ("", Err(NoStreams)),
        ] {
            assert_eq!(Options::from_query(query), expected, "{query}");
        }
    }
}
