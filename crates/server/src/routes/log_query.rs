//! The query of a request for logs (upstream: `v1.PodLogOptions` and its decoding and validation).

use coracle_core::logs::{LogOptions, LogStream};
use jiff::{SignedDuration, Timestamp};

/// What a request for a log asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogQuery {
    pub(super) options: LogOptions,
    /// The log of the container before the last restart.
    pub(super) previous: bool,
}

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogQueryError {
    /// A value cannot be read: 400.
    Undecodable,
    /// The values make no sense, or not together: 422.
    Invalid,
}

impl LogQuery {
    /// Decodes and checks a query as upstream does; `now` is what `sinceSeconds` counts back from.
    pub(super) fn parse(query: &str, now: Timestamp) -> Result<Self, LogQueryError> {
        let values = Values::new(query);
        // `tail` is the old name of `tailLines`, and wins over it; it can say "all".
        let tail_lines = match values.get("tail").filter(|tail| !tail.is_empty()) {
            Some("all") => None,
            Some(tail) => Some(integer(tail)?),
            None => values.integer("tailLines")?,
        };
        let limit_bytes = values.integer("limitBytes")?;
        let since_seconds = values.integer("sinceSeconds")?;
        let since_time = values.get("sinceTime").map(time).transpose()?;
        let stream = values.get("stream");

        let specific_stream = stream.is_some_and(|stream| stream != "All");
        if tail_lines.is_some_and(|lines| lines < 0)
            || limit_bytes.is_some_and(|bytes| bytes < 1)
            || since_seconds.is_some_and(|seconds| seconds < 1)
            || (since_seconds.is_some() && since_time.is_some())
            || (specific_stream && tail_lines.is_some())
        {
            return Err(LogQueryError::Invalid);
        }
        let stream = match stream {
            None | Some("All") => None,
            Some("Stdout") => Some(LogStream::Stdout),
            Some("Stderr") => Some(LogStream::Stderr),
            Some(_) => return Err(LogQueryError::Invalid),
        };
        let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        Ok(Self {
            options: LogOptions {
                tail_lines: tail_lines.map(i64::unsigned_abs),
                limit_bytes: limit_bytes.map(i64::unsigned_abs),
                since: since_time.or(since_seconds.map(ago)),
                follow: values.boolean("follow"),
                timestamps: values.boolean("timestamps"),
                stream,
            },
            previous: values.boolean("previous"),
        })
    }
}

/// The values of a query; of a name that comes twice, the first counts.
struct Values(Vec<(String, String)>);

impl Values {
    fn new(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, LogQueryError> {
        self.get(name).map(integer).transpose()
    }

    /// Anything but "0" and "false" is true, even nothing (`Convert_Slice_string_To_bool`).
    fn boolean(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

fn integer(text: &str) -> Result<i64, LogQueryError> {
    text.parse().map_err(|_| LogQueryError::Undecodable)
}

/// RFC 3339; old clients send "null" (`Time.UnmarshalQueryParameter`).
fn time(text: &str) -> Result<Timestamp, LogQueryError> {
    match text {
        "" | "null" => Ok(Timestamp::MIN),
        text => text.parse().map_err(|_| LogQueryError::Undecodable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn parse(query: &str) -> Result<LogQuery, LogQueryError> {
        LogQuery::parse(query, NOW.parse().unwrap())
    }

    #[test]
    fn good_queries() {
        let all = LogOptions::default;
        let minute_ago: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (query, expected) in [
            ("", all()),
            ("unknown=1&container=c", all()),
            ("tailLines=5", LogOptions { tail_lines: Some(5), ..all() }),
            ("tailLines=0", LogOptions { tail_lines: Some(0), ..all() }),
            ("tail=5", LogOptions { tail_lines: Some(5), ..all() }),
            ("tail=5&tailLines=7", LogOptions { tail_lines: Some(5), ..all() }),
            ("tailLines=7&tail=all", all()),
            ("tailLines=7&tail=", LogOptions { tail_lines: Some(7), ..all() }),
            ("follow=1", LogOptions { follow: true, ..all() }),
            ("follow=true&timestamps", LogOptions { follow: true, timestamps: true, ..all() }),
            ("follow=0&timestamps=FALSE", all()),
            ("limitBytes=1&limitBytes=9", LogOptions { limit_bytes: Some(1), ..all() }),
            ("sinceSeconds=60", LogOptions { since: Some(minute_ago), ..all() }),
            ("sinceSeconds=9223372036854775807", LogOptions { since: Some(Timestamp::MIN), ..all() }),
            ("sinceTime=2026-01-01T00:00:00Z", LogOptions { since: Some(minute_ago), ..all() }),
            ("sinceTime=2026-01-01T02:00:00%2B02:00", LogOptions { since: Some(minute_ago), ..all() }),
            ("sinceTime=null", LogOptions { since: Some(Timestamp::MIN), ..all() }),
            ("stream=All&tailLines=1", LogOptions { tail_lines: Some(1), ..all() }),
            ("stream=Stdout", LogOptions { stream: Some(LogStream::Stdout), ..all() }),
            (
                "stream=Stderr&limitBytes=3",
                LogOptions { stream: Some(LogStream::Stderr), limit_bytes: Some(3), ..all() },
            ),
        ] {
            assert_eq!(parse(query), Ok(LogQuery { options: expected, previous: false }), "{query}");
        }
        assert_eq!(parse("previous=true"), Ok(LogQuery { previous: true, ..LogQuery::default() }));
    }

    #[test]
    fn bad_queries() {
        use LogQueryError::{Invalid, Undecodable};
        for (query, expected) in [
            ("tailLines=x", Undecodable),
            ("tailLines=", Undecodable),
            ("tail=x", Undecodable),
            ("limitBytes=1.5", Undecodable),
            ("sinceTime=yesterday", Undecodable),
            ("sinceTime=2026-01-01T02:00:00+02:00", Undecodable),
            ("tailLines=-1", Invalid),
            ("tail=-1", Invalid),
            ("limitBytes=0", Invalid),
            ("sinceSeconds=0", Invalid),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", Invalid),
            ("stream=invalid", Invalid),
            ("stream=", Invalid),
            ("stream=Stdout&tailLines=1", Invalid),
        ] {
            assert_eq!(parse(query), Err(expected), "{query}");
        }
    }
}
