//! subPath against containers that play tricks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_core::ports::VolumeError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::support::mode;
use crate::subpath::{open, real_path};

/// A volume, and beside it what must not be reached.
struct Bed {
    _dir: TempDir,
    volume: PathBuf,
    outside: PathBuf,
}

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(dir.path()).unwrap();
    let (volume, outside) = (real.join("volume"), real.join("outside"));
    fs::create_dir(&volume).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    Bed { _dir: dir, volume, outside }
}

fn find(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    real_path(&open(volume, sub_path)?, volume)
}

#[test]
fn finds_what_is_there() {
    let bed = bed();
    fs::create_dir_all(bed.volume.join("dir/inner")).unwrap();
    fs::write(bed.volume.join("dir/file"), "").unwrap();
    symlink("dir", bed.volume.join("link")).unwrap();
    symlink("../dir/file", bed.volume.join("dir/up")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bed.volume.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let table = [
        ("dir", "dir"),
        ("dir/", "dir"),
        ("dir//inner", "dir/inner"),
        ("./dir/.", "dir"),
        ("dir/file", "dir/file"),
        ("link/inner", "dir/inner"),
        ("dir/up", "dir/file"),
        // Opening it must not wait for a writer.
        ("fifo", "fifo"),
    ];
    for (sub_path, expected) in table {
        assert_eq!(find(&bed.volume, sub_path).unwrap(), bed.volume.join(expected), "{sub_path}");
    }
}

#[test]
fn makes_what_is_missing_with_the_volumes_permissions() {
    for permissions in [0o755, 0o777, 0o2770, 0o1777] {
        let bed = bed();
        fs::set_permissions(&bed.volume, fs::Permissions::from_mode(permissions)).unwrap();
        assert_eq!(find(&bed.volume, "a/b/./c").unwrap(), bed.volume.join("a/b/c"));
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(mode(bed.volume.join(made)), permissions, "{made}");
        }
        // What was there before keeps its own.
        fs::set_permissions(bed.volume.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        find(&bed.volume, "a/new").unwrap();
        assert_eq!(mode(bed.volume.join("a")), 0o700);
    }
}

#[test]
fn refuses_paths_that_leave_by_themselves() {
    let bed = bed();
    for sub_path in ["/etc", "..", "../outside", "a/../../outside", "a/.."] {
        assert!(matches!(find(&bed.volume, sub_path), Err(VolumeError::Invalid(_))), "{sub_path}");
    }
    assert_eq!(fs::read_dir(&bed.volume).unwrap().count(), 0);
}

#[test]
fn refuses_links_that_leave() {
    let bed = bed();
    let link = |name: &str, target: &str| symlink(target, bed.volume.join(name)).unwrap();
    link("absolute", bed.outside.to_str().unwrap());
    link("relative", "../outside");
    link("far", "../../../../../../../../../../etc");
    link("file", "../outside/secret");
    link("chain", "relative");
    link("magic", "/proc/self/root");
    link("dangling-out", "../outside/new");
    link("loop", "loop");
    let table = [
        "absolute",
        "relative",
        "far",
        "file",
        "chain",
        "magic",
        "dangling-out",
        "loop",
        "relative/secret",
        "relative/made",
        "absolute/made",
        "chain/made/deep",
        "dangling-out/made",
    ];
    for sub_path in table {
        let error = find(&bed.volume, sub_path).unwrap_err().to_string();
        assert!(!error.contains("outside"), "tells about the host: {error}");
    }
    // Nothing was made on the other side.
    assert_eq!(fs::read_dir(&bed.outside).unwrap().count(), 1);
}

#[test]
fn does_not_make_what_a_link_to_nothing_points_to() {
    let bed = bed();
    symlink("nothing", bed.volume.join("dangling")).unwrap();
    assert!(find(&bed.volume, "dangling").is_err());
    assert!(find(&bed.volume, "dangling/below").is_err());
    assert!(!bed.volume.join("nothing").exists());
}

#[test]
fn a_container_that_swaps_a_directory_for_a_link_gets_nowhere() {
    let bed = bed();
    let (target, other) = (bed.volume.join("target"), bed.volume.join("other"));
    fs::create_dir(&target).unwrap();
    symlink("../outside", &other).unwrap();
    let outside = fs::metadata(&bed.outside).unwrap().ino();
    let done = AtomicBool::new(false);
    let (mut found, mut refused, mut escaped) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &target, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while (found < 1000 || refused < 1000) && Instant::now() < deadline {
            for sub_path in ["target", "target/below"] {
                match open(&bed.volume, sub_path) {
                    Ok(file) => {
                        found += 1;
                        let is_outside = rustix::fs::fstat(&file).unwrap().st_ino == outside;
                        escaped += usize::from(is_outside || real_path(&file, &bed.volume).is_err());
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(escaped, 0);
    assert!(found > 0 && refused > 0, "{found} times the directory, {refused} times the link");
    assert_eq!(fs::read_dir(&bed.outside).unwrap().count(), 1, "something was made outside");
}
