//! What becomes of a compiler that misbehaves: here it is a shell that does what a test says.

use std::time::Instant;

use tempfile::TempDir;

use super::*;

const DIGEST: &str = "sha256:0123";

struct Bed {
    folder: TempDir,
    compiler: Compiler,
}

impl Bed {
    fn new(script: &str, adjust: impl FnOnce(&mut CompileLimits)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut limits = CompileLimits { wall: Duration::from_secs(20), ..CompileLimits::default() };
        adjust(&mut limits);
        let command =
            CompilerCommand { program: "/bin/sh".into(), args: ["-c".into(), OsString::from(script)].into() };
        let compiled = folder.path().join("compiled");
        let compiler = Compiler::open(compiled, "c0".to_owned(), command, limits).unwrap();
        std::fs::write(folder.path().join("wasm"), "the module").unwrap();
        Self { folder, compiler }
    }

    async fn compile(&self) -> Result<(), CompileError> {
        self.compiler.compile(DIGEST, &self.folder.path().join("wasm")).await
    }

    /// The error of a compilation, which must leave nothing behind.
    async fn error(&self) -> CompileError {
        let error = self.compile().await.unwrap_err();
        assert_eq!(std::fs::read_dir(self.folder.path().join("compiled")).unwrap().count(), 0, "{error}");
        assert_eq!(self.compiler.compiled_bytes(DIGEST), 0);
        error
    }
}

#[tokio::test]
async fn the_child_has_the_module_and_nothing_of_this_process() {
    // The test's own environment has more than what a shell sets by itself.
    assert!(std::env::var_os("PATH").is_some());
    let bed = Bed::new("cat >&2; /usr/bin/env >&2; pwd >&2; exit 65", |_| {});
    let CompileError::Refused { reason, .. } = bed.error().await else { panic!("refused") };
    let words: Vec<&str> = reason.split(' ').collect();
    assert_eq!(&words[..2], ["the", "moduleCORACLE_COMPILE_CPU=600"], "{reason}");
    for word in &words[2..] {
        let known =
            ["CORACLE_COMPILE_MEMORY=8589934592", "PWD=/", "_=/usr/bin/env", "OLDPWD=/", "SHLVL=0", "/"];
        assert!(known.contains(word), "{word:?} in {reason}");
    }
}

#[tokio::test]
async fn what_it_writes_is_kept_once() {
    let bed = Bed::new("cat", |_| {});
    bed.compile().await.unwrap();
    assert_eq!(bed.compiler.compiled_bytes(DIGEST), "the module".len() as u64);
    bed.compile().await.unwrap();
    bed.compiler.forget(DIGEST).unwrap();
    assert_eq!(bed.compiler.compiled_bytes(DIGEST), 0);
}

#[tokio::test]
async fn one_that_takes_too_long_is_killed() {
    let bed = Bed::new("echo $$ >&2; exec sleep 600", |limits| limits.wall = Duration::from_millis(200));
    let since = Instant::now();
    let error = bed.error().await;
    assert!(matches!(error, CompileError::TooExpensive { .. }), "{error}");
    assert!(error.to_string().contains("took longer than 200ms"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn output_without_end_is_cut_off() {
    let bed = Bed::new("cat /dev/zero", |limits| limits.output_bytes = 1 << 20);
    let error = bed.error().await;
    assert!(error.to_string().contains("gives more than 1048576 bytes of native code"), "{error}");
}

#[tokio::test]
async fn ends_are_told_apart() {
    for (script, expected) in [
        ("echo 'bad   opcode' >&2; exit 65", "cannot run sha256:0123: bad opcode"),
        ("echo half; kill -KILL $$", "takes too much processor time or memory"),
        ("kill -XCPU $$", "takes too much processor time or memory"),
        (
            "echo memory allocation of 5 bytes failed >&2; kill -ABRT $$",
            "too much memory: memory allocation of 5",
        ),
        ("echo half; echo oops >&2; exit 1", "the compiler failed on sha256:0123: exit status: 1: oops"),
    ] {
        let error = Bed::new(script, |_| {}).error().await.to_string();
        assert!(error.contains(expected), "{script}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn two_at_a_time_and_dropping_a_call_ends_its_compiler() {
    let bed = Bed::new("exec sleep 600", |_| {});
    let wasm = bed.folder.path().join("wasm");
    let compile = |digest: &'static str| bed.compiler.compile(digest, &wasm);
    let all = async { tokio::join!(compile("a:1"), compile("a:2"), compile("a:3")) };
    assert!(tokio::time::timeout(Duration::from_millis(300), all).await.is_err());
    // All three have let go: their places are free, and nothing half written is left.
    assert_eq!(bed.compiler.slots.available_permits(), PARALLEL);
    assert_eq!(std::fs::read_dir(bed.folder.path().join("compiled")).unwrap().count(), 0);
}
