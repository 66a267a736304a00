//! What one thread needs to run pipelines.
//!
//! Owns nothing that outlives a batch: instances wait with the host, where any thread finds them.

use std::{fmt, sync::Arc, time::Instant};

use crate::{PluginHost, Transform, fault::CallError, instance::PluginInstance, plugin::StartError};

/// See the module. Cheap to make.
pub struct Worker {
    host: PluginHost,
}

impl Worker {
    /// Of a thread that runs plugins of this host.
    #[must_use]
    pub fn new(host: &PluginHost) -> Worker {
        Worker { host: host.clone() }
    }

    pub(crate) const fn host(&self) -> &PluginHost {
        &self.host
    }

    /// Takes an instance that waits for the transform, or a fresh one. It comes back by [`Worker::give_back`], or not at
    /// all.
    pub(crate) fn take(&self, transform: &Arc<Transform>) -> Result<Box<PluginInstance>, StartError> {
        if let Some(instance) = self.host.idle().take(transform.id()) {
            return Ok(instance);
        }
        loop {
            match transform.start(&self.host) {
                // Out of room: those that wait make some.
                Err(StartError::Call(CallError::Host(_))) if self.host.idle().give_up_one() => {}
                started => return started.map(Box::new),
            }
        }
    }

    /// Keeps an instance that served well, if the transform wants it to serve again.
    pub(crate) fn give_back(&self, transform: &Arc<Transform>, instance: Box<PluginInstance>, now: Instant) {
        if transform.reuses_instances() && instance.is_fit() {
            self.host.idle().give(transform.id(), instance, now);
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
