//! The process-wide part of the engine: wasmtime's engines, the compiled cache, the instances that wait, and the turns
//! of those that run.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, thread, time::Duration};

use protocol::PluginHash;
use wasmtime::{Engine, InstancePre, Module};

use crate::{
    Cancel, Compiler, InProcess, Plugin, PluginError,
    cache::{self, Cache},
    deadline::{Running, Ticks},
    engines::{Engines, Stack},
    guest::Guest,
    idle::Idle,
    slots::Slots,
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
    cache: Option<Cache>,
    compiler: Arc<dyn Compiler>,
    /// Before the engines, whose instances they are.
    idle: Arc<Idle>,
    slots: Slots,
    engines: Engines,
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
        let engines = Engines::new(instances_max).map_err(PluginHostError::Ticker)?;
        engines.of(Stack::DEFAULT).map_err(|source| PluginHostError::Engine { instances_max, source })?;
        let cache = match &options.cache_dir {
            None => None,
            Some(dir) => {
                let of_cache = |source| PluginHostError::Cache { dir: dir.clone(), source };
                Some(Cache::open(dir).map_err(of_cache)?)
            }
        };
        let slots = Slots::new(thread::available_parallelism().map_or(1, usize::from), Some(engines.nudge()));
        let compiler = options.compiler.clone();
        Ok(PluginHost { inner: Arc::new(Inner { cache, compiler, idle: Arc::default(), slots, engines }) })
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
        if let (Some(cache), false) = (&self.inner.cache, plugin.is_kept()) {
            cache.put(self.engine(), plugin.hash(), plugin.module());
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
        if let Some(cache) = &self.inner.cache {
            cache.sweep(self.engine(), named);
        }
    }

    /// Gives up instances that no batch needed for so long.
    pub fn trim(&self, longer_than: Duration) {
        self.inner.idle.trim(longer_than);
    }

    /// Gives up all instances that wait; the next batch of each transform meets a fresh one.
    pub fn forget_idle(&self) {
        self.inner.idle.clear();
    }

    /// How many instances wait for a batch.
    #[must_use]
    pub fn idle_instances(&self) -> usize {
        self.inner.idle.count()
    }

    pub(crate) fn idle(&self) -> &Arc<Idle> {
        &self.inner.idle
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.inner.slots
    }

    /// The engine that modules are compiled for.
    fn engine(&self) -> &Engine {
        &self.inner.engines.of(Stack::DEFAULT).expect("it was made with the host").engine
    }

    /// Keeps deadlines ticking while a guest runs.
    pub(crate) fn running(&self) -> Running<'_> {
        self.inner.engines.running()
    }

    /// What host functions tell by that a deadline may have passed.
    pub(crate) fn ticks(&self) -> Ticks {
        self.inner.engines.ticks()
    }

    /// This broker's compiled form of a module.
    pub(crate) fn kept(&self, hash: PluginHash) -> Option<Module> {
        self.inner.cache.as_ref()?.get(self.engine(), hash)
    }

    /// Compiles a module that passed the checks.
    pub(crate) fn compile(&self, wasm: &[u8], cancel: &Cancel) -> Result<Module, PluginError> {
        let code = self.inner.compiler.compile(wasm, cancel)?;
        cache::module_of(self.engine(), &code).map_err(PluginError::Link)
    }

    /// Links a module with the host functions of the engine that it was compiled for, or is moved to.
    pub(crate) fn link(&self, module: &Module, stack: Stack) -> wasmtime::Result<InstancePre<Guest>> {
        let of = self.inner.engines.of(stack)?;
        if Engine::same(module.engine(), &of.engine) {
            return of.linker.instantiate_pre(module);
        }
        of.linker.instantiate_pre(&cache::moved_to(&of.engine, module)?)
    }
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}
