//! `guests`: builds tests/guests and puts the modules where tests and examples take them from: small ones into the repository,
//! those that bring a language's runtime along into the cache.

mod c;
mod large;
mod rust;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::paths;

pub(crate) use large::provide;

/// Guests that the examples use as well.
const EXAMPLES: &[&str] = &["env", "exit", "hello", "http"];

/// Builds all guests of the repository, or those with these names.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let is_known = |name: &str| name == c::NAME || rust::names().any(|known| known == name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        bail!("there is no guest `{unknown}` in the repository; large ones are built by `cargo xtask setup`");
    }
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if is_wanted(c::NAME) {
        c::build()?;
    }
    rust::build(is_wanted)
}

/// Puts a module into the repository.
fn keep(built: &Path, name: &str) -> Result<()> {
    let repository = paths::repository();
    let file = format!("{name}.wasm");
    let content = fs::read(built).with_context(|| built.display().to_string())?;
    let mut places = vec![repository.join("tests/guests/wasm").join(&file)];
    if EXAMPLES.contains(&name) {
        places.push(repository.join("examples").join(&file));
    }
    for place in places {
        fs::write(&place, &content).with_context(|| place.display().to_string())?;
    }
    println!("{:>7} bytes  {file}", content.len());
    Ok(())
}
