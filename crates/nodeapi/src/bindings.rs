//! The protocols, as made from `proto`. `tests/bindings.rs` says how.

/// PodResources v1.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod podresources_v1 {
    include!("bindings/podresources_v1.rs");
}

/// PodResources v1alpha1, which upstream serves beside v1.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod podresources_v1alpha1 {
    include!("bindings/podresources_v1alpha1.rs");
}
