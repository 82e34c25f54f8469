//! The kubelet's API on 10250, and its health on 10248.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use coracle_core::host::HostInterface;
use coracle_core::ports::{AccessReviewer, ApiServer};
use coracle_server::{
    About, Authentication, Authorization, CertificatePair, KubeletAuth, ServerOptions, TlsMinVersion,
    TlsOptions, TokenWebhook, listen_and_serve_healthz, listen_and_serve_kubelet_read_only_server,
    listen_and_serve_kubelet_server, load_or_generate_self_signed,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{self, KubeletAuthorizationMode, KubeletConfiguration, Resolved};

/// The server, bound and ready: whoever starts it learns at once if it cannot be.
pub(super) struct KubeletServer {
    /// Taken when it is served.
    parts: Mutex<Option<Parts>>,
    options: ServerOptions,
    shutdown: CancellationToken,
}

struct Parts {
    listener: TcpListener,
    tls: TlsOptions,
    auth: KubeletAuth,
    /// The server without authentication; none if its port is 0.
    read_only: Option<TcpListener>,
}

impl KubeletServer {
    /// Binds the port and reads certificates. Without a reviewer only certificates say who somebody is.
    pub(super) async fn bind(
        resolved: &Resolved,
        reviewer: Option<Arc<dyn AccessReviewer>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = &resolved.config;
        let tls = tls_options(resolved)?;
        let auth = KubeletAuth::new(
            resolved.flags.node_name.clone(),
            authentication(config, reviewer.as_ref())?,
            authorization(config, reviewer)?,
        )?;
        let listener = bind(SocketAddr::new(config.address, config.port), "the kubelet's API").await?;
        let read_only = match config.read_only_port {
            0 => None,
            port => Some(bind(SocketAddr::new(config.address, port), "the read-only API").await?),
        };
        let options = ServerOptions {
            enable_debugging_handlers: config.enable_debugging_handlers,
            streaming_connection_idle_timeout: config.streaming_connection_idle_timeout,
            ..ServerOptions::default()
        };
        let parts = Parts { listener, tls, auth, read_only };
        Ok(Self { parts: Mutex::new(Some(parts)), options, shutdown })
    }

    /// What it tells of this agent besides its pods.
    pub(super) fn with_about(mut self, about: About) -> Self {
        self.options.about = about;
        self
    }
}

#[async_trait]
impl ApiServer for KubeletServer {
    async fn serve(&self, host: Arc<dyn HostInterface>) {
        let Some(Parts { listener, tls, auth, read_only }) = self.parts.lock().take() else { return };
        let (options, shutdown) = (self.options.clone(), self.shutdown.clone());
        let read_only = async {
            if let Some(listener) = read_only {
                let (host, options, shutdown) = (host.clone(), options.clone(), shutdown.clone());
                listen_and_serve_kubelet_read_only_server(listener, host, options, shutdown).await;
            }
        };
        let served = listen_and_serve_kubelet_server(
            listener,
            tls,
            auth,
            host.clone(),
            options.clone(),
            shutdown.clone(),
        );
        if let (Err(error), ()) = tokio::join!(served, read_only) {
            tracing::error!(%error, "the kubelet's API is not served");
        }
    }
}

/// Serves `/healthz` until the end; nothing if its port is 0.
pub(super) async fn healthz(
    config: &KubeletConfiguration,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = match config.healthz_port {
        0 => None,
        port => Some(bind(SocketAddr::new(config.healthz_bind_address, port), "healthz").await?),
    };
    Ok(async move {
        if let Some(listener) = listener {
            listen_and_serve_healthz(listener, shutdown).await;
        }
    })
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {what}"))
}

fn tls_options(resolved: &Resolved) -> anyhow::Result<TlsOptions> {
    let config = &resolved.config;
    let certificate = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => CertificatePair { cert_file: cert.clone(), key_file: key.clone() },
        _ => load_or_generate_self_signed(&resolved.flags.cert_dir, &resolved.flags.node_name)?,
    };
    let min_version = match config.tls_min_version {
        config::TlsMinVersion::Tls12 => TlsMinVersion::Tls12,
        config::TlsMinVersion::Tls13 => TlsMinVersion::Tls13,
    };
    Ok(TlsOptions {
        certificate,
        min_version,
        cipher_suites: config.tls_cipher_suites.clone(),
        curve_preferences: config.tls_curve_preferences.clone(),
    })
}

fn authentication(
    config: &KubeletConfiguration,
    reviewer: Option<&Arc<dyn AccessReviewer>>,
) -> anyhow::Result<Authentication> {
    let wanted = &config.authentication;
    let webhook = if wanted.webhook.enabled {
        let reviewer = reviewer.context("no client provided, cannot use webhook authentication")?.clone();
        Some(TokenWebhook { reviewer, cache_ttl: wanted.webhook.cache_ttl })
    } else {
        None
    };
    Ok(Authentication {
        client_ca_file: wanted.x509.client_ca_file.clone(),
        webhook,
        anonymous: wanted.anonymous.enabled,
    })
}

fn authorization(
    config: &KubeletConfiguration,
    reviewer: Option<Arc<dyn AccessReviewer>>,
) -> anyhow::Result<Authorization> {
    let wanted = &config.authorization;
    Ok(match wanted.mode {
        KubeletAuthorizationMode::AlwaysAllow => Authorization::AlwaysAllow,
        KubeletAuthorizationMode::Webhook => Authorization::Webhook {
            reviewer: reviewer.context("no client provided, cannot use webhook authorization")?,
            cache_authorized_ttl: wanted.webhook.cache_authorized_ttl,
            cache_unauthorized_ttl: wanted.webhook.cache_unauthorized_ttl,
        },
    })
}
