//! `pull`: an image that the node does not have yet.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::fixture::{Fixture, is_ready};
use crate::promise::{Milliseconds, Promise, parse_duration};

const POD: &str = "python";

pub(crate) async fn run() -> Result<Vec<Promise>> {
    let mut fixture = Fixture::new().await?;
    fixture.create_service(POD, "python-http", &[]).await?;
    let bound = fixture.until(POD, |_| true).await?.at;
    let ready = fixture.until(POD, |seen| is_ready(&seen.pod)).await?.at - bound;
    let compiling = compiling(&fixture.node().log()).context("the agent does not say that it compiled")?;
    println!("  bound to Ready: {}, of it compiling {}", Milliseconds(ready), Milliseconds(compiling));
    Ok(vec![
        Promise::took("pull-python-ready", ready),
        Promise::ratio("pull-python-compile-share", compiling.as_secs_f64() / ready.as_secs_f64()),
    ])
}

/// How long the agent says that it compiled what it compiled last.
fn compiling(log: &str) -> Option<Duration> {
    let line = log.lines().rev().find(|line| line.contains("compiled"))?;
    let (_, elapsed) = line.split_once("elapsed")?;
    let text: String = elapsed.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    parse_duration(text.split(|c: char| c.is_whitespace() || c == '"').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_s_log_is_read_in_both_formats() {
        let took = Some(Duration::from_millis(12_500));
        assert_eq!(compiling("INFO compiled digest=\"a\" bytes=1 elapsed=12.5s\nINFO else"), took);
        assert_eq!(compiling(r#"{"message":"compiled","elapsed":"12.5s","bytes":1}"#), took);
        assert_eq!(compiling("INFO else"), None);
    }
}
