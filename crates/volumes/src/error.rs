//! Errors with the file or the volume that they are about.

use std::fmt::Display;
use std::path::Path;

use coracle_core::ports::VolumeError;

/// The disk or the kernel refused: what was tried, on which file.
pub(crate) fn io_error(doing: &str, path: &Path, error: impl Display) -> VolumeError {
    VolumeError::Io(format!("cannot {doing} {}: {error}", path.display()))
}

/// The same error, of a volume.
pub(crate) fn in_volume(volume: &str, error: VolumeError) -> VolumeError {
    with_prefix(format!("volume {volume:?}: "), error)
}

/// The same error, of a volume that could not be set up, in upstream's words (`operation_generator.go`): users look for
/// them.
pub(crate) fn set_up_failed(volume: &str, error: VolumeError) -> VolumeError {
    with_prefix(format!("MountVolume.SetUp failed for volume {volume:?} : "), error)
}

fn with_prefix(prefix: String, error: VolumeError) -> VolumeError {
    let about = |message: String| prefix + &message;
    match error {
        VolumeError::NotReady(message) => VolumeError::NotReady(about(message)),
        VolumeError::Invalid(message) => VolumeError::Invalid(about(message)),
        VolumeError::Io(message) => VolumeError::Io(about(message)),
    }
}

/// All errors in one. What can never work says more than what may work later.
pub(crate) fn combine(errors: Vec<VolumeError>) -> Result<(), VolumeError> {
    let message = || errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if errors.is_empty() {
        Ok(())
    } else if errors.iter().any(|e| matches!(e, VolumeError::Invalid(_))) {
        Err(VolumeError::Invalid(message()))
    } else if errors.iter().any(|e| matches!(e, VolumeError::Io(_))) {
        Err(VolumeError::Io(message()))
    } else {
        Err(VolumeError::NotReady(message()))
    }
}
