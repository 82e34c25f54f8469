//! Asks the apiserver, and remembers what it said.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::ApiError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// How long a review may take before it counts as failed. Attack (or accident): an apiserver that hangs must neither
/// let anybody in nor hold requests for ever.
const REVIEW_DEADLINE: Duration = Duration::from_secs(10);

/// Reviews under way at once. Attack: made-up tokens, each of which would become a request to the apiserver.
const MAX_REVIEWS: usize = 64;

/// Requests that wait for reviews at once. Attack: the same token on thousands of streams, parked in memory.
const MAX_WAITING: usize = 256;

/// Answers kept. Attack: made-up tokens fill the memory.
const MAX_ANSWERS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Why there is no answer. None of these lets anybody in, and none is remembered.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the apiserver could not review the request: {0}")]
    Failed(ApiError),
    #[error("the apiserver did not review the request within {} seconds", REVIEW_DEADLINE.as_secs())]
    Deadline,
    #[error("too many requests wait for the apiserver's review")]
    TooMany,
    #[error("the review was broken off")]
    BrokenOff,
}

type Review<V> = Shared<BoxFuture<'static, Result<V, ReviewError>>>;

/// Answers by question, each for a time; equal questions are asked once.
pub(super) struct Reviews<K: Hash + Eq, V> {
    state: Arc<Mutex<State<K, V>>>,
    reviewing: Arc<Semaphore>,
    waiting: Semaphore,
}

struct State<K: Hash + Eq, V> {
    answers: LruCache<K, Answer<V>>,
    under_way: HashMap<K, Review<V>>,
}

struct Answer<V> {
    value: V,
    expires: Instant,
}

impl<K, V> Reviews<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                answers: LruCache::new(MAX_ANSWERS),
                under_way: HashMap::new(),
            })),
            reviewing: Arc::new(Semaphore::new(MAX_REVIEWS)),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// The answer to a question: the remembered one, that of an equal question under way, or a new one. `ask` answers
    /// with how long its answer holds.
    pub(super) async fn get<F>(&self, question: K, ask: impl FnOnce() -> F) -> Result<V, ReviewError>
    where
        F: Future<Output = Result<(V, Duration), ApiError>> + Send + 'static,
    {
        let (review, _waiting, begin) = {
            let mut state = self.state.lock();
            if let Some(answer) =
                state.answers.get(&question).filter(|answer| Instant::now() < answer.expires)
            {
                return Ok(answer.value.clone());
            }
            let waiting = self.waiting.try_acquire().map_err(|_| ReviewError::TooMany)?;
            match state.under_way.get(&question) {
                Some(review) => (review.clone(), waiting, None),
                None => {
                    let permit =
                        self.reviewing.clone().try_acquire_owned().map_err(|_| ReviewError::TooMany)?;
                    let (tell, told) = oneshot::channel();
                    let review =
                        told.map(|told| told.unwrap_or(Err(ReviewError::BrokenOff))).boxed().shared();
                    state.under_way.insert(question.clone(), review.clone());
                    (review, waiting, Some((permit, tell)))
                }
            }
        };
        if let Some((permit, tell)) = begin {
            self.begin(question, ask(), permit, tell);
        }
        review.await
    }

    /// Reviews in a task of its own, because whoever asked first may go away while others wait. It ends by itself, at
    /// the deadline at the latest.
    fn begin<F>(
        &self,
        question: K,
        ask: F,
        permit: OwnedSemaphorePermit,
        tell: oneshot::Sender<Result<V, ReviewError>>,
    ) where
        F: Future<Output = Result<(V, Duration), ApiError>> + Send + 'static,
    {
        let under_way = UnderWay { state: self.state.clone(), question };
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = match timeout(REVIEW_DEADLINE, ask).await {
                Ok(Ok((value, holds))) => {
                    let answer = Answer { value: value.clone(), expires: Instant::now() + holds };
                    under_way.state.lock().answers.put(under_way.question.clone(), answer);
                    Ok(value)
                }
                Ok(Err(error)) => Err(ReviewError::Failed(error)),
                Err(_) => Err(ReviewError::Deadline),
            };
            // Off the list before it is told: who asks from here on finds the answer, or asks again.
            drop(under_way);
            _ = tell.send(outcome);
        });
    }
}

/// Takes a question off the list when its review is over, whichever way.
struct UnderWay<K: Hash + Eq, V> {
    state: Arc<Mutex<State<K, V>>>,
    question: K,
}

impl<K: Hash + Eq, V> Drop for UnderWay<K, V> {
    fn drop(&mut self) {
        self.state.lock().under_way.remove(&self.question);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{join_all, pending, ready};
    use tokio::time::{advance, sleep};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Asks and counts how often it came to that.
    async fn ask(
        reviews: &Reviews<u32, u32>,
        question: u32,
        asked: &Arc<AtomicUsize>,
    ) -> Result<u32, ReviewError> {
        let asked = asked.clone();
        let answer = async move {
            asked.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(10)).await;
            Ok((question * 2, MINUTE))
        };
        reviews.get(question, || answer).await
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_their_time() {
        let (reviews, asked) = (Reviews::new(), Arc::default());
        for _ in 0..3 {
            assert_eq!(ask(&reviews, 7, &asked).await.unwrap(), 14);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        advance(MINUTE).await;
        assert_eq!(ask(&reviews, 7, &asked).await.unwrap(), 14);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_are_asked_once_and_others_are_not_mixed_up() {
        let (reviews, asked) = (Reviews::new(), Arc::default());
        let answers = join_all((0..60).map(|i| ask(&reviews, i % 3, &asked))).await;
        let answers: Vec<u32> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..60).map(|i| i % 3 * 2).collect::<Vec<_>>());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        assert!(reviews.state.lock().under_way.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_outlives_whoever_asked_it_first() {
        let (reviews, asked) = (Arc::new(Reviews::new()), Arc::default());
        let first = tokio::spawn({
            let (reviews, asked) = (reviews.clone(), Arc::clone(&asked));
            async move { ask(&reviews, 1, &asked).await }
        });
        sleep(Duration::from_millis(1)).await;
        let second = ask(&reviews, 1, &asked);
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_hanging_are_errors_and_not_remembered() {
        let (reviews, asked) = (Reviews::new(), Arc::default());
        let down = reviews.get(1, || ready(Err(ApiError::Unavailable("down".into())))).await;
        assert!(matches!(down, Err(ReviewError::Failed(_))), "{down:?}");
        let before = Instant::now();
        let hanging = reviews.get(1, pending).await;
        assert!(matches!(hanging, Err(ReviewError::Deadline)), "{hanging:?}");
        assert_eq!(before.elapsed(), REVIEW_DEADLINE);
        let panicked = reviews.get(1, || async { panic!("as a test") }).await;
        assert!(matches!(panicked, Err(ReviewError::BrokenOff)), "{panicked:?}");
        assert_eq!(ask(&reviews, 1, &asked).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn floods_are_refused_and_pass() {
        let (reviews, asked) = (Reviews::<u32, u32>::new(), Arc::default());
        // Different questions: as many as may be under way, the rest is refused at once.
        let flood = join_all((0..MAX_REVIEWS as u32 + 10).map(|i| reviews.get(i, pending))).await;
        assert_eq!(flood.iter().filter(|answer| matches!(answer, Err(ReviewError::TooMany))).count(), 10);
        // The same question: as many as may wait.
        let flood = join_all((0..MAX_WAITING + 10).map(|_| reviews.get(0, pending))).await;
        assert_eq!(flood.iter().filter(|answer| matches!(answer, Err(ReviewError::TooMany))).count(), 10);
        assert_eq!(ask(&reviews, 1, &asked).await.unwrap(), 2);
        // The memory for answers is bounded.
        for i in 0..MAX_ANSWERS.get() as u32 + 10 {
            reviews.get(i, || ready(Ok((i, MINUTE)))).await.unwrap();
        }
        assert_eq!(reviews.state.lock().answers.len(), MAX_ANSWERS.get());
    }
}
