//! Notices of the kernel about a folder.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// A watch on one folder. Dropping it ends the watch.
pub(crate) struct Inotify {
    descriptor: AsyncFd<OwnedFd>,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) flags: ReadFlags,
    /// The file in the folder that it is about; none if it is about the folder.
    pub(crate) name: Option<OsString>,
}

impl Inotify {
    /// Watches a folder from now on. Fails if it is not there, or the kernel grants no more watches.
    pub(crate) fn watch(folder: &Path, flags: WatchFlags) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, folder, flags)?;
        Ok(Self { descriptor: register(inotify)? })
    }

    /// Waits for notices. Nothing since the last call is missed; dropping the future loses nothing.
    pub(crate) async fn notices(&self) -> Vec<Notice> {
        loop {
            let Ok(mut ready) = self.descriptor.readable().await else {
                // The runtime is going down.
                return std::future::pending().await;
            };
            if let Ok(Ok(notices)) = ready.try_io(|descriptor| read(descriptor.get_ref())) {
                return notices;
            }
        }
    }
}

#[allow(unsafe_code)]
fn register(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

fn read(descriptor: &OwnedFd) -> io::Result<Vec<Notice>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    let mut notices = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                notices.push(Notice { flags: event.events(), name });
            }
            Err(Errno::WOULDBLOCK) if !notices.is_empty() => return Ok(notices),
            Err(error) => return Err(error.into()),
        }
    }
}
