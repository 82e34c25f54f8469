//! Patience with the node authorizer.

use std::time::Duration;

use coracle_core::ports::ApiError;

/// Short waits that grow from 2 ms to 512 ms: about a second in all.
const FIRST_DELAY: Duration = Duration::from_millis(2);
const LAST_DELAY: Duration = Duration::from_millis(512);

/// Repeats a call while the apiserver has not yet noticed that the pod is bound to this node.
///
/// A pod can arrive here before the apiserver's own caches know of it: the node authorizer's graph and the lister of
/// the NodeRestriction admission plugin lag some milliseconds behind the watch that brought the pod.
pub(crate) async fn until_related<T, F>(mut call: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut delay = FIRST_DELAY;
    loop {
        match call().await {
            Err(error) if is_unrelated_yet(&error) && delay <= LAST_DELAY => {
                tokio::time::sleep(delay).await;
                delay *= 2;
            }
            result => return result,
        }
    }
}

fn is_unrelated_yet(error: &ApiError) -> bool {
    match error {
        ApiError::Forbidden(message) => {
            // plugin/pkg/auth/authorizer/node and plugin/pkg/admission/noderestriction
            message.contains("no relationship") || message.contains("scheduled on a different node")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::Instant;

    use super::*;

    const NO_RELATIONSHIP: &str = "serviceaccounts \"default\" is forbidden: User \"system:node:n1\" cannot create \
        resource \"serviceaccounts/token\": no relationship found between node 'n1' and this object";

    async fn calls_until(errors: Vec<ApiError>) -> (Result<(), ApiError>, usize, Duration) {
        let start = Instant::now();
        let mut errors = errors.into_iter();
        let mut calls = 0;
        let result = until_related(|| {
            calls += 1;
            ready(errors.next().map_or(Ok(()), Err))
        })
        .await;
        (result, calls, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_out_a_race() {
        let races = vec![
            ApiError::Forbidden(NO_RELATIONSHIP.into()),
            ApiError::Forbidden("node requested token bound to a pod scheduled on a different node".into()),
        ];
        let (result, calls, waited) = calls_until(races).await;
        assert!(result.is_ok());
        assert_eq!(calls, 3);
        assert_eq!(waited, Duration::from_millis(2 + 4));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_a_second() {
        let (result, calls, waited) =
            calls_until(vec![ApiError::Forbidden(NO_RELATIONSHIP.into()); 100]).await;
        assert!(matches!(result, Err(ApiError::Forbidden(_))));
        assert_eq!(calls, 10);
        assert_eq!(waited, Duration::from_millis(1022));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_anything_else() {
        for error in [
            ApiError::Forbidden("denied".into()),
            ApiError::NotFound("no relationship".into()),
            ApiError::Unavailable("down".into()),
        ] {
            let (result, calls, waited) = calls_until(vec![error; 2]).await;
            assert!(result.is_err());
            assert_eq!((calls, waited), (1, Duration::ZERO));
        }
    }
}
