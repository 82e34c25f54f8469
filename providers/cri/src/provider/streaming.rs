//! Sessions: the runtime's own streaming server serves them.

use std::time::Duration;

use async_trait::async_trait;
use coracle_provider::{Error, ExecSyncResponse, Result, SessionOptions, Stream, StreamingService};

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

    async fn exec(&self, container_id: &str, command: &[String], options: SessionOptions) -> Result<Stream> {
        // The runtime waits for just these streams of the client.
        let SessionOptions { stdin, stdout, stderr, tty } = options;
        let (container_id, cmd) = (container_id.to_owned(), command.to_vec());
        let request = cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
        checked(self.shared.observer.client.exec(request).await?.url).map(Stream::Url)
    }

    async fn attach(&self, container_id: &str, options: SessionOptions) -> Result<Stream> {
        let SessionOptions { stdin, stdout, stderr, tty } = options;
        let container_id = container_id.to_owned();
        let request = cri::AttachRequest { container_id, stdin, tty, stdout, stderr };
        checked(self.shared.observer.client.attach(request).await?.url).map(Stream::Url)
    }

    async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> Result<Option<String>> {
        let port = ports.iter().copied().map(i32::from).collect();
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port };
        checked(self.shared.observer.client.port_forward(request).await?.url).map(Some)
    }
}

fn checked(url: String) -> Result<String> {
    if url.is_empty() {
        return Err(Error::internal("the runtime answered without an address for the session"));
    }
    Ok(url)
}
