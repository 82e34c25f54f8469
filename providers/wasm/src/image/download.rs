//! Brings a blob from a registry to disk, and goes on where a connection broke.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::ImageStore;
use super::error::ImageError;
use super::flight::Progress;
use super::manifest::Descriptor;
use super::registry::{BlobStream, RegistryError, Session};
use super::store::{FileKey, Store};

/// Pieces of a blob that may wait for the disk.
const PIECES_IN_FLIGHT: usize = 16;
/// How long to wait before each attempt to go on with a broken download. A piece that arrives begins the list anew.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// A blob that breaks more often than this comes from somebody who means to keep the node busy.
const MAX_BREAKS: usize = 64;

impl ImageStore {
    /// Fetches a blob that is held. The next piece is fetched while the last one is written.
    pub(super) async fn fetch(
        &self,
        session: &mut Session,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let download = Download { session, blob, received: 0, breaks: 0, waits: WAITS.iter() };
        let stream = download.session.blob(&blob.digest, 0).await?;
        let (store, blob) = (self.store.clone(), blob.clone());
        let writing = tokio::task::spawn_blocking(move || write_blob(&store, &blob, receiver));
        let sent = download.run(stream, sender, progress).await;
        let written = writing.await?;
        // A blob that ended early does not match either: the reason is the better message.
        sent?;
        written
    }
}

/// A blob on its way.
struct Download<'a> {
    session: &'a mut Session,
    blob: &'a Descriptor,
    received: u64,
    breaks: usize,
    waits: std::slice::Iter<'static, Duration>,
}

impl Download<'_> {
    async fn run(
        mut self,
        mut stream: BlobStream,
        sender: mpsc::Sender<Bytes>,
        progress: &Progress,
    ) -> Result<(), RegistryError> {
        loop {
            match stream.next().await {
                Ok(None) => return Ok(()),
                Ok(Some(piece)) => {
                    progress.fetched(piece.len());
                    self.received += piece.len() as u64;
                    self.waits = WAITS.iter();
                    // Nobody writes any more: the writer says why.
                    if sender.send(piece).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error) => stream = self.go_on(error).await?,
            }
        }
    }

    /// Asks for the rest after `error`, a few times.
    async fn go_on(&mut self, mut error: RegistryError) -> Result<BlobStream, RegistryError> {
        self.breaks += 1;
        while error.may_pass() && self.breaks <= MAX_BREAKS {
            let Some(wait) = self.waits.next() else { break };
            tracing::debug!(digest = %self.blob.digest, received = self.received, %error, "a download broke");
            tokio::time::sleep(*wait).await;
            match self.session.blob(&self.blob.digest, self.received).await {
                Ok(stream) => return Ok(stream),
                Err(next) => error = next,
            }
        }
        Err(error)
    }
}

/// Writes a blob as it comes, and keeps it if it is what its digest says.
fn write_blob(store: &Store, blob: &Descriptor, mut pieces: mpsc::Receiver<Bytes>) -> Result<(), ImageError> {
    let mut draft = store.draft()?;
    while let Some(piece) = pieces.blocking_recv() {
        if draft.size() + piece.len() as u64 > blob.size {
            return Err(ImageError::WrongBlob(blob.digest.clone()));
        }
        draft.write_all(&piece)?;
    }
    let file = draft.finish()?;
    if file.digest != blob.digest || file.size != blob.size {
        return Err(ImageError::WrongBlob(blob.digest.clone()));
    }
    Ok(store.keep(&FileKey::blob(&blob.digest), file)?)
}
