//! Locks and condition variables: `parking_lot`'s, which a simulation never blocks on.
//!
//! Owns nothing but the asking: what a lock is held by is known to `parking_lot` alone, in a simulation too.

use std::{fmt, time::Duration};

pub use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use super::{Place, scheduler};

/// `parking_lot::Mutex`.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(parking_lot::Mutex<T>);

/// `parking_lot::RwLock`.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(parking_lot::RwLock<T>);

/// `parking_lot::Condvar`.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

/// What a wait with a time ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time had passed.
    #[must_use]
    pub fn timed_out(self) -> bool {
        self.0
    }
}

/// Takes a lock as it can be had: at once, or, in a simulation, when whoever holds it has run on.
fn take<G>(try_take: impl Fn() -> Option<G>, take: impl FnOnce() -> G) -> G {
    let Some(scheduler) = scheduler() else { return take() };
    scheduler.pause();
    let mut again = false;
    loop {
        if let Some(guard) = try_take() {
            return guard;
        }
        scheduler.contend(std::mem::replace(&mut again, true));
    }
}

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        take(|| self.0.try_lock(), || self.0.lock())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> RwLock<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(parking_lot::RwLock::new(value))
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        take(|| self.0.try_read(), || self.0.read())
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        take(|| self.0.try_write(), || self.0.write())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Condvar {
    /// One that nobody waits for.
    #[must_use]
    pub const fn new() -> Condvar {
        Condvar(parking_lot::Condvar::new())
    }

    /// Gives the lock back until it is notified.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        match scheduler() {
            None => self.0.wait(guard),
            Some(_) => drop(self.wait_in_simulation(guard, None)),
        }
    }

    /// [`Condvar::wait`], for so long.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, at_most: Duration) -> WaitTimeoutResult {
        match scheduler() {
            None => WaitTimeoutResult(self.0.wait_for(guard, at_most).timed_out()),
            Some(_) => WaitTimeoutResult(!self.wait_in_simulation(guard, Some(at_most))),
        }
    }

    fn wait_in_simulation<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, at_most: Option<Duration>) -> bool {
        let scheduler = scheduler().expect("the caller has seen it");
        let mut woken = false;
        // Nobody else runs between the two, so no call of `notify` is missed. To lock it again blocks for nobody: the
        // lock is taken by `try` everywhere else, and whoever holds it has to run on first.
        let lock = MutexGuard::mutex(guard);
        MutexGuard::unlocked(guard, || {
            woken = scheduler.wait(Place::of(self), at_most);
            let mut again = false;
            while lock.is_locked() {
                scheduler.contend(std::mem::replace(&mut again, true));
            }
        });
        woken
    }

    /// Lets one of those who wait go on.
    pub fn notify_one(&self) {
        match scheduler() {
            None => drop(self.0.notify_one()),
            Some(scheduler) => scheduler.wake(Place::of(self), false),
        }
    }

    /// Lets all of those who wait go on.
    pub fn notify_all(&self) {
        match scheduler() {
            None => drop(self.0.notify_all()),
            Some(scheduler) => scheduler.wake(Place::of(self), true),
        }
    }
}

/// Turns at a library that has locks of its own and calls back from under them: one thread at a time in a simulation,
/// which knows nothing of those locks; whoever comes otherwise.
#[derive(Debug, Default)]
pub struct Turn(parking_lot::Mutex<()>);

impl Turn {
    /// Waits for the turn, in a simulation.
    pub fn take(&self) -> Option<MutexGuard<'_, ()>> {
        scheduler().map(|_| take(|| self.0.try_lock(), || self.0.lock()))
    }
}
