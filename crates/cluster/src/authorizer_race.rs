//! The apiserver may hear of a pod later than its node does.

use std::time::Duration;

use coracle_core::ports::ApiError;

const FIRST_DELAY: Duration = Duration::from_millis(2);

/// 2 + 4 + … + 512 ms: about a second in all.
const ATTEMPTS: u32 = 9;

/// Makes a call again, for up to a second, while it is refused because the node authorizer or the NodeRestriction
/// admission plugin has not seen yet that a pod was bound to this node: both follow pods by a watch of their own.
pub(crate) async fn past_authorizer_race<T, F>(call: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut delay = FIRST_DELAY;
    for _ in 0..ATTEMPTS {
        match call().await {
            Err(error) if is_race(&error) => tokio::time::sleep(delay).await,
            answer => return answer,
        }
        delay *= 2;
    }
    call().await
}

fn is_race(error: &ApiError) -> bool {
    match error {
        ApiError::Forbidden(message) => {
            message.contains("no relationship found between node")
                || message.contains("bound to a pod scheduled on a different node")
                || message.contains("does not match the UID in record")
        }
        ApiError::NotFound(message) => message.starts_with("pods \"") || message.starts_with("pod \""),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    // All of these are from the apiserver of 1.37.
    const REFUSED: &str = "configmaps \"kube-root-ca.crt\" is forbidden: User \"system:node:n1\" cannot get resource \
                           \"configmaps\" in API group \"\" in the namespace \"default\": no relationship found between \
                           node 'n1' and this object";
    const RECREATED: &str = "serviceaccounts \"default\" is forbidden: the UID in the bound object reference (a) does not \
                             match the UID in record. The object might have been deleted and then recreated";

    async fn calls_until(
        answers: impl Fn(u32) -> Result<(), ApiError>,
    ) -> (u32, Result<(), ApiError>, Duration) {
        let (start, calls) = (Instant::now(), AtomicU32::new(0));
        let answer =
            past_authorizer_race(|| std::future::ready(answers(calls.fetch_add(1, Ordering::Relaxed) + 1)))
                .await;
        (calls.into_inner(), answer, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_passes_is_waited_for() {
        let (calls, answer, time) =
            calls_until(|n| if n < 4 { Err(ApiError::Forbidden(REFUSED.into())) } else { Ok(()) }).await;
        assert!(answer.is_ok());
        assert_eq!((calls, time.as_millis()), (4, 2 + 4 + 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_known_yet_is_waited_for() {
        for error in [
            ApiError::NotFound("pod \"p3\" not found".into()),
            ApiError::NotFound("pods \"p3\" not found".into()),
            ApiError::Forbidden(RECREATED.into()),
        ] {
            let (calls, answer, _) = calls_until(|n| if n < 2 { Err(error.clone()) } else { Ok(()) }).await;
            assert!(answer.is_ok());
            assert_eq!(calls, 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_stays_is_told_after_a_second() {
        let (calls, answer, time) = calls_until(|_| Err(ApiError::Forbidden(REFUSED.into()))).await;
        assert!(matches!(answer, Err(ApiError::Forbidden(_))));
        assert_eq!((calls, time.as_millis()), (10, 1022));
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_are_told_at_once() {
        for error in [
            ApiError::Forbidden("node 'n1' cannot read 'n2', only its own Node object".into()),
            ApiError::NotFound("configmaps \"a\" not found".into()),
            ApiError::Unavailable("connection refused".into()),
        ] {
            let (calls, answer, _) = calls_until(|_| Err(error.clone())).await;
            assert_eq!((calls, answer.unwrap_err().to_string()), (1, error.to_string()));
        }
    }
}
