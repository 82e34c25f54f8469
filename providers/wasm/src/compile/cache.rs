//! Compiled code on disk.
//!
//! `<digest>-<compatibility>.cwasm`, mode 0400 in a folder of mode 0700, written under another name and renamed,
//! never changed: it gets mapped, and a mapped file that shrinks ends the process. Beside it lies a checksum. That
//! finds a damaged disk and half a write; who can write to the folder can forge both, so the folder's mode is what
//! keeps others out.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

const TEMPORARY: &str = ".new-";
const CODE: &str = "cwasm";
const CHECKSUM: &str = "sha256";

/// The folder of compiled code for one engine.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    compatibility: String,
    next_temporary: AtomicU64,
    /// Bytes of code by file stem, so that questions about space need no disk.
    sizes: Mutex<HashMap<String, u64>>,
}

impl Cache {
    /// Opens the folder and throws away what no engine of this build can use: code for other engines, and what a
    /// crash left half written.
    pub(super) fn open(folder: PathBuf, compatibility: String) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let ours = format!("-{compatibility}");
        let mut sizes = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            match path.file_stem().and_then(|stem| stem.to_str()) {
                Some(stem) if stem.ends_with(&ours) && !stem.starts_with(TEMPORARY) => {
                    if path.extension().is_some_and(|extension| extension == CODE) {
                        sizes.insert(stem.to_owned(), entry.metadata()?.len());
                    }
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(Self { folder, compatibility, next_temporary: AtomicU64::new(0), sizes: Mutex::new(sizes) })
    }

    /// The code for a digest, open and checked. `None` if there is none, or none that can be trusted; what cannot
    /// is removed.
    pub(super) fn get(&self, digest: &str) -> io::Result<Option<File>> {
        match self.checked(digest) {
            Ok(Ok(file)) => Ok(Some(file)),
            Ok(Err(damage)) => {
                tracing::warn!(digest, damage, "compiled code is damaged and will be compiled again");
                self.remove(digest)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The outer error is the file system's, the inner one says what is wrong with the file.
    fn checked(&self, digest: &str) -> io::Result<Result<File, &'static str>> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.code(digest))?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Ok(Err("others could have written it"));
        }
        let expected = match fs::read_to_string(self.checksum(digest)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err("it has no checksum")),
            Err(error) => return Err(error),
        };
        // The open file is read, and later mapped: whatever happens to its name in between, it is this one.
        if hex_digest(&mut file)? != expected.trim_end() {
            return Ok(Err("its checksum differs"));
        }
        Ok(Ok(file))
    }

    /// A new file that [`commit`](Self::commit) gives its name.
    pub(super) fn begin(&self) -> io::Result<Pending> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{TEMPORARY}{number}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        Ok(Pending { path, file, sum: Sha256::new(), bytes: 0 })
    }

    /// Makes a written file the code for `digest`. The checksum comes first, so that code without one is damage.
    pub(super) fn commit(&self, pending: Pending, digest: &str) -> io::Result<()> {
        let sum_path = pending.path.with_extension("sum");
        fs::write(&sum_path, format!("{}\n", hex(&pending.sum.clone().finalize())))?;
        fs::rename(&sum_path, self.checksum(digest))?;
        fs::rename(&pending.path, self.code(digest))?;
        self.sizes.lock().insert(self.stem(digest), pending.bytes);
        Ok(())
    }

    /// Bytes on disk for a digest; 0 if nothing is compiled.
    pub(super) fn bytes(&self, digest: &str) -> u64 {
        self.sizes.lock().get(&self.stem(digest)).copied().unwrap_or(0)
    }

    /// Removes the code for a digest. A mapping of it stays valid.
    pub(super) fn remove(&self, digest: &str) -> io::Result<()> {
        self.remove_stem(&self.stem(digest))
    }

    fn remove_stem(&self, stem: &str) -> io::Result<()> {
        self.sizes.lock().remove(stem);
        for extension in [CODE, CHECKSUM] {
            match fs::remove_file(self.folder.join(format!("{stem}.{extension}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes all code but that for `digests`.
    pub(super) fn retain(&self, digests: &HashSet<String>) -> io::Result<()> {
        let wanted: HashSet<String> = digests.iter().map(|digest| self.stem(digest)).collect();
        let unwanted: Vec<String> =
            self.sizes.lock().keys().filter(|stem| !wanted.contains(*stem)).cloned().collect();
        unwanted.iter().try_for_each(|stem| self.remove_stem(stem))
    }

    fn code(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.{CODE}", self.stem(digest)))
    }

    fn checksum(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.{CHECKSUM}", self.stem(digest)))
    }

    fn stem(&self, digest: &str) -> String {
        // `sha256:…`: the algorithm is not part of the name, and the rest is hexadecimal in every digest.
        let hex = digest.rsplit(':').next().unwrap_or(digest).replace('/', "_");
        format!("{hex}-{}", self.compatibility)
    }
}

/// Code that is being written. Dropped without a commit, it is gone.
#[derive(Debug)]
pub(super) struct Pending {
    path: PathBuf,
    file: File,
    sum: Sha256,
    bytes: u64,
}

impl Pending {
    pub(super) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.sum.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.path.with_extension("sum"));
    }
}

fn hex_digest(file: &mut File) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut chunk = vec![0; 128 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&sum.finalize())),
            n => sum.update(&chunk[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const DIGEST: &str = "sha256:0123";

    fn cache(root: &Path) -> Cache {
        Cache::open(root.join("compiled"), "c0".into()).unwrap()
    }

    fn put(cache: &Cache, content: &[u8]) {
        let mut pending = cache.begin().unwrap();
        pending.write(content).unwrap();
        cache.commit(pending, DIGEST).unwrap();
    }

    fn read(file: Option<File>) -> Option<Vec<u8>> {
        use std::io::Seek;
        file.map(|mut file| {
            let mut content = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut content).unwrap();
            content
        })
    }

    #[test]
    fn what_was_written_is_found_again_after_opening_anew() {
        let root = tempfile::tempdir().unwrap();
        put(&cache(root.path()), b"code");
        let again = cache(root.path());
        assert_eq!(read(again.get(DIGEST).unwrap()).as_deref(), Some(&b"code"[..]));
        assert_eq!(again.bytes(DIGEST), 4);
        let mode = fs::metadata(again.code(DIGEST)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o400);
    }

    #[test]
    fn damage_is_noticed_and_swept_away() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let damages: [fn(&Cache); 4] = [
            |c| fs::remove_file(c.checksum(DIGEST)).unwrap(),
            |c| {
                fs::remove_file(c.code(DIGEST)).unwrap();
                fs::write(c.code(DIGEST), b"cod").unwrap();
            },
            |c| {
                fs::remove_file(c.code(DIGEST)).unwrap();
                fs::write(c.code(DIGEST), b"codE").unwrap();
            },
            |c| fs::set_permissions(c.code(DIGEST), fs::Permissions::from_mode(0o666)).unwrap(),
        ];
        for damage in damages {
            put(&cache, b"code");
            damage(&cache);
            assert!(cache.get(DIGEST).unwrap().is_none());
            assert!(!cache.code(DIGEST).exists());
        }
    }

    #[test]
    fn what_no_image_needs_goes() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        put(&cache, b"code");
        cache.retain(&HashSet::from([DIGEST.to_owned(), "sha256:4567".to_owned()])).unwrap();
        assert!(cache.get(DIGEST).unwrap().is_some());
        cache.retain(&HashSet::from(["sha256:4567".to_owned()])).unwrap();
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 0);
        assert_eq!(cache.bytes(DIGEST), 0);
    }

    #[test]
    fn a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        put(&cache, b"code");
        let elsewhere = root.path().join("elsewhere");
        fs::rename(cache.code(DIGEST), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, cache.code(DIGEST)).unwrap();
        assert!(cache.get(DIGEST).is_err());
    }

    #[test]
    fn leftovers_go_when_it_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let old = cache(root.path());
        put(&old, b"code");
        std::mem::forget(old.begin().unwrap());
        let other = Cache::open(root.path().join("compiled"), "c1".into()).unwrap();
        assert_eq!(fs::read_dir(&other.folder).unwrap().count(), 0);
    }
}
