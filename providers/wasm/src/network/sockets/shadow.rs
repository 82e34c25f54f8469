//! Replacing functions that a linker has.

use std::pin::Pin;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, ComponentNamedList, Lift, Linker, LinkerInstance, Lower, ResourceType};

/// Replaces functions of one interface.
///
/// Each must be there already. A linker takes a function that it does not know as well, and guests would go on calling the
/// one that was meant: after an upgrade that renames a function or raises the interface's version, for example.
pub(super) struct Shadows<'a, T: 'static> {
    linker: &'a mut Linker<T>,
    interface: &'static str,
}

impl<'a, T: 'static> Shadows<'a, T> {
    pub(super) fn new(linker: &'a mut Linker<T>, interface: &'static str) -> Self {
        Self { linker, interface }
    }

    pub(super) fn func_wrap<P, R, F>(&mut self, name: &str, function: F) -> wasmtime::Result<()>
    where
        F: Fn(StoreContextMut<'_, T>, P) -> wasmtime::Result<R> + Send + Sync + 'static,
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap(name, function)
    }

    pub(super) fn func_wrap_async<P, R, F>(&mut self, name: &str, function: F) -> wasmtime::Result<()>
    where
        F: Fn(StoreContextMut<'_, T>, P) -> Box<dyn Future<Output = wasmtime::Result<R>> + Send + '_>
            + Send
            + Sync
            + 'static,
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap_async(name, function)
    }

    pub(super) fn func_wrap_concurrent<P, R, F>(&mut self, name: &str, function: F) -> wasmtime::Result<()>
    where
        F: Fn(&Accessor<T>, P) -> Pin<Box<dyn Future<Output = wasmtime::Result<R>> + Send + '_>>
            + Send
            + Sync
            + 'static,
        P: ComponentNamedList + Lift + 'static,
        R: ComponentNamedList + Lower + 'static,
    {
        self.replacing(name)?.func_wrap_concurrent(name, function)
    }

    pub(super) fn resource(
        &mut self,
        name: &str,
        resource: ResourceType,
        destructor: impl Fn(StoreContextMut<'_, T>, u32) -> wasmtime::Result<()> + Send + Sync + 'static,
    ) -> wasmtime::Result<()> {
        self.replacing(name)?.resource(name, resource, destructor)
    }

    /// The interface, ready to have the given item replaced.
    fn replacing(&mut self, name: &str) -> wasmtime::Result<LinkerInstance<'_, T>> {
        self.linker.allow_shadowing(false);
        // What is there cannot be defined again.
        let is_there = self.linker.instance(self.interface)?.func_wrap(name, |_, (): ()| Ok(())).is_err();
        if !is_there {
            wasmtime::bail!("the linker has no {name} in {} to replace", self.interface);
        }
        self.linker.allow_shadowing(true);
        self.linker.instance(self.interface)
    }
}

impl<T: 'static> Drop for Shadows<'_, T> {
    fn drop(&mut self) {
        self.linker.allow_shadowing(false);
    }
}
