//! Uploads take turns: compiling takes a core and much memory, whoever does it.
//!
//! Owns how many may wait. What waits is a future, and holds up nothing but itself: other admin operations go on, and an
//! upload whose client goes away leaves the queue, or has its compilation cancelled.
//!
//! Start at [`Uploads::turn`].

use std::sync::Arc;

use protocol::limits::UPLOADS_WAITING_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use transform::Cancel;

use crate::PluginError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Uploads {
    /// For those that wait and the one whose turn it is.
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// The turn of one upload; over when dropped.
#[derive(Debug)]
pub(crate) struct UploadTurn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Default for Uploads {
    fn default() -> Uploads {
        Uploads { places: Arc::new(Semaphore::new(UPLOADS_WAITING_MAX + 1)), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Uploads {
    /// Waits for the turn of an upload, behind those that came before: each takes no longer than compiling may.
    pub(crate) async fn turn(&self) -> Result<UploadTurn, PluginError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| PluginError::TooManyUploads)?;
        // Nobody closes it.
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| PluginError::TooManyUploads)?;
        Ok(UploadTurn { _turn: turn, _place: place })
    }
}

/// Cancels when dropped: held by the future of whoever waits for an upload.
#[derive(Debug, Default)]
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
