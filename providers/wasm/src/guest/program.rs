//! Programs: mapped code that is linked and known to be something that can run.

use wasmtime::component::{Component, types};
use wasmtime::{Engine, ExternType, Module};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::{p2 as http_p2, p3 as http_p3};

use super::command::Command;
use super::linkers::{Linkers, OFFERED};
use super::service::Handler;
use crate::compile::{Code, one_line};

/// What services export.
const HANDLER_P2: &str = "wasi:http/incoming-handler@0.2.";
const HANDLER_P3: &str = "wasi:http/handler@0.3.";
/// What commands export.
const RUN_P2: &str = "wasi:cli/run@0.2.";
const RUN_P3: &str = "wasi:cli/run@0.3.";

/// A program, ready to be instantiated any number of times, for any container: nothing of a pod is in it.
pub(crate) enum Program {
    /// It runs to its end.
    Command(Command),
    /// It answers HTTP requests.
    Service {
        /// What answers them.
        handler: Handler,
        /// It can be run as well: toolchains add that to what is made to be served.
        command: Option<Command>,
    },
}

/// Code that cannot run here, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnfitProgram {
    #[error(
        "the module exports no function `_start` without parameters and results: only commands can run, not libraries"
    )]
    NotACommand,
    #[error(
        "the component exports neither `wasi:http/incoming-handler@0.2`, `wasi:http/handler@0.3` nor \
         `wasi:cli/run@0.2` or `@0.3`, only {0}: it is no service and no command"
    )]
    UnknownWorld(String),
    #[error("this node offers {OFFERED}: {0}")]
    MissingImport(String),
}

impl Program {
    /// Links code, and finds out by its exports what it is.
    pub(crate) fn link(engine: &Engine, linkers: &Linkers, code: &Code) -> Result<Self, UnfitProgram> {
        match code {
            Code::Module(module) => module_program(linkers, module),
            Code::Component(component) => component_program(engine, linkers, component),
        }
    }

    /// What runs if it is given a command line.
    pub(crate) fn command(&self) -> Option<&Command> {
        match self {
            Self::Command(command) => Some(command),
            Self::Service { command, .. } => command.as_ref(),
        }
    }
}

fn module_program(linkers: &Linkers, module: &Module) -> Result<Program, UnfitProgram> {
    let is_start =
        |ty: ExternType| ty.func().is_some_and(|f| f.params().len() == 0 && f.results().len() == 0);
    if !module.get_export("_start").is_some_and(is_start) {
        return Err(UnfitProgram::NotACommand);
    }
    let linked = linkers.modules.instantiate_pre(module).map_err(missing_import)?;
    Ok(Program::Command(Command::Module(linked)))
}

fn component_program(
    engine: &Engine,
    linkers: &Linkers,
    component: &Component,
) -> Result<Program, UnfitProgram> {
    let ty = component.component_type();
    let exports = |name: &str| ty.exports(engine).any(|(export, _)| export.starts_with(name));
    let known = [HANDLER_P3, HANDLER_P2, RUN_P3, RUN_P2].map(exports);
    if known == [false; 4] {
        return Err(UnfitProgram::UnknownWorld(list_exports(engine, &ty)));
    }
    let linked = linkers.components.instantiate_pre(component).map_err(missing_import)?;
    // Of two versions the newer one is what it was written for.
    let [handles_p3, handles_p2, runs_p3, runs_p2] = known;
    let command = if runs_p3 {
        Some(p3::bindings::CommandPre::new(linked.clone()).map(Command::P3))
    } else if runs_p2 {
        Some(p2::bindings::CommandPre::new(linked.clone()).map(Command::P2))
    } else {
        None
    };
    let command = command.transpose().map_err(missing_import)?;
    let handler = if handles_p3 {
        Some(http_p3::bindings::ServicePre::new(linked).map(Handler::P3))
    } else if handles_p2 {
        Some(http_p2::bindings::ProxyPre::new(linked).map(Handler::P2))
    } else {
        None
    };
    match (handler.transpose().map_err(missing_import)?, command) {
        (Some(handler), command) => Ok(Program::Service { handler, command }),
        (None, Some(command)) => Ok(Program::Command(command)),
        (None, None) => Err(UnfitProgram::UnknownWorld(list_exports(engine, &ty))),
    }
}

fn missing_import(error: wasmtime::Error) -> UnfitProgram {
    UnfitProgram::MissingImport(one_line(&error))
}

fn list_exports(engine: &Engine, ty: &types::Component) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = ty.exports(engine).take(MOST).map(|(name, _)| format!("`{name}`")).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compile_settings;

    fn link(wat: &str) -> Result<Program, String> {
        let engine = Engine::new(&compile_settings()).unwrap();
        let linkers = Linkers::new(&engine).unwrap();
        let wasm = wat::parse_str(wat).unwrap();
        let code = if wat.starts_with("(component") {
            Code::Component(Component::new(&engine, wasm).unwrap())
        } else {
            Code::Module(Module::new(&engine, wasm).unwrap())
        };
        Program::link(&engine, &linkers, &code).map_err(|error| error.to_string())
    }

    #[test]
    fn a_module_is_a_command_by_its_start_function() {
        assert!(matches!(
            link("(module (func (export \"_start\")))"),
            Ok(Program::Command(Command::Module(_)))
        ));
        for library in [
            "(module (func (export \"_initialize\")))",
            "(module (func (export \"_start\") (param i32)))",
            "(module (memory (export \"_start\") 1))",
        ] {
            assert!(link(library).err().unwrap().contains("_start"));
        }
    }

    #[test]
    fn a_missing_import_is_named_with_its_version() {
        let error = link("(module (import \"env\" \"f\" (func)) (func (export \"_start\")))").err().unwrap();
        assert!(error.contains("env::f"), "{error}");
        let old =
            "(module (import \"wasi_unstable\" \"proc_exit\" (func (param i32))) (func (export \"_start\")))";
        assert!(link(old).err().unwrap().contains("wasi_unstable::proc_exit"));
    }

    #[test]
    fn a_component_of_another_world_is_refused_by_what_it_exports() {
        assert!(link("(component)").err().unwrap().contains("only nothing"));
        let future = "(component (instance $i) (export \"wasi:cli/run@0.4.0\" (instance $i)))";
        let error = link(future).err().unwrap();
        assert!(error.contains("only `wasi:cli/run@0.4.0`"), "{error}");
        let needy = "(component
            (import \"acme:db/sql@1.4.0\" (instance (export \"query\" (func))))
            (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))";
        let error = link(needy).err().unwrap();
        assert!(error.contains("acme:db/sql@1.4.0") && error.contains("query"), "{error}");
    }

    #[test]
    fn what_is_not_offered_is_refused_by_its_name_and_version() {
        for (interface, function) in [
            ("wasi:keyvalue/store@0.2.0-draft", "open"),
            ("wasi:tls/types@0.2.0-draft", "connect"),
            ("wasi:blobstore/blobstore@0.2.0-draft", "create-container"),
            ("wasi:nn/graph@0.2.0-rc-2024-10-28", "load"),
            ("wasi:config/store@0.3.0", "get"),
        ] {
            let needy = format!(
                "(component
                    (import \"{interface}\" (instance (export \"{function}\" (func))))
                    (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))"
            );
            let error = link(&needy).err().unwrap();
            assert!(error.starts_with("this node offers WASI 0.1") && error.contains(interface), "{error}");
        }
    }

    #[test]
    fn a_service_may_be_a_command_as_well() {
        let both = link(SERVICE_AND_COMMAND).unwrap();
        assert!(matches!(&both, Program::Service { handler: Handler::P2(_), command: Some(Command::P2(_)) }));
        assert!(both.command().is_some());
    }

    const SERVICE_AND_COMMAND: &str = include_str!("../../tests/support/service_and_command.wat");
}
