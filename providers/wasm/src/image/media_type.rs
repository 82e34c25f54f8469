//! The media types of manifests, configurations and layers that images with Wasm in them use.

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The configuration of a Wasm artifact, by the Wasm OCI artifact layout of the CNCF.
pub(super) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(super) const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";

pub(super) const WASM_LAYER: &str = "application/wasm";

/// Whether a layer of this type is a Wasm binary as it is.
pub(super) fn is_wasm_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        WASM_LAYER
            // Krustlet, wasm-to-oci, Spin
            | "application/vnd.wasm.content.layer.v1+wasm"
            // runwasi, for components
            | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
            // wasmCloud before it took up application/wasm
            | "application/vnd.module.wasm.content.layer.v1+wasm"
    )
}

/// Whether a layer of this type is an archive of files. How it is packed shows in its first bytes.
pub(super) fn is_archive_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}
