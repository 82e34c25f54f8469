//! Notices of the kernel about folders.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Watches on folders. Dropping it ends them.
pub(crate) struct Inotify {
    descriptor: AsyncFd<OwnedFd>,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Notice {
    /// Which watch gives it; negative if some were lost, whichever they were for.
    pub(crate) watch: i32,
    pub(crate) flags: ReadFlags,
    /// The file in the folder that it is about; none if it is about the folder.
    pub(crate) name: Option<OsString>,
}

impl Inotify {
    /// Watches nothing yet. Fails if the kernel grants the user no more instances.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { descriptor: register(inotify)? })
    }

    /// Watches a folder from now on. Fails if it is not there, or the kernel grants no more watches.
    pub(crate) fn watch(folder: &Path, flags: WatchFlags) -> io::Result<Self> {
        let inotify = Self::new()?;
        inotify.add(folder, flags)?;
        Ok(inotify)
    }

    /// Watches one more folder from now on. The number is the same for the same folder.
    pub(crate) fn add(&self, folder: &Path, flags: WatchFlags) -> io::Result<i32> {
        Ok(inotify::add_watch(self.descriptor.get_ref(), folder, flags)?)
    }

    /// Ends a watch. One whose folder is gone has ended already.
    pub(crate) fn remove(&self, watch: i32) {
        _ = inotify::remove_watch(self.descriptor.get_ref(), watch);
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
                notices.push(Notice { watch: event.wd(), flags: event.events(), name });
            }
            Err(Errno::WOULDBLOCK) if !notices.is_empty() => return Ok(notices),
            Err(error) => return Err(error.into()),
        }
    }
}
