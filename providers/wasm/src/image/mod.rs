//! OCI artifacts: references, pulls and the store on disk.
