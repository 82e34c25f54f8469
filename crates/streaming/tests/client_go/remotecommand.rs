//! Sessions over both transports, in every version that client-go speaks.

use std::time::Duration;

use coracle_streaming::Timeouts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::{self, Result};
use crate::server::Server;

const SPDY: &[&str] = &["-transport", "spdy"];
const WEBSOCKET: &[&str] = &["-transport", "websocket"];

/// Transports, and what client-go offers over them.
const VERSIONS: &[(&str, &str)] = &[
    ("spdy", "channel.k8s.io"),
    ("spdy", "v2.channel.k8s.io"),
    ("spdy", "v3.channel.k8s.io"),
    ("spdy", "v4.channel.k8s.io"),
    ("websocket", "v4.channel.k8s.io"),
    ("websocket", "v5.channel.k8s.io"),
];

fn expect(stdout: &str, stderr: &str, outcome: &str) -> Result {
    Result { stdout: stdout.into(), stderr: stderr.into(), outcome: outcome.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_echoed_up_to_its_end() {
    let server = Server::start().await;
    let url = server.exec("command=cat&input=1&output=1");
    for (transport, protocol) in VERSIONS {
        // The versions that can tell the end of the input.
        if *protocol != "channel.k8s.io" && (*transport, *protocol) != ("websocket", "v4.channel.k8s.io") {
            let arguments = ["-transport", transport, "-protocols", protocol, "-stdin", "-stdout"];
            let got = client::exec(&url, &arguments, Some("hello\nworld\n")).await;
            assert_eq!(got, expect("hello\nworld\n", "", "success"), "{transport} {protocol}");
            server.session_ended().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_failures_are_told_as_the_version_can() {
    let server = Server::start().await;
    let text =
        "error: error executing remote command: command terminated with non-zero exit code: exit status 7";
    let failure = "error: error executing remote command: Internal error occurred: no such container";
    for (transport, protocol) in VERSIONS {
        let arguments = ["-transport", transport, "-protocols", protocol, "-stdout", "-stderr"];
        let exit = server.exec("command=exit&n=7&output=1&error=1");
        let exit = client::exec(&exit, &arguments, None).await;
        let failed = client::exec(&server.exec("command=fail&output=1&error=1"), &arguments, None).await;
        assert_eq!((exit.stderr.as_str(), failed.stderr.as_str()), ("bye\n", ""), "{transport} {protocol}");
        let expected = match *protocol {
            "channel.k8s.io" => ("success", "success"),
            "v2.channel.k8s.io" | "v3.channel.k8s.io" => (text, failure),
            _ => ("exit 7", "error: Internal error occurred: no such container"),
        };
        assert_eq!((exit.outcome.as_str(), failed.outcome.as_str()), expected, "{transport} {protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_tell_their_sizes() {
    let server = Server::start().await;
    let url = server.exec("command=sizes&n=2&input=1&output=1&tty=1");
    for (transport, protocol) in [
        ("spdy", "v3.channel.k8s.io"),
        ("spdy", "v4.channel.k8s.io"),
        ("websocket", "v4.channel.k8s.io"),
        ("websocket", "v5.channel.k8s.io"),
    ] {
        let arguments = ["-transport", transport, "-protocols", protocol];
        let terminal = ["-stdin", "-stdout", "-tty", "-sizes", "80x24,100x30"];
        let got = client::exec(&url, &[&arguments[..], &terminal].concat(), None).await;
        assert_eq!(got, expect("80x24\r\n100x30\r\n", "", "success"), "{transport} {protocol}");
    }
}

/// Much more than any buffer, with the memory of this whole process, and of all tests in it, bounded.
#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_take_little_memory() {
    const SIZE: usize = 256 << 20;
    let server = Server::start().await;
    for transport in [SPDY, WEBSOCKET] {
        let url = server.exec(&format!("command=write&n={SIZE}&output=1"));
        let mut child = client::start(&[&["exec", "-url", &url, "-stdout"], transport].concat());
        let mut stdout = child.stdout.take().unwrap();
        let read = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await.unwrap();
        assert_eq!(read, SIZE as u64, "{transport:?}");
        assert_eq!(client::result(child.wait_with_output().await.unwrap()).outcome, "success");

        let url = server.exec("command=count&input=1&output=1");
        let mut child = client::start(&[&["exec", "-url", &url, "-stdin", "-stdout"], transport].concat());
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::copy(&mut tokio::io::repeat(b'x').take(SIZE as u64), &mut stdin).await.unwrap();
        drop(stdin);
        let got = client::result(child.wait_with_output().await.unwrap());
        assert_eq!(got, expect(&format!("{SIZE}\n"), "", "success"), "{transport:?}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 128 << 10, "{peak} kB");
}

/// The client's reader stops, and so does the command; it goes on when the reader does.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_command_and_loses_nothing() {
    const SIZE: usize = 32 << 20;
    let server = Server::start().await;
    for transport in [SPDY, WEBSOCKET] {
        let url = server.exec(&format!("command=write&n={SIZE}&output=1"));
        let mut child = client::start(&[&["exec", "-url", &url, "-stdout"], transport].concat());
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 1000]).await.unwrap();
        let ended = timeout(Duration::from_millis(500), server.ended.acquire()).await;
        assert!(ended.is_err(), "the command wrote everything to a client that does not read");
        let rest = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await.unwrap();
        assert_eq!(rest as usize + 1000, SIZE, "{transport:?}");
        assert_eq!(client::result(child.wait_with_output().await.unwrap()).outcome, "success");
        server.session_ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_the_session() {
    let server = Server::start().await;
    for transport in [SPDY, WEBSOCKET] {
        for command in [
            "command=wait&input=1&output=1",
            "command=cat&input=1&output=1",
            "command=write&n=1000000000&input=1&output=1",
        ] {
            let url = server.exec(command);
            let mut child =
                client::start(&[&["exec", "-url", &url, "-stdin", "-stdout"], transport].concat());
            child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
            let answered = child.stdout.as_mut().unwrap().read_exact(&mut [0]).await;
            assert!(answered.is_ok(), "{transport:?} {command} {:?}", child.wait_with_output().await);
            child.kill().await.unwrap();
            server.session_ended().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_is_cut_off() {
    let idle = Duration::from_secs(1);
    let server = Server::with(Timeouts { idle, ..Timeouts::default() }).await;
    for transport in [SPDY, WEBSOCKET] {
        let url = server.exec("command=cat&input=1&output=1");
        let got = client::exec(&url, &[&["-stdin", "-stdout"], transport].concat(), None).await;
        assert_eq!(got.stdout, "", "{transport:?}");
        server.session_ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_negotiated_is_refused() {
    let server = Server::start().await;
    let url = server.exec("command=cat&output=1");
    for transport in ["spdy", "websocket"] {
        let arguments = ["-transport", transport, "-protocols", "v9.channel.k8s.io", "-stdout"];
        let got = client::exec(&url, &arguments, None).await;
        assert!(got.outcome.starts_with("error: unable to upgrade"), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_do_not_mix() {
    let server = Server::start().await;
    let mut children = Vec::new();
    for number in 0..20 {
        let url = server.exec("command=cat&input=1&output=1");
        let transport = if number % 2 == 0 { SPDY } else { WEBSOCKET };
        let mut child = client::start(&[&["exec", "-url", &url, "-stdin", "-stdout"], transport].concat());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{number}\n").as_bytes()).await.unwrap();
        children.push(child);
    }
    for (number, child) in children.into_iter().enumerate() {
        let got = client::result(child.wait_with_output().await.unwrap());
        assert_eq!(got, expect(&format!("{number}\n"), "", "success"));
    }
}
