//! A plugin with its settings: what is deployed on a topic.
//!
//! Owns the check of the settings, the plugin's own word on its configuration included, and the counters. Knows no
//! topic and holds no instance: those belong to the workers.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::{
    PluginHash, TransformSpec, TransformStats,
    limits::{
        GUEST_DEADLINE_MS_CEILING, GUEST_MEMORY_BYTES_CEILING, GUEST_OUTPUT_BYTES_MAX, TRANSFORM_CONFIG_BYTES_MAX,
        TRANSFORM_TARGETS_MAX,
    },
};

use crate::{
    Fault, Plugin, PluginHost,
    fault::CallError,
    guest,
    instance::{PluginInstance, Settings},
    plugin::StartError,
    stats::Counters,
};

/// A plugin with its settings; see the module.
#[derive(Debug)]
pub struct Transform {
    /// Tells it from every other of this process, its own replacement included.
    id: u64,
    spec: TransformSpec,
    plugin: Plugin,
    seed: u64,
    counters: Counters,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Transform {
    /// Checks the settings, and starts one instance to hear whether the plugin takes its configuration.
    ///
    /// # Errors
    /// When a limit is passed, the plugin is another than the settings name, or it refuses its configuration.
    pub fn new(host: &PluginHost, plugin: &Plugin, spec: TransformSpec) -> Result<Transform, TransformError> {
        check(plugin, &spec)?;
        let seed = guest::seed_of(spec.name.as_str());
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let transform = Transform { id, spec, plugin: plugin.clone(), seed, counters: Counters::default() };
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
        self.counters.read()
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A fresh instance with the transform's configuration.
    pub(crate) fn start(&self, host: &PluginHost) -> Result<PluginInstance, StartError> {
        let settings = Settings {
            name: self.spec.name.as_str(),
            seed: self.seed,
            limits: self.spec.limits,
            config: Some(&self.spec.config),
        };
        PluginInstance::start(host, self.plugin.code(), &settings)
    }
}

fn check(plugin: &Plugin, spec: &TransformSpec) -> Result<(), TransformError> {
    if plugin.hash() != spec.plugin_hash {
        return Err(TransformError::PluginDiffers { found: plugin.hash(), expected: spec.plugin_hash });
    }
    let limits = &spec.limits;
    over("memory_bytes", limits.memory_bytes, GUEST_MEMORY_BYTES_CEILING as u64)?;
    over("deadline_ms", limits.deadline_ms.into(), GUEST_DEADLINE_MS_CEILING.into())?;
    over("output_bytes", limits.output_bytes, GUEST_OUTPUT_BYTES_MAX as u64)?;
    over("number of targets", spec.targets.len() as u64, TRANSFORM_TARGETS_MAX as u64)?;
    over("length of the configuration", spec.config.len() as u64, TRANSFORM_CONFIG_BYTES_MAX as u64)?;
    let config: serde_json::Value = serde_json::from_str(&spec.config).map_err(TransformError::ConfigNotJson)?;
    let is_empty = config.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_empty && plugin.code().exports.init.is_none() {
        return Err(TransformError::ConfigUnwanted);
    }
    Ok(())
}

fn over(what: &'static str, value: u64, max: u64) -> Result<(), TransformError> {
    match value {
        0 if what.ends_with("_ms") => Err(TransformError::NoTime),
        _ if value > max => Err(TransformError::OverLimit { what, value, max }),
        _ => Ok(()),
    }
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
    /// No guest can do its work in no time.
    #[error("`deadline_ms` is 0")]
    NoTime,
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
