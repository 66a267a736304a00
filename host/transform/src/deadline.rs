//! Deadlines: a thread ticks the engines' epochs every millisecond while guests run, and each tick a running guest's
//! CPU time is compared with what it may use, for the batch and for the record it has in hand.
//!
//! Owns the ticker and the rule that tells a looping guest from a stalled box: only CPU time of the calling thread
//! counts against the guest; going over in wall time alone says nothing about it and is [`Expired::Stalled`]. Time in
//! which it waited for its turn counts as neither.
//!
//! Invariants
//! - While no guest runs the ticker sleeps: an idle broker is not woken a thousand times a second.
//! - A call that ends before its first tick reads no clock at all.

use std::{
    fmt,
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

use parking_lot::Mutex;
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
    /// It used more CPU time than it may for one record.
    #[error("used more than `record_deadline_ms` ({0} ms) of CPU time for one record")]
    Record(u32),
    /// The box did not let it run; the same call may pass later.
    #[error("was not given enough CPU time by the host to end within {0:?}")]
    Stalled(Duration),
}

/// What one call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Allowance {
    /// For the whole call, in milliseconds of CPU time.
    pub(crate) call_ms: u32,
    /// For the record that the guest says it has in hand; `None` where it is not believed.
    pub(crate) record_ms: Option<u32>,
}

/// Where a call stands at a tick, on the thread that runs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) cpu: Duration,
    pub(crate) wall: Instant,
    /// The record in the guest's hand, if it says so.
    pub(crate) record: Option<u32>,
}

/// The deadline of one call into a guest.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    allowance: Allowance,
    /// CPU and wall time at the first tick of this call: at most one tick after it began.
    began: Option<(Duration, Instant)>,
    /// The record in hand, and the CPU time at the first tick that saw it there.
    in_hand: Option<(u32, Duration)>,
}

impl Deadline {
    /// Starts anew for a call.
    pub(crate) fn arm(&mut self, allowance: Allowance) {
        *self = Deadline { allowance, began: None, in_hand: None };
    }

    /// Whether it may go on; asked at every tick.
    pub(crate) fn check(&mut self, now: Now) -> Result<(), Expired> {
        let (cpu_began, wall_began) = *self.began.get_or_insert((now.cpu, now.wall));
        let used = now.cpu.saturating_sub(cpu_began);
        judge(self.allowance.call_ms, used, now.wall.saturating_duration_since(wall_began))?;
        match (self.allowance.record_ms, now.record) {
            (Some(record_ms), Some(record)) => self.check_record(record_ms, record, now.cpu),
            _ => Ok(()),
        }
    }

    fn check_record(&mut self, record_ms: u32, record: u32, cpu: Duration) -> Result<(), Expired> {
        match self.in_hand {
            Some((in_hand, since)) if in_hand == record => {
                let over = cpu.saturating_sub(since) >= Duration::from_millis(record_ms.into());
                if over { Err(Expired::Record(record_ms)) } else { Ok(()) }
            }
            _ => {
                self.in_hand = Some((record, cpu));
                Ok(())
            }
        }
    }

    /// It was made to wait for its turn so long.
    pub(crate) fn waited(&mut self, wait: Duration) {
        if let Some((_, wall_began)) = &mut self.began {
            *wall_began += wait;
        }
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
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    engines: Mutex<Vec<EngineWeak>>,
    /// Guests that run now.
    running: AtomicUsize,
    ticks: Ticks,
    /// The ticker is parked, or about to be and will look at `running` once more.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn increment(&self) {
        for engine in self.engines.lock().iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
        self.ticks.0.fetch_add(1, Relaxed);
    }
}

impl Ticker {
    /// Starts ticking, as yet without an engine.
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("weir-ticker".into()).spawn(move || tick(&of_thread))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Ticks this engine, too.
    pub(crate) fn add(&self, engine: &Engine) {
        self.shared.engines.lock().push(engine.weak());
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

    /// Has the guests that run looked at before the next tick.
    pub(crate) fn nudge(&self) -> Nudge {
        Nudge(Arc::clone(&self.shared))
    }

    /// What tells host functions that a tick has passed.
    pub(crate) fn ticks(&self) -> Ticks {
        self.shared.ticks.clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The last handle may be dropped anywhere but on the ticker itself, which holds engines weakly.
            let _ended = thread.join();
        }
    }
}

/// The ticks of a host. Compiled code looks at the epoch where it loops and where a function begins, so calls of host
/// functions in a straight line have to look by themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticks(Arc<AtomicU64>);

impl Ticks {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A tick between the ticks, for whoever must not wait for the next.
#[derive(Clone)]
pub(crate) struct Nudge(Arc<Shared>);

impl Nudge {
    /// Every guest that runs is looked at now.
    pub(crate) fn now(&self) {
        self.0.increment();
    }
}

impl fmt::Debug for Nudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nudge")
    }
}

/// One guest runs.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(SeqCst) {
        clock::pause(TICK);
        shared.increment();
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

    fn at(start: Instant, cpu_ms: u32, wall_ms: u32, record: Option<u32>) -> Now {
        Now { cpu: cpu_ms * MS, wall: start + wall_ms * MS, record }
    }

    #[test]
    fn a_call_counts_from_its_own_first_tick() {
        let (mut deadline, start) = (Deadline::default(), clock::wall());
        let allowance = Allowance { call_ms: 10, record_ms: None };
        deadline.arm(allowance);
        assert_eq!(deadline.check(at(start, 500, 0, None)), Ok(()));
        assert_eq!(deadline.check(at(start, 509, 9, None)), Ok(()));
        assert_eq!(deadline.check(at(start, 510, 10, None)), Err(Expired::Cpu(10)));
        deadline.arm(allowance);
        assert_eq!(deadline.check(at(start, 511, 11, None)), Ok(()));
    }

    #[test]
    fn a_record_counts_from_when_it_was_taken_in_hand() {
        let (mut deadline, start) = (Deadline::default(), clock::wall());
        deadline.arm(Allowance { call_ms: 100, record_ms: Some(10) });
        for ms in 0..50 {
            assert_eq!(deadline.check(at(start, ms, ms, Some(ms / 9))), Ok(()), "a new one every 9 ms");
        }
        for ms in 50..60 {
            assert_eq!(deadline.check(at(start, ms, ms, Some(7))), Ok(()));
        }
        assert_eq!(deadline.check(at(start, 60, 60, Some(7))), Err(Expired::Record(10)));
        // Not believed, it is the call's time that counts.
        deadline.arm(Allowance { call_ms: 100, record_ms: None });
        for ms in 0..100 {
            assert_eq!(deadline.check(at(start, ms, ms, Some(7))), Ok(()));
        }
        assert_eq!(deadline.check(at(start, 100, 100, Some(7))), Err(Expired::Cpu(100)));
    }

    #[test]
    fn waiting_for_a_turn_is_no_stall() {
        let (mut deadline, start) = (Deadline::default(), clock::wall());
        deadline.arm(Allowance { call_ms: 20, record_ms: None });
        assert_eq!(deadline.check(at(start, 0, 0, None)), Ok(()));
        deadline.waited(9_999 * MS);
        assert_eq!(deadline.check(at(start, 1, 19_998, None)), Ok(()));
        assert_eq!(deadline.check(at(start, 1, 19_999, None)), Err(Expired::Stalled(WALL_LEAST)));
    }
}
