//! A seeded schedule: the threads of a simulation take turns, one at a time, and time passes only when all of them wait.
//!
//! Owns the order of events. Which thread goes on at each lock, channel, call to the disk and wait follows from the seed,
//! so the same seed gives the same run, and a thread that sleeps for a minute costs nothing. Never preempts: a thread
//! that computes is let alone.
//!
//! Invariants
//! - At most one thread of a simulation runs. (They are threads of the host, which wait for their turn.)
//! - When nobody can run and no time is waited for, the simulation is [`Stuck`], which says who waits where.
//!
//! Start at [`run`].

mod future;
mod state;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use storage::sync::{Place, Scheduler, ThreadId, set_scheduler};

use self::state::{State, Status};
pub use future::block_on;
pub use storage::sync::{JoinHandle, pause, sleep, spawn};

/// Turns after which a simulation is taken to run in circles.
const TURNS_MAX: u64 = 50_000_000;

/// Nobody can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Who waits, and for what.
    pub what: String,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nobody can go on: {}", self.what)
    }
}

impl std::error::Error for Stuck {}

/// What a simulation ended with.
#[derive(Debug)]
enum Ending<R> {
    Returned(R),
    Panicked(Box<dyn std::any::Any + Send>),
    Stuck(Stuck),
}

/// Runs a program and the threads it spawns (by `storage::sync`) as a seed says.
///
/// Threads that are left when it returns never run again.
///
/// # Errors
/// When nobody can go on.
///
/// # Panics
/// When the program does.
pub fn run<R: Send + 'static>(seed: u64, program: impl FnOnce() -> R + Send + 'static) -> Result<R, Stuck> {
    let (sender, ending) = mpsc::channel();
    let stuck = sender.clone();
    let on_stuck = Box::new(move |what| drop(stuck.send(Ending::Stuck(Stuck { what }))));
    let schedule = Arc::new(Schedule(Mutex::new(State::new(seed, TURNS_MAX, on_stuck))));
    let main = schedule.begin("main");
    let name = thread::current().name().unwrap_or("sim").to_owned();
    let spawned = thread::Builder::new().name(name).spawn(move || {
        schedule.enter(main);
        set_scheduler(Some(schedule.clone()));
        let result = panic::catch_unwind(AssertUnwindSafe(program));
        set_scheduler(None);
        schedule.0.lock().is_over = true;
        let _ = sender.send(result.map_or_else(Ending::Panicked, Ending::Returned));
    });
    spawned.expect("the host has room for a thread");
    match ending.recv().expect("a program ends somehow") {
        Ending::Returned(result) => Ok(result),
        Ending::Panicked(panic) => panic::resume_unwind(panic),
        Ending::Stuck(stuck) => Err(stuck),
    }
}

/// Time since the simulation began; `None` outside of one.
#[must_use]
pub fn now() -> Option<Duration> {
    storage::sync::scheduler().map(|scheduler| scheduler.now())
}

struct Schedule(Mutex<State>);

impl Schedule {
    /// Gives the turn away, and waits until it comes back.
    fn switch(&self, status: Status) {
        let mut state = self.0.lock();
        let me = state.running;
        state.set(me, status);
        self.hand_over(&mut state, me);
    }

    fn hand_over(&self, state: &mut MutexGuard<'_, State>, me: ThreadId) {
        state.choose();
        if state.running == me && !state.is_over {
            return;
        }
        let next = state.turn_of(state.running);
        next.notify_one();
        self.wait_for_turn(state, me);
    }

    fn wait_for_turn(&self, state: &mut MutexGuard<'_, State>, me: ThreadId) {
        let turn = state.turn_of(me);
        // Whoever's turn it is when a simulation is over: nobody runs any more.
        while state.running != me || state.is_over {
            turn.wait(state);
        }
    }
}

impl Scheduler for Schedule {
    fn begin(&self, name: &str) -> ThreadId {
        self.0.lock().begin(name)
    }

    fn enter(&self, thread: ThreadId) {
        let mut state = self.0.lock();
        self.wait_for_turn(&mut state, thread);
    }

    fn exit(&self, thread: ThreadId) {
        let mut state = self.0.lock();
        state.set(thread, Status::Ended);
        state.wake(Place::End(thread), true);
        state.choose();
        let next = state.turn_of(state.running);
        next.notify_one();
    }

    fn pause(&self) {
        let mut state = self.0.lock();
        if !state.is_time_to_switch() {
            return;
        }
        let me = state.running;
        state.set(me, Status::Ready);
        self.hand_over(&mut state, me);
    }

    fn contend(&self, again: bool) {
        self.switch(Status::Contending { again });
    }

    fn wait(&self, place: Place, at_most: Option<Duration>) -> bool {
        let mut state = self.0.lock();
        let me = state.running;
        let until = at_most.map(|at_most| state.now + at_most);
        state.set(me, Status::Waiting { place, until });
        self.hand_over(&mut state, me);
        state.was_woken(me)
    }

    fn wake(&self, place: Place, all: bool) {
        self.0.lock().wake(place, all);
    }

    fn has_ended(&self, thread: ThreadId) -> bool {
        self.0.lock().has_ended(thread)
    }

    fn now(&self) -> Duration {
        self.0.lock().now
    }

    fn current(&self) -> ThreadId {
        self.0.lock().running
    }
}

#[cfg(test)]
mod tests;
