//! Whose the files are that guests see and make.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use coracle_provider::{ContainerConfig, ErrorKind, LinuxSecurityContext};

use crate::files::{GUESTS, mount, open_folder};
use crate::support::{Host, guest, strings};

/// Who a container is, as the kubelet says it: fsGroup is one of the groups.
#[derive(Clone, Copy, Debug, Default)]
struct User {
    user: Option<i64>,
    group: Option<i64>,
    groups: &'static [i64],
}

/// The exit code of a guest that works on files with a mount at /v.
async fn exit_code(host: &Host, module: &str, folder: &Path, args: &[&str], user: User) -> i32 {
    let adjust = |c: &mut ContainerConfig| {
        (c.args, c.mounts) = (strings(args), vec![mount(folder, "/v")]);
        c.linux.security = LinuxSecurityContext {
            run_as_user: user.user,
            run_as_group: user.group,
            supplemental_groups: user.groups.into(),
            ..LinuxSecurityContext::default()
        };
    };
    host.run_to_end(&guest(module), adjust).await.exit_code
}

/// Only root can be somebody else.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// For each file and each user, whether it can be read and written.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_rights_of_its_user_and_groups_and_no_others() {
    if !is_root() {
        // Not by a macro: the test harness would keep that to itself.
        writeln!(std::io::stderr(), "SKIPPED, needs root: users and groups of containers").unwrap();
        return;
    }
    let host = Host::start().await;
    let user = |user, group, groups| User { user: Some(user), group: Some(group), groups };
    let (owner, of_group, of_fs_group, other) =
        (user(1234, 0, &[]), user(5678, 4321, &[]), user(5678, 8765, &[99, 4321]), user(5678, 8765, &[99]));
    let by_default = User::default();
    // Mode, and who can do what with a file of 1234 and group 4321.
    let cases = [
        (0o600, [(owner, "rw"), (of_group, ""), (of_fs_group, ""), (other, ""), (by_default, "rw")]),
        (0o400, [(owner, "r"), (of_group, ""), (of_fs_group, ""), (other, ""), (by_default, "rw")]),
        (0o640, [(owner, "rw"), (of_group, "r"), (of_fs_group, "r"), (other, ""), (by_default, "rw")]),
        (0o060, [(owner, ""), (of_group, "rw"), (of_fs_group, "rw"), (other, ""), (by_default, "rw")]),
        (0o604, [(owner, "rw"), (of_group, ""), (of_fs_group, ""), (other, "r"), (by_default, "rw")]),
        (0o666, [(owner, "rw"), (of_group, "rw"), (of_fs_group, "rw"), (other, "rw"), (by_default, "rw")]),
    ];
    for module in GUESTS {
        let folder = open_folder(&host, module);
        let file = folder.join("file");
        for (mode, users) in cases {
            for (user, expected) in users {
                fs::write(&file, "content").unwrap();
                chown(&file, Some(1234), Some(4321)).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
                let can = async |args: &[&str]| exit_code(&host, module, &folder, args, user).await == 0;
                let (reads, writes) =
                    (can(&["cat", "/v/file"]).await, can(&["append", "/v/file", "x"]).await);
                let found = format!("{}{}", if reads { "r" } else { "" }, if writes { "w" } else { "" });
                assert_eq!(found, expected, "{module}, mode {mode:o}, {user:?}");
                fs::remove_file(&file).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_makes_belongs_to_its_user_and_group() {
    let host = Host::start().await;
    for module in GUESTS {
        let folder = open_folder(&host, module);
        let made = async |name: &str, user| {
            let args = ["write", &format!("/v/{name}"), "x"];
            assert_eq!(exit_code(&host, module, &folder, &args, user).await, 0, "{module} {name}");
            let meta = fs::metadata(folder.join(name)).unwrap();
            (meta.uid(), meta.gid())
        };
        let user = User { user: Some(1234), group: Some(567), groups: &[4321] };
        if !is_root() {
            // Nothing can be given to others.
            assert_eq!(made("new", user).await.0, rustix::process::geteuid().as_raw());
            continue;
        }
        assert_eq!(made("own", user).await, (1234, 567), "{module}");
        assert_eq!(made("by-root", User::default()).await, (0, 0), "{module}");
        // As volumes are given to fsGroup.
        chown(&folder, None, Some(4321)).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o2775)).unwrap();
        assert_eq!(made("of-volume", user).await, (1234, 4321), "{module}");
        // Not everybody may make, remove and rename files there.
        let stranger = User { groups: &[], ..user };
        for args in [&["write", "/v/no", "x"][..], &["rm", "/v/own"], &["rename", "/v/own", "/v/no"]] {
            assert_eq!(exit_code(&host, module, &folder, args, stranger).await, 1, "{module} {args:?}");
        }
        let args = ["rename", "/v/own", "/v/renamed", "rm", "/v/renamed"];
        assert_eq!(exit_code(&host, module, &folder, &args, user).await, 0, "{module}");
    }
    let own = fs::metadata("/proc/thread-self").unwrap();
    assert_eq!(own.uid(), rustix::process::geteuid().as_raw(), "the process itself is who it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_has_only_a_name_is_refused() {
    let host = Host::start().await;
    let named = |c: &mut ContainerConfig| c.linux.security.run_as_username = "www-data".into();
    let created = host.try_create(&guest("files"), named).await;
    if is_root() {
        let error = created.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.contains("\"www-data\"") && error.message.contains("runAsUser"), "{error}");
    } else {
        created.unwrap();
    }
}
