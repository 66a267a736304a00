//! The instances of one worker thread.
//!
//! Owns which instance serves which transform: one each, reused from batch to batch, never shared between transforms
//! or threads, thrown away after a fault or when it has grown, gone when its transform is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use crate::{PluginHost, Transform, fault::CallError, instance::PluginInstance, plugin::StartError};

/// What one thread needs to run pipelines. Cheap to make; its instances come with use.
pub struct Worker {
    host: PluginHost,
    slots: BTreeMap<u64, Slot>,
}

struct Slot {
    transform: Weak<Transform>,
    instance: PluginInstance,
}

impl Worker {
    /// Without instances.
    #[must_use]
    pub fn new(host: &PluginHost) -> Worker {
        Worker { host: host.clone(), slots: BTreeMap::new() }
    }

    /// Throws away the instances of transforms that are gone. It happens by itself before a new instance is started;
    /// an idle worker can be asked to.
    pub fn forget_gone(&mut self) {
        self.slots.retain(|_, slot| slot.transform.strong_count() > 0);
    }

    /// Throws away all instances; the next batch of each transform starts a fresh one.
    pub fn forget_all(&mut self) {
        self.slots.clear();
    }

    /// How many instances it holds.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.slots.len()
    }

    pub(crate) const fn host(&self) -> &PluginHost {
        &self.host
    }

    /// Takes the transform's instance, or a fresh one. It comes back by [`Worker::give_back`], or not at all.
    pub(crate) fn take(&mut self, transform: &Arc<Transform>) -> Result<PluginInstance, StartError> {
        if let Some(slot) = self.slots.remove(&transform.id()) {
            return Ok(slot.instance);
        }
        self.forget_gone();
        match transform.start(&self.host) {
            // Out of room: the idle instances of this worker make some.
            Err(StartError::Call(CallError::Host(_))) if !self.slots.is_empty() => {
                self.forget_all();
                transform.start(&self.host)
            }
            started => started,
        }
    }

    /// Keeps an instance that served well.
    pub(crate) fn give_back(&mut self, transform: &Arc<Transform>, instance: PluginInstance) {
        if instance.is_fit() {
            self.slots.insert(transform.id(), Slot { transform: Arc::downgrade(transform), instance });
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("instances", &self.slots.len()).finish_non_exhaustive()
    }
}
