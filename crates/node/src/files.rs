//! Files of the kernel and of the distribution, below a root that tests can replace.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::NodeError;

pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn system() -> Self {
        Self::below("/")
    }

    pub(crate) fn below(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned() }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, NodeError> {
        let path = self.path(file);
        // Device trees end their strings with a zero, and none of these files is worth failing over its encoding.
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', ""));
        text.map_err(|error| NodeError::Read { path, error })
    }

    /// The first of these files that there is, without space around it; empty if there is none.
    pub(crate) fn first_of(&self, files: &[&str]) -> String {
        let mut texts = files.iter().filter_map(|file| self.read(file).ok());
        texts.next().map(|text| text.trim().to_owned()).unwrap_or_default()
    }
}
