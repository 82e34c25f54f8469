//! Tokens: kept, renewed, adopted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_core::clock;
use coracle_core::ports::{ApiError, VolumeError};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use serde_json::{Value, json};
use tokio::time::advance;

use super::support::{FakeIssuer, jwt, pod};
use crate::token::{Token, TokenKey, TokenManager};

fn key(pod: &Pod, audience: &str, expiration_seconds: i64) -> TokenKey {
    let projection = ServiceAccountTokenProjection {
        audience: Some(audience.to_owned()),
        expiration_seconds: Some(expiration_seconds),
        ..Default::default()
    };
    TokenKey::new(pod, &projection)
}

struct Bed {
    issuer: Arc<FakeIssuer>,
    manager: TokenManager,
    pod: Arc<Pod>,
}

fn bed() -> Bed {
    let issuer = Arc::new(FakeIssuer::default());
    let manager = TokenManager::new(Some(issuer.clone()));
    Bed { issuer, manager, pod: pod("uid-1", json!([]), json!({})) }
}

impl Bed {
    async fn get(&self, expiration_seconds: i64) -> Result<Arc<Token>, VolumeError> {
        let key = key(&self.pod, "", expiration_seconds);
        self.manager.get_service_account_token(&self.pod, key).await
    }
}

#[tokio::test(start_paused = true)]
async fn asks_for_a_token_bound_to_the_pod() {
    let bed = bed();
    let get = |audience| bed.manager.get_service_account_token(&bed.pod, key(&bed.pod, audience, 3607));
    get("").await.unwrap();
    get("vault").await.unwrap();
    let requests = bed.issuer.requests.lock();
    let spec = serde_json::to_value(requests[0].spec.as_ref().unwrap()).unwrap();
    let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-1" });
    assert_eq!(spec["boundObjectRef"], bound);
    assert_eq!(spec["expirationSeconds"], 3607);
    assert!(requests[0].spec.as_ref().unwrap().audiences.is_none());
    assert_eq!(requests[1].spec.as_ref().unwrap().audiences, Some(vec!["vault".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn renews_at_80_percent_of_the_lifetime_or_after_a_day() {
    // Lifetime, and when it is renewed at the latest.
    for (lifetime, renewed) in [(600, 480), (3607, 2885), (100_000, 80_000), (7 * 86_400, 86_400)] {
        let bed = bed();
        let first = bed.get(lifetime).await.unwrap();
        // Up to ten seconds earlier, by chance.
        advance(Duration::from_secs(renewed - 11)).await;
        assert!(Arc::ptr_eq(&bed.get(lifetime).await.unwrap(), &first), "{lifetime}");
        assert_eq!(bed.issuer.count(), 1);
        advance(Duration::from_secs(12)).await;
        let second = bed.get(lifetime).await.unwrap();
        assert_ne!(second.value(), first.value());
        assert!(Arc::ptr_eq(&bed.get(lifetime).await.unwrap(), &second));
        assert_eq!(bed.issuer.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_token_serves_until_it_expires_and_no_longer() {
    let bed = bed();
    let first = bed.get(600).await.unwrap();
    bed.issuer.fail(ApiError::Unavailable("down".into()));
    advance(Duration::from_secs(500)).await;
    assert!(Arc::ptr_eq(&bed.get(600).await.unwrap(), &first));
    advance(Duration::from_secs(99)).await;
    assert!(Arc::ptr_eq(&bed.get(600).await.unwrap(), &first));
    advance(Duration::from_secs(2)).await;
    let error = bed.get(600).await.unwrap_err();
    assert!(matches!(&error, VolumeError::NotReady(message) if message.contains("\"builder\"")), "{error}");
    bed.issuer.fail(None);
    assert_ne!(bed.get(600).await.unwrap().value(), first.value());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_does_not_hold_up_the_pod_for_long() {
    let bed = bed();
    let first = bed.get(600).await.unwrap();
    bed.issuer.hangs.store(true, Ordering::Relaxed);
    advance(Duration::from_secs(500)).await;
    let start = tokio::time::Instant::now();
    assert!(Arc::ptr_eq(&bed.get(600).await.unwrap(), &first));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn waits_for_the_authorizer_and_then_says_not_ready() {
    let bed = bed();
    let race = "no relationship found between node 'n1' and this object";
    bed.issuer.fail(ApiError::Forbidden(race.into()));
    let start = tokio::time::Instant::now();
    assert!(matches!(bed.get(600).await, Err(VolumeError::NotReady(message)) if message.contains(race)));
    assert_eq!(start.elapsed(), Duration::from_millis(1022));
    assert_eq!(bed.issuer.count(), 10);
}

#[tokio::test(start_paused = true)]
async fn pods_do_not_share_tokens_and_leave_none_behind() {
    let bed = bed();
    let other = pod("uid-2", json!([]), json!({}));
    let first = bed.get(600).await.unwrap();
    let others = bed.manager.get_service_account_token(&other, key(&other, "", 600)).await.unwrap();
    assert_ne!(first.value(), others.value());
    bed.manager.delete_service_account_tokens("uid-1");
    assert!(!Arc::ptr_eq(&bed.get(600).await.unwrap(), &first));
    let again = bed.manager.get_service_account_token(&other, key(&other, "", 600)).await.unwrap();
    assert!(Arc::ptr_eq(&again, &others));
    assert_eq!(bed.issuer.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn adopts_only_the_right_token_while_it_is_fresh() {
    let now = clock::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({
            "aud": ["vault"],
            "iat": now - 1000,
            "exp": now + 2600,
            "kubernetes.io": {
                "namespace": "default",
                "pod": { "name": "web", "uid": "uid-1" },
                "serviceaccount": { "name": "builder", "uid": "sa" },
            },
        });
        for (pointer, value) in change.as_object().unwrap() {
            *claims.pointer_mut(pointer).unwrap() = value.clone();
        }
        jwt(&claims)
    };
    let table = [
        (claims(json!({})), true),
        (claims(json!({ "/aud": "vault" })), true),
        // 80 % of an hour are 2880 seconds.
        (claims(json!({ "/iat": now - 2860, "/exp": now + 740 })), true),
        (claims(json!({ "/iat": now - 2881, "/exp": now + 719 })), false),
        (claims(json!({ "/iat": now - 4000, "/exp": now - 400 })), false),
        // Extended: the token says a year, but an hour was asked for.
        (claims(json!({ "/exp": now + 31_536_000 })), true),
        (claims(json!({ "/iat": now - 4000, "/exp": now + 31_536_000 })), false),
        (claims(json!({ "/iat": now + 60 })), false),
        (claims(json!({ "/kubernetes.io/pod/uid": "uid-2" })), false),
        (claims(json!({ "/kubernetes.io/pod/name": "other" })), false),
        (claims(json!({ "/kubernetes.io/namespace": "other" })), false),
        (claims(json!({ "/kubernetes.io/serviceaccount/name": "other" })), false),
        (claims(json!({ "/aud": ["vault", "other"] })), false),
        (claims(json!({ "/aud": ["other"] })), false),
        (claims(json!({ "/iat": "text" })), false),
        (claims(json!({ "/iat": i64::MAX })), false),
        (String::new(), false),
        ("a.b.c".into(), false),
        ("..".into(), false),
        (jwt(&json!({})), false),
    ];
    for (value, expected) in table {
        let bed = bed();
        let key = key(&bed.pod, "vault", 3600);
        assert_eq!(bed.manager.adopt(&bed.pod, key.clone(), value.clone()), expected, "{value}");
        let token = bed.manager.get_service_account_token(&bed.pod, key).await.unwrap();
        assert_eq!(token.value() == value, expected);
        assert_eq!(bed.issuer.count(), usize::from(!expected));
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_never_printed() {
    let bed = bed();
    let token = bed.get(600).await.unwrap();
    assert!(!format!("{token:?}").contains(token.value()));
    assert!(format!("{token:?}").contains("expires_at"));
}
