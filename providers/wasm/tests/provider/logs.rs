//! What guests write, and how it is kept.

use std::time::Duration;

use coracle_provider::{ContainerState, ContainerStatus, Mount, RuntimeService};

use crate::support::{Host, guest, log, strings, within};

/// Entries of a log as bytes: stream, whether the line ends with it, and content.
fn entries(path: &std::path::Path) -> Vec<(String, bool, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty()).map(entry).collect()
}

fn entry(line: &[u8]) -> (String, bool, Vec<u8>) {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut next = || parts.next().unwrap();
    let (stamp, stream, tag) = (next(), next(), next());
    assert!(stamp.starts_with(b"20") && matches!(tag, b"F" | b"P"), "{:?}", String::from_utf8_lossy(line));
    (String::from_utf8_lossy(stream).into_owned(), tag == b"F", next().to_vec())
}

fn written(container: &ContainerStatus) -> usize {
    entries(&container.log_path).iter().map(|(.., content)| content.len()).sum()
}

/// A command of WASI 0.1 that makes these writes: descriptor and text.
fn talk(host: &Host, name: &str, writes: &[(i32, &str)], times: usize) -> std::path::PathBuf {
    let mut data = String::new();
    let mut calls = String::new();
    let mut at = 64;
    for (fd, text) in writes {
        let hex: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data.push_str(&format!("(data (i32.const {at}) \"{hex}\")"));
        calls.push_str(&format!(
            "(i32.store (i32.const 0) (i32.const {at})) (i32.store (i32.const 4) (i32.const {}))
             (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))",
            text.len()
        ));
        at += text.len();
    }
    let text = format!(
        "(module
            (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export \"memory\") 1) {data}
            (func (export \"_start\") (local $n i32)
                (loop $again {calls}
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $again (i32.lt_u (local.get $n) (i32.const {times}))))))"
    );
    host.wat(name, &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_in_the_order_in_which_they_were_written() {
    let host = Host::start().await;
    let module = talk(&host, "order.wasm", &[(1, "out\n"), (2, "err\n"), (2, "err\n"), (1, "out\n")], 500);
    let ended = host.run_to_end(&module, |_| ()).await;
    let lines = log(&ended);
    assert_eq!(lines.len(), 2000);
    for four in lines.chunks(4) {
        assert_eq!(four, ["stdout F out", "stderr F err", "stderr F err", "stdout F out"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_in_pieces_stays_one_line_whatever_the_other_stream_says() {
    let host = Host::start().await;
    let module =
        talk(&host, "pieces.wasm", &[(1, "hel"), (2, "err\n"), (1, "lo\n\nla"), (2, "x"), (1, "st")], 1);
    let ended = host.run_to_end(&module, |_| ()).await;
    let mut lines = log(&ended);
    assert_eq!(lines[..3], ["stderr F err", "stdout F hello", "stdout F "]);
    // Which of two streams ends first is nobody's promise.
    lines[3..].sort();
    assert_eq!(lines[3..], ["stderr P x", "stdout P last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_come_through_as_they_are() {
    let host = Host::start().await;
    let volume = host.folder.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(volume.join("binary"), &content).unwrap();
    let ended = host
        .run_to_end(&guest("files"), |c| {
            c.args = strings(&["cat", "/v/binary"]);
            c.mounts = vec![Mount {
                container_path: "/v".into(),
                host_path: volume,
                read_only: true,
                ..Mount::default()
            }];
        })
        .await;
    let mut found = Vec::new();
    for (stream, is_whole, piece) in entries(&ended.log_path) {
        assert!(stream == "stdout" && piece.len() <= 16 << 10);
        found.extend(piece);
        if is_whole {
            found.push(b'\n');
        }
    }
    assert_eq!(found, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_cut_and_none_of_it_lost_while_logs_are_rotated() {
    const BYTES: usize = 5_000_000;
    let host = Host::start().await;
    let container = host.run(&guest("stay"), |c| c.args = strings(&["flood", &BYTES.to_string()])).await;
    let mut rotated = Vec::new();
    for number in 0..20 {
        let aside = container.log_path.with_extension(format!("{number}"));
        std::fs::rename(&container.log_path, &aside).unwrap();
        rotated.push(aside);
        if host.provider.reopen_container_log(&container.id).await.is_err() {
            // It has ended, and its log is complete.
            break;
        }
    }
    let ended = host.end_of(&container).await;
    assert_eq!(ended.exit_code, 0);
    if ended.log_path.exists() {
        rotated.push(ended.log_path.clone());
    }
    let pieces: Vec<_> = rotated.iter().flat_map(|path| entries(path)).collect();
    assert_eq!(pieces.iter().map(|(.., piece)| piece.len()).sum::<usize>(), BYTES);
    let (last, others) = pieces.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|(stream, is_whole, piece)| stream == "stdout" && !is_whole && piece.len() == 16 << 10)
    );
    assert!(!last.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_waits_for_a_disk_that_does_not_take_its_log() {
    const BYTES: usize = 1_000_000;
    let host = Host::start().await;
    let container = host.create(&guest("stay"), |c| c.args = strings(&["flood", &BYTES.to_string()])).await;
    std::fs::create_dir_all(container.log_path.parent().unwrap()).unwrap();
    // A pipe that nobody empties stands for such a disk.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &container.log_path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let path = container.log_path.clone();
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let mut reader = options.read(true).open(&path).unwrap();
    within(host.provider.start_container(&container.id)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        host.status(&container).await.state,
        ContainerState::Running,
        "there is no room for all of it"
    );
    let received = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let (mut content, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        while content.iter().filter(|byte| **byte == b'x').count() < BYTES {
            match reader.read(&mut chunk) {
                Ok(n) => content.extend_from_slice(&chunk[..n]),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        (content, reader)
    });
    let (content, _reader) = within(received).await.unwrap();
    let ended = host.end_of(&container).await;
    assert_eq!(ended.exit_code, 0);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, content).unwrap();
    assert_eq!(written(&ended), BYTES);
}
