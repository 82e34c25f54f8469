//! What guests may import, and what becomes of the rest.

use coracle_provider::{ErrorKind, SessionOptions, Stream, StreamingService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Host, env, guest, log, strings, within};

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_wasi_0_3_run() {
    let host = Host::start().await;
    let ended = host.run_to_end(&guest("command-p3"), |c| c.args = strings(&["one"])).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"), "{}", ended.message);
    assert_eq!(log(&ended), ["stdout F hello from wasm", "stdout F one"]);
    let ended = host.run_to_end(&guest("command-p3"), |c| c.args = strings(&["fail"])).await;
    assert_eq!(ended.exit_code, 1);
    let container = host
        .run(&guest("command-p3"), |c| {
            c.args = strings(&["echo"]);
            (c.stdin, c.stdin_once) = (true, true);
        })
        .await;
    let session = host
        .provider
        .attach(&container.id, SessionOptions { stdin: true, ..SessionOptions::default() })
        .await
        .unwrap();
    let Stream::Io { stdin, stdout, .. } = session else { panic!("a URL") };
    let (mut stdin, mut said) = (stdin.unwrap(), String::new());
    stdin.write_all(b"over and out\n").await.unwrap();
    drop(stdin);
    within(stdout.unwrap().read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "over and out\n");
    let ended = host.end_of(&container).await;
    assert_eq!(log(&ended), ["stdout F over and out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_config_answers_with_the_environment() {
    let host = Host::start().await;
    let module = host.wat("config.wasm", include_str!("../support/config.wat"));
    for (colour, code) in [("blue", 0), ("red", 1)] {
        let ended = host.run_to_end(&module, |c| c.envs = env(&[("COLOUR", colour)])).await;
        assert_eq!(ended.exit_code, code, "{colour}: {}", ended.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn using_sockets_of_wasi_0_1_fails_and_says_why() {
    let host = Host::start().await;
    let text = "(module
        (import \"wasi_snapshot_preview1\" \"sock_accept\" (func $accept (param i32 i32 i32) (result i32)))
        (memory (export \"memory\") 1)
        (func (export \"_start\")
            (if (i32.ne (call $accept (i32.const 3) (i32.const 0) (i32.const 0)) (i32.const 58)) (then unreachable))
            (if (i32.ne (call $accept (i32.const 3) (i32.const 0) (i32.const 0)) (i32.const 58)) (then unreachable))))";
    let ended = host.run_to_end(&host.wat("accept.wasm", text), |_| ()).await;
    assert_eq!(ended.exit_code, 0, "{}", ended.message);
    let lines = log(&ended);
    assert_eq!(lines.len(), 1, "it is said once: {lines:?}");
    assert!(
        lines[0].contains("wasi_snapshot_preview1::sock_accept") && lines[0].contains("WASI 0.2"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_import_is_named_when_the_container_is_made() {
    let host = Host::start().await;
    let text = "(component
        (import \"wasi:keyvalue/store@0.2.0-draft\" (instance (export \"open\" (func))))
        (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))";
    let error = host.try_create(&host.wat("keyvalue.wasm", text), |_| ()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert!(error.message.contains("wasi:keyvalue/store@0.2.0-draft"), "{error}");
    assert!(error.message.contains("wasi:http 0.2 and 0.3"), "{error}");
}
