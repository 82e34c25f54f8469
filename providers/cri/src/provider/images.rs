//! `ImageService`.

use async_trait::async_trait;
use coracle_provider::{
    ArtifactKind, Error, ErrorKind, FsUsage, Image, ImageService, ImageSpec, PullProgress, PullRequest,
    RegistryAuth, Result,
};
use tokio::sync::mpsc;

use super::CriProvider;
use crate::bindings as cri;
use crate::flights::detached;

#[async_trait]
impl ImageService for CriProvider {
    async fn pull_image(&self, request: PullRequest, _: Option<mpsc::Sender<PullProgress>>) -> Result<Image> {
        let image = named(&request.image)?;
        let message = cri::PullImageRequest {
            image: Some(image.clone()),
            auth: request.auth.map(auth),
            sandbox_config: None,
        };
        let client = self.shared.observer.client.clone();
        detached(async move {
            let reference = client.pull_image(&image.image, message).await?;
            let pulled = cri::ImageSpec { image: reference, ..image.clone() };
            let status = cri::ImageStatusRequest { image: Some(pulled), verbose: false };
            let present = client.image_status(status).await?.image;
            let lost = || Error::internal(format!("{:?} was pulled and is not there", image.image));
            present.map(convert).ok_or_else(lost)
        })
        .await
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let request = cri::ImageStatusRequest { image: Some(named(image)?), verbose: false };
        Ok(self.shared.observer.client.image_status(request).await?.image.map(convert))
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let listed = self.shared.observer.client.list_images(cri::ListImagesRequest::default()).await?;
        Ok(listed.images.into_iter().map(convert).collect())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let (request, client) =
            (cri::RemoveImageRequest { image: Some(named(image)?) }, self.shared.observer.client.clone());
        match detached(async move { client.remove_image(request).await }).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn image_fs_info(&self) -> Result<Vec<FsUsage>> {
        let answer = self.shared.observer.client.image_fs_info(cri::ImageFsInfoRequest {}).await?;
        answer.image_filesystems.into_iter().map(usage).collect()
    }
}

fn named(image: &ImageSpec) -> Result<cri::ImageSpec> {
    if image.image.is_empty() {
        return Err(Error::new(ErrorKind::InvalidImageName, "the image reference is empty"));
    }
    Ok(cri::ImageSpec {
        image: image.image.clone(),
        runtime_handler: image.runtime_handler.clone(),
        ..cri::ImageSpec::default()
    })
}

fn auth(auth: RegistryAuth) -> cri::AuthConfig {
    cri::AuthConfig {
        username: auth.username,
        password: auth.password.0,
        identity_token: auth.identity_token.0,
        registry_token: auth.registry_token.0,
        ..cri::AuthConfig::default()
    }
}

fn convert(image: cri::Image) -> Image {
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size_bytes: image.size,
        kind: ArtifactKind::RootFs,
        uid: image.uid.map(|it| it.value),
        username: image.username,
        annotations: image.spec.map(|it| it.annotations.into_iter().collect()).unwrap_or_default(),
        pinned: image.pinned,
    }
}

/// CRI says what images use; the file system says how much there is.
fn usage(usage: cri::FilesystemUsage) -> Result<FsUsage> {
    let mountpoint = usage.fs_id.map(|it| it.mountpoint).unwrap_or_default();
    let failed = |error| Error::internal(format!("the size of {mountpoint:?} cannot be read: {error}"));
    let all = rustix::fs::statvfs(&*mountpoint).map_err(failed)?;
    let value = |it: Option<cri::UInt64Value>| it.map_or(0, |it| it.value);
    Ok(FsUsage {
        used_bytes: value(usage.used_bytes),
        inodes_used: value(usage.inodes_used),
        capacity_bytes: all.f_blocks * all.f_frsize,
        available_bytes: all.f_bavail * all.f_frsize,
        mountpoint,
    })
}
