//! That the bindings in the sources are those of the protocol's definition, which is that of k8s.io/cri-api v0.37.2.

use std::path::Path;

#[test]
fn the_bindings_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let definition = protox::compile([root.join("proto/api.proto")], [root.join("proto")]).unwrap();
    let mut config = tonic_prost_build::Config::new();
    // They would be taken for documentation, and the examples in them for tests.
    config.disable_comments(["."]);
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds_with_config(definition, config)
        .unwrap();
    let made = std::fs::read_to_string(out.path().join("runtime.v1.rs")).unwrap();
    let path = root.join("src/bindings/runtime.v1.rs");
    if std::env::var_os("UPDATE_BINDINGS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == made,
        "out of date: run UPDATE_BINDINGS=1 cargo test -p coracle-cri --test bindings"
    );
}
