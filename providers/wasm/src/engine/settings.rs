//! How guests are compiled and instantiated.

use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails, WasmFeatures,
};

/// WebAssembly proposals that guests may use: 3.0 of the specification but for threads, and the component model with what
/// WASI 0.3 needs.
const PROPOSALS_ON: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::CM_ASYNC);

/// Proposals that are off, whatever the defaults of a later engine are. Shared memory is never shown to a resource
/// limiter, so `threads` would be a way around memory limits; the others are unfinished.
const PROPOSALS_OFF: WasmFeatures = WasmFeatures::THREADS
    .union(WasmFeatures::SHARED_EVERYTHING_THREADS)
    .union(WasmFeatures::STACK_SWITCHING)
    .union(WasmFeatures::CUSTOM_PAGE_SIZES)
    .union(WasmFeatures::WIDE_ARITHMETIC)
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_THREADING);

/// The stack of a guest's own functions. Deep recursion traps here; the host's functions run in what is left of
/// [`FIBER_STACK`].
const GUEST_STACK: usize = 512 << 10;
/// The whole stack of a guest, host calls included. Only what is touched becomes memory.
const FIBER_STACK: usize = 2 << 20;

/// Everything that decides what compiled code looks like. The compile child and the engine that runs its output
/// both start from here; a difference between two builds shows in the compatibility hash.
pub(crate) fn compile_settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(PROPOSALS_ON, true)
        .wasm_features(PROPOSALS_OFF, false)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_init_cow(true)
        // Names and lines in the backtrace of a trap are what a guest's author needs; they are read only then.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        // Backtraces of guests do not need it, and it would register every module with the process's unwinder.
        .native_unwind_info(false);
    config
}

/// How many memory mappings a live instance takes.
const MAPPINGS_OF_AN_INSTANCE: u64 = 7;

/// Warns if the kernel allows fewer memory mappings than so many instances need: beyond them guests fail to start, and
/// so does everything else in the process.
pub(super) fn check_mappings(instances: u32) {
    let needed = u64::from(instances) * MAPPINGS_OF_AN_INSTANCE;
    // Where it cannot be read there is nothing to say.
    let Ok(text) = std::fs::read_to_string("/proc/sys/vm/max_map_count") else { return };
    match text.trim().parse::<u64>() {
        Ok(allowed) if allowed < needed => {
            tracing::warn!(
                allowed,
                needed,
                instances,
                "vm.max_map_count is too low for so many guests: raise it"
            );
        }
        _ => {}
    }
}

/// Instances come from a pool: a memory, its page tables and a stack are used again for the next instance, which
/// is what makes a fresh instance for each request affordable. Nothing is paid for a slot that was never used but
/// address space: 4 GiB each.
///
/// `instances` is how many guests may live at once on the node, commands and requests in flight together.
pub(crate) fn pooling(instances: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        // A component is several core instances: the program, an adapter, and small ones that join the two.
        .total_core_instances(instances.saturating_mul(5))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(3))
        .total_stacks(instances)
        // Only languages with managed memory need one of these, and each takes another 4 GiB of addresses.
        .total_gc_heaps((instances / 10).max(1))
        .max_memory_size(4 << 30)
        .max_memories_per_module(4)
        .max_tables_per_module(4)
        // What interpreters compiled to WebAssembly (Python, JavaScript) need.
        .table_elements(100_000)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(8 << 20);
    pool.into()
}
