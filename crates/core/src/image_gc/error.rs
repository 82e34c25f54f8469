//! Why images were not removed.

use std::time::Duration;

/// A round of image garbage collection that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageGcError {
    /// The provider did not answer.
    #[error(transparent)]
    Provider(#[from] coracle_provider::Error),
    /// The file system of images has no size.
    #[error("invalid capacity 0 on image filesystem")]
    InvalidCapacity,
    /// All is removed that may be, and the disk is still too full.
    #[error(
        "Insufficient free disk space on the node's image filesystem ({usage_percent}% of {} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used \
         by active images, logs, volumes, or other data.",
        format_size(*capacity)
    )]
    NotEnough {
        /// How full the disk was.
        usage_percent: u64,
        /// How many bytes it has.
        capacity: u64,
        /// How many bytes were freed.
        freed: u64,
    },
    /// Images could not be removed.
    #[error(
        "wanted to free {to_free} bytes, but freed {freed} bytes space with errors in image deletion: {}",
        list(errors)
    )]
    Space {
        /// How many bytes were wanted.
        to_free: u64,
        /// How many bytes were freed.
        freed: u64,
        /// What went wrong.
        errors: Vec<coracle_provider::Error>,
    },
    /// Old images could not be removed.
    #[error(
        "wanted to free images older than {max_age:?}, encountered errors in image deletion: {}",
        list(errors)
    )]
    TooOld {
        /// How old is too old.
        max_age: Duration,
        /// What went wrong.
        errors: Vec<coracle_provider::Error>,
    },
}

fn list(errors: &[coracle_provider::Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// For people (`formatSize`).
fn format_size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (5 << 40, "5.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(format_size(bytes), expected);
        }
    }
}
