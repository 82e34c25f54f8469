//! Credentials from plugins, remembered as they say (upstream: `pkg/credentialprovider/plugin/plugin.go`, `plugins.go`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::config::{self, CacheType, ConfigError, PluginConfig, TokenAttributes};
use super::docker_config::{DockerAuth, DockerAuths};
use super::exec::{CacheKeyType, ExecPlugin, Plugin, Response};
use super::keyring::{Keyring, Pattern, repository};
use super::{Coordinates, CredentialSource, PodIdentity, TrackedAuthConfig};
use crate::ports::ServiceAccounts;

/// The plugins of the node.
pub struct CredentialPlugins {
    providers: Vec<PluginProvider>,
}

impl std::fmt::Debug for CredentialPlugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.providers.iter().map(|provider| &provider.name)).finish()
    }
}

impl CredentialPlugins {
    /// Reads the configuration and finds the programs in `bin_dir` (`RegisterCredentialProviderPlugins`). Blocks.
    /// Plugins that want tokens of service accounts need `tokens`.
    pub fn load(
        config: &Path,
        bin_dir: &Path,
        tokens: Option<Arc<dyn ServiceAccounts>>,
    ) -> Result<Self, ConfigError> {
        let mut providers = Vec::new();
        for plugin in config::read(config)? {
            let program = bin_dir.join(&plugin.name);
            let found = std::fs::metadata(&program)
                .map_err(|source| ConfigError::Read { path: program.clone(), source })?;
            let invalid =
                |problem: &str| ConfigError::Invalid { path: program.clone(), problem: problem.to_owned() };
            if !found.is_file() {
                return Err(invalid("it is no program"));
            }
            if plugin.token_attributes.is_some() && tokens.is_none() {
                return Err(invalid(
                    "it wants tokens of service accounts, and there is no apiserver to get them from",
                ));
            }
            let exec = ExecPlugin {
                program,
                api_version: plugin.api_version.clone(),
                args: plugin.args.clone(),
                env: plugin.env.clone(),
            };
            providers.push(PluginProvider::new(plugin, Arc::new(exec), tokens.clone()));
        }
        Ok(Self { providers })
    }

    /// The credentials of all plugins for an image. A plugin that fails is logged, and gives none.
    pub(crate) async fn lookup(&self, image: &str, pod: PodIdentity<'_>) -> Vec<TrackedAuthConfig> {
        let repository = repository(image);
        let mut keyring = Keyring::default();
        for provider in &self.providers {
            match provider.provide(&repository, pod).await {
                Ok(Some((auths, source))) => keyring.add(&source, auths),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(provider = provider.name, image, error, "a credential provider failed");
                }
            }
        }
        keyring.lookup(&repository)
    }
}

/// One plugin and what it has answered (`pluginProvider`).
struct PluginProvider {
    name: String,
    match_images: Vec<Pattern>,
    default_cache_duration: Duration,
    plugin: Arc<dyn Plugin>,
    service_accounts: Option<(TokenAttributes, Arc<dyn ServiceAccounts>)>,
    cache: Mutex<HashMap<CacheKey, (Instant, DockerAuths)>>,
    /// Questions that are being asked: the same one is asked once.
    flights: Mutex<HashMap<FlightKey, Flight>>,
}

type Flight = Shared<BoxFuture<'static, Result<Response, String>>>;

/// For what an answer holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    images: Images,
    service_account: Option<AccountKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Images {
    Image(String),
    Registry(String),
    All,
}

/// What of a service account an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AccountKey {
    coordinates: Coordinates,
    annotations: BTreeMap<String, String>,
    token_hash: Option<[u8; 32]>,
}

#[derive(PartialEq, Eq, Hash)]
struct FlightKey {
    image: String,
    token_hash: Option<[u8; 32]>,
    annotations: BTreeMap<String, String>,
}

/// A service account for which a plugin is asked.
struct Account {
    coordinates: Coordinates,
    annotations: BTreeMap<String, String>,
    token: String,
}

impl PluginProvider {
    fn new(config: PluginConfig, plugin: Arc<dyn Plugin>, tokens: Option<Arc<dyn ServiceAccounts>>) -> Self {
        Self {
            name: config.name,
            match_images: config.match_images,
            default_cache_duration: config.default_cache_duration,
            plugin,
            service_accounts: config.token_attributes.zip(tokens),
            cache: Mutex::default(),
            flights: Mutex::default(),
        }
    }

    /// The plugin's credentials for an image, and whose they are; none if it has nothing to do with it (`provide`).
    async fn provide(
        &self,
        image: &str,
        pod: PodIdentity<'_>,
    ) -> Result<Option<(DockerAuths, CredentialSource)>, String> {
        let target = Pattern::of_image(image);
        if !self.match_images.iter().any(|pattern| pattern.matches(&target)) {
            return Ok(None);
        }
        let account = match &self.service_accounts {
            None => None,
            Some((attributes, _)) if pod.service_account.is_empty() && attributes.require_service_account => {
                return Ok(None);
            }
            Some(_) if pod.service_account.is_empty() => None,
            Some((attributes, tokens)) => match service_account(attributes, &**tokens, pod).await? {
                Some(account) => Some(account),
                None => return Ok(None),
            },
        };
        let source = account.as_ref().map_or(CredentialSource::Node, |account| {
            CredentialSource::ServiceAccount(account.coordinates.clone())
        });
        let account_key = account.as_ref().map(|account| self.account_key(account));
        if let Some(known) = self.remembered(image, &account_key) {
            return Ok(Some((known, source)));
        }
        let response = self.ask(image, account.as_ref()).await?;
        let auths = self.accept(response, image, account.as_ref(), account_key)?;
        Ok(Some((auths, source)))
    }

    fn account_key(&self, account: &Account) -> AccountKey {
        let by_token = self
            .service_accounts
            .as_ref()
            .is_some_and(|(attributes, _)| attributes.cache_type == CacheType::Token);
        AccountKey {
            coordinates: account.coordinates.clone(),
            annotations: account.annotations.clone(),
            token_hash: by_token.then(|| account.token_hash()),
        }
    }

    fn remembered(&self, image: &str, account: &Option<AccountKey>) -> Option<DockerAuths> {
        let mut cache = self.cache.lock();
        cache.retain(|_, (expires, _)| *expires > Instant::now());
        [Images::Image(image.to_owned()), Images::Registry(registry(image)), Images::All]
            .into_iter()
            .find_map(|images| cache.get(&CacheKey { images, service_account: account.clone() }))
            .map(|(_, auths)| auths.clone())
    }

    /// Asks the plugin; those who want the same at the same time share the answer.
    async fn ask(&self, image: &str, account: Option<&Account>) -> Result<Response, String> {
        let token = account.map(|account| account.token.clone()).unwrap_or_default();
        let annotations = account.map(|account| account.annotations.clone()).unwrap_or_default();
        let key = || FlightKey {
            image: image.to_owned(),
            token_hash: account.map(Account::token_hash),
            annotations: annotations.clone(),
        };
        let flight = {
            let mut flights = self.flights.lock();
            flights.retain(|_, flight| flight.peek().is_none() && flight.strong_count() > Some(1));
            let start = || {
                let (plugin, image, annotations) =
                    (self.plugin.clone(), image.to_owned(), annotations.clone());
                async move { plugin.credentials(&image, &token, &annotations).await }.boxed().shared()
            };
            flights.entry(key()).or_insert_with(start).clone()
        };
        flight.await
    }

    /// Checks an answer, and remembers it for as long as it says.
    fn accept(
        &self,
        response: Response,
        image: &str,
        account: Option<&Account>,
        account_key: Option<AccountKey>,
    ) -> Result<DockerAuths, String> {
        let auth = response.auth.unwrap_or_default();
        let by_token = account_key.as_ref().is_some_and(|key| key.token_hash.is_some());
        let echoes = |token: &str| auth.values().any(|auth| auth.password == token);
        if !by_token && account.is_some_and(|account| echoes(&account.token)) {
            return Err(
                "it gave the service account's token back as a password, which needs cacheType Token"
                    .to_owned(),
            );
        }
        let auths: DockerAuths = auth
            .into_iter()
            .map(|(registry, auth)| (registry, DockerAuth::password(auth.username, auth.password)))
            .collect();
        let lasts = match &response.cache_duration {
            None => self.default_cache_duration,
            Some(text) => {
                let duration: SignedDuration =
                    text.parse().map_err(|_| "its cacheDuration is no duration".to_owned())?;
                Duration::try_from(duration).unwrap_or_default()
            }
        };
        if !lasts.is_zero() {
            let images = match response.cache_key_type {
                CacheKeyType::Image => Images::Image(image.to_owned()),
                CacheKeyType::Registry => Images::Registry(registry(image)),
                CacheKeyType::Global => Images::All,
            };
            let key = CacheKey { images, service_account: account_key };
            self.cache.lock().insert(key, (Instant::now() + lasts, auths.clone()));
        }
        Ok(auths)
    }
}

impl Account {
    fn token_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.token).into()
    }
}

fn registry(image: &str) -> String {
    image.split('/').next().unwrap_or_default().to_owned()
}

/// The pod's service account with a token for the plugin; none if it lacks an annotation, by which it could ask for
/// being told to the plugin.
async fn service_account(
    attributes: &TokenAttributes,
    tokens: &dyn ServiceAccounts,
    pod: PodIdentity<'_>,
) -> Result<Option<Account>, String> {
    let found = tokens
        .service_account(pod.namespace, pod.service_account)
        .await
        .map_err(|error| format!("cannot get the service account: {error}"))?;
    let all = found.metadata.annotations.clone().unwrap_or_default();
    let Some(annotations) = attributes.annotations(&all) else { return Ok(None) };
    let uid = found.metadata.uid.clone();
    let mut request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![attributes.audience.clone()]),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name.to_owned()),
                uid: Some(pod.uid.to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    request.metadata.uid.clone_from(&uid);
    let answer = tokens
        .create_token(pod.namespace, pod.service_account, request)
        .await
        .map_err(|error| format!("cannot get a token of the service account: {error}"))?;
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    let coordinates = Coordinates {
        namespace: pod.namespace.to_owned(),
        name: pod.service_account.to_owned(),
        uid: uid.unwrap_or_default(),
    };
    Ok(Some(Account { coordinates, annotations, token }))
}

#[cfg(test)]
mod tests;
