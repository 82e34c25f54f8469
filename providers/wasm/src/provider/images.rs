//! `ImageService`: the image store, on the runtime for decisions.

use async_trait::async_trait;
use coracle_provider::{FsUsage, Image, ImageService, ImageSpec, PullProgress, PullRequest, Result};
use tokio::sync::mpsc;

use super::WasmProvider;

#[async_trait]
impl ImageService for WasmProvider {
    async fn pull_image(
        &self,
        request: PullRequest,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> Result<Image> {
        let images = self.shared.images.clone();
        // Compilers inherit the namespaces of the thread that starts them.
        self.spawned(async move { images.pull(request, progress).await }).await
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.shared.images.status(image).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self.shared.images.list())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let (images, image) = (self.shared.images.clone(), image.clone());
        self.spawned(async move { images.remove(&image).await }).await
    }

    async fn image_fs_info(&self) -> Result<Vec<FsUsage>> {
        let images = self.shared.images.clone();
        Ok(vec![self.spawned(async move { images.fs_info().await }).await?])
    }
}
