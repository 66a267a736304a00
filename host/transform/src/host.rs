//! The process-wide part of the engine: one wasmtime `Engine`, its ticker, the host functions, the compiled cache.
//!
//! Owns the configuration of wasmtime. Never holds an instance.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use protocol::{
    PluginHash,
    limits::{GUEST_MEMORY_BYTES_CEILING, GUEST_STACK_BYTES, PLUGIN_TABLE_ELEMENTS_MAX, PLUGIN_TABLES_MAX},
};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel, PoolingAllocationConfig,
    Strategy,
};

use crate::{
    Cancel, Compiler, InProcess, Plugin, PluginError,
    cache::{self, Cache},
    deadline::{Running, Ticker, Ticks},
    guest::Guest,
    imports,
};

/// How a [`PluginHost`] is set up.
#[derive(Debug, Clone)]
pub struct PluginHostOptions {
    /// Where compiled plugins are kept, in a folder of their own; `None` compiles at every load.
    pub cache_dir: Option<PathBuf>,
    /// Instances that may exist at once. Each reserves about 4 GiB of addresses, and no memory before it is used.
    pub instances_max: u32,
    /// What compiles. Default: [`InProcess`], which is for modules of one's own.
    pub compiler: Arc<dyn Compiler>,
}

impl PluginHostOptions {
    /// With the compiled cache below `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> PluginHostOptions {
        PluginHostOptions {
            cache_dir: Some(cache_dir.into()),
            instances_max: 1_000,
            ..PluginHostOptions::without_cache()
        }
    }

    /// Without a compiled cache, for tools and tests.
    #[must_use]
    pub fn without_cache() -> PluginHostOptions {
        PluginHostOptions { cache_dir: None, instances_max: 100, compiler: Arc::new(InProcess) }
    }
}

/// Loads plugins and runs their instances. A clone is the same host.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<Inner>,
}

struct Inner {
    ticker: Ticker,
    linker: Linker<Guest>,
    cache: Option<Cache>,
    compiler: Arc<dyn Compiler>,
    engine: Engine,
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum PluginHostError {
    /// wasmtime refuses, for instance for want of addresses.
    #[error("the plugin engine cannot be set up for {instances_max} instances")]
    Engine {
        /// How many were asked for.
        instances_max: u32,
        /// What wasmtime says.
        #[source]
        source: wasmtime::Error,
    },
    /// The directory for compiled plugins cannot be used.
    #[error("cannot use `{}` for compiled plugins", dir.display())]
    Cache {
        /// Which.
        dir: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// No thread for the ticker.
    #[error("cannot start the plugin engine's ticker")]
    Ticker(#[source] io::Error),
}

impl PluginHost {
    /// Starts the engine.
    ///
    /// # Errors
    /// When addresses, a thread or the cache's directory cannot be had.
    pub fn new(options: &PluginHostOptions) -> Result<PluginHost, PluginHostError> {
        let instances_max = options.instances_max;
        let of_engine = |source| PluginHostError::Engine { instances_max, source };
        let engine = Engine::new(&config(instances_max)).map_err(of_engine)?;
        let linker = imports::linker(&engine).map_err(of_engine)?;
        let cache = match &options.cache_dir {
            None => None,
            Some(dir) => {
                let of_cache = |source| PluginHostError::Cache { dir: dir.clone(), source };
                Some(Cache::open(dir).map_err(of_cache)?)
            }
        };
        let ticker = Ticker::start(&engine).map_err(PluginHostError::Ticker)?;
        let compiler = options.compiler.clone();
        Ok(PluginHost { inner: Arc::new(Inner { ticker, linker, cache, compiler, engine }) })
    }

    /// Loads a module that was accepted before: [`PluginHost::examine`], and its compiled form is kept.
    ///
    /// # Errors
    /// As [`PluginHost::examine`]'s.
    pub fn load(&self, wasm: &[u8]) -> Result<Plugin, PluginError> {
        let plugin = self.examine(wasm, &Cancel::default())?;
        self.keep(&plugin);
        Ok(plugin)
    }

    /// Checks a module, compiles it (or takes this broker's compiled form of it), and tries it out. Leaves nothing on
    /// disk: whoever accepts the plugin says so with [`PluginHost::keep`].
    ///
    /// # Errors
    /// The first rule the module breaks, or why it was not compiled.
    pub fn examine(&self, wasm: &[u8], cancel: &Cancel) -> Result<Plugin, PluginError> {
        Plugin::examine(self, wasm, cancel)
    }

    /// Keeps the compiled form of a plugin that was accepted, where it is not kept yet.
    pub fn keep(&self, plugin: &Plugin) {
        let Inner { cache, engine, .. } = &*self.inner;
        if let (Some(cache), false) = (cache, plugin.is_kept()) {
            cache.put(engine, plugin.hash(), plugin.module());
        }
    }

    /// Deletes the compiled form of a plugin that is gone.
    pub fn forget(&self, plugin: PluginHash) {
        if let Some(cache) = &self.inner.cache {
            cache.remove(plugin);
        }
    }

    /// Deletes what lies among the compiled forms and nobody needs: of plugins that are not among these, of other
    /// engines, and what was not written to its end.
    pub fn sweep(&self, named: &BTreeSet<PluginHash>) {
        let Inner { cache, engine, .. } = &*self.inner;
        if let Some(cache) = cache {
            cache.sweep(engine, named);
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Keeps deadlines ticking while a guest runs.
    pub(crate) fn running(&self) -> Running<'_> {
        self.inner.ticker.running()
    }

    /// What host functions tell by that a deadline may have passed.
    pub(crate) fn ticks(&self) -> Ticks {
        self.inner.ticker.ticks()
    }

    /// This broker's compiled form of a module.
    pub(crate) fn kept(&self, hash: PluginHash) -> Option<Module> {
        let Inner { cache, engine, .. } = &*self.inner;
        cache.as_ref()?.get(engine, hash)
    }

    /// Compiles a module that passed the checks.
    pub(crate) fn compile(&self, wasm: &[u8], cancel: &Cancel) -> Result<Module, PluginError> {
        let Inner { compiler, engine, .. } = &*self.inner;
        let code = compiler.compile(wasm, cancel)?;
        cache::module_of(engine, &code).map_err(PluginError::Link)
    }

    pub(crate) fn link(&self, module: &Module) -> wasmtime::Result<InstancePre<Guest>> {
        self.inner.linker.instantiate_pre(module)
    }
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

/// What runs compiled code: the same, with a pool of instances.
fn config(instances_max: u32) -> Config {
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances_max)));
    config
}

/// What wasmtime is asked for, as far as compiled code depends on it. The proposals that are off are refused by
/// [`validate`](crate::validate) already; they are off here as well, so that no compiled code can depend on them.
pub(crate) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // The same input gives the same output on every processor.
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
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

fn pool(instances_max: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances_max)
        .total_memories(instances_max)
        .total_tables(instances_max.saturating_mul(PLUGIN_TABLES_MAX))
        .max_memories_per_module(1)
        .max_tables_per_module(PLUGIN_TABLES_MAX)
        .table_elements(PLUGIN_TABLE_ELEMENTS_MAX as usize)
        // The most any transform may be granted; each one's own limit is enforced as its memory grows.
        .max_memory_size(GUEST_MEMORY_BYTES_CEILING);
    pool
}
