//! Reads the entries of a layer: a tar archive with the extensions that image builders use.

use std::io::Read;

use tar::{Archive, EntryType};

use super::RootfsError;

/// Linux has no paths longer than 4,096 bytes, and attributes of a file are small. More would be for filling the
/// node's memory, into which extensions are read.
const MAX_EXTENSION_BYTES: u64 = 128 * 1024;

/// What an entry is, as far as it matters for finding a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// So many bytes, at that position of the unpacked layer.
    File {
        position: u64,
        size: u64,
    },
    /// The text of a symbolic link.
    Symlink(String),
    /// The path of another entry.
    Hardlink(String),
    /// Devices and pipes: they only hide what lies below.
    Other,
}

/// One entry of a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it is written in the archive.
    pub(super) path: String,
    pub(super) kind: Kind,
}

/// Calls `apply` with every entry, in order.
///
/// Extensions are read here and not by the tar library, which takes names of any length into memory.
pub(super) fn for_each(
    layer: impl Read,
    mut apply: impl FnMut(Entry) -> Result<(), RootfsError>,
) -> Result<(), RootfsError> {
    let mut archive = Archive::new(layer);
    let mut extensions = Extensions::default();
    for raw in archive.entries().map_err(RootfsError::damaged)?.raw(true) {
        let mut raw = raw.map_err(RootfsError::damaged)?;
        match raw.header().entry_type() {
            EntryType::GNULongName => extensions.path = Some(until_nul(&read_extension(&mut raw)?)),
            EntryType::GNULongLink => extensions.link = Some(until_nul(&read_extension(&mut raw)?)),
            EntryType::XHeader => extensions.read_pax(&read_extension(&mut raw)?)?,
            EntryType::XGlobalHeader => {}
            _ => apply(std::mem::take(&mut extensions).describe(&raw)?)?,
        }
    }
    Ok(())
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Extensions {
    /// Reads records of the form `<length> <key>=<value>\n`. Values may hold any bytes, line feeds too.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), RootfsError> {
        let malformed = || RootfsError::damaged("malformed pax extension");
        while !records.is_empty() {
            let digits = records.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let length: usize =
                String::from_utf8_lossy(&records[..digits]).parse().map_err(|_| malformed())?;
            let record = records.get(digits..length).ok_or_else(malformed)?;
            records = &records[length..];

            let record =
                record.strip_prefix(b" ").and_then(|r| r.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let value = String::from_utf8_lossy(&record[equals + 1..]);
            match &record[..equals] {
                b"path" => self.path = Some(value.into_owned()),
                b"linkpath" => self.link = Some(value.into_owned()),
                b"size" => self.size = Some(value.parse().map_err(|_| malformed())?),
                key if key.starts_with(b"GNU.sparse.") => return Err(SPARSE),
                _ => {}
            }
        }
        Ok(())
    }

    /// The entry that `raw` is, with what was said about it before.
    fn describe(self, raw: &tar::Entry<'_, impl Read>) -> Result<Entry, RootfsError> {
        let header = raw.header();
        let size = header.entry_size().map_err(RootfsError::damaged)?;
        // Tools that believe the one and tools that believe the other would see different files.
        if self.size.is_some_and(|said| said != size) {
            return Err(RootfsError::Hostile("a file of two sizes"));
        }
        let path = self.path.unwrap_or_else(|| lossy(&header.path_bytes()));
        let link = || self.link.unwrap_or_else(|| lossy(&header.link_name_bytes().unwrap_or_default()));
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            // As old archives write directories.
            EntryType::Regular if path.ends_with('/') => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                Kind::File { position: raw.raw_file_position(), size }
            }
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::Hardlink(link()),
            EntryType::GNUSparse => return Err(SPARSE),
            _ => Kind::Other,
        };
        Ok(Entry { path, kind })
    }
}

const SPARSE: RootfsError = RootfsError::Unsupported("a sparse file");

fn read_extension(entry: &mut impl Read) -> Result<Vec<u8>, RootfsError> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION_BYTES + 1).read_to_end(&mut bytes).map_err(RootfsError::damaged)?;
    match bytes.len() as u64 > MAX_EXTENSION_BYTES {
        true => Err(RootfsError::Hostile("an endless file name")),
        false => Ok(bytes),
    }
}

fn until_nul(bytes: &[u8]) -> String {
    lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
