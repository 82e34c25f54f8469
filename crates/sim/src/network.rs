//! How probes and hooks reach containers. A path is `/UID/PROBE`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::ports::{GrpcCheck, HookError, HttpGet, ProbeOutcome, ProbeTransport, TcpConnect};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::faults::Faults;
use crate::lives::Lives;

/// The pods' network.
pub(crate) struct Network {
    pub(crate) dice: Dice,
    pub(crate) faults: Arc<Faults>,
    pub(crate) lives: Arc<Lives>,
}

impl Network {
    async fn answer(&self, path: &str) -> ProbeOutcome {
        sleep(self.dice.millis(0..20)).await;
        if self.faults.probe_breaks(&self.dice) {
            return ProbeOutcome::Unknown("the request could not be made".to_owned());
        }
        let (uid, probe) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        if self.lives.is_well(uid, probe) {
            ProbeOutcome::Success(String::new())
        } else {
            ProbeOutcome::Failure("HTTP probe failed with statuscode: 503".to_owned())
        }
    }
}

#[async_trait]
impl ProbeTransport for Network {
    async fn http(&self, request: &HttpGet, _timeout: Duration) -> ProbeOutcome {
        self.answer(&request.path).await
    }
    async fn tcp(&self, _request: &TcpConnect, _timeout: Duration) -> ProbeOutcome {
        self.answer("").await
    }
    async fn grpc(&self, _request: &GrpcCheck, _timeout: Duration) -> ProbeOutcome {
        self.answer("").await
    }
    async fn http_hook(&self, _request: &HttpGet) -> Result<(), HookError> {
        sleep(self.dice.millis(0..2500)).await;
        if self.faults.hook_fails(&self.dice) {
            return Err(HookError::Failed("connection reset".to_owned()));
        }
        Ok(())
    }
}
