//! Upstream's tables (`plugin_test.go`): which images, how long, for whom.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequestStatus;
use k8s_openapi::api::core::v1::ServiceAccount;

use super::*;
use crate::ports::{ApiError, TokenIssuer};

const POD: PodIdentity<'static> =
    PodIdentity { namespace: "ns", name: "pod", uid: "pod-uid", service_account: "account" };
const NOBODY: PodIdentity<'static> = PodIdentity { service_account: "", ..POD };

/// Gives a new user each time.
struct FakePlugin {
    asked: AtomicUsize,
    key: &'static str,
    duration: Option<&'static str>,
    password: &'static str,
}

impl FakePlugin {
    fn new(key: &'static str, duration: Option<&'static str>) -> Self {
        Self { asked: AtomicUsize::new(0), key, duration, password: "p" }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Plugin for FakePlugin {
    async fn credentials(
        &self,
        _image: &str,
        _token: &str,
        _annotations: &BTreeMap<String, String>,
    ) -> Result<Response, String> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut response = serde_json::json!({
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
            "cacheKeyType": self.key,
            "auth": {"*.example.com": {"username": format!("user{number}"), "password": self.password}},
        });
        if let Some(duration) = self.duration {
            response["cacheDuration"] = duration.into();
        }
        Ok(serde_json::from_value(response).unwrap())
    }
}

/// Accounts with the annotation `a`, of which every token is another one.
#[derive(Default)]
struct FakeAccounts(AtomicUsize);

#[async_trait]
impl TokenIssuer for FakeAccounts {
    async fn create_token(
        &self,
        _namespace: &str,
        _name: &str,
        mut request: TokenRequest,
    ) -> Result<TokenRequest, ApiError> {
        let bound = request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref()).unwrap();
        assert_eq!(bound.uid.as_deref(), Some("pod-uid"));
        let token = format!("token{}", self.0.fetch_add(1, Ordering::SeqCst));
        request.status = Some(TokenRequestStatus { expiration_timestamp: None, token: Some(token) });
        Ok(request)
    }
}

#[async_trait]
impl ServiceAccounts for FakeAccounts {
    async fn service_account(&self, _namespace: &str, name: &str) -> Result<ServiceAccount, ApiError> {
        let mut account = ServiceAccount::default();
        account.metadata.uid = Some(format!("uid-{name}"));
        account.metadata.annotations = Some([("a".to_owned(), "1".to_owned())].into());
        Ok(account)
    }
}

fn plugins(
    plugin: &Arc<FakePlugin>,
    default: Duration,
    attributes: Option<TokenAttributes>,
) -> CredentialPlugins {
    let config = PluginConfig {
        name: "fake".to_owned(),
        match_images: vec![Pattern::parse("*.example.com")],
        default_cache_duration: default,
        api_version: String::new(),
        args: Vec::new(),
        env: Vec::new(),
        token_attributes: attributes,
    };
    let provider = PluginProvider::new(config, plugin.clone(), Some(Arc::new(FakeAccounts::default())));
    CredentialPlugins { providers: vec![provider] }
}

async fn user(plugins: &CredentialPlugins, image: &str, pod: PodIdentity<'_>) -> Option<String> {
    plugins.lookup(image, pod).await.into_iter().next().map(|found| found.auth.username)
}

#[tokio::test(start_paused = true)]
async fn answers_hold_for_as_much_and_as_long_as_they_say() {
    let (same, sibling, other) = ("a.example.com/x:v2", "a.example.com/y", "b.example.com/x");
    for (key, duration, default, after, expected) in [
        ("Image", None, 60, 0, [1, 2, 3]),
        ("Registry", None, 60, 0, [1, 1, 2]),
        ("Global", None, 60, 0, [1, 1, 1]),
        ("Global", Some("5m0s"), 60, 100, [1, 1, 1]),
        ("Global", Some("1m0s"), 600, 100, [2, 2, 2]),
        ("Global", None, 60, 100, [2, 2, 2]),
        ("Global", None, 0, 0, [2, 3, 4]),
        ("Global", Some("0s"), 60, 0, [2, 3, 4]),
    ] {
        let plugin = Arc::new(FakePlugin::new(key, duration));
        let plugins = plugins(&plugin, Duration::from_secs(default), None);
        assert_eq!(user(&plugins, "a.example.com/x:v1", POD).await.as_deref(), Some("user1"));
        tokio::time::advance(Duration::from_secs(after)).await;
        for (image, expected) in [same, sibling, other].iter().zip(expected) {
            let found = user(&plugins, image, POD).await;
            assert_eq!(
                found,
                Some(format!("user{expected}")),
                "{key} {duration:?} {default} {after} {image}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_images_that_match_are_asked_for_and_the_same_one_once_at_a_time() {
    let plugin = Arc::new(FakePlugin::new("Image", Some("0s")));
    let plugins = plugins(&plugin, Duration::ZERO, None);
    assert_eq!(user(&plugins, "example.com/x", POD).await, None);
    assert_eq!(user(&plugins, "nginx", POD).await, None);
    assert_eq!(plugin.asked(), 0);
    let (one, two, other) = tokio::join!(
        user(&plugins, "a.example.com/x:v1", POD),
        user(&plugins, "a.example.com/x:v2", POD),
        user(&plugins, "a.example.com/y", POD)
    );
    assert_eq!((one, two, other.is_some()), (Some("user1".into()), Some("user1".into()), true));
    assert_eq!(plugin.asked(), 2);
}

fn attributes(cache_type: CacheType, is_required: bool, annotation: &str) -> TokenAttributes {
    TokenAttributes {
        audience: "aud".to_owned(),
        cache_type,
        require_service_account: is_required,
        required_annotations: Vec::from_iter(is_required.then(|| annotation.to_owned())),
        optional_annotations: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_of_a_service_account_are_its_own() {
    let minute = Duration::from_secs(60);
    let plugin = Arc::new(FakePlugin::new("Global", None));
    let by_account = plugins(&plugin, minute, Some(attributes(CacheType::ServiceAccount, true, "a")));
    let found = by_account.lookup("a.example.com/x", POD).await.remove(0);
    let coordinates =
        Coordinates { namespace: "ns".into(), name: "account".into(), uid: "uid-account".into() };
    assert_eq!(found.source, CredentialSource::ServiceAccount(coordinates));
    let other = PodIdentity { service_account: "other", ..POD };
    assert_eq!(user(&by_account, "a.example.com/x", POD).await.as_deref(), Some("user1"));
    assert_eq!(user(&by_account, "a.example.com/x", other).await.as_deref(), Some("user2"));
    // Required, and not there.
    assert_eq!(user(&by_account, "a.example.com/x", NOBODY).await, None);
    let without = plugins(&plugin, minute, Some(attributes(CacheType::ServiceAccount, true, "missing")));
    assert_eq!(user(&without, "a.example.com/x", POD).await, None);

    let optional = plugins(&plugin, minute, Some(attributes(CacheType::ServiceAccount, false, "")));
    let found = optional.lookup("a.example.com/x", NOBODY).await.remove(0);
    assert_eq!(found.source, CredentialSource::Node);

    let before = plugin.asked();
    let by_token = plugins(&plugin, minute, Some(attributes(CacheType::Token, true, "a")));
    user(&by_token, "a.example.com/x", POD).await;
    user(&by_token, "a.example.com/x", POD).await;
    assert_eq!(plugin.asked(), before + 2, "every token is another one");
}

#[tokio::test(start_paused = true)]
async fn a_token_given_back_is_only_for_those_who_said_so() {
    for (cache_type, accepted) in [(CacheType::ServiceAccount, false), (CacheType::Token, true)] {
        let plugin = Arc::new(FakePlugin { password: "token0", ..FakePlugin::new("Image", None) });
        let plugins = plugins(&plugin, Duration::ZERO, Some(attributes(cache_type, true, "a")));
        assert_eq!(user(&plugins, "a.example.com/x", POD).await.is_some(), accepted, "{cache_type:?}");
    }
}
