//! Which stream writes for which producer: at most one, the newest.
//!
//! Owns the registry of live producer streams of the whole broker. Opening a stream fences an older one of the same
//! producer: nothing that stream still reads is produced any more, from the moment the new one is answered. What was
//! produced before stays; the sequencer recognises it when it is sent again.
//!
//! Knows only streams that are open: the store remembers epochs beyond that.
//!
//! Start at [`Producers::open`].

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use protocol::{Epoch, ProducerId};
use tokio::sync::watch;

/// The live producer streams, by producer.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    live: Mutex<BTreeMap<ProducerId, Arc<Claim>>>,
}

/// A producer's right to write, held by one stream.
#[derive(Debug)]
struct Claim {
    epoch: Epoch,
    /// Locked while a batch is handed over, so that fencing waits for a hand-over that has begun.
    fenced: Mutex<bool>,
    fence: watch::Sender<bool>,
}

/// The stream's epoch is older than one that writes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {} of producer {} is older than {}, which writes now", epoch.0, producer.0, current.0)]
pub(crate) struct Fenced {
    pub(crate) producer: ProducerId,
    pub(crate) epoch: Epoch,
    pub(crate) current: Epoch,
}

impl Producers {
    /// Takes over a producer for a stream, from an older stream if there is one.
    pub(crate) fn open(self: &Arc<Self>, producer: ProducerId, epoch: Epoch) -> Result<Lease, Fenced> {
        let (fence, _) = watch::channel(false);
        let claim = Arc::new(Claim { epoch, fenced: Mutex::new(false), fence });
        let mut live = self.live.lock();
        if let Some(older) = live.get(&producer) {
            if older.epoch > epoch {
                return Err(Fenced { producer, epoch, current: older.epoch });
            }
            *older.fenced.lock() = true;
            older.fence.send_replace(true);
        }
        live.insert(producer, claim.clone());
        drop(live);
        Ok(Lease { producer, claim, registry: self.clone() })
    }
}

/// A stream's hold on its producer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    producer: ProducerId,
    claim: Arc<Claim>,
    registry: Arc<Producers>,
}

impl Lease {
    /// Whom the stream writes for.
    pub(crate) fn producer(&self) -> ProducerId {
        self.producer
    }

    /// In which incarnation.
    pub(crate) fn epoch(&self) -> Epoch {
        self.claim.epoch
    }

    /// Does `act`, unless a newer stream took over.
    pub(crate) fn while_held<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        let fenced = self.claim.fenced.lock();
        (!*fenced).then(act)
    }

    /// Whether a newer stream took over.
    pub(crate) fn is_lost(&self) -> bool {
        *self.claim.fenced.lock()
    }

    /// Waits until a newer stream takes over.
    pub(crate) async fn lost(&self) {
        let mut fence = self.claim.fence.subscribe();
        // The sender lives in the claim, which `self` holds.
        let _ = fence.wait_for(|fenced| *fenced).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut live = self.registry.live.lock();
        if live.get(&self.producer).is_some_and(|claim| Arc::ptr_eq(claim, &self.claim)) {
            live.remove(&self.producer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_fences_the_older_and_an_older_epoch_is_refused() {
        let producers = Arc::new(Producers::default());
        let first = producers.open(ProducerId(1), Epoch(3)).unwrap();
        assert_eq!(first.while_held(|| 1), Some(1));
        let second = producers.open(ProducerId(1), Epoch(3)).unwrap();
        assert_eq!((first.while_held(|| 1), second.while_held(|| 2)), (None, Some(2)));
        drop(first);
        let refused = producers.open(ProducerId(1), Epoch(2)).unwrap_err();
        assert_eq!(refused, Fenced { producer: ProducerId(1), epoch: Epoch(2), current: Epoch(3) });
        assert_eq!(second.while_held(|| 2), Some(2));
        drop(second);
        assert!(producers.live.lock().is_empty());
    }

    #[test]
    fn producers_do_not_disturb_each_other() {
        let producers = Arc::new(Producers::default());
        let one = producers.open(ProducerId(1), Epoch(0)).unwrap();
        let two = producers.open(ProducerId(2), Epoch(0)).unwrap();
        assert!(one.while_held(|| ()).is_some() && two.while_held(|| ()).is_some());
    }
}
