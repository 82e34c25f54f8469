//! What becomes of the bytes that somebody wants to run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use coracle_provider::{ErrorKind, ImageService, ImageSpec};
use coracle_wasm::CompileLimits;

use crate::support::{Host, guest, within};

fn compiled(host: &Host) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(host.folder.path().join("wasm/compiled")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_compiled_when_it_is_pulled_and_only_once() {
    let host = Host::start().await;
    host.pull(&guest("hello")).await.unwrap();
    let [path] = &compiled(&host)[..] else { panic!("one file") };
    let meta = std::fs::metadata(path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o400);
    let folder = std::fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let first = meta.modified().unwrap();
    host.pull(&guest("hello")).await.unwrap();
    let host = host.reopen().await;
    assert_eq!(host.run_to_end(&guest("hello"), |_| ()).await.exit_code, 0);
    assert_eq!(std::fs::metadata(path).unwrap().modified().unwrap(), first);
    let image = ImageSpec::new(guest("hello").display().to_string());
    let size = host.provider.image_status(&image).await.unwrap().unwrap().size_bytes;
    assert!(size > meta.len(), "compiled code counts");
    host.provider.remove_image(&image).await.unwrap();
    assert!(compiled(&host).is_empty(), "it goes with its image");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_code_is_compiled_again() {
    let mut host = Host::start().await;
    for damage in [&b"\x7fELF not code"[..], b""] {
        host.pull(&guest("hello")).await.unwrap();
        let path = compiled(&host).remove(0);
        host = host.reopen().await;
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damage).unwrap();
        let ended = host.run_to_end(&guest("hello"), |_| ()).await;
        assert_eq!(ended.exit_code, 0, "{}", ended.message);
        assert_eq!(std::fs::read(&path).unwrap().len(), good.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_another_engine_is_compiled_again_although_its_checksum_is_right() {
    use sha2::Digest;
    let host = Host::start().await;
    host.pull(&guest("hello")).await.unwrap();
    let path = compiled(&host).remove(0);
    let host = host.reopen().await;
    let foreign =
        wasmtime::Engine::default().precompile_module(&std::fs::read(guest("hello")).unwrap()).unwrap();
    let sum: String = sha2::Sha256::digest(&foreign).iter().map(|byte| format!("{byte:02x}")).collect();
    for (path, content) in [(&path, foreign.clone()), (&path.with_extension("sha256"), sum.into_bytes())] {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let ended = host.run_to_end(&guest("hello"), |_| ()).await;
    assert_eq!(ended.exit_code, 0, "{}", ended.message);
    assert_ne!(std::fs::read(&path).unwrap(), foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_mapped_once_however_many_containers_run_it() {
    let host = Host::start().await;
    let folder = host.folder.path().join("wasm/compiled").display().to_string();
    let mappings = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&folder)).count()
    };
    assert_eq!(mappings(), 0);
    host.create(&guest("hello"), |_| ()).await;
    let one = mappings();
    assert!(one > 0);
    for _ in 0..3 {
        host.create(&guest("hello"), |_| ()).await;
    }
    assert_eq!(mappings(), one);
    // What runs goes on without its image.
    let container = host.create(&guest("hello"), |_| ()).await;
    let image = ImageSpec::new(guest("hello").display().to_string());
    host.provider.remove_image(&image).await.unwrap();
    assert!(compiled(&host).is_empty());
    let ended = {
        use coracle_provider::RuntimeService;
        host.provider.start_container(&container.id).await.unwrap();
        host.end_of(&container).await
    };
    assert_eq!(ended.exit_code, 0, "{}", ended.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_in_one_line_that_says_why() {
    let host = Host::start().await;
    let whole = std::fs::read(guest("hello")).unwrap();
    let engine = wasmtime::Engine::default();
    let native = engine.precompile_module(&whole).unwrap();
    let cases = [
        (host.file("text.wasm", b"hello"), "neither a WebAssembly module", ErrorKind::ImageUnusable),
        (host.file("half.wasm", &whole[..whole.len() / 2]), "unexpected end", ErrorKind::ImageUnusable),
        (host.file("native.wasm", &native), "native", ErrorKind::ImageUnusable),
        (host.wat("shared.wasm", "(module (memory 1 2 shared))"), "threads", ErrorKind::ImageUnusable),
        (host.wat("library.wasm", "(module (func (export \"f\")))"), "_start", ErrorKind::InvalidArgument),
        (guest("imports"), "coracle:test/absent", ErrorKind::InvalidArgument),
        (host.wat("world.wasm", "(component)"), "wasi:cli/run@0.2", ErrorKind::InvalidArgument),
    ];
    for (module, reason, kind) in cases {
        let error = host.try_create(&module, |_| ()).await.unwrap_err();
        assert!(error.message.contains(reason), "{}: {error}", module.display());
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.message.contains('\n'), "{error}");
    }
}

/// 50 KB that take gigabytes and minutes: every one of many loops, one in the other, changes every one of many
/// variables, so that the compiler has to know their product.
fn bomb() -> Vec<u8> {
    const LOOPS: usize = 400;
    const VARIABLES: usize = 5_000;
    let number = |mut n: usize| {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let section = |id: u8, content: &[u8]| [&[id], &number(content.len())[..], content].concat();
    // This variable gets its own and the next one's sum.
    let step = |i: usize| {
        let (own, next) = (number(i), number((i + 1) % VARIABLES));
        [&b"\x20"[..], &next, b"\x20", &own, b"\x6a\x21", &own].concat()
    };
    let steps: Vec<u8> = (0..VARIABLES).flat_map(step).collect();
    let locals = [&b"\x01"[..], &number(VARIABLES), b"\x7f"].concat();
    // `loop`, and at its end `local.get 0`, `br_if 0`, `end`.
    let (begin, end) = (b"\x03\x40".repeat(LOOPS), b"\x20\x00\x0d\x00\x0b".repeat(LOOPS));
    let body = [locals, begin, steps, end, b"\x0b".to_vec()].concat();
    let code = [&b"\x01"[..], &number(body.len()), &body].concat();
    [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, b"\x01\x60\0\0"),
        &section(3, b"\x01\0"),
        &section(7, b"\x01\x06_start\0\0"),
        &section(10, &code),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_too_expensive_to_compile_is_refused_and_others_are_not() {
    let (second, all) = (std::time::Duration::from_secs(1), CompileLimits::default());
    for (limits, reason) in [
        (CompileLimits { cpu: second, ..all.clone() }, "too much processor time"),
        (CompileLimits { wall: second, ..all.clone() }, "took longer than 1s"),
        (CompileLimits { memory_bytes: 512 << 20, ..all }, "takes too much memory"),
    ] {
        let host = Host::start_with(|options| options.compile = limits).await;
        let error = host.pull(&host.file("bomb.wasm", &bomb())).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ImageUnusable, "{error}");
        assert!(error.message.contains(reason), "{error}");
        assert!(!error.message.contains('\n'), "{error}");
        host.pull(&host.wat("small.wasm", "(module (func (export \"_start\")))")).await.unwrap();
        assert_eq!(compiled(&host).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compiler_is_nobody_and_sees_nothing() {
    use std::process::{Command, Stdio};
    let mut compiler = Command::new(env!("CARGO_BIN_EXE_compile-child"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let about = |what: &str| format!("/proc/{}/{what}", compiler.id());
    // It reads, and will go on doing that.
    let status = within(async {
        loop {
            let status = std::fs::read_to_string(about("status")).unwrap();
            if status.contains("Seccomp_filters:\t2") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let open: Vec<_> = std::fs::read_dir(about("fd")).unwrap().map(|fd| fd.unwrap().file_name()).collect();
    compiler.kill().unwrap();
    compiler.wait().unwrap();
    assert_eq!(open, ["0", "1", "2"]);
    let mut expected = vec!["Seccomp:\t2", "NoNewPrivs:\t1"];
    if rustix::process::geteuid().is_root() {
        expected.extend([
            "Uid:\t65534\t65534\t65534\t65534",
            "Gid:\t65534\t65534\t65534\t65534",
            "Groups:\t \n",
        ]);
        expected.extend(["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"]);
    }
    for line in expected {
        assert!(status.contains(line), "{line:?} in {status}");
    }
}
