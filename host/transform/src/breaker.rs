//! Trips a transform that keeps failing, so that a broken guest stops costing its whole budget batch after batch.
//!
//! Owns the decision, as a value without clock: whether the next batch goes to the guest. It opens after so many batches
//! in a row that failed wholly or nearly; then one batch is let through now and then to try, further and further apart,
//! and the first that passes closes it. What becomes of the records meanwhile is the transform's declared policy.
//!
//! ```text
//!          so many in a row                 wait is over: one batch
//! closed ------------------> open ------------------------------------> trying
//!    ^                        ^                                            |
//!    |                        +--------- it failed: twice the wait --------+
//!    +------------------------------------ it passed ----------------------+
//! ```
//! Start at [`Breaker::ask`].

use std::time::{Duration, Instant};

use protocol::{
    BreakerOpen,
    limits::{BREAKER_WAIT_MS, BREAKER_WAIT_MS_MAX},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Batches that failed since one passed.
    failed: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    cause: String,
    wait: Duration,
    retry_at: Instant,
    /// One batch is in the guest, to try.
    trying: bool,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    /// Whether a batch may go to the guest; if so, [`Breaker::report`] or [`Breaker::untold`] follows.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        match &mut self.open {
            None => true,
            Some(open) if !open.trying && now >= open.retry_at => {
                open.trying = true;
                true
            }
            Some(_) => false,
        }
    }

    /// A batch passed, or failed for this reason. It opens after `batches_max` failures in a row; 0: never.
    pub(crate) fn report(&mut self, failure: Option<&str>, batches_max: u32, now: Instant) -> Change {
        let Some(cause) = failure else {
            self.failed = 0;
            return if self.open.take().is_some() { Change::Closed } else { Change::None };
        };
        self.failed = self.failed.saturating_add(1);
        if batches_max == 0 || (self.failed < batches_max && self.open.is_none()) {
            return Change::None;
        }
        let before = self.open.take();
        let wait = match &before {
            None => Duration::from_millis(BREAKER_WAIT_MS),
            Some(open) => (open.wait * 2).min(Duration::from_millis(BREAKER_WAIT_MS_MAX)),
        };
        self.open = Some(Open { cause: cause.to_owned(), wait, retry_at: now + wait, trying: false });
        if before.is_none() { Change::Opened } else { Change::None }
    }

    /// The batch that was let through came to nothing, through no fault of the guest's: the next one tries.
    pub(crate) fn untold(&mut self) {
        if let Some(open) = &mut self.open {
            open.trying = false;
        }
    }

    /// An operator has seen to it: closed, as if nothing had happened.
    pub(crate) fn reset(&mut self) {
        *self = Breaker::default();
    }

    /// Why it is open, if it is.
    pub(crate) fn describe(&self, now: Instant) -> Option<BreakerOpen> {
        let open = self.open.as_ref()?;
        let retry_in_ms = open.retry_at.saturating_duration_since(now).as_millis() as u64;
        Some(BreakerOpen { cause: open.cause.clone(), retry_in_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    fn fail(breaker: &mut Breaker, now: Instant) -> Change {
        assert!(breaker.ask(now));
        breaker.report(Some("trapped"), 3, now)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (mut breaker, now) = (Breaker::default(), clock::wall());
        for _ in 0..10 {
            assert_eq!(fail(&mut breaker, now), Change::None);
            assert_eq!(fail(&mut breaker, now), Change::None);
            assert_eq!(breaker.report(None, 3, now), Change::None);
        }
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        assert_eq!(fail(&mut breaker, now), Change::Opened);
        assert!(!breaker.ask(now));
        let described = breaker.describe(now).unwrap();
        assert_eq!((described.cause.as_str(), described.retry_in_ms), ("trapped", 1_000));
    }

    #[test]
    fn one_batch_tries_and_the_wait_doubles_up_to_a_bound() {
        let (mut breaker, mut now) = (Breaker::default(), clock::wall());
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = Duration::from_millis(breaker.describe(now).unwrap().retry_in_ms);
            assert!(!breaker.ask(now + wait - MS));
            now += wait;
            assert!(breaker.ask(now));
            assert!(!breaker.ask(now), "only one tries at a time");
            assert_eq!(breaker.report(Some("again"), 3, now), Change::None);
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn a_batch_that_passes_closes_it_and_one_that_could_not_run_decides_nothing() {
        let (mut breaker, now) = (Breaker::default(), clock::wall());
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        let later = now + 1_000 * MS;
        assert!(breaker.ask(later));
        breaker.untold();
        assert!(breaker.ask(later), "the next one tries");
        assert_eq!(breaker.report(None, 3, later), Change::Closed);
        assert!(breaker.ask(later) && breaker.ask(later));
        assert_eq!(breaker.describe(later), None);
    }

    #[test]
    fn zero_is_never_and_a_reset_forgets() {
        let (mut breaker, now) = (Breaker::default(), clock::wall());
        for _ in 0..100 {
            assert_eq!(breaker.report(Some("trapped"), 0, now), Change::None);
        }
        (0..3).for_each(|_| _ = breaker.report(Some("trapped"), 3, now));
        assert!(!breaker.ask(now));
        breaker.reset();
        assert!(breaker.ask(now));
        assert_eq!(fail(&mut breaker, now), Change::None);
    }
}
