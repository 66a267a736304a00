//! Work that blocks, away from the threads that poll futures.

use storage::sync;
use tokio::{sync::oneshot, task};

/// The runtime is going down, and the work was not done.
#[derive(Debug)]
pub(crate) struct Ended;

/// Runs it to its end, whether or not the caller waits for it: on the runtime's threads for that, or, in a simulation, on
/// one of its own. A panic goes on in the caller.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Ended> {
    if sync::scheduler().is_some() {
        return run_simulated(work).await;
    }
    match task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(Ended),
    }
}

async fn run_simulated<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Ended> {
    let (sender, result) = oneshot::channel();
    // Whoever dropped its end does not want to know.
    let thread = sync::spawn("weir-blocking", move || drop(sender.send(work()))).map_err(|_| Ended)?;
    let result = result.await;
    match thread.join() {
        Ok(()) => result.map_err(|_| Ended),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
