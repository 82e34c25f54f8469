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
        self.replacing(name, |interface| interface.func_wrap(name, function))
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
        self.replacing(name, |interface| interface.func_wrap_async(name, function))
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
        self.replacing(name, |interface| interface.func_wrap_concurrent(name, function))
    }

    pub(super) fn resource(
        &mut self,
        name: &str,
        resource: ResourceType,
        destructor: impl Fn(StoreContextMut<'_, T>, u32) -> wasmtime::Result<()> + Send + Sync + 'static,
    ) -> wasmtime::Result<()> {
        self.replacing(name, |interface| interface.resource(name, resource, destructor))
    }

    /// Replaces the given item, which has to be there.
    fn replacing(
        &mut self,
        name: &str,
        replace: impl FnOnce(&mut LinkerInstance<'_, T>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<()> {
        self.linker.allow_shadowing(false);
        // What is there cannot be defined again.
        let is_there = self.linker.instance(self.interface)?.func_wrap(name, |_, (): ()| Ok(())).is_err();
        if !is_there {
            wasmtime::bail!("the linker has no {name} in {} to replace", self.interface);
        }
        #[cfg(test)]
        if trial::is_left_out(self.interface, name) {
            return Ok(());
        }
        self.linker.allow_shadowing(true);
        replace(&mut self.linker.instance(self.interface)?)
    }
}

impl<T: 'static> Drop for Shadows<'_, T> {
    fn drop(&mut self) {
        self.linker.allow_shadowing(false);
    }
}

/// Linkers in which a replacement is missing, to see whether tests notice.
#[cfg(test)]
pub(in crate::network) mod trial {
    use std::cell::RefCell;

    thread_local! {
        static LEFT_OUT: RefCell<Option<String>> = const { RefCell::new(None) };
        static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Does something on this thread with one replacement (`INTERFACE NAME`) missing, and says which were asked for.
    pub(in crate::network) fn leaving_out<R>(
        item: Option<&str>,
        work: impl FnOnce() -> R,
    ) -> (R, Vec<String>) {
        LEFT_OUT.replace(item.map(str::to_owned));
        ASKED.take();
        let result = work();
        LEFT_OUT.take();
        (result, ASKED.take())
    }

    pub(super) fn is_left_out(interface: &str, name: &str) -> bool {
        let item = format!("{interface} {name}");
        let is_left_out = LEFT_OUT.with_borrow(|left_out| left_out.as_ref() == Some(&item));
        ASKED.with_borrow_mut(|asked| asked.push(item));
        is_left_out
    }
}
