//! Upstream's tables (`logs_test.go`) in CRI's format, and what it does not test: rotation without loss, endless lines,
//! a drain to the very end, and latency.

use std::fs::{self, File};
use std::future::{pending, ready};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::line::Header;
use super::*;

/// Collects both streams, and everything in order.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Streams>>);

#[derive(Default)]
struct Streams {
    stdout: String,
    stderr: String,
    merged: String,
    largest_write: usize,
}

impl Collected {
    fn merged(&self) -> String {
        self.0.lock().merged.clone()
    }

    async fn until(&self, expected: &str) {
        let arrived = async {
            while self.merged() != expected {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(Duration::from_secs(10), arrived).await.is_err() {
            assert_eq!(self.merged(), expected);
        }
    }
}

impl LogSink for Collected {
    async fn write(&mut self, stream: LogStream, content: &[u8]) -> io::Result<()> {
        let mut streams = self.0.lock();
        let text = std::str::from_utf8(content).unwrap();
        match stream {
            LogStream::Stdout => streams.stdout.push_str(text),
            LogStream::Stderr => streams.stderr.push_str(text),
        }
        streams.merged.push_str(text);
        streams.largest_write = streams.largest_write.max(content.len());
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log in a directory of its own.
struct TestLog {
    directory: tempfile::TempDir,
    file: File,
}

impl TestLog {
    fn new(content: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::create(directory.path().join("0.log")).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        Self { directory, file }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn append(&mut self, content: &str) {
        self.file.write_all(content.as_bytes()).unwrap();
    }

    /// What the kubelet and the runtime do at a rotation; the old file is still returned for late writes.
    fn rotate(&mut self, name: &str) -> File {
        fs::rename(self.path(), self.directory.path().join(name)).unwrap();
        let new = File::create(self.path()).unwrap();
        std::mem::replace(&mut self.file, new)
    }
}

async fn read(path: &Path, options: &LogOptions) -> Collected {
    let mut sink = Collected::default();
    read_logs(path, options, &LogWatches::default(), ready(()), &mut sink).await.unwrap();
    sink
}

async fn read_text(content: &str, options: &LogOptions) -> String {
    read(&TestLog::new(content).path(), options).await.merged()
}

/// Follows in the background. Sending (or dropping) the first ends the container.
fn follow(
    path: PathBuf,
) -> (oneshot::Sender<()>, Collected, tokio::task::JoinHandle<Result<(), ReadLogsError>>) {
    let (end, ended) = oneshot::channel::<()>();
    let sink = Collected::default();
    let mut writer = sink.clone();
    let reading = tokio::spawn(async move {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        read_logs(&path, &options, &LogWatches::default(), async move { _ = ended.await }, &mut writer).await
    });
    (end, sink, reading)
}

async fn finished(reading: tokio::task::JoinHandle<Result<(), ReadLogsError>>) {
    timeout(Duration::from_secs(10), reading).await.expect("the reader goes on").unwrap().unwrap();
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const THREE_LINES: &str = "\
2020-09-27T11:18:01.00000000Z stdout F line1
2020-09-27T11:18:02.00000000Z stdout F line2
2020-09-27T11:18:03.00000000Z stdout F line3
";

#[tokio::test]
async fn options_select_lines() {
    let all = LogOptions::default;
    let cases = [
        ("all", all(), "line1\nline2\nline3\n"),
        ("tail 2", LogOptions { tail_lines: Some(2), ..all() }, "line2\nline3\n"),
        ("tail more than there is", LogOptions { tail_lines: Some(4), ..all() }, "line1\nline2\nline3\n"),
        ("tail 0", LogOptions { tail_lines: Some(0), ..all() }, ""),
        ("limit 9", LogOptions { limit_bytes: Some(9), ..all() }, "line1\nlin"),
        ("limit 100", LogOptions { limit_bytes: Some(100), ..all() }, "line1\nline2\nline3\n"),
        ("limit 0", LogOptions { limit_bytes: Some(0), ..all() }, ""),
        ("since", LogOptions { since: Some(time("2020-09-27T11:18:02Z")), ..all() }, "line2\nline3\n"),
        ("since now", LogOptions { since: Some(Timestamp::now()), ..all() }, ""),
        ("follow", LogOptions { follow: true, ..all() }, "line1\nline2\nline3\n"),
        ("follow, tail 2", LogOptions { follow: true, tail_lines: Some(2), ..all() }, "line2\nline3\n"),
        (
            "follow, since",
            LogOptions { follow: true, since: Some(time("2020-09-27T11:18:02Z")), ..all() },
            "line2\nline3\n",
        ),
    ];
    for (name, options, expected) in cases {
        let read = read(&TestLog::new(THREE_LINES).path(), &options).await;
        assert_eq!(read.0.lock().stdout, expected, "{name}");
        assert_eq!(read.0.lock().stderr, "", "{name}");
    }
}

#[test]
fn lines_are_parsed() {
    /// Stream, whether it is a part, content.
    type Parsed<'a> = Option<(LogStream, bool, &'a [u8])>;
    let cases: [(&[u8], Parsed<'_>); 12] = [
        (
            b"2016-10-20T18:39:20.57606443Z stdout F cri stdout test log\n",
            Some((LogStream::Stdout, false, b"cri stdout test log\n")),
        ),
        (
            b"2016-10-20T18:39:20.57606443Z stderr F cri stderr test log\n",
            Some((LogStream::Stderr, false, b"cri stderr test log\n")),
        ),
        (b"2016-10-20T18:39:20.57606443Z stdout P partial\n", Some((LogStream::Stdout, true, b"partial\n"))),
        (
            b"2016-10-20T18:39:20.57606443Z stdout P:TAG1:TAG2 partial\n",
            Some((LogStream::Stdout, true, b"partial\n")),
        ),
        (b"2016-10-20T18:39:20.57606443Z stdout F \n", Some((LogStream::Stdout, false, b"\n"))),
        (b"2016-10-20T20:39:20.57606443+02:00 stdout F a b\n", Some((LogStream::Stdout, false, b"a b\n"))),
        (b"unsupported log format test log\n", None),
        (b"2016-10-20T18:39:20.57606443Z stdin F a\n", None),
        (b"2016-10-20T18:39:20.57606443Z stdout F\n", None),
        (b"2016-10-20 stdout F a\n", None),
        (b"\n", None),
        (b"", None),
    ];
    for (line, expected) in cases {
        let parsed = Header::parse(line);
        let shown = parsed.map(|(header, content)| (header.stream, header.partial, content));
        assert_eq!(shown, expected, "{}", String::from_utf8_lossy(line));
        if let Some((header, _)) = parsed {
            assert_eq!(header.timestamp, time("2016-10-20T18:39:20.57606443Z"));
        }
    }
}

#[tokio::test]
async fn limits_count_the_bytes_of_both_streams_and_of_times() {
    const STAMP: &str = "1970-01-01T00:20:34.000043210Z";
    let log = |stdout: usize, stderr: usize| {
        let line = |stream| format!("1970-01-01T00:20:34.00004321Z {stream} F abcdefg\n");
        line("stdout").repeat(stdout) + &line("stderr").repeat(stderr)
    };
    let cases = [
        (3, 0, 3, false, "abc".to_owned(), ""),
        (3, 0, 11, false, "abcdefg\nabc".to_owned(), ""),
        (3, 0, 24, false, "abcdefg\nabcdefg\nabcdefg\n".to_owned(), ""),
        (0, 3, 11, false, String::new(), "abcdefg\nabc"),
        (1, 2, 11, false, "abcdefg\n".to_owned(), "abc"),
        (3, 0, STAMP.len() as u64 + 11, true, format!("{STAMP} abcdefg\n{}", &STAMP[..2]), ""),
    ];
    for (stdout, stderr, limit, timestamps, expected_stdout, expected_stderr) in cases {
        let options = LogOptions { limit_bytes: Some(limit), timestamps, ..LogOptions::default() };
        let read = read(&TestLog::new(&log(stdout, stderr)).path(), &options).await;
        assert_eq!(read.0.lock().stdout, expected_stdout);
        assert_eq!(read.0.lock().stderr, expected_stderr);
    }
}

#[tokio::test]
async fn one_stream_alone_is_filtered_counted_and_stamped_as_if_the_other_were_not_there() {
    let log = "\
2024-01-01T00:00:00Z stdout F out1
2024-01-01T00:00:00Z stderr P err1
2024-01-01T00:00:00Z stdout F out2
2024-01-01T00:00:00Z stderr F err2
";
    let stdout = LogOptions { stream: Some(LogStream::Stdout), ..LogOptions::default() };
    assert_eq!(read_text(log, &stdout).await, "out1\nout2\n");
    assert_eq!(read_text(log, &LogOptions { limit_bytes: Some(7), ..stdout.clone() }).await, "out1\nou");
    let stamped = read_text(log, &LogOptions { timestamps: true, ..stdout }).await;
    assert_eq!(stamped, "2024-01-01T00:00:00.000000000Z out1\n2024-01-01T00:00:00.000000000Z out2\n");
    let stderr = LogOptions { stream: Some(LogStream::Stderr), ..LogOptions::default() };
    assert_eq!(read_text(log, &stderr).await, "err1err2\n");
}

#[tokio::test]
async fn a_line_in_many_parts_has_one_time_in_its_own_zone() {
    let parts: String =
        (0..10_000).map(|i| format!("2022-10-29T16:10:22.592603036-05:00 stdout P {i}\n")).collect();
    let log = format!("{parts}2022-10-29T16:10:22.592603036-05:00 stdout F \n").repeat(2);
    let text = read_text(&log, &LogOptions { timestamps: true, ..LogOptions::default() }).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line.starts_with("2022-10-29T16:10:22.592603036-05:00 0123"));
        assert!(line.ends_with("9999"));
    }
}

#[tokio::test]
async fn unreadable_lines_are_skipped_but_a_file_that_begins_with_one_is_refused() {
    let log = "2024-01-01T00:00:00Z stdout F a\nnonsense\n2024-01-01T00:00:00Z stdout F b\n";
    assert_eq!(read_text(log, &LogOptions::default()).await, "a\nb\n");
    let other = TestLog::new("{\"log\":\"line1\\n\"}\n");
    let error = read_logs(
        &other.path(),
        &LogOptions::default(),
        &LogWatches::default(),
        pending(),
        &mut Collected::default(),
    )
    .await;
    assert_eq!(
        error.unwrap_err().to_string(),
        r#"failed to get parse function: unsupported log format: "{\"log\":\"line1\\n\"}\n""#
    );
}

#[tokio::test]
async fn a_missing_file_is_an_error_that_names_it() {
    let (path, options) = (Path::new("/nonexistent/0.log"), LogOptions::default());
    let error = read_logs(path, &options, &LogWatches::default(), pending(), &mut Collected::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ReadLogsError::Open { .. }), "{error}");
    assert!(error.to_string().starts_with(r#"failed to open log file "/nonexistent/0.log": "#), "{error}");
}

#[tokio::test]
async fn an_endless_line_passes_in_pieces() {
    let endless = "x".repeat(1 << 20);
    for ending in ["\n", ""] {
        let log = TestLog::new(&format!("2024-01-01T00:00:00Z stdout F {endless}{ending}"));
        let read = read(&log.path(), &LogOptions { timestamps: true, ..LogOptions::default() }).await;
        assert!(read.merged() == format!("2024-01-01T00:00:00.000000000Z {endless}{ending}"));
        assert!(read.0.lock().largest_write <= 32 * 1024);
    }
}

#[tokio::test]
async fn symlinks_are_followed() {
    let log = TestLog::new(THREE_LINES);
    let link = log.directory.path().join("link.log");
    std::os::unix::fs::symlink(log.path(), &link).unwrap();
    assert_eq!(read(&link, &LogOptions::default()).await.merged(), "line1\nline2\nline3\n");
}

#[tokio::test]
async fn following_survives_rotation_without_losing_a_line() {
    let mut log = TestLog::new("");
    let (end, sink, reading) = follow(log.path());
    let line = |i: usize| {
        let stream = if i.is_multiple_of(2) { "stdout" } else { "stderr" };
        format!("2024-01-01T00:00:00Z {stream} F line{i}\n")
    };
    let mut expected = String::new();
    for i in 0..30 {
        if i % 6 == 5 {
            // The runtime's last write to the old file comes after the new one exists.
            let mut old = log.rotate(&format!("0.log.{i}"));
            sleep(Duration::from_millis(2)).await;
            old.write_all(line(i).as_bytes()).unwrap();
        } else {
            log.append(&line(i));
        }
        expected += &format!("line{i}\n");
        if i % 6 == 4 {
            // A rotation may come long after the reader has seen everything, or at once.
            sink.until(&expected).await;
        }
    }
    end.send(()).unwrap();
    finished(reading).await;
    assert_eq!(sink.merged(), expected);
    assert_eq!(sink.0.lock().stdout.lines().count(), 15);
    assert_eq!(sink.0.lock().stderr.lines().count(), 15);
}

/// Looks for the moment between the reader's last look at the old file and its first at the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_written_just_before_a_rotation_is_not_lost() {
    let mut log = TestLog::new("");
    let (end, sink, reading) = follow(log.path());
    let mut expected = String::from("ready\n");
    log.append("2024-01-01T00:00:00Z stdout F ready\n");
    sink.until(&expected).await;
    for round in 0..300 {
        let mut old = log.rotate("0.log.1");
        old.write_all(b"2024-01-01T00:00:00Z stdout F wake up\n").unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(round % 60 * 5) {
            std::hint::spin_loop();
        }
        old.write_all(b"2024-01-01T00:00:00Z stdout F last of the old\n").unwrap();
        log.append("2024-01-01T00:00:00Z stdout F first of the new\n");
        expected += "wake up\nlast of the old\nfirst of the new\n";
        sink.until(&expected).await;
    }
    end.send(()).unwrap();
    finished(reading).await;
}

#[tokio::test]
async fn following_ends_after_the_last_byte() {
    let mut log = TestLog::new("2024-01-01T00:00:00Z stdout F first\n");
    let (end, sink, reading) = follow(log.path());
    sink.until("first\n").await;
    // A rotation, a last line and an unfinished one, all at the moment of the end.
    log.append("2024-01-01T00:00:00Z stdout F second\n");
    log.rotate("0.log.1");
    log.append("2024-01-01T00:00:00Z stdout F third\n2024-01-01T00:00:00Z stdout F cut sh");
    end.send(()).unwrap();
    finished(reading).await;
    assert_eq!(sink.merged(), "first\nsecond\nthird\ncut sh");
}

#[tokio::test]
async fn an_unfinished_line_waits_for_its_rest() {
    let mut log = TestLog::new("2024-01-01T00:00:00Z stdout F fir");
    let (end, sink, reading) = follow(log.path());
    sleep(Duration::from_millis(20)).await;
    assert_eq!(sink.merged(), "");
    log.append("st\n");
    sink.until("first\n").await;
    end.send(()).unwrap();
    finished(reading).await;
}

#[tokio::test]
async fn a_followed_line_arrives_without_a_polling_delay() {
    let mut log = TestLog::new("");
    let (_end, sink, _reading) = follow(log.path());
    sleep(Duration::from_millis(20)).await;
    let mut expected = String::new();
    let started = std::time::Instant::now();
    for i in 0..20 {
        log.append(&format!("2024-01-01T00:00:00Z stdout F {i}\n"));
        expected += &format!("{i}\n");
        sink.until(&expected).await;
    }
    // Twenty lines one by one: with any period of a second they would take ten times as long.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_limit_ends_following() {
    let log = TestLog::new(THREE_LINES);
    let options = LogOptions { follow: true, limit_bytes: Some(8), ..LogOptions::default() };
    let (path, mut sink) = (log.path(), Collected::default());
    let watches = LogWatches::default();
    let reading = read_logs(&path, &options, &watches, pending(), &mut sink);
    timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
    assert_eq!(sink.merged(), "line1\nli");
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_reading() {
    struct Gone;
    impl LogSink for Gone {
        async fn write(&mut self, _: LogStream, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        async fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = TestLog::new(THREE_LINES);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let error =
        read_logs(&log.path(), &options, &LogWatches::default(), pending(), &mut Gone).await.unwrap_err();
    assert!(matches!(error, ReadLogsError::Sink(_)), "{error}");
}

#[tokio::test]
async fn the_end_of_a_log_is_cut_by_lines_and_bytes() {
    let numbers: String = (0..200).map(|i| format!("2024-01-01T00:00:00Z stderr F {i}\n")).collect();
    let log = TestLog::new(&numbers);
    let expected: String = (120..200).map(|i| format!("{i}\n")).collect();
    assert_eq!(read_last(&log.path(), 80, 2048).await.unwrap(), expected);
    assert_eq!(read_last(&log.path(), 80, 7).await.unwrap(), "98\n199\n");

    let wide = TestLog::new(&format!("2024-01-01T00:00:00Z stdout F {}\n", "ä".repeat(60_000)));
    let message = read_last(&wide.path(), 80, 2048).await.unwrap();
    assert_eq!(message, "ä".repeat(1023) + "\n");
    assert_eq!(read_last(&TestLog::new("").path(), 80, 2048).await.unwrap(), "");
}
