//! What becomes of the bytes that somebody wants to run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use coracle_provider::{ErrorKind, ImageService, ImageSpec};

use crate::support::{Host, guest};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_too_expensive_to_compile_is_refused_and_others_are_not() {
    let host = Host::start_with(|options| options.compile.cpu = std::time::Duration::from_secs(1)).await;
    let block = "(i32.add (i32.mul (local.get 0) (i32.const 3)) (local.set 0)) "
        .replace("(local.set 0)", "(local.get 1)");
    let body: String = (0..20_000).map(|_| format!("(local.set 0 {block})")).collect();
    let functions: String = (0..60).map(|_| format!("(func (param i32 i32) {body})")).collect();
    let bomb = host.wat("bomb.wasm", &format!("(module {functions} (func (export \"_start\")))"));
    let error = host.pull(&bomb).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ImageUnusable);
    assert!(error.message.contains("too much processor time"), "{error}");
    host.pull(&host.wat("small.wasm", "(module (func (export \"_start\")))")).await.unwrap();
    assert_eq!(compiled(&host).len(), 1);
}
