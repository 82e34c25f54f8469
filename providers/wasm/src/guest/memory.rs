//! Memory limits: one sum for all instances of a container.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// What an element of a table costs the host.
const TABLE_ELEMENT: u64 = size_of::<usize>() as u64;

/// The linear memories and tables of a container, over all of its instances.
#[derive(Debug)]
pub(crate) struct ContainerMemory {
    used: AtomicU64,
    limit_bytes: AtomicU64,
}

impl ContainerMemory {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit_bytes: AtomicU64::new(limit_bytes) })
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Sets another limit, which holds for everything that grows from now on. What is in use stays in use, so a limit
    /// below that is refused.
    pub(crate) fn set_limit(&self, limit_bytes: u64) -> Result<(), MemoryExceeded> {
        let used = self.used();
        if limit_bytes < used {
            return Err(MemoryExceeded { limit_bytes, wanted_bytes: used });
        }
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        Ok(())
    }

    fn charge(&self, bytes: u64) -> Result<(), MemoryExceeded> {
        let limit_bytes = self.limit();
        self.used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit_bytes)
            })
            .map(drop)
            .map_err(|used| MemoryExceeded { limit_bytes, wanted_bytes: used.saturating_add(bytes) })
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A guest wanted more memory than its container may have. It traps with this.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the container needs {wanted_bytes} bytes of memory, and its limit is {limit_bytes}")]
pub(crate) struct MemoryExceeded {
    pub(crate) limit_bytes: u64,
    pub(crate) wanted_bytes: u64,
}

/// The share of one instance. Dropping it, with the store that it lives in, gives everything back: the engine
/// tells of growth only.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    container: Arc<ContainerMemory>,
    charged: u64,
    last_growth: u64,
}

impl InstanceMemory {
    pub(crate) fn new(container: Arc<ContainerMemory>) -> Self {
        Self { container, charged: 0, last_growth: 0 }
    }

    /// Bytes that this instance has.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    fn grow(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        self.container.charge(bytes)?;
        self.charged += bytes;
        self.last_growth = bytes;
        Ok(true)
    }

    fn roll_back(&mut self) {
        let bytes = std::mem::take(&mut self.last_growth);
        self.container.release(bytes);
        self.charged -= bytes;
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current) as u64)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.roll_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.roll_back();
        Ok(())
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.container.release(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_one_limit_and_give_back_what_they_had() {
        let container = ContainerMemory::new(300);
        let mut first = InstanceMemory::new(container.clone());
        let mut second = InstanceMemory::new(container.clone());
        assert!(first.memory_growing(0, 200, None).unwrap());
        let error = second.memory_growing(0, 101, None).unwrap_err();
        assert_eq!(error.downcast_ref::<MemoryExceeded>().unwrap().wanted_bytes, 301);
        assert!(second.memory_growing(0, 100, None).unwrap());
        assert_eq!(container.used(), 300);
        drop(first);
        assert_eq!((container.used(), second.charged()), (100, 100));
        drop(second);
        assert_eq!(container.used(), 0);
    }

    #[test]
    fn another_limit_holds_for_what_grows_from_now_on() {
        let container = ContainerMemory::new(100);
        let mut instance = InstanceMemory::new(container.clone());
        assert!(instance.memory_growing(0, 100, None).unwrap());
        assert!(instance.memory_growing(100, 150, None).is_err());
        container.set_limit(150).unwrap();
        assert!(instance.memory_growing(100, 150, None).unwrap());
        assert_eq!(container.set_limit(149).unwrap_err().wanted_bytes, 150);
        assert_eq!(container.limit(), 150);
        container.set_limit(150).unwrap();
        assert!(instance.memory_growing(150, 151, None).is_err());
    }

    #[test]
    fn growth_that_comes_to_nothing_is_not_counted() {
        let container = ContainerMemory::new(1000);
        let mut instance = InstanceMemory::new(container.clone());
        assert!(!instance.memory_growing(0, 200, Some(100)).unwrap());
        assert!(instance.memory_growing(0, 100, Some(100)).unwrap());
        instance.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!(container.used(), 0);
        assert!(instance.table_growing(0, 10, None).unwrap());
        assert_eq!(container.used(), 10 * TABLE_ELEMENT);
    }
}
