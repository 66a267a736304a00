//! The wasmtime engines of a process: what guests may use of WebAssembly, how they are compiled, and how deep they may
//! call.
//!
//! Owns wasmtime's configuration. wasmtime bounds the stack of a call by engine, and a transform may ask for more or less
//! of it; so there is one engine for each size, made when it is first asked for. They differ in nothing else: what was
//! compiled for one runs on all.

use std::sync::OnceLock;

use protocol::limits::{
    GUEST_MEMORY_BYTES_CEILING, GUEST_STACK_BYTES, GUEST_STACK_BYTES_CEILING, GUEST_STACK_BYTES_MIN,
    PLUGIN_TABLE_ELEMENTS_MAX, PLUGIN_TABLES_MAX,
};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Linker, OptLevel, PoolingAllocationConfig, Strategy};

use crate::{
    deadline::{Nudge, Running, Ticker, Ticks},
    guest::Guest,
    imports,
};

/// How much stack a call may use: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stack {
    doublings: u32,
}

/// Sizes there are.
const SIZES: usize = (GUEST_STACK_BYTES_CEILING / GUEST_STACK_BYTES_MIN).ilog2() as usize + 1;

impl Stack {
    /// What a transform has that says nothing.
    pub(crate) const DEFAULT: Stack = Stack { doublings: (GUEST_STACK_BYTES / GUEST_STACK_BYTES_MIN).ilog2() };

    /// Of so many bytes; `None` when there is no such size.
    pub(crate) fn of_bytes(bytes: u32) -> Option<Stack> {
        let sizes = (0..SIZES as u32).map(|doublings| Stack { doublings });
        sizes.into_iter().find(|stack| stack.bytes() == bytes as usize)
    }

    const fn bytes(self) -> usize {
        GUEST_STACK_BYTES_MIN << self.doublings
    }
}

/// One of the engines, and the functions that guests on it are linked with.
pub(crate) struct EngineOf {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
}

/// See the module.
pub(crate) struct Engines {
    ticker: Ticker,
    instances_max: u32,
    by_size: [OnceLock<EngineOf>; SIZES],
}

impl Engines {
    /// No engine as yet; instances as many on each.
    pub(crate) fn new(instances_max: u32) -> std::io::Result<Engines> {
        let by_size = [const { OnceLock::new() }; SIZES];
        Ok(Engines { ticker: Ticker::start()?, instances_max, by_size })
    }

    /// The engine of a stack's size.
    pub(crate) fn of(&self, stack: Stack) -> wasmtime::Result<&EngineOf> {
        let place = &self.by_size[stack.doublings as usize];
        if let Some(made) = place.get() {
            return Ok(made);
        }
        let engine = Engine::new(config(stack).allocation_strategy(self.pool()))?;
        let linker = imports::linker(&engine)?;
        // Of two that are made at once one is dropped unused.
        if place.set(EngineOf { engine, linker }).is_ok() {
            place.get().into_iter().for_each(|made| self.ticker.add(&made.engine));
        }
        Ok(place.get().expect("it was just set"))
    }

    /// Keeps deadlines ticking while a guest runs.
    pub(crate) fn running(&self) -> Running<'_> {
        self.ticker.running()
    }

    /// Has the guests that run looked at before the next tick.
    pub(crate) fn nudge(&self) -> Nudge {
        self.ticker.nudge()
    }

    /// What host functions tell by that a deadline may have passed.
    pub(crate) fn ticks(&self) -> Ticks {
        self.ticker.ticks()
    }

    fn pool(&self) -> InstanceAllocationStrategy {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(self.instances_max)
            .total_memories(self.instances_max)
            .total_tables(self.instances_max.saturating_mul(PLUGIN_TABLES_MAX))
            .max_memories_per_module(1)
            .max_tables_per_module(PLUGIN_TABLES_MAX)
            .table_elements(PLUGIN_TABLE_ELEMENTS_MAX as usize)
            // The most any transform may be granted; each one's own limit is enforced as its memory grows.
            .max_memory_size(GUEST_MEMORY_BYTES_CEILING);
        InstanceAllocationStrategy::Pooling(pool)
    }
}

/// What wasmtime is asked for, but for where instances lie. The proposals that are off are refused by
/// [`validate`](crate::validate) already; they are off here as well, so that no compiled code can depend on them.
pub(crate) fn config(stack: Stack) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // The same input gives the same output on every processor.
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .max_wasm_stack(stack.bytes())
        .memory_init_cow(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_extended_const(false)
        .wasm_function_references(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .shared_memory(false);
    config
}
