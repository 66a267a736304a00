//! Channels without a bound: `std`'s, in which a simulation waits by its scheduler.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError};

use super::{Place, scheduler};

/// The end that takes values in. Clones are the same channel's.
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
    place: Arc<()>,
}

/// The end that gives them out.
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    place: Arc<()>,
}

/// A channel.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let place = Arc::new(());
    (Sender { inner: sender, place: place.clone() }, Receiver { inner: receiver, place })
}

impl<T> Sender<T> {
    /// Puts a value in; gives it back when there is no receiver any more.
    ///
    /// # Errors
    /// The value.
    pub fn send(&self, value: T) -> Result<(), mpsc::SendError<T>> {
        self.inner.send(value)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(scheduler) = scheduler() {
            scheduler.wake(Place::of(&*self.place), true);
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { inner: self.inner.clone(), place: self.place.clone() }
    }
}

impl<T> Drop for Sender<T> {
    /// The last one ends the receiver's wait, which is over only when this thread's turn is: the inner one is gone then.
    fn drop(&mut self) {
        self.wake();
    }
}

impl<T> Receiver<T> {
    /// Waits for a value.
    ///
    /// # Errors
    /// When there is none, and no sender any more.
    pub fn recv(&self) -> Result<T, RecvError> {
        match scheduler() {
            None => self.inner.recv(),
            Some(_) => self.wait(None).map_err(|_| RecvError),
        }
    }

    /// [`Receiver::recv`], for so long.
    ///
    /// # Errors
    /// When there is none.
    pub fn recv_timeout(&self, at_most: Duration) -> Result<T, RecvTimeoutError> {
        match scheduler() {
            None => self.inner.recv_timeout(at_most),
            Some(_) => self.wait(Some(at_most)),
        }
    }

    fn wait(&self, at_most: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let scheduler = scheduler().expect("the caller has seen it");
        let until = at_most.map(|at_most| scheduler.now() + at_most);
        scheduler.pause();
        loop {
            match self.inner.try_recv() {
                Ok(value) => return Ok(value),
                Err(mpsc::TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            let left = until.map(|until| until.saturating_sub(scheduler.now()));
            if left == Some(Duration::ZERO) {
                return Err(RecvTimeoutError::Timeout);
            }
            scheduler.wait(Place::of(&*self.place), left);
        }
    }

    /// What is there already.
    pub fn try_iter(&self) -> mpsc::TryIter<'_, T> {
        self.inner.try_iter()
    }
}
