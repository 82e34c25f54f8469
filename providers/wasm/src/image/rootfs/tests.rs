//! Layers as builders make them, and as nobody should.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

const MAX: u64 = 16 << 20;

/// A layer in the making.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        // Past the checks of the library: hostile archives are not made with it.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_link_name_literal(link).unwrap();
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(EntryType::Regular, path, "", data.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The layers of an image on disk.
struct Image {
    _dir: TempDir,
    layers: Vec<PathBuf>,
}

impl Image {
    fn of(layers: Vec<Vec<u8>>) -> Self {
        let dir = TempDir::new().unwrap();
        let write = |(number, bytes): (usize, Vec<u8>)| {
            let path = dir.path().join(number.to_string());
            fs::write(&path, bytes).unwrap();
            path
        };
        let layers = layers.into_iter().enumerate().map(write).collect();
        Self { _dir: dir, layers }
    }

    fn read_within(&self, path: &str, max_bytes: u64) -> Result<String, String> {
        let location = locate(&self.layers, &[path.to_owned()], max_bytes).map_err(|e| e.to_string())?;
        let mut content = Vec::new();
        copy(&self.layers, location, &mut content).map_err(|e| e.to_string())?;
        assert_eq!(content.len() as u64, location.size);
        Ok(String::from_utf8(content).unwrap())
    }

    fn read(&self, path: &str) -> Result<String, String> {
        self.read_within(path, MAX)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_topmost_layer_that_has_the_file_wins() {
    let image = Image::of(vec![
        Layer::new().dir("bin/").file("bin/a.wasm", "low").file("./b.wasm", "only low").bytes(),
        gzip(&Layer::new().file("/other", "x").file("/bin/a.wasm", "high").bytes()),
        Layer::new().file("unrelated", "y").bytes(),
    ]);
    assert_eq!(image.read("/bin/a.wasm").unwrap(), "high");
    assert_eq!(image.read("bin/./../bin//a.wasm").unwrap(), "high");
    assert_eq!(image.read("/b.wasm").unwrap(), "only low");
    assert!(image.read("/bin").unwrap_err().contains("has no file \"/bin\""));
    assert!(image.read("/c.wasm").unwrap_err().contains("has no file \"/c.wasm\""));
}

#[test]
fn the_first_path_that_exists_is_taken() {
    let image = Image::of(vec![Layer::new().file("a.wasm", "root").bytes()]);
    let paths = ["/srv/a.wasm".to_owned(), "/a.wasm".to_owned()];
    assert_eq!(locate(&image.layers, &paths, MAX).unwrap().size, 4);
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    let image = Image::of(vec![
        Layer::new().file("a/1", "1").file("a/2", "2").file("b/deep/3", "3").file("c/4", "4").bytes(),
        Layer::new()
            .file("a/.wh.1", "")
            .file("a/new", "new")
            .file(".wh.b", "")
            .file("c/5", "5")
            .file("c/.wh..wh..opq", "")
            .file(".wh..wh.plnk", "")
            .bytes(),
        Layer::new().file("a/1", "back").bytes(),
    ]);
    assert_eq!(image.read("a/1").unwrap(), "back");
    assert_eq!(image.read("a/2").unwrap(), "2");
    assert_eq!(image.read("a/new").unwrap(), "new");
    assert!(image.read("b/deep/3").is_err());
    assert!(image.read("c/4").is_err());
    assert_eq!(image.read("c/5").unwrap(), "5");
    assert!(image.read(".wh.b").is_err() && image.read("c/.wh..wh..opq").is_err());
}

#[test]
fn links_are_followed_inside_the_image_only() {
    let image = Image::of(vec![
        Layer::new()
            .file("usr/bin/a.wasm", "real")
            .symlink("bin", "usr/bin")
            .symlink("out", "../../../../usr/bin/./a.wasm")
            .symlink("deep/absolute", "/bin/a.wasm")
            .symlink("conf", "/etc")
            .hardlink("hard", "usr/bin/a.wasm")
            .hardlink("dangling", "usr/bin/none")
            .bytes(),
        // Goes where the link of the lower layer leads to.
        Layer::new().file("bin/b.wasm", "through").bytes(),
    ]);
    for path in ["/bin/a.wasm", "/out", "/deep/absolute", "/hard"] {
        assert_eq!(image.read(path).unwrap(), "real", "{path}");
    }
    assert_eq!(image.read("/usr/bin/b.wasm").unwrap(), "through");
    for path in ["/conf/passwd", "/dangling", "/../../etc/passwd"] {
        assert!(image.read(path).unwrap_err().contains("has no file"), "{path}");
    }
}

#[test]
fn a_file_in_the_place_of_a_directory_hides_it() {
    let image = Image::of(vec![
        Layer::new().file("a/b", "old").file("a0", "neighbour").bytes(),
        Layer::new().file("a", "new").bytes(),
    ]);
    assert_eq!(image.read("a").unwrap(), "new");
    assert_eq!(image.read("a0").unwrap(), "neighbour");
    assert!(image.read("a/b").is_err());
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let long = format!("{}/a.wasm", "d".repeat(200));
    let pax_value = format!("path={long}\n");
    let record = |text: &str| {
        let length = text.len() + 1;
        let digits = (length + 3).to_string().len();
        format!("{} {text}", length + digits)
    };
    // A binary attribute with a line feed in it comes first.
    let pax = record("SCHILY.xattr.security.capability=\x01\n\x02\n") + &record(&pax_value);
    let layer = Layer::new()
        .add(EntryType::XHeader, "pax", "", pax.as_bytes())
        .file("short", "pax")
        .add(EntryType::GNULongName, "././@LongLink", "", format!("{long}.gnu\0").as_bytes())
        .file("short", "gnu")
        .add(EntryType::GNULongLink, "././@LongLink", "", format!("{long}\0").as_bytes())
        .symlink("link", "short");
    let image = Image::of(vec![layer.bytes()]);
    assert_eq!(image.read(&long).unwrap(), "pax");
    assert_eq!(image.read(&format!("{long}.gnu")).unwrap(), "gnu");
    assert_eq!(image.read("link").unwrap(), "pax");
}

#[test]
fn hostile_layers_are_refused() {
    let circle = Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "").bytes();
    let endless = vec![b'a'; 256 * 1024];
    let mut sparse_header = Header::new_gnu();
    sparse_header.set_entry_type(EntryType::GNUSparse);
    sparse_header.set_size(0);
    sparse_header.set_cksum();
    let mut sparse = Builder::new(Vec::new());
    sparse.append(&sparse_header, &b""[..]).unwrap();
    for (layer, reason) in [
        (Layer::new().file("../../etc/passwd", "x").bytes(), "leads out of it"),
        (Layer::new().file("a/../../b", "x").bytes(), "leads out of it"),
        (Layer::new().hardlink("a", "../../etc/passwd").bytes(), "leads out of it"),
        (circle, "in a circle"),
        (Layer::new().add(EntryType::GNULongName, "l", "", &endless).file("a", "").bytes(), "endless"),
        (
            Layer::new().add(EntryType::GNULongName, "l", "", &endless[..5000]).file("a", "").bytes(),
            "endless",
        ),
        (Layer::new().add(EntryType::XHeader, "p", "", &endless).file("a", "").bytes(), "endless"),
        (Layer::new().add(EntryType::XHeader, "p", "", b"9 size=7\n").file("a", "x").bytes(), "two sizes"),
        (Layer::new().add(EntryType::XHeader, "p", "", b"99 size=7\n").file("a", "x").bytes(), "malformed"),
        (Layer::new().add(EntryType::XHeader, "p", "", b"0 size=7\n").file("a", "x").bytes(), "malformed"),
        (sparse.into_inner().unwrap(), "sparse"),
        (b"this is no archive, but long enough to be taken for a header".repeat(20), "damaged layer"),
        (gzip(&Layer::new().file("a", "x").bytes())[..40].to_vec(), "damaged layer"),
        (Layer::new().file("a", &"x".repeat(5000)).bytes()[..2048].to_vec(), "damaged layer"),
    ] {
        let message = Image::of(vec![layer]).read("/a").expect_err(reason);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn a_layer_that_unpacks_to_too_much_is_given_up() {
    let bomb = gzip(&Layer::new().file("zeros", &"\0".repeat(8 << 20)).file("a", "x").bytes());
    assert!(bomb.len() < 64 * 1024);
    let image = Image::of(vec![bomb.clone(), bomb]);
    assert_eq!(image.read_within("a", 32 << 20).unwrap(), "x");
    assert!(image.read_within("a", 12 << 20).unwrap_err().contains("12582912 bytes or more"));
}

#[test]
fn links_upon_links_and_floods_of_names_end_soon() {
    // Every insertion resolves 39 links of two components each, through long names.
    let long = "d".repeat(90);
    let mut layer = Layer::new();
    for i in 0..39 {
        layer = layer.symlink(&format!("l{i}"), &format!("{long}/../l{}", i + 1));
    }
    for i in 0..60_000 {
        layer = layer.file(&format!("l0/{i}"), "");
    }
    let started = std::time::Instant::now();
    let flood = Image::of(vec![layer.bytes()]).read_within("a", 1 << 30);
    assert!(flood.unwrap_err().contains("more files than"));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
