//! Images.

use super::{Program, Subject};
use crate::{ErrorKind, ImageSpec, PullRequest};

/// Pulling twice is one image, removing twice is success.
pub async fn an_image_is_there_once_it_is_pulled_and_until_it_is_removed(subject: &impl Subject) {
    let provider = subject.provider();
    let image = ImageSpec::new(subject.program(Program::Stays).0);
    assert_eq!(provider.image_status(&image).await.unwrap(), None);
    let pull = || provider.pull_image(PullRequest { image: image.clone(), ..PullRequest::default() }, None);
    let (first, second) = tokio::join!(pull(), pull());
    let pulled = first.unwrap();
    assert_eq!(pulled.id, second.unwrap().id);
    assert_eq!(provider.image_status(&image).await.unwrap().map(|image| image.id), Some(pulled.id.clone()));
    let ids: Vec<_> = provider.list_images().await.unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(ids, [pulled.id]);
    provider.remove_image(&image).await.unwrap();
    provider.remove_image(&image).await.unwrap();
    assert_eq!(provider.image_status(&image).await.unwrap(), None);
    assert!(provider.list_images().await.unwrap().is_empty());
}

/// By an error that the pipeline can tell from others.
pub async fn an_image_that_is_not_there_is_told(subject: &impl Subject) {
    let image = ImageSpec::new(subject.missing_image());
    let request = PullRequest { image: image.clone(), ..PullRequest::default() };
    let error = subject.provider().pull_image(request, None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::ImageUnusable, "{error}");
    assert_eq!(subject.provider().image_status(&image).await.unwrap(), None);
    let error = subject.provider().image_status(&ImageSpec::new("")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidImageName, "{error}");
}
