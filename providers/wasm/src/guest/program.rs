//! Programs: mapped code that is linked and known to be something that can run.

use wasmtime::component::{Component, types};
use wasmtime::{Engine, ExternType, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::linkers::Linkers;
use super::state::GuestState;
use crate::compile::{Code, one_line};

/// What a service of WASI 0.2 exports. A component that also exports [`RUN`] is a service: toolchains add the latter
/// to what is made to be served.
const HANDLER: &str = "wasi:http/incoming-handler@0.2.";
/// What a command of WASI 0.2 exports.
const RUN: &str = "wasi:cli/run@0.2.";

/// A program, ready to be instantiated any number of times, for any container: nothing of a pod is in it.
pub(crate) enum Program {
    /// A core module of WASI 0.1 with a `_start`.
    Module(InstancePre<GuestState>),
    /// A component that runs to its end.
    Command(CommandPre<GuestState>),
    /// A component that answers HTTP requests.
    Service(ProxyPre<GuestState>),
}

/// Code that cannot run here, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnfitProgram {
    #[error(
        "the module exports no function `_start` without parameters and results: only commands can run, not libraries"
    )]
    NotACommand,
    #[error(
        "the component exports neither `wasi:http/incoming-handler@0.2` nor `wasi:cli/run@0.2`, only {0}: \
         it is no service and no command of WASI 0.2"
    )]
    UnknownWorld(String),
    #[error("this node offers only WASI 0.1, WASI 0.2 and wasi:http 0.2: {0}")]
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
}

fn module_program(linkers: &Linkers, module: &Module) -> Result<Program, UnfitProgram> {
    let is_start =
        |ty: ExternType| ty.func().is_some_and(|f| f.params().len() == 0 && f.results().len() == 0);
    if !module.get_export("_start").is_some_and(is_start) {
        return Err(UnfitProgram::NotACommand);
    }
    linkers.modules.instantiate_pre(module).map(Program::Module).map_err(missing_import)
}

fn component_program(
    engine: &Engine,
    linkers: &Linkers,
    component: &Component,
) -> Result<Program, UnfitProgram> {
    let ty = component.component_type();
    let exports = |name: &str| ty.exports(engine).any(|(export, _)| export.starts_with(name));
    let (is_service, is_command) = (exports(HANDLER), exports(RUN));
    if !is_service && !is_command {
        return Err(UnfitProgram::UnknownWorld(list_exports(engine, &ty)));
    }
    let linked = linkers.components.instantiate_pre(component).map_err(missing_import)?;
    if is_service {
        ProxyPre::new(linked).map(Program::Service).map_err(missing_import)
    } else {
        CommandPre::new(linked).map(Program::Command).map_err(missing_import)
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
        assert!(matches!(link("(module (func (export \"_start\")))"), Ok(Program::Module(_))));
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
        let p3 = "(component (instance $i) (export \"wasi:cli/run@0.3.0\" (instance $i)))";
        let error = link(p3).err().unwrap();
        assert!(error.contains("`wasi:cli/run@0.3.0`"), "{error}");
        let needy = "(component
            (import \"acme:db/sql@1.4.0\" (instance (export \"query\" (func))))
            (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))";
        let error = link(needy).err().unwrap();
        assert!(error.contains("acme:db/sql@1.4.0") && error.contains("query"), "{error}");
    }
}
