//! What guests do with files: where they end, and what becomes of those that hang.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_provider::{ContainerConfig, ContainerState, Mount, RuntimeService, StreamingService};

use crate::client::Client;
use crate::support::{Host, guest, log, strings, unique, within, written};

/// All kinds of guests that know files.
pub(crate) const GUESTS: [&str; 3] = ["files", "files-p2", "files-p3"];

pub(crate) fn mount(host_path: &Path, container_path: &str) -> Mount {
    Mount { container_path: container_path.into(), host_path: host_path.into(), ..Mount::default() }
}

/// A folder that everybody may write to.
pub(crate) fn open_folder(host: &Host, name: &str) -> PathBuf {
    let folder = host.folder.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A named pipe that nobody writes to: who opens it hangs, as on a mount whose server is gone. Dropping it lets them go,
/// and who comes later finds nothing: a test that fails must not hang in their threads.
pub(crate) struct Fifo(PathBuf);

impl Fifo {
    pub(crate) fn new(path: PathBuf) -> Self {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Self(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // Open for both, which waits for nobody.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(&self.0);
        let _ = fs::remove_file(&self.0);
        drop(pipe);
    }
}

/// The exit code of a guest that works on files with a mount at /v.
async fn exit_code(host: &Host, module: &str, folder: &Path, args: &[&str]) -> i32 {
    let ended = host
        .run_to_end(&guest(module), |c| {
            c.args = strings(args);
            c.mounts = vec![mount(folder, "/v")];
        })
        .await;
    ended.exit_code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_mount_holds_up_its_own_container_only() {
    // As many threads for all as one container has for itself.
    let host = Host::start_with(|options| options.guests.file_threads = 4).await;
    let folder = open_folder(&host, "hung");
    let _pipe = Fifo::new(folder.join("pipe"));
    fs::write(folder.join("file"), "content").unwrap();
    let mut hung = Vec::new();
    for module in GUESTS.into_iter().cycle().take(12) {
        let container = host
            .run(&guest(module), |c| {
                c.args = strings(&["cat", "/v/pipe"]);
                c.mounts = vec![Mount { of_node: true, ..mount(&folder, "/v") }];
            })
            .await;
        hung.push(container);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for module in GUESTS {
        let code = within(exit_code(&host, module, &folder, &["cat", "/v/file", "write", "/v/x", "y"])).await;
        assert_eq!(code, 0, "{module}");
    }
    for container in &hung {
        assert_eq!(host.status(container).await.state, ContainerState::Running);
        let stopped = within(host.provider.stop_container(&container.id, Duration::ZERO)).await.unwrap();
        assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, 137));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hung_in_a_container_s_last_life_counts_in_its_next_one() {
    let host = Host::start().await;
    let folder = open_folder(&host, "hung");
    let pipe = Fifo::new(folder.join("pipe"));
    let sandbox = host.sandbox(&unique()).await;
    let image_ref = host.pull(&guest("files")).await.unwrap();
    fs::write(folder.join("file"), "content").unwrap();
    let live = async |attempt: u32, file: &str| {
        let config = ContainerConfig {
            name: "c".into(),
            attempt,
            image_ref: image_ref.clone(),
            args: strings(&["cat", file]),
            mounts: vec![Mount { of_node: true, ..mount(&folder, "/v") }],
            log_path: format!("c/{attempt}.log").into(),
            ..ContainerConfig::default()
        };
        let container = host.provider.create_container(&sandbox.id, config).await.unwrap();
        host.provider.start_container(&container.id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        container
    };
    for attempt in 0..10 {
        let hung = live(attempt, "/v/pipe").await;
        let stopped = within(host.provider.stop_container(&hung.id, Duration::ZERO)).await.unwrap();
        assert_eq!(stopped.exit_code, 137);
    }
    // All of its threads hang, and it gets no others.
    let waiting = live(10, "/v/file").await;
    assert_eq!(host.status(&waiting).await.state, ContainerState::Running);
    drop(pipe);
    assert_eq!(within(host.end_of(&waiting)).await.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_stays_in_its_folders() {
    let host = Host::start().await;
    for module in GUESTS {
        let (folder, outside) =
            (open_folder(&host, &format!("{module}-in")), open_folder(&host, &format!("{module}-out")));
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::create_dir(folder.join("deep")).unwrap();
        symlink(outside.join("secret"), folder.join("absolute")).unwrap();
        symlink(format!("../{module}-out/secret"), folder.join("relative")).unwrap();
        symlink(&outside, folder.join("folder")).unwrap();
        symlink("../..", folder.join("deep/up")).unwrap();
        symlink("/proc/self/cwd", folder.join("magic")).unwrap();
        symlink(outside.join("planted"), folder.join("dangling")).unwrap();
        let out = format!("{module}-out");
        for attempt in [
            &["cat", "/v/absolute"][..],
            &["cat", "/v/relative"],
            &["cat", "/v/folder/secret"],
            &["cat", &format!("/v/deep/up/{out}/secret")],
            &["cat", &format!("/v/../{out}/secret")],
            &["cat", &format!("/v/deep/../../{out}/secret")],
            &["ls", "/v/folder"],
            &["ls", "/v/magic/"],
            &["write", "/v/dangling", "x"],
            &["write", "/v/folder/planted", "x"],
            &["link", "/v/absolute", "/v/linked", "cat", "/v/linked"],
            &["link", "/v/folder/secret", "/v/linked"],
            &["rename", "/v/folder/secret", "/v/moved"],
            &["rm", "/v/folder/secret"],
        ] {
            assert_eq!(exit_code(&host, module, &folder, attempt).await, 1, "{module} {attempt:?}");
            let _ = fs::remove_file(folder.join("linked"));
        }
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"]);
        assert_eq!(exit_code(&host, module, &folder, &["write", "/v/deep/up/x", "y"]).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_becomes_a_link_while_it_is_opened_leads_nowhere() {
    let host = Host::start().await;
    let (folder, outside) = (open_folder(&host, "in"), open_folder(&host, "out"));
    fs::write(outside.join("file"), "secret").unwrap();
    let real = folder.join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("file"), "harmless").unwrap();
    symlink(&outside, folder.join("link")).unwrap();
    let (racing, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let racer = {
        let (racing, done, folder) = (racing.clone(), done.clone(), folder.clone());
        std::thread::spawn(move || {
            let at = |name: &str| folder.join(name);
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [("real", "d"), ("d", "real"), ("link", "d"), ("d", "link")] {
                    fs::rename(at(from), at(to)).unwrap();
                }
                racing.store(true, Ordering::Relaxed);
                // The kernel has whoever opens a path below a folder try again while something is renamed: without a
                // pause, a busy machine makes that a very long time.
                std::thread::sleep(Duration::from_micros(20));
            }
        })
    };
    for module in GUESTS {
        let code = exit_code(&host, module, &folder, &["never", "/v/d/file", "secret"]).await;
        assert_eq!(code, 0, "{module}");
    }
    assert!(racing.load(Ordering::Relaxed));
    done.store(true, Ordering::Relaxed);
    racer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_lie_in_one_another_and_each_is_what_it_is() {
    let host = Host::start().await;
    let (outer, inner) = (open_folder(&host, "outer"), open_folder(&host, "inner"));
    fs::write(inner.join("file"), "inner").unwrap();
    fs::create_dir(outer.join("in")).unwrap();
    fs::write(outer.join("in/file"), "hidden").unwrap();
    for module in GUESTS {
        let run = async |args: &[&str]| {
            let mounts = vec![
                mount(&outer, "/v"),
                Mount { read_only: true, ..mount(&inner, "/v/in") },
                mount(&outer, "/v/in/again"),
            ];
            host.run_to_end(&guest(module), |c| (c.args, c.mounts) = (strings(args), mounts)).await
        };
        let ended = run(&["write", "/v/file", "outer", "cat", "/v/in/file", "cat", "/v/in/again/file"]).await;
        assert_eq!(
            (ended.exit_code, &log(&ended)[..]),
            (0, &strings(&["stdout P innerouter"])[..]),
            "{module}"
        );
        assert_eq!(run(&["write", "/v/in/file", "x"]).await.exit_code, 1, "{module}");
        assert_eq!(run(&["link", "/v/in/file", "/v/linked"]).await.exit_code, 1, "{module}");
        assert_eq!(run(&["rename", "/v/in/file", "/v/moved"]).await.exit_code, 1, "{module}");
    }
    assert_eq!(fs::read_to_string(inner.join("file")).unwrap(), "inner");
}

/// Containers with threads of their own for files are polled in another context than others: it has to have everything.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_clocks_and_requests_work_beside_a_container_s_own_threads() {
    let host = Host::start().await;
    let folder = open_folder(&host, "node");
    fs::write(folder.join("file"), "content").unwrap();
    let own = |c: &mut ContainerConfig| {
        c.mounts = vec![Mount { of_node: true, ..mount(&folder, "/v") }];
        c.linux.security.run_as_user = Some(1234);
    };
    for module in ["stay", "stay-p2"] {
        let ticking = host
            .run(&guest(module), |c| {
                c.args = strings(&["tick", "1"]);
                own(c);
            })
            .await;
        within(async {
            while log(&ticking).len() < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        host.provider.stop_container(&ticking.id, Duration::ZERO).await.unwrap();
    }

    let address = format!("127.0.0.1:{}", crate::services::free_port());
    let server = host
        .run(&guest("tcp"), |c| {
            c.args = strings(&["serve", &address]);
            own(c);
        })
        .await;
    written(&server).await;
    let call = strings(&["tcp", "call", &address, "hello"]);
    let answer = within(host.provider.exec_sync(&server.id, &call, Duration::ZERO)).await.unwrap();
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.exit_code == 0 && said.ends_with("hello\n"), "{said}");

    let (service, address) = crate::services::serve(&host, |c| own(c)).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/hello").await.0, 200);
    assert_eq!(client.get("/file/v/file").await.1, "content");
    assert_eq!(client.get(&format!("/fetch/{address}/again")).await.0, 200);
    let stopped = host.provider.stop_container(&service.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(stopped.exit_code, 0, "{}", stopped.message);
}
