//! The fake is a provider like any other.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use coracle_provider::contract::{Program, Subject};
use coracle_provider::fake::FakeProvider;
use coracle_provider::{ContainerState, Event, Provider, provider_contract};
use jiff::Timestamp;

struct Fake(Arc<FakeProvider>);

async fn start() -> Fake {
    let provider = FakeProvider::new("fake", Timestamp::now);
    let weak: Weak<FakeProvider> = Arc::downgrade(&provider);
    provider.observe(move |event| {
        let Event::Container(status) = event else { return };
        let code = status.image.image.strip_prefix("exit-").and_then(|code| code.parse().ok());
        if let (ContainerState::Running, Some(code), Some(fake)) = (status.state, code, weak.upgrade()) {
            let id = status.id.clone();
            tokio::spawn(async move { fake.end_container(&id, code) });
        }
    });
    Fake(provider)
}

impl Subject for Fake {
    fn provider(&self) -> &dyn Provider {
        &*self.0
    }

    fn program(&self, program: Program) -> (String, Vec<String>) {
        let image = match program {
            Program::Stays => "stay".to_owned(),
            Program::Exits(code) => format!("exit-{code}"),
        };
        (image, Vec::new())
    }

    fn missing_image(&self) -> String {
        "missing".to_owned()
    }

    fn log_directory(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("logs")
    }
}

provider_contract!(start());
