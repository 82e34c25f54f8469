//! `/containerLogs`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::{sleep, timeout};

use crate::fakes::FakeHost;
use crate::server::{Setup, TestServer, next_chunk, request};

const LOG: &str = "\
2020-09-27T11:18:01.000000000Z stdout F out1
2020-09-27T11:18:02.000000000Z stderr F err1
2020-09-27T11:18:03.000000000Z stdout P out
2020-09-27T11:18:03.000000000Z stdout F 2
";

const PATH: &str = "/containerLogs/ns/pod/c";

#[tokio::test]
async fn every_option_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let (path, previous) = (directory.path().join("1.log"), directory.path().join("0.log"));
    std::fs::write(&path, LOG).unwrap();
    std::fs::write(&previous, "2020-09-27T11:18:00Z stdout F before\n").unwrap();
    let (host, log) = FakeHost::with_log(&path);
    host.add_log("c", true, &previous);
    log.end();
    let server = TestServer::start(Setup { host, ..Setup::default() }).await;
    let mut admin = server.admin().await;
    for (query, expected) in [
        ("", "out1\nerr1\nout2\n"),
        ("?tailLines=2", "out2\n"),
        ("?tail=3", "err1\nout2\n"),
        ("?tail=all", "out1\nerr1\nout2\n"),
        ("?tailLines=0", ""),
        ("?limitBytes=7", "out1\ner"),
        ("?sinceTime=2020-09-27T11:18:03Z", "out2\n"),
        ("?sinceSeconds=60", ""),
        ("?stream=Stdout", "out1\nout2\n"),
        ("?stream=Stderr", "err1\n"),
        ("?stream=All&limitBytes=5", "out1\n"),
        ("?previous=true", "before\n"),
        ("?follow=true", "out1\nerr1\nout2\n"),
        ("?follow=true&tailLines=3", "err1\nout2\n"),
        (
            "?timestamps=true&tailLines=3",
            "2020-09-27T11:18:02.000000000Z err1\n2020-09-27T11:18:03.000000000Z out2\n",
        ),
    ] {
        let answer = admin.get(&format!("{PATH}{query}")).await;
        assert_eq!(answer.is(), (200, expected), "{query}");
        assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn refusals_have_upstreams_codes_and_texts() {
    let directory = tempfile::tempdir().unwrap();
    let (host, _log) = FakeHost::with_log(directory.path().join("missing.log"));
    host.add_log("init", false, directory.path());
    let other = directory.path().join("other.log");
    std::fs::write(&other, "{}\n").unwrap();
    host.add_log("debugger", true, &other);
    let server = TestServer::start(Setup { host, ..Setup::default() }).await;
    let mut admin = server.admin().await;
    for (path, status, body) in [
        ("/containerLogs/ns/nopod/c", 404, r#"pod "nopod" does not exist"#),
        ("/containerLogs/other/pod/c", 404, r#"pod "pod" does not exist"#),
        ("/containerLogs/ns/pod/noc", 404, r#"container "noc" not found in pod "pod""#),
        ("/containerLogs/ns/pod/c?tailLines=x", 400, r#"{"message": "Unable to decode query."}"#),
        ("/containerLogs/ns/pod/c?tailLines=-1", 422, r#"{"message": "Invalid request."}"#),
        ("/containerLogs/ns/nopod/c?stream=invalid", 422, r#"{"message": "Invalid request."}"#),
        (
            "/containerLogs/ns/pod/c?previous=true",
            400,
            r#"previous terminated container "c" in pod "pod" not found"#,
        ),
        ("/containerLogs/ns/pod/debugger", 400, r#"container "debugger" in pod "pod" is not available"#),
        // As upstream: what goes wrong with the file itself comes in the place of the log.
        (
            "/containerLogs/ns/pod/debugger?previous=true",
            200,
            r#"failed to get parse function: unsupported log format: "{}\n""#,
        ),
        ("/containerLogs/ns/pod", 404, "404 page not found\n"),
    ] {
        assert_eq!(admin.get(path).await.is(), (status, body), "{path}");
    }
    let missing = admin.get(PATH).await;
    assert_eq!(missing.status, 200);
    assert!(missing.body.starts_with("failed to open log file "), "{}", missing.body);
    let directory = admin.get("/containerLogs/ns/pod/init").await;
    assert!(directory.body.starts_with("failed to read log file "), "{}", directory.body);
}

struct Followed {
    _directory: tempfile::TempDir,
    file: File,
    host: Arc<FakeHost>,
    log: crate::fakes::FakeLog,
}

fn followed() -> Followed {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let file = File::create(&path).unwrap();
    let (host, log) = FakeHost::with_log(&path);
    Followed { _directory: directory, file, host, log }
}

fn line(text: &str) -> String {
    format!("2024-01-01T00:00:00Z stdout F {text}\n")
}

#[tokio::test]
async fn following_shows_lines_as_they_come_and_ends_with_the_container() {
    let mut followed = followed();
    let server = TestServer::start(Setup { host: followed.host.clone(), ..Setup::default() }).await;
    let mut admin = server.admin().await;
    // The answer begins before there is any content.
    let answer = admin.send(request("GET", &format!("{PATH}?follow=true"), None)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    followed.log.until_readers(1).await;
    for text in ["one", "two", "three"] {
        followed.file.write_all(line(text).as_bytes()).unwrap();
        assert_eq!(next_chunk(&mut body).await.unwrap(), format!("{text}\n"));
    }
    followed.file.write_all(line("last").as_bytes()).unwrap();
    followed.log.end();
    assert_eq!(next_chunk(&mut body).await.unwrap(), "last\n");
    assert_eq!(next_chunk(&mut body).await, None);
    followed.log.until_readers(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_reader_with_it() {
    let followed = followed();
    let server = TestServer::start(Setup { host: followed.host.clone(), ..Setup::default() }).await;
    let path = format!("{PATH}?follow=true");

    let mut http1 = server.admin().await;
    let body = http1.send(request("GET", &path, None)).await.into_body();
    followed.log.until_readers(1).await;
    // The connection goes with the client.
    http1.connection.abort();
    drop((body, http1));
    followed.log.until_readers(0).await;

    let http2 = server.http2(Some(&server.client_ca.client("admin"))).await;
    let first = http2.send(&path, None).await.into_body();
    let _second = http2.send(&path, None).await.into_body();
    followed.log.until_readers(2).await;
    // One stream is reset, the connection stays.
    drop(first);
    followed.log.until_readers(1).await;
}

#[tokio::test]
async fn a_slow_client_slows_the_reader_down_and_nothing_piles_up() {
    const ENOUGH: usize = 256 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (host, _log) = FakeHost::with_log(&path);
    let server = TestServer::start(Setup { host, ..Setup::default() }).await;
    // A runtime that writes as fast as it is let, into a pipe, which tells how much was read.
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let writer = std::thread::spawn(move || {
        let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
        let lines = line(&"x".repeat(1000)).repeat(60);
        while count.load(Ordering::SeqCst) < ENOUGH && pipe.write_all(lines.as_bytes()).is_ok() {
            count.fetch_add(lines.len(), Ordering::SeqCst);
        }
    });
    let mut admin = server.admin().await;
    let answer = admin.send(request("GET", PATH, None)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    // Until the pipe stands still.
    let mut before = 0;
    let stuck = async {
        loop {
            sleep(Duration::from_millis(300)).await;
            let now = written.load(Ordering::SeqCst);
            if now == std::mem::replace(&mut before, now) && now > 0 {
                return now;
            }
        }
    };
    let stuck =
        timeout(Duration::from_secs(20), stuck).await.expect("the reader does not wait for the client");
    assert!(stuck < ENOUGH / 4, "{stuck} bytes went into buffers");
    // It goes on when the client does, and ends when the client leaves.
    let mut body = answer.into_body();
    let mut taken = 0;
    while taken < stuck {
        taken += next_chunk(&mut body).await.unwrap().len();
    }
    assert!(written.load(Ordering::SeqCst) > stuck);
    admin.connection.abort();
    drop((body, admin));
    timeout(Duration::from_secs(10), tokio::task::spawn_blocking(move || writer.join().unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert!(written.load(Ordering::SeqCst) < ENOUGH);
}

#[tokio::test]
async fn a_shutdown_ends_followed_logs_and_lets_them_finish_in_order() {
    let mut followed = followed();
    let mut server = TestServer::start(Setup { host: followed.host.clone(), ..Setup::default() }).await;
    let mut admin = server.admin().await;
    let mut body = admin.send(request("GET", &format!("{PATH}?follow=true"), None)).await.into_body();
    followed.file.write_all(line("one").as_bytes()).unwrap();
    assert_eq!(next_chunk(&mut body).await.unwrap(), "one\n");
    server.shutdown.cancel();
    assert_eq!(next_chunk(&mut body).await, None);
    timeout(Duration::from_secs(2), &mut server.serving).await.expect("it hangs on").unwrap().unwrap();
}

#[tokio::test]
async fn logs_read_at_once_are_limited() {
    let followed = followed();
    let mut setup = Setup { host: followed.host.clone(), ..Setup::default() };
    setup.options.limits.max_log_streams = 2;
    let server = TestServer::start(setup).await;
    let http2 = server.http2(Some(&server.client_ca.client("admin"))).await;
    let path = format!("{PATH}?follow=true");
    let first = http2.send(&path, None).await;
    let _second = http2.send(&path, None).await;
    let third = http2.get(&path, None).await;
    assert_eq!(third.is(), (429, "too many logs are being read on this node, try again later"));
    drop(first);
    followed.log.until_readers(1).await;
    assert_eq!(http2.send(&path, None).await.status(), StatusCode::OK);
}

/// A user has 128 inotify instances by default: one for every follower would leave most of them with polling.
#[tokio::test]
async fn five_hundred_followers_share_what_the_kernel_grants() {
    let mut followed = followed();
    let server = TestServer::start(Setup { host: followed.host.clone(), ..Setup::default() }).await;
    let path = format!("{PATH}?follow=true");
    let (mut clients, mut bodies) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let client = server.http2(Some(&server.client_ca.client("admin"))).await;
        for _ in 0..100 {
            bodies.push(client.send(&path, None).await.into_body());
        }
        clients.push(client);
    }
    followed.log.until_readers(500).await;
    let instances = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let instances = instances.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let instances = instances.filter(|target| target.ends_with("anon_inode:inotify")).count();
    assert!((1..100).contains(&instances), "{instances}, those of other tests included");

    followed.file.write_all(line("to all").as_bytes()).unwrap();
    for body in &mut bodies {
        assert_eq!(next_chunk(body).await.unwrap(), "to all\n");
    }
    drop((bodies, clients));
    followed.log.until_readers(0).await;
}
