//! That the bindings in the sources are those of the protocols' definitions, which are those of k8s.io/kubelet v0.37.2.

use std::path::Path;

#[test]
fn the_bindings_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (definition, package, file) in [
        ("podresources/v1.proto", "v1", "podresources_v1"),
        ("podresources/v1alpha1.proto", "v1alpha1", "podresources_v1alpha1"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let proto = root.join("proto");
        let definition = protox::compile([proto.join(definition)], [proto]).unwrap();
        let mut config = tonic_prost_build::Config::new();
        // They would be taken for documentation, and the examples in them for tests.
        config.disable_comments(["."]);
        tonic_prost_build::configure()
            .build_transport(false)
            .out_dir(out.path())
            .compile_fds_with_config(definition, config)
            .unwrap();
        let made = std::fs::read_to_string(out.path().join(format!("{package}.rs"))).unwrap();
        let path = root.join(format!("src/bindings/{file}.rs"));
        if std::env::var_os("UPDATE_BINDINGS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == made,
            "{file} is out of date: run UPDATE_BINDINGS=1 cargo test -p coracle-nodeapi --test bindings"
        );
    }
}
