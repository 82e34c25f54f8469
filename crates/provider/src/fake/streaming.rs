//! Sessions of the fake provider.

use std::time::Duration;

use async_trait::async_trait;

use super::{Call, FakeExec, FakeProvider};
use crate::{ContainerState, Error, ErrorKind, ExecSyncResponse, Result, StreamingService};

#[async_trait]
impl StreamingService for FakeProvider {
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let exec = {
            let mut state = self.state.lock();
            state.executed.push((container_id.to_owned(), command.to_vec()));
            command.first().and_then(|word| state.execs.get(word)).cloned()
        };
        self.enter(Call::ExecSync).await?;
        if self.container(container_id).is_none_or(|c| c.state != ContainerState::Running) {
            return Err(Error::not_found(format!("no running container {container_id}")));
        }
        let exec = exec.unwrap_or_else(|| FakeExec::exit(0));
        tokio::time::sleep(exec.delay.min(timeout)).await;
        if exec.delay > timeout {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "the command took too long"));
        }
        exec.result
    }
}
