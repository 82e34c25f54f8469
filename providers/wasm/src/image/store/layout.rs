//! The files of the store: an OCI image layout, which skopeo and oras read.
//!
//! ```text
//! oci-layout, index.json     which names lead to which manifests
//! blobs/sha256/<hex>         manifests, configurations and layers, as they were pulled
//! unpacked/sha256/<hex>      Wasm binaries out of archives (not of the layout)
//! tmp/                       files in the making (not of the layout)
//! lock                       held by the process that has the store open (not of the layout)
//! ```
//! Every file is written to `tmp`, synced and renamed to its place, so that it is there as a whole or not at all. All
//! functions block.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::media_type::OCI_INDEX;

const MARKER: &str = "oci-layout";
const MARKER_CONTENT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
const LOCK: &str = "lock";
const TMP: &str = "tmp";

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::image) struct FileKey {
    area: Area,
    pub(in crate::image) digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Area {
    Blobs,
    Unpacked,
}

impl Area {
    const ALL: [Self; 2] = [Self::Blobs, Self::Unpacked];

    fn folder(self) -> &'static str {
        match self {
            Self::Blobs => "blobs/sha256",
            Self::Unpacked => "unpacked/sha256",
        }
    }
}

impl FileKey {
    /// A blob of the layout.
    pub(in crate::image) fn blob(digest: &Digest) -> Self {
        Self { area: Area::Blobs, digest: digest.clone() }
    }

    /// A Wasm binary out of an archive.
    pub(in crate::image) fn unpacked(digest: &Digest) -> Self {
        Self { area: Area::Unpacked, digest: digest.clone() }
    }

    /// Whether it is one.
    pub(super) fn is_unpacked(&self) -> bool {
        self.area == Area::Unpacked
    }

    /// All files that may hold the bytes of `digest`.
    pub(super) fn all(digest: &Digest) -> [Self; 2] {
        Area::ALL.map(|area| Self { area, digest: digest.clone() })
    }
}

/// The folder.
pub(super) struct Layout {
    root: PathBuf,
    /// Closing it unlocks the store.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Vec<Descriptor>,
}

impl Layout {
    /// Makes what is missing of the folder, and removes what was in the making when the last process ended.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        for folder in Area::ALL.map(Area::folder).into_iter().chain([TMP]) {
            make_private_dir(&root.join(folder))?;
        }
        fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        let lock = File::create(root.join(LOCK))?;
        lock.try_lock().map_err(|error| {
            let reason = format!("another process uses {}: {error}", root.display());
            io::Error::new(io::ErrorKind::ResourceBusy, reason)
        })?;
        let layout = Self { root, _lock: lock };
        for leftover in fs::read_dir(layout.root.join(TMP))? {
            fs::remove_file(leftover?.path())?;
        }
        if !layout.root.join(MARKER).exists() {
            layout.replace(MARKER, MARKER_CONTENT.as_bytes())?;
        }
        Ok(layout)
    }

    /// Where a file is, if it is there.
    pub(super) fn path(&self, key: &FileKey) -> PathBuf {
        self.root.join(key.area.folder()).join(key.digest.hex())
    }

    /// The length of a file that is there.
    pub(super) fn size(&self, key: &FileKey) -> Option<u64> {
        fs::metadata(self.path(key)).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    /// All files that are there.
    pub(super) fn files(&self) -> io::Result<Vec<FileKey>> {
        let mut keys = Vec::new();
        for area in Area::ALL {
            for entry in fs::read_dir(self.root.join(area.folder()))? {
                let name = entry?.file_name();
                let digest = format!("sha256:{}", name.to_string_lossy());
                if let Ok(digest) = Digest::try_from(digest) {
                    keys.push(FileKey { area, digest });
                }
            }
        }
        Ok(keys)
    }

    /// Begins a new file.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        let file = NamedTempFile::new_in(self.root.join(TMP))?;
        Ok(Draft { file: BufWriter::with_capacity(256 * 1024, file), hasher: Sha256::new(), size: 0 })
    }

    /// Puts a finished file into its place. One that is there already stays: it may be mapped, and holds the same.
    pub(super) fn keep(&self, key: &FileKey, file: Finished) -> io::Result<()> {
        if self.size(key) == Some(file.size) {
            return Ok(());
        }
        file.file.persist(self.path(key))?;
        sync_dir(&self.root.join(key.area.folder()))
    }

    /// Removes a file, if it is there.
    pub(super) fn unlink(&self, key: &FileKey) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What `index.json` lists; nothing if there is none yet.
    pub(super) fn read_index(&self) -> io::Result<Vec<Descriptor>> {
        match fs::read(self.root.join(INDEX)) {
            Ok(bytes) => Ok(serde_json::from_slice::<Index>(&bytes)?.manifests),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Replaces `index.json`.
    pub(super) fn write_index(&self, manifests: Vec<Descriptor>) -> io::Result<()> {
        let index = Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests };
        self.replace(INDEX, &serde_json::to_vec(&index)?)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(self.root.join(TMP))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(self.root.join(name))?;
        sync_dir(&self.root)
    }
}

/// A file in the making. Dropping it removes it.
pub(in crate::image) struct Draft {
    file: BufWriter<NamedTempFile>,
    hasher: Sha256,
    size: u64,
}

/// A file that is complete and on disk, but not in its place yet. Dropping it removes it.
pub(in crate::image) struct Finished {
    file: NamedTempFile,
    pub(in crate::image) digest: Digest,
    pub(in crate::image) size: u64,
}

impl Draft {
    /// How much was written.
    pub(in crate::image) fn size(&self) -> u64 {
        self.size
    }

    /// Brings the file to disk, unchangeable from now on.
    pub(in crate::image) fn finish(self) -> io::Result<Finished> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().set_permissions(Permissions::from_mode(0o400))?;
        file.as_file().sync_all()?;
        Ok(Finished { file, digest: Digest::finish(self.hasher), size: self.size })
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Only this process's user may see the node's images: some of them are private.
fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a rename in `path` outlive a power cut.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
