//! Waiting: locks, condition variables, channels, threads and sleep. A simulation can take all of them over.
//!
//! Owns the question who runs. On an ordinary thread everything here is what it is called after, from `parking_lot` and
//! `std`. On a thread of a simulation a [`Scheduler`] decides: it lets one thread run at a time, and whoever would wait
//! for another gives its turn away, so that one seed gives one order of events, and time passes only when all wait.
//!
//! Invariants
//! - Whoever waits says so here, or in a future's waker. A lock or channel from elsewhere that is held across a call into
//!   this crate would stop a simulation for good; see [`Turn`] for libraries that have locks of their own.
//! - A thread belongs to the simulation of the thread that spawned it.
//!
//! Start at [`Scheduler`].

mod channel;
mod lock;
mod thread;

use std::{cell::RefCell, sync::Arc, time::Duration};

pub use channel::{Receiver, RecvError, RecvTimeoutError, Sender, channel};
pub use lock::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Turn};
pub use thread::{JoinHandle, sleep, spawn};

/// Which of a simulation's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId(pub u32);

/// What threads wait for: the address of a lock or condition variable, or anything that is told apart from those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Something in memory, as long as it lies there.
    Address(usize),
    /// The end of a thread.
    End(ThreadId),
    /// A future that this thread polls.
    Future(ThreadId),
    /// Nothing but time.
    Time,
}

impl Place {
    /// The place of a value that does not move while somebody waits for it.
    pub fn of<T: ?Sized>(value: &T) -> Place {
        Place::Address(std::ptr::from_ref(value).cast::<()>() as usize)
    }
}

/// Decides which of a simulation's threads runs. All calls but [`Scheduler::wake`] are made by the thread that runs.
pub trait Scheduler: Send + Sync {
    /// There is a thread more; it runs when it is its turn, from [`Scheduler::enter`] on.
    fn begin(&self, name: &str) -> ThreadId;
    /// The first call of a new thread: returns when it is its turn.
    fn enter(&self, thread: ThreadId);
    /// The last call of a thread.
    fn exit(&self, thread: ThreadId);
    /// Another thread may run now.
    fn pause(&self);
    /// A lock is held by another thread, still if `again`: that one has to run first.
    fn contend(&self, again: bool);
    /// Waits until a thread calls [`Scheduler::wake`] for the place; `false` when a time passed before.
    fn wait(&self, place: Place, at_most: Option<Duration>) -> bool;
    /// Lets one or all of those go on who wait there now. Does not give the turn away.
    fn wake(&self, place: Place, all: bool);
    /// Whether a thread called [`Scheduler::exit`].
    fn has_ended(&self, thread: ThreadId) -> bool;
    /// Which thread runs: the caller.
    fn current(&self) -> ThreadId;
    /// Time since the simulation began.
    fn now(&self) -> Duration;
}

thread_local! {
    static SCHEDULER: RefCell<Option<Arc<dyn Scheduler>>> = const { RefCell::new(None) };
}

/// The scheduler of the simulation that this thread belongs to, if any.
#[must_use]
pub fn scheduler() -> Option<Arc<dyn Scheduler>> {
    // A thread that ends has none any more.
    SCHEDULER.try_with(|scheduler| scheduler.borrow().clone()).ok().flatten()
}

/// Makes this thread one of a simulation's, or an ordinary one again.
pub fn set_scheduler(scheduler: Option<Arc<dyn Scheduler>>) {
    SCHEDULER.set(scheduler);
}

/// Another thread of the simulation may run now.
pub fn pause() {
    if let Some(scheduler) = scheduler() {
        scheduler.pause();
    }
}
