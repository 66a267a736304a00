//! Threads and sleep.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    thread::{self, Builder},
    time::Duration,
};

use super::{Place, ThreadId, scheduler, set_scheduler};

/// A thread to be waited for.
#[derive(Debug)]
pub struct JoinHandle<T> {
    inner: thread::JoinHandle<T>,
    /// Which one of a simulation.
    simulated: Option<ThreadId>,
}

/// Starts a thread.
///
/// # Errors
/// When the host has none left.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let name = name.into();
    let Some(scheduler) = scheduler() else {
        return Ok(JoinHandle { inner: Builder::new().name(name).spawn(run)?, simulated: None });
    };
    let thread = scheduler.begin(&name);
    let inner = Builder::new().name(name).spawn(move || {
        scheduler.enter(thread);
        set_scheduler(Some(scheduler.clone()));
        let result = panic::catch_unwind(AssertUnwindSafe(run));
        set_scheduler(None);
        scheduler.exit(thread);
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    })?;
    Ok(JoinHandle { inner, simulated: Some(thread) })
}

impl<T> JoinHandle<T> {
    /// Waits for its end; what it returned.
    ///
    /// # Errors
    /// When it panicked: what with.
    pub fn join(self) -> thread::Result<T> {
        if let (Some(scheduler), Some(thread)) = (scheduler(), self.simulated) {
            while !scheduler.has_ended(thread) {
                scheduler.wait(Place::End(thread), None);
            }
        }
        self.inner.join()
    }
}

/// Waits for so long.
pub fn sleep(duration: Duration) {
    match scheduler() {
        None => thread::sleep(duration),
        Some(scheduler) => {
            scheduler.wait(Place::Time, Some(duration));
        }
    }
}
