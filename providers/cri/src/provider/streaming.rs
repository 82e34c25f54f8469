//! Sessions: the runtime's own streaming server serves them.

use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{Error, ExecSyncResponse, Result, Stream, StreamingService};

use super::CriProvider;
use crate::bindings as cri;

#[async_trait]
impl StreamingService for CriProvider {
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or_default(),
        };
        let answer = self.shared.observer.client.exec_sync(request).await?;
        Ok(ExecSyncResponse { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, container_id: &str, command: &[String], stdin: bool, tty: bool) -> Result<Stream> {
        let request = cri::ExecRequest {
            container_id: container_id.to_owned(),
            cmd: command.to_vec(),
            tty,
            stdin,
            stdout: true,
            stderr: !tty,
        };
        url(self.shared.observer.client.exec(request).await?.url)
    }

    async fn attach(&self, container_id: &str, stdin: bool, tty: bool) -> Result<Stream> {
        let request = cri::AttachRequest {
            container_id: container_id.to_owned(),
            stdin,
            tty,
            stdout: true,
            stderr: !tty,
        };
        url(self.shared.observer.client.attach(request).await?.url)
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Stream> {
        let request =
            cri::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: vec![port.into()] };
        url(self.shared.observer.client.port_forward(request).await?.url)
    }
}

fn url(url: String) -> Result<Stream> {
    if url.is_empty() {
        return Err(Error::internal("the runtime answered without an address for the session"));
    }
    Ok(Stream::Url(url))
}
