//! Who may run a guest now: as many at a time as there are processors, and each transform as much as its share allows.
//!
//! Owns the turns. A turn is taken before a guest is called and looked at again at every tick while it runs: when its
//! transform has had more than its share and another waits, the guest stands still (its thread does) until it is its
//! turn again. So a transform that computes for ever slows down nobody but itself, whatever its deadline. A transform
//! with a cap stands still, too, once it has used up what it may.
//!
//! Invariants
//! - At most as many turns are out as there are slots.
//! - The next turn goes to the transform that has had the least, by its share; one that comes back after a pause has had
//!   no more and no less than the others.
//!
//! Start at [`Slots::take`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use protocol::{TransformLimits, limits::GUEST_CPU_SHARE};

use crate::{clock, deadline::Nudge};

/// How far behind the others an account may be when it comes back: enough to be next, too little to take over.
const HEAD_START_NS: u64 = 1_000_000;

/// The most that a turn is charged for by the wall: a guest that computes for longer is seen at a tick.
const BY_WALL_MAX: Duration = Duration::from_millis(1);

/// A guest with a cap may use it up in bursts of this long.
const BURST: Duration = Duration::from_millis(100);

/// What a transform has had, over all its threads and settings.
#[derive(Debug)]
pub(crate) struct Account {
    share: AtomicU32,
    percent: AtomicU32,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// CPU time by its share, in nanoseconds: what accounts are compared by.
    weighed_ns: u64,
    /// When all that was used is within the cap again.
    paid_at: Option<Instant>,
}

impl Account {
    /// An account that has had nothing.
    pub(crate) fn new(limits: &TransformLimits) -> Account {
        let account = Account { share: AtomicU32::new(0), percent: AtomicU32::new(0), used: Mutex::default() };
        account.set(limits);
        account
    }

    /// These limits are in force from now on.
    pub(crate) fn set(&self, limits: &TransformLimits) {
        self.share.store(limits.cpu_share.max(1), Relaxed);
        self.percent.store(limits.cpu_percent, Relaxed);
    }

    fn weighed_ns(&self) -> u64 {
        self.used.lock().weighed_ns
    }

    /// Enters CPU time; says until when it is over its cap.
    fn charge(&self, cpu: Duration, now: Instant) -> Option<Instant> {
        let mut used = self.used.lock();
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let weighed = u128::from(cpu_ns) * u128::from(GUEST_CPU_SHARE) / u128::from(self.share.load(Relaxed));
        used.weighed_ns = used.weighed_ns.saturating_add(u64::try_from(weighed).unwrap_or(u64::MAX));
        let percent = self.percent.load(Relaxed);
        if percent == 0 {
            used.paid_at = None;
            return None;
        }
        let paid_at = used.paid_at.unwrap_or(now).max(now) + cpu * 100 / percent;
        used.paid_at = Some(paid_at);
        paid_at.checked_sub(BURST).filter(|until| *until > now)
    }

    /// Until when it is over its cap.
    fn over_until(&self, now: Instant) -> Option<Instant> {
        if self.percent.load(Relaxed) == 0 {
            return None;
        }
        let paid_at = self.used.lock().paid_at?;
        paid_at.checked_sub(BURST).filter(|until| *until > now)
    }

    /// Brings it up to the others after a pause; returns what it has had then.
    fn catch_up(&self, to_ns: u64) -> u64 {
        let mut used = self.used.lock();
        used.weighed_ns = used.weighed_ns.max(to_ns.saturating_sub(HEAD_START_NS));
        used.weighed_ns
    }
}

/// See the module. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Makes those that have turns look whether somebody waits; `None` where they do often enough.
    nudge: Option<Nudge>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Vec<Waiting>,
    /// What those that take turns have had, about: accounts that come are brought up to it.
    level_ns: u64,
}

/// A thread that stands still until its turn comes.
#[derive(Debug)]
struct Waiting {
    account: Arc<Account>,
    come: Arc<Come>,
}

#[derive(Debug, Default)]
struct Come {
    has_turn: Mutex<bool>,
    signal: Condvar,
}

impl Slots {
    /// So many turns may be out at once.
    pub(crate) fn new(count: usize, nudge: Option<Nudge>) -> Slots {
        let state = State { free: count.max(1), waiting: Vec::new(), level_ns: 0 };
        Slots { shared: Arc::new(Shared { state: Mutex::new(state), nudge }) }
    }

    /// Waits for a turn. Clocks are only read when there was a wait.
    pub(crate) fn take(&self, account: &Arc<Account>, now: Instant) -> Turn {
        let waited = self.enter(account, now);
        let (since, cpu) = if waited { (clock::wall(), Some(clock::thread_cpu())) } else { (now, None) };
        Turn { slots: self.clone(), account: account.clone(), since, cpu, charged: Duration::ZERO }
    }

    /// Takes a slot; `true` when that took a wait.
    fn enter(&self, account: &Arc<Account>, now: Instant) -> bool {
        let waited = wait_for_cap(account, now);
        let mut state = self.shared.state.lock();
        let had_ns = account.catch_up(state.level_ns);
        if state.free > 0 {
            state.free -= 1;
            // Who had the processors alone must not find others far behind, to be let go first for as long.
            state.level_ns = state.level_ns.max(had_ns);
            return waited;
        }
        wait(state, account, || self.shared.nudge.iter().for_each(Nudge::now));
        true
    }

    /// The turn is over: the next one's begins.
    fn leave(&self) {
        let mut state = self.shared.state.lock();
        match state.take_next() {
            Some(next) => next.come.tell(),
            None => state.free += 1,
        }
    }

    /// Lets somebody go first who has had less.
    fn give_way(&self, account: &Arc<Account>) {
        let mut state = self.shared.state.lock();
        let own_ns = account.weighed_ns();
        if state.waiting.iter().all(|waiting| waiting.account.weighed_ns() >= own_ns) {
            return;
        }
        let next = state.take_next().expect("somebody waits who has had less");
        next.come.tell();
        wait(state, account, || {});
    }
}

impl State {
    /// Who has had the least; of those that have had the same, who came first.
    fn take_next(&mut self) -> Option<Waiting> {
        let had = self.waiting.iter().map(|waiting| waiting.account.weighed_ns());
        let (at, level_ns) = had.enumerate().min_by_key(|(_, had)| *had)?;
        self.level_ns = self.level_ns.max(level_ns);
        Some(self.waiting.remove(at))
    }
}

impl Come {
    fn tell(&self) {
        *self.has_turn.lock() = true;
        self.signal.notify_one();
    }
}

/// Stands in line, and still. `once_in_line` is done between the two.
fn wait(mut state: MutexGuard<'_, State>, account: &Arc<Account>, once_in_line: impl FnOnce()) {
    let come = Arc::<Come>::default();
    state.waiting.push(Waiting { account: account.clone(), come: come.clone() });
    drop(state);
    once_in_line();
    let mut has_turn = come.has_turn.lock();
    while !*has_turn {
        come.signal.wait(&mut has_turn);
    }
}

/// Stands still, holding nothing, while the account is over its cap; `true` when it was.
fn wait_for_cap(account: &Account, mut now: Instant) -> bool {
    let mut waited = false;
    while let Some(until) = account.over_until(now) {
        clock::pause(until.duration_since(now));
        (now, waited) = (clock::wall(), true);
    }
    waited
}

/// A guest may run; it is given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    slots: Slots,
    account: Arc<Account>,
    /// When it began, or was charged for last.
    since: Instant,
    /// CPU time of the thread when it was charged for last; known once a tick was seen.
    cpu: Option<Duration>,
    charged: Duration,
}

impl Turn {
    /// Looks whether it may go on, and stands still if not; for how long, is returned.
    pub(crate) fn tick(&mut self, cpu: Duration, wall: Instant) -> Duration {
        let over_until = self.charge(cpu, wall);
        if over_until.is_some() {
            self.slots.leave();
            self.slots.enter(&self.account, wall);
        } else {
            self.slots.give_way(&self.account);
        }
        let now = clock::wall();
        self.since = now;
        now.saturating_duration_since(wall)
    }

    /// Without a wait or a tick CPU time was not read: a system call costs more than most batches. The wall will do, up to
    /// a bound: it goes on while others have the processor.
    fn charge(&mut self, cpu: Duration, wall: Instant) -> Option<Instant> {
        let used = match self.cpu.replace(cpu) {
            Some(before) => cpu.saturating_sub(before),
            None => wall.saturating_duration_since(self.since).min(BY_WALL_MAX),
        };
        self.charged += used;
        self.account.charge(used, wall)
    }

    /// Ends it; returns the CPU time it was charged for.
    pub(crate) fn end(mut self, now: Instant) -> Duration {
        let cpu = if self.cpu.is_some() { clock::thread_cpu() } else { Duration::ZERO };
        self.charge(cpu, now);
        self.charged
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.slots.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64},
        thread,
    };

    use super::*;

    fn account(cpu_share: u32, cpu_percent: u32) -> Arc<Account> {
        Arc::new(Account::new(&TransformLimits { cpu_share, cpu_percent, ..TransformLimits::default() }))
    }

    /// Runs as a guest would that is looked at every so often; `cpu` is its own count of what it used.
    fn compute(turn: &mut Turn, cpu: &mut Duration, ticks: u32) {
        for _ in 0..ticks {
            *cpu += Duration::from_millis(1);
            turn.tick(*cpu, clock::wall());
        }
    }

    #[test]
    fn turns_go_by_share_where_several_want_them() {
        let slots = Slots::new(1, None);
        let (stop, had) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        let accounts = [account(100, 0), account(300, 0)];
        thread::scope(|scope| {
            let before = slots.take(&account(100, 0), clock::wall());
            for (account, had) in accounts.iter().zip(&had) {
                let (slots, stop) = (&slots, &stop);
                scope.spawn(move || {
                    let mut turn = slots.take(account, clock::wall());
                    let mut cpu = Duration::ZERO;
                    // The first charge goes by the wall: it is not part of what is compared.
                    turn.cpu = Some(cpu);
                    while !stop.load(Relaxed) {
                        compute(&mut turn, &mut cpu, 1);
                        had.fetch_add(1, Relaxed);
                    }
                    // Who ends lets the other go on, which then sees that it is to stop.
                });
            }
            while slots.shared.state.lock().waiting.len() < 2 {
                thread::yield_now();
            }
            drop(before);
            while had[0].load(Relaxed) + had[1].load(Relaxed) < 4_000 {
                thread::yield_now();
            }
            stop.store(true, Relaxed);
        });
        let [light, heavy] = had.map(AtomicU64::into_inner);
        assert!(heavy > 2 * light && heavy < 4 * light, "{heavy} of 300 beside {light} of 100");
    }

    #[test]
    fn one_that_computes_for_ever_gives_way_at_a_tick() {
        let slots = Slots::new(1, None);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut hog = slots.take(&account(100, 0), clock::wall());
            let mut cpu = Duration::ZERO;
            compute(&mut hog, &mut cpu, 5);
            let (slots, done) = (&slots, &done);
            scope.spawn(move || {
                // It comes back after a pause, and has had nothing since: it is next.
                drop(slots.take(&account(100, 0), clock::wall()));
                done.store(true, Relaxed);
            });
            while !done.load(Relaxed) {
                compute(&mut hog, &mut cpu, 1);
            }
        });
    }

    #[test]
    fn one_that_was_away_has_no_credit() {
        let slots = Slots::new(1, None);
        let (busy, away) = (account(100, 0), account(100, 0));
        busy.charge(Duration::from_secs(100), clock::wall());
        slots.shared.state.lock().level_ns = busy.weighed_ns();
        slots.take(&away, clock::wall()).end(clock::wall());
        assert!(away.weighed_ns() >= busy.weighed_ns() - HEAD_START_NS);
    }

    #[test]
    fn who_had_the_processors_alone_is_not_made_to_wait_for_it() {
        let slots = Slots::new(1, None);
        let (alone, fresh) = (account(100, 0), account(100, 0));
        for _ in 0..1_000 {
            let mut turn = slots.take(&alone, clock::wall());
            turn.cpu = Some(Duration::ZERO);
            turn.charge(Duration::from_millis(1), clock::wall());
        }
        drop(slots.take(&alone, clock::wall()));
        drop(slots.take(&fresh, clock::wall()));
        let (had, behind) = (alone.weighed_ns(), fresh.weighed_ns());
        assert!(had >= 1_000_000_000 && behind >= had - HEAD_START_NS, "{had} and {behind}");
    }

    #[test]
    fn a_cap_holds_a_transform_back_and_nobody_else() {
        let (capped, now) = (account(100, 10), clock::wall());
        assert_eq!(capped.charge(Duration::from_millis(10), now), None, "a burst of 100 ms is within 10 percent");
        let until = capped.charge(Duration::from_millis(40), now).unwrap();
        assert_eq!(until.duration_since(now), Duration::from_millis(400), "50 ms at 10 percent, less the burst");
        assert_eq!(capped.over_until(until), None);
        let free = account(100, 0);
        assert_eq!(free.charge(Duration::from_secs(9), now), None);
    }

    #[test]
    fn every_turn_comes_back() {
        let slots = Slots::new(2, None);
        let accounts = [account(100, 0), account(50, 0), account(7, 0)];
        thread::scope(|scope| {
            for thread in 0..6 {
                let (slots, account) = (&slots, &accounts[thread % 3]);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let mut turn = slots.take(account, clock::wall());
                        let mut cpu = Duration::ZERO;
                        compute(&mut turn, &mut cpu, 3);
                        turn.end(clock::wall());
                    }
                });
            }
        });
        let state = slots.shared.state.lock();
        assert_eq!((state.free, state.waiting.len()), (2, 0));
    }
}
