//! Deadlines: a thread ticks the engine's epoch every millisecond while guests run, and each tick a running guest's
//! CPU time is compared with what it may use.
//!
//! Owns the ticker and the rule that tells a looping guest from a stalled box: only CPU time of the calling thread
//! counts against the guest; going over in wall time alone says nothing about it and is [`Expired::Stalled`].
//!
//! Invariants
//! - While no guest runs the ticker sleeps: an idle broker is not woken a thousand times a second.
//! - A call that ends before its first tick reads no clock at all.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use wasmtime::{Engine, EngineWeak};

use crate::clock;

/// How often a running guest is looked at. Deadlines are exact to about one tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a running guest after which the ticker goes to sleep: long enough that a busy broker never wakes it.
const IDLE_TICKS: u32 = 100;

/// A guest that has not used its CPU time within this many times its deadline was not given a processor.
const WALL_FACTOR: u32 = 20;

/// Wall time every call is granted, however short its deadline.
const WALL_LEAST: Duration = Duration::from_secs(10);

/// Why a running guest was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Expired {
    /// It used more CPU time than it may.
    #[error("used more than `deadline_ms` ({0} ms) of CPU time")]
    Cpu(u32),
    /// The box did not let it run; the same call may pass later.
    #[error("was not given enough CPU time by the host to end within {0:?}")]
    Stalled(Duration),
}

/// The deadline of one call into a guest.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    limit_ms: u32,
    /// CPU and wall time at the first tick of this call: at most one tick after it began.
    began: Option<(Duration, Instant)>,
}

impl Deadline {
    /// Starts anew for a call that may use `limit_ms`.
    pub(crate) fn arm(&mut self, limit_ms: u32) {
        self.limit_ms = limit_ms;
        self.began = None;
    }

    /// Looks at the clocks; called at every tick on the thread that runs the guest.
    pub(crate) fn check(&mut self) -> Result<(), Expired> {
        let (cpu_now, wall_now) = (clock::thread_cpu(), clock::wall());
        let (cpu_began, wall_began) = *self.began.get_or_insert((cpu_now, wall_now));
        judge(self.limit_ms, cpu_now.saturating_sub(cpu_began), wall_now.duration_since(wall_began))
    }
}

/// Whether a guest that has used so much CPU time in so much wall time may go on.
fn judge(limit_ms: u32, cpu: Duration, wall: Duration) -> Result<(), Expired> {
    let limit = Duration::from_millis(limit_ms.into());
    if cpu >= limit {
        return Err(Expired::Cpu(limit_ms));
    }
    let patience = (limit * WALL_FACTOR).max(WALL_LEAST);
    if wall >= patience {
        return Err(Expired::Stalled(patience));
    }
    Ok(())
}

/// The thread that ticks.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Guests that run now.
    running: AtomicUsize,
    /// Ticks so far.
    ticks: AtomicU64,
    /// The ticker is parked, or about to be and will look at `running` once more.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Starts ticking `engine`.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let (engine, of_thread) = (engine.weak(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("weir-ticker".into()).spawn(move || tick(&engine, &of_thread))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Keeps the ticker going for as long as the returned value lives.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Running(&self.shared)
    }

    /// What tells host functions that a tick has passed.
    pub(crate) fn ticks(&self) -> Ticks {
        Ticks(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The last handle may be dropped anywhere but on the ticker itself, which holds only a weak engine.
            let _ended = thread.join();
        }
    }
}

/// The ticks of a host. Compiled code looks at the epoch where it loops and where a function begins, so calls of host
/// functions in a straight line have to look by themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticks(Arc<Shared>);

impl Ticks {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.ticks.load(Relaxed)
    }
}

/// One guest runs.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(engine: &EngineWeak, shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(SeqCst) {
        clock::pause(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        shared.ticks.fetch_add(1, Relaxed);
        drop(engine);
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        if idle >= IDLE_TICKS {
            sleep_until_needed(shared);
            idle = 0;
        }
    }
}

/// Parks. `asleep` is set before `running` is read and [`Ticker::running`] does it the other way round, so one of the
/// two always sees the other; the timeout is a second net.
fn sleep_until_needed(shared: &Shared) {
    shared.asleep.store(true, SeqCst);
    while shared.running.load(SeqCst) == 0 && !shared.stop.load(SeqCst) {
        thread::park_timeout(Duration::from_secs(1));
    }
    shared.asleep.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_cpu_time_counts_against_the_guest() {
        assert_eq!(judge(20, 19 * MS, 9_999 * MS), Ok(()));
        assert_eq!(judge(20, 20 * MS, 20 * MS), Err(Expired::Cpu(20)));
        assert_eq!(judge(20, 20 * MS, 60_000 * MS), Err(Expired::Cpu(20)));
    }

    #[test]
    fn a_stalled_box_is_told_from_a_looping_guest() {
        assert_eq!(judge(20, MS, 10_000 * MS), Err(Expired::Stalled(WALL_LEAST)));
        assert_eq!(judge(1_000, 999 * MS, 19_999 * MS), Ok(()));
        assert_eq!(judge(1_000, 999 * MS, 20_000 * MS), Err(Expired::Stalled(20_000 * MS)));
    }

    #[test]
    fn a_call_counts_from_its_own_first_tick() {
        let mut deadline = Deadline::default();
        deadline.arm(1);
        assert_eq!(deadline.check(), Ok(()));
        let began = clock::thread_cpu();
        while clock::thread_cpu() - began < MS {}
        assert_eq!(deadline.check(), Err(Expired::Cpu(1)));
        deadline.arm(1);
        assert_eq!(deadline.check(), Ok(()));
    }
}
