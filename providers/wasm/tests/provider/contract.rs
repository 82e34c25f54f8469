//! What every provider must do.

use std::path::PathBuf;

use coracle_provider::contract::{Program, Subject};
use coracle_provider::{Provider, provider_contract};

use crate::support::{Host, guest, strings};

impl Subject for Host {
    fn provider(&self) -> &dyn Provider {
        &*self.provider
    }

    fn program(&self, program: Program) -> (String, Vec<String>) {
        let (module, args) = match program {
            Program::Stays => ("stay", strings(&["sleep"])),
            Program::Exits(code) => ("exit", vec![code.to_string()]),
        };
        (guest(module).display().to_string(), args)
    }

    fn missing_image(&self) -> String {
        self.folder.path().join("no-such.wasm").display().to_string()
    }

    fn log_directory(&self) -> PathBuf {
        self.folder.path().join("logs")
    }
}

provider_contract!(Host::start());
