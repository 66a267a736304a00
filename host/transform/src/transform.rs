//! A plugin with its settings: what is deployed on a topic.
//!
//! Owns the check of the settings, the plugin's own word on its configuration included, and the counters. Knows no
//! topic and holds no instance: those belong to the workers.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::{
    Isolation, PluginHash, TransformLimits, TransformSpec, TransformStats, TransformUsage,
    limits::{
        BATCH_RECORDS_MAX, GUEST_CPU_PERCENT_MIN, GUEST_CPU_SHARE_CEILING, GUEST_DEADLINE_MS_CEILING,
        GUEST_FAILURE_MS_CEILING, GUEST_FAILURES_PER_BATCH_CEILING, GUEST_LOG_LINES_PER_S_CEILING,
        GUEST_MEMORY_BYTES_CEILING, GUEST_OUTPUT_BYTES_MAX, GUEST_STACK_BYTES_CEILING, GUEST_STACK_BYTES_MIN,
        TRANSFORM_CONFIG_BYTES_MAX, TRANSFORM_TARGETS_MAX,
    },
};

use crate::{
    Fault, Plugin, PluginHost,
    engines::Stack,
    fault::CallError,
    guest,
    idle::Idle,
    instance::{PluginInstance, Settings},
    plugin::{Code, StartError},
    usage::Usage,
};

/// A plugin with its settings; see the module.
pub struct Transform {
    /// Tells it from every other of this process, its own replacement included.
    id: u64,
    spec: TransformSpec,
    plugin: Plugin,
    code: Code,
    seed: u64,
    usage: Arc<Usage>,
    /// Where its instances wait.
    idle: Weak<Idle>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Transform {
    /// Checks the settings, and starts one instance to hear whether the plugin takes its configuration.
    ///
    /// # Errors
    /// When a limit is passed, the plugin is another than the settings name, or it refuses its configuration.
    pub fn new(host: &PluginHost, plugin: &Plugin, spec: TransformSpec) -> Result<Transform, TransformError> {
        let usage = Arc::new(Usage::new(&spec.limits));
        Transform::with_usage(host, plugin, spec, usage)
    }

    /// The same transform with other limits and policies: what it has done goes on to be counted. The old limits are in
    /// force until [`Transform::take_over`].
    ///
    /// # Errors
    /// When a limit is passed, or it cannot start with so little.
    pub fn altered(&self, host: &PluginHost, spec: TransformSpec) -> Result<Transform, TransformError> {
        Transform::with_usage(host, &self.plugin, spec, self.usage.clone())
    }

    /// Its limits are in force from now on, where they are not for single batches: on its share and its log.
    pub fn take_over(&self) {
        self.usage.set(&self.spec.limits);
    }

    fn with_usage(
        host: &PluginHost,
        plugin: &Plugin,
        spec: TransformSpec,
        usage: Arc<Usage>,
    ) -> Result<Transform, TransformError> {
        let stack = check(plugin, &spec)?;
        let code = plugin.code(host, stack).map_err(|error| TransformError::Host(format!("{error:#}")))?;
        let seed = guest::seed_of(spec.name.as_str());
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let idle = Arc::downgrade(host.idle());
        let transform = Transform { id, spec, plugin: plugin.clone(), code, seed, usage, idle };
        transform.start(host)?;
        Ok(transform)
    }

    /// Its settings.
    #[must_use]
    pub const fn spec(&self) -> &TransformSpec {
        &self.spec
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn stats(&self) -> TransformStats {
        let (log_lines, log_lines_cut) = self.usage.log_rate.read();
        TransformStats { log_lines, log_lines_cut, ..self.usage.counters.read() }
    }

    /// What it holds now.
    #[must_use]
    pub fn describe_usage(&self) -> TransformUsage {
        self.usage.describe()
    }

    /// Closes its breaker: an operator has seen to what was wrong.
    pub fn resume(&self) {
        self.usage.reset_breaker();
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn reuses_instances(&self) -> bool {
        self.spec.isolation == Isolation::Reused
    }

    /// A fresh instance with the transform's configuration.
    pub(crate) fn start(&self, host: &PluginHost) -> Result<PluginInstance, StartError> {
        let settings = Settings {
            name: self.spec.name.as_str(),
            seed: self.seed,
            limits: self.spec.limits,
            config: Some(&self.spec.config),
            usage: Some(&self.usage),
        };
        PluginInstance::start(host, &self.code, &settings)
    }
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transform").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Drop for Transform {
    fn drop(&mut self) {
        if let Some(idle) = self.idle.upgrade() {
            idle.forget(self.id);
        }
    }
}

fn check(plugin: &Plugin, spec: &TransformSpec) -> Result<Stack, TransformError> {
    if plugin.hash() != spec.plugin_hash {
        return Err(TransformError::PluginDiffers { found: plugin.hash(), expected: spec.plugin_hash });
    }
    let stack = check_limits(&spec.limits)?;
    over("number of targets", spec.targets.len() as u64, TRANSFORM_TARGETS_MAX as u64)?;
    over("length of the configuration", spec.config.len() as u64, TRANSFORM_CONFIG_BYTES_MAX as u64)?;
    let config: serde_json::Value = serde_json::from_str(&spec.config).map_err(TransformError::ConfigNotJson)?;
    let is_empty = config.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_empty && !plugin.takes_config() {
        return Err(TransformError::ConfigUnwanted);
    }
    Ok(stack)
}

fn check_limits(limits: &TransformLimits) -> Result<Stack, TransformError> {
    over("memory_bytes", limits.memory_bytes, GUEST_MEMORY_BYTES_CEILING as u64)?;
    over("deadline_ms", limits.deadline_ms.into(), GUEST_DEADLINE_MS_CEILING.into())?;
    over("record_deadline_ms", limits.record_deadline_ms.into(), GUEST_DEADLINE_MS_CEILING.into())?;
    over("output_bytes", limits.output_bytes, GUEST_OUTPUT_BYTES_MAX as u64)?;
    over("output_records", limits.output_records.into(), BATCH_RECORDS_MAX as u64)?;
    over("failures", limits.failures.into(), GUEST_FAILURES_PER_BATCH_CEILING.into())?;
    over("failure_ms", limits.failure_ms.into(), GUEST_FAILURE_MS_CEILING.into())?;
    over("log_lines_per_s", limits.log_lines_per_s.into(), GUEST_LOG_LINES_PER_S_CEILING.into())?;
    over("cpu_share", limits.cpu_share.into(), GUEST_CPU_SHARE_CEILING.into())?;
    for (what, value) in [("deadline_ms", limits.deadline_ms), ("record_deadline_ms", limits.record_deadline_ms)] {
        if value == 0 {
            return Err(TransformError::Nothing { what });
        }
    }
    if limits.cpu_share == 0 {
        return Err(TransformError::Nothing { what: "cpu_share" });
    }
    if (1..GUEST_CPU_PERCENT_MIN).contains(&limits.cpu_percent) {
        return Err(TransformError::CapTooLow { percent: limits.cpu_percent });
    }
    Stack::of_bytes(limits.stack_bytes).ok_or(TransformError::StackSize { bytes: limits.stack_bytes })
}

fn over(what: &'static str, value: u64, max: u64) -> Result<(), TransformError> {
    if value > max { Err(TransformError::OverLimit { what, value, max }) } else { Ok(()) }
}

/// Why a transform cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The settings name another plugin.
    #[error("plugin is {found}, the settings name {expected}")]
    PluginDiffers {
        /// What was given.
        found: PluginHash,
        /// What the settings name.
        expected: PluginHash,
    },
    /// Over a limit.
    #[error("{what} of {value} is over its limit of {max}")]
    OverLimit {
        /// What.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        max: u64,
    },
    /// No guest can do its work with nothing of this.
    #[error("`{what}` is 0")]
    Nothing {
        /// Which limit.
        what: &'static str,
    },
    /// A batch would take longer than anybody waits.
    #[error("`cpu_percent` of {percent} is below {GUEST_CPU_PERCENT_MIN}: give 0 for no cap")]
    CapTooLow {
        /// What was asked for.
        percent: u32,
    },
    /// Stacks come in a few sizes.
    #[error(
        "`stack_bytes` of {bytes} is not a power of two from {GUEST_STACK_BYTES_MIN} to {GUEST_STACK_BYTES_CEILING}"
    )]
    StackSize {
        /// What was asked for.
        bytes: u32,
    },
    /// The configuration is not JSON.
    #[error("configuration is not JSON")]
    ConfigNotJson(#[source] serde_json::Error),
    /// The plugin takes none.
    #[error("the plugin takes no configuration: leave it out")]
    ConfigUnwanted,
    /// The plugin refused its configuration, in its own words.
    #[error("the plugin refused its configuration: {text}")]
    ConfigRefused {
        /// Its reason.
        text: String,
    },
    /// An instance did not come up.
    #[error("the plugin failed to start")]
    Start(#[source] Fault),
    /// The host had no room for an instance.
    #[error("an instance could not be made: {0}")]
    Host(String),
}

impl From<StartError> for TransformError {
    fn from(error: StartError) -> TransformError {
        match error {
            StartError::Refused(text) => TransformError::ConfigRefused { text },
            StartError::Call(CallError::Fault(fault)) => TransformError::Start(fault),
            StartError::Call(CallError::Host(text)) => TransformError::Host(text),
            StartError::AbiVersion { found } => TransformError::Host(format!("ABI version changed to {found}")),
        }
    }
}
