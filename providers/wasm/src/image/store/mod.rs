//! The images that are present: on disk, and in memory for those who ask.
//!
//! Questions are answered from memory ([`View`]). Everything else happens on blocking threads under one lock, which is
//! held while `index.json` is written or a file vanishes, never during a download. Files are counted: one stays as
//! long as an image needs it or a pull holds it ([`Lease`]), and a file that nobody counts is swept when the store is
//! opened. So whatever a process was doing when it was killed, the next one finds whole images only.

mod image;
mod layout;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::digest::Digest;
use super::error::ImageError;
use super::{Prepare, rootfs};
pub(super) use image::{StoredImage, binary_of};
use layout::Layout;
pub(super) use layout::{Draft, FileKey, Finished};

/// The store.
pub(super) struct Store {
    root: PathBuf,
    layout: Layout,
    prepare: Arc<dyn Prepare>,
    view: RwLock<View>,
    /// The users of every file. Locked on blocking threads only, and before `view`.
    files: Mutex<HashMap<FileKey, Held>>,
}

/// What is present, as everybody may see it.
#[derive(Clone, Default)]
struct View {
    images: BTreeMap<Digest, Named>,
    names: BTreeMap<String, Digest>,
}

/// An image and the names that lead to it.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) image: Arc<StoredImage>,
    pub(super) names: BTreeSet<String>,
}

struct Held {
    users: usize,
    size: u64,
}

/// Files that a pull needs, so that they stay. It ends in [`Store::commit`] or [`Store::release`]; if it is lost, its
/// files stay until the store is opened again.
#[derive(Clone, Default)]
pub(super) struct Lease(Arc<Mutex<Vec<FileKey>>>);

impl Lease {
    fn end(&self) -> Vec<FileKey> {
        std::mem::take(&mut self.0.lock())
    }
}

/// How much there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Store {
    /// Opens the store in `root`, which one process at a time may do. Blocks.
    pub(super) fn open(root: PathBuf, prepare: Arc<dyn Prepare>) -> io::Result<Self> {
        let layout = Layout::open(root.clone())?;
        let (view, is_whole) = load_view(&layout)?;
        let mut files: HashMap<FileKey, Held> = HashMap::new();
        for Named { image, .. } in view.images.values() {
            count(&mut files, image);
        }
        for orphan in layout.files()?.into_iter().filter(|key| !files.contains_key(key)) {
            layout.unlink(&orphan)?;
        }
        prepare.retain(&files.keys().map(|key| key.digest.to_string()).collect());
        if !is_whole {
            layout.write_index(view.index())?;
        }
        Ok(Self { root, layout, prepare, view: RwLock::new(view), files: Mutex::new(files) })
    }

    /// Where the store is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The image with that manifest.
    pub(super) fn by_digest(&self, digest: &Digest) -> Option<Named> {
        self.view.read().images.get(digest).cloned()
    }

    /// The image that a full name leads to.
    pub(super) fn by_name(&self, name: &str) -> Option<Named> {
        let view = self.view.read();
        view.images.get(view.names.get(name)?).cloned()
    }

    /// All images.
    pub(super) fn list(&self) -> Vec<Named> {
        self.view.read().images.values().cloned().collect()
    }

    /// How much space the files take. Blocks.
    pub(super) fn usage(&self) -> Usage {
        let files = self.files.lock();
        let bytes = files.values().map(|held| held.size).sum();
        Usage { bytes, files: files.len() as u64 }
    }

    /// Where a file of a lease is.
    pub(super) fn path(&self, key: &FileKey) -> PathBuf {
        self.layout.path(key)
    }

    /// Begins a new file. Blocks.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        self.layout.draft()
    }

    /// Makes a file stay, now or once it comes; says whether it is there already, with that size. Blocks.
    pub(super) fn hold(&self, lease: &Lease, key: &FileKey, size: u64) -> bool {
        let mut files = self.files.lock();
        files.entry(key.clone()).or_insert(Held { users: 0, size }).users += 1;
        lease.0.lock().push(key.clone());
        self.layout.size(key) == Some(size)
    }

    /// Puts a file that is held into its place. Blocks.
    pub(super) fn keep(&self, key: &FileKey, file: Finished) -> io::Result<()> {
        self.layout.keep(key, file)
    }

    /// Takes a binary out of the layers of an image; holds it. Blocks.
    pub(super) fn unpack(
        &self,
        lease: &Lease,
        layers: &[PathBuf],
        location: rootfs::Location,
        max_bytes: u64,
    ) -> Result<FileKey, ImageError> {
        if location.size > max_bytes {
            return Err(ImageError::TooLarge { what: "a binary", size: location.size, limit: max_bytes });
        }
        let mut draft = self.draft()?;
        rootfs::copy(layers, location, &mut draft)?;
        let file = draft.finish()?;
        let key = FileKey::unpacked(&file.digest);
        self.hold(lease, &key, file.size);
        self.keep(&key, file)?;
        Ok(key)
    }

    /// Makes the held files an image that `names` lead to; they lead nowhere else then. Blocks.
    pub(super) fn commit(
        &self,
        lease: &Lease,
        manifest: &Digest,
        unpacked: Option<&Digest>,
        names: &[String],
    ) -> Result<Named, ImageError> {
        let mut files = self.files.lock();
        let committed = self.try_commit(&mut files, manifest, unpacked, names);
        self.uncount(&mut files, lease.end());
        committed
    }

    fn try_commit(
        &self,
        files: &mut HashMap<FileKey, Held>,
        manifest: &Digest,
        unpacked: Option<&Digest>,
        names: &[String],
    ) -> Result<Named, ImageError> {
        let mut view = self.view.read().clone();
        let known = view.images.get(manifest).map(|named| named.image.clone());
        let is_new = known.is_none();
        let image = match known {
            Some(image) => image,
            None => Arc::new(StoredImage::load(&self.layout, manifest, unpacked)?),
        };
        view.add(&image, names);
        self.layout.write_index(view.index())?;
        if is_new {
            count(files, &image);
        }
        let named = view.images[manifest].clone();
        *self.view.write() = view;
        Ok(named)
    }

    /// Gives up the files of a pull that has failed. Blocks.
    pub(super) fn release(&self, lease: &Lease) {
        self.uncount(&mut self.files.lock(), lease.end());
    }

    /// Removes an image and all names that lead to it. Blocks.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        let mut files = self.files.lock();
        let mut view = self.view.read().clone();
        let Some(Named { image, names }) = view.images.remove(digest) else { return Ok(()) };
        view.names.retain(|name, _| !names.contains(name));
        self.layout.write_index(view.index())?;
        *self.view.write() = view;
        self.uncount(&mut files, image.files.iter().map(|(key, _)| key.clone()).collect());
        Ok(())
    }

    /// Takes one user from each file. Those without any vanish, and what was prepared from them.
    fn uncount(&self, files: &mut HashMap<FileKey, Held>, keys: Vec<FileKey>) {
        for key in keys {
            let Some(held) = files.get_mut(&key) else { continue };
            held.users -= 1;
            if held.users > 0 {
                continue;
            }
            files.remove(&key);
            // A file that stays by mistake is swept when the store is opened next.
            if let Err(error) = self.layout.unlink(&key) {
                tracing::warn!(digest = %key.digest, %error, "can't remove a file of an image");
            }
            if !FileKey::all(&key.digest).iter().any(|other| files.contains_key(other)) {
                self.prepare.forget(key.digest.as_str());
            }
        }
    }
}

impl View {
    fn add(&mut self, image: &Arc<StoredImage>, names: &[String]) {
        for name in names {
            let before = self.names.insert(name.clone(), image.digest().clone());
            if let Some(named) = before.and_then(|digest| self.images.get_mut(&digest)) {
                named.names.remove(name);
            }
        }
        let named = self
            .images
            .entry(image.digest().clone())
            .or_insert_with(|| Named { image: image.clone(), names: BTreeSet::new() });
        named.names.extend(names.iter().cloned());
    }

    /// The entries of `index.json`.
    fn index(&self) -> Vec<super::manifest::Descriptor> {
        let entry =
            |(name, digest): (&String, &Digest)| Some(self.images.get(digest)?.image.index_entry(name));
        self.names.iter().filter_map(entry).collect()
    }
}

/// Reads all images that `index.json` lists; says whether all are whole. One that is not is dropped: it will be pulled
/// again.
fn load_view(layout: &Layout) -> io::Result<(View, bool)> {
    let (entries, mut is_whole) = match layout.read_index() {
        Ok(entries) => (entries, true),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            tracing::warn!(%error, "the index of the image store does not parse: starting without images");
            (Vec::new(), false)
        }
        Err(error) => return Err(error),
    };
    let mut view = View::default();
    for entry in entries {
        let Some((name, unpacked)) = image::read_index_entry(&entry) else {
            is_whole = false;
            continue;
        };
        let known = view.images.get(&entry.digest).map(|named| named.image.clone());
        let image = match known {
            Some(image) => image,
            None => match StoredImage::load(layout, &entry.digest, unpacked.as_ref()) {
                Ok(image) => Arc::new(image),
                Err(error) => {
                    tracing::warn!("image {name:?} {error}; it is dropped from the store");
                    is_whole = false;
                    continue;
                }
            },
        };
        view.add(&image, &[name.to_owned()]);
    }
    Ok((view, is_whole))
}

fn count(files: &mut HashMap<FileKey, Held>, image: &StoredImage) {
    for (key, size) in &image.files {
        files.entry(key.clone()).or_insert(Held { users: 0, size: *size }).users += 1;
    }
}
