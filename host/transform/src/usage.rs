//! What a transform has used and holds, whichever threads and instances it runs on and whatever its limits are now.
//!
//! Owns the counters, the gauges, the log rate, the CPU account and the breaker of one transform. All of it goes over to
//! the transform that takes its place when limits are changed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use protocol::{BreakerOpen, TransformLimits, TransformUsage};

use crate::{
    breaker::{Breaker, Change},
    clock,
    slots::Account,
    stats::Counters,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) counters: Counters,
    pub(crate) account: Arc<Account>,
    breaker: Mutex<Breaker>,
    /// The breaker is closed and no batch failed since one passed: nobody needs to ask it.
    calm: AtomicBool,
    pub(crate) held: Arc<Held>,
    pub(crate) log_rate: Arc<LogRate>,
    running: AtomicU32,
}

impl Usage {
    /// Of a transform that has done nothing.
    pub(crate) fn new(limits: &TransformLimits) -> Usage {
        Usage {
            counters: Counters::default(),
            account: Arc::new(Account::new(limits)),
            breaker: Mutex::default(),
            calm: AtomicBool::new(true),
            held: Arc::default(),
            log_rate: Arc::new(LogRate::new(limits.log_lines_per_s)),
            running: AtomicU32::new(0),
        }
    }

    /// These limits are in force from now on.
    pub(crate) fn set(&self, limits: &TransformLimits) {
        self.account.set(limits);
        self.log_rate.per_s.store(limits.log_lines_per_s, Relaxed);
    }

    /// Asks the breaker whether a batch may go to the guest.
    pub(crate) fn ask_breaker(&self, now: Instant) -> bool {
        self.calm.load(Relaxed) || self.breaker.lock().ask(now)
    }

    /// Tells the breaker how a batch went; see [`Breaker::report`].
    pub(crate) fn tell_breaker(&self, failure: Option<&str>, batches_max: u32, now: Instant) -> Change {
        if failure.is_none() && self.calm.load(Relaxed) {
            return Change::None;
        }
        let mut breaker = self.breaker.lock();
        let change = breaker.report(failure, batches_max, now);
        self.calm.store(failure.is_none(), Relaxed);
        change
    }

    /// A batch went to the guest and came to nothing, through no fault of the guest's.
    pub(crate) fn untold(&self) {
        self.breaker.lock().untold();
    }

    /// An operator has seen to what was wrong.
    pub(crate) fn reset_breaker(&self) {
        self.breaker.lock().reset();
    }

    /// Why the breaker is open, if it is.
    pub(crate) fn breaker_open(&self, now: Instant) -> Option<BreakerOpen> {
        self.breaker.lock().describe(now)
    }

    /// A batch is in the transform for as long as the returned value lives.
    pub(crate) fn running(&self) -> impl Drop + '_ {
        self.running.fetch_add(1, Relaxed);
        Running(&self.running)
    }

    /// What it holds now.
    pub(crate) fn describe(&self) -> TransformUsage {
        TransformUsage {
            instances: self.held.instances.load(Relaxed),
            memory_bytes: self.held.memory_bytes.load(Relaxed),
            running: self.running.load(Relaxed),
            breaker: self.breaker_open(clock::wall()),
        }
    }
}

struct Running<'a>(&'a AtomicU32);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a transform's instances hold, all together.
#[derive(Debug, Default)]
pub(crate) struct Held {
    instances: AtomicU32,
    memory_bytes: AtomicU64,
}

/// One instance's part of [`Held`]; gone with it.
#[derive(Debug)]
pub(crate) struct HeldByInstance {
    of: Arc<Held>,
    memory_bytes: u64,
}

impl HeldByInstance {
    /// One instance more, without memory as yet.
    pub(crate) fn new(of: &Arc<Held>) -> HeldByInstance {
        of.instances.fetch_add(1, Relaxed);
        HeldByInstance { of: of.clone(), memory_bytes: 0 }
    }

    /// Its memory has this size now; it never shrinks.
    pub(crate) fn memory_is(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.memory_bytes);
        self.of.memory_bytes.fetch_add(more, Relaxed);
        self.memory_bytes += more;
    }
}

impl Drop for HeldByInstance {
    fn drop(&mut self) {
        self.of.instances.fetch_sub(1, Relaxed);
        self.of.memory_bytes.fetch_sub(self.memory_bytes, Relaxed);
    }
}

/// How much a transform may log: so many lines a second, and as many at once after a silence.
#[derive(Debug)]
pub(crate) struct LogRate {
    per_s: AtomicU32,
    /// When the lines so far are within the rate again. Lines are rare beside records: a lock will do.
    paid_at: Mutex<Option<Instant>>,
    lines: AtomicU64,
    cut: AtomicU64,
}

impl LogRate {
    /// So many lines a second.
    pub(crate) fn new(per_s: u32) -> LogRate {
        let (lines, cut) = (AtomicU64::new(0), AtomicU64::new(0));
        LogRate { per_s: AtomicU32::new(per_s), paid_at: Mutex::new(None), lines, cut }
    }

    /// Whether one more line may go out; counted either way.
    pub(crate) fn pays(&self, now: Instant) -> bool {
        self.lines.fetch_add(1, Relaxed);
        let per_s = self.per_s.load(Relaxed);
        let mut paid_at = self.paid_at.lock();
        let from = paid_at.map_or(now, |at| at.max(now));
        let second = std::time::Duration::from_secs(1);
        let fits = per_s > 0 && from.duration_since(now) + second / per_s <= second;
        if fits {
            *paid_at = Some(from + second / per_s);
        } else {
            self.cut.fetch_add(1, Relaxed);
        }
        fits
    }

    /// Lines that came and went nowhere before they got here.
    pub(crate) fn cut(&self, lines: u64) {
        self.lines.fetch_add(lines, Relaxed);
        self.cut.fetch_add(lines, Relaxed);
    }

    /// Lines in all, and those that went nowhere.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.lines.load(Relaxed), self.cut.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_past_the_rate_are_cut_and_counted() {
        let (rate, now) = (LogRate::new(10), clock::wall());
        let paid = |at: Instant| (0..50).filter(|_| rate.pays(at)).count();
        assert_eq!(paid(now), 10, "a second's worth at once");
        assert_eq!(paid(now + Duration::from_millis(300)), 3);
        assert_eq!(paid(now + Duration::from_secs(60)), 10, "silence is not saved up");
        assert_eq!(rate.read(), (150, 127));
        assert!(!LogRate::new(0).pays(now));
    }

    #[test]
    fn what_an_instance_holds_goes_with_it() {
        let held = Arc::<Held>::default();
        let mut one = HeldByInstance::new(&held);
        let two = HeldByInstance::new(&held);
        one.memory_is(100);
        one.memory_is(300);
        assert_eq!((held.instances.load(Relaxed), held.memory_bytes.load(Relaxed)), (2, 300));
        drop((one, two));
        assert_eq!((held.instances.load(Relaxed), held.memory_bytes.load(Relaxed)), (0, 0));
    }
}
