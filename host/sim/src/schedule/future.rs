//! Futures on a thread of a simulation.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use storage::sync::{Place, Scheduler, ThreadId, scheduler};

struct ThreadWaker {
    scheduler: Arc<dyn Scheduler>,
    thread: ThreadId,
    is_woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.scheduler.wake(Place::Future(self.thread), true);
    }
}

/// Polls a future until it is done, and gives the turn away while it waits.
///
/// # Panics
/// Outside of a simulation.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let scheduler = scheduler().expect("a thread of a simulation");
    let thread = scheduler.current();
    let state = Arc::new(ThreadWaker { scheduler: scheduler.clone(), thread, is_woken: AtomicBool::new(false) });
    let waker = Waker::from(state.clone());
    let mut future = pin!(future);
    loop {
        scheduler.pause();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !state.is_woken.swap(false, Ordering::Acquire) {
            scheduler.wait(Place::Future(thread), None);
        }
    }
}
