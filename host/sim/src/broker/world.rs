//! What the threads of a simulation share: the broker as it lives now, the oracle, the trace.
//!
//! Owns the broker's lives. A life that was killed runs on in its own past, on a disk that nobody looks at any more: what
//! it still answers, nobody hears. So a kill needs nobody's cooperation, and is exact to a call to the disk.
//!
//! The lock is held for a look, and never while anything of the broker's is called: threads of a simulation take turns.
//!
//! Start at [`World::note`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
    time::Duration,
};

use ::broker::Broker;
use parking_lot::Mutex;
use protocol::{Offset, PartitionId};

use super::{
    catalog::Catalog,
    counts::Counts,
    ledger::{BatchId, Ledger},
    trace::Trace,
};
use crate::{disk::SimDisk, invariants::Violation, schedule};

/// Where the clock of a simulation begins, in milliseconds since 1970.
pub(super) const EPOCH_MS: i64 = 1_700_000_000_000;

/// How long anything may take to be answered. Nothing here waits for anything slow.
pub(super) const ANSWER_DURATION_MAX: Duration = Duration::from_secs(60);

/// A broker that lives, or lived.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) broker: Broker,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Clients make requests, and things break.
    Working,
    /// Nothing breaks any more; what was begun is brought to its end.
    Healing,
    /// Everybody leaves.
    Over,
}

/// See the module.
pub(super) struct World(Mutex<Inner>);

struct Inner {
    life: Option<Life>,
    lives: u64,
    disk: SimDisk,
    /// How much of the disk's journal is in the trace.
    told: usize,
    /// A call to the disk failed in this life.
    is_faulty: bool,
    stage: Stage,
    ledger: Ledger,
    trace: Trace,
    counts: Counts,
    violation: Option<Violation>,
    next_batch: u64,
    /// Partitions that readers follow, and how far they are.
    followed: BTreeMap<usize, (PartitionId, Offset)>,
    /// Producers that have nothing left to do.
    idle: BTreeSet<usize>,
    /// What the broker shows, and what it may show when it is opened again.
    catalog: Catalog,
    catalogs: Vec<Catalog>,
}

/// Time since the simulation began.
pub(super) fn now() -> Duration {
    schedule::now().unwrap_or_default()
}

/// The same, as records have it.
pub(super) fn now_ms() -> i64 {
    EPOCH_MS + now().as_millis() as i64
}

impl World {
    pub(super) fn new(disk: SimDisk, keeps_trace: bool) -> Arc<World> {
        Arc::new(World(Mutex::new(Inner {
            life: None,
            lives: 0,
            disk,
            told: 0,
            is_faulty: false,
            stage: Stage::Working,
            ledger: Ledger::default(),
            trace: Trace::new(keeps_trace),
            counts: Counts::default(),
            violation: None,
            next_batch: 0,
            followed: BTreeMap::new(),
            idle: BTreeSet::new(),
            catalog: Catalog::default(),
            catalogs: vec![Catalog::default()],
        })))
    }

    /// The broker, if it lives.
    pub(super) fn life(&self) -> Option<Life> {
        self.0.lock().life.clone()
    }

    /// Whether a life is the one that goes on.
    pub(super) fn is_current(&self, number: u64) -> bool {
        self.0.lock().life.as_ref().is_some_and(|life| life.number == number)
    }

    /// A broker lives, on this disk.
    pub(super) fn begin_life(&self, broker: Broker) {
        let mut inner = self.0.lock();
        inner.lives += 1;
        inner.is_faulty = false;
        inner.life = Some(Life { number: inner.lives, broker });
    }

    /// The broker's life ends this moment; what is left of it.
    pub(super) fn end_life(&self) -> Option<Life> {
        let mut inner = self.0.lock();
        inner.followed.clear();
        inner.life.take()
    }

    /// The disk that the broker lives on, from now on.
    pub(super) fn set_disk(&self, disk: SimDisk) {
        let mut inner = self.0.lock();
        (inner.disk, inner.told) = (disk, 0);
    }

    pub(super) fn disk(&self) -> SimDisk {
        self.0.lock().disk.clone()
    }

    pub(super) fn stage(&self) -> Stage {
        self.0.lock().stage
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.0.lock().stage = stage;
    }

    pub(super) fn next_batch(&self) -> BatchId {
        let mut inner = self.0.lock();
        inner.next_batch += 1;
        BatchId(inner.next_batch)
    }

    /// Something happened: a line of the trace, and what the oracle makes of it.
    pub(super) fn note(&self, who: &str, what: impl Display, event: impl FnOnce(&mut Ledger) -> Result<(), Violation>) {
        let mut inner = self.0.lock();
        inner.tell(who, &what.to_string());
        if let Err(violation) = event(&mut inner.ledger) {
            inner.break_promise(violation);
        }
    }

    /// Something happened, and the oracle has nothing to say.
    pub(super) fn tell(&self, who: &str, what: impl Display) {
        self.0.lock().tell(who, &what.to_string());
    }

    /// A request is made: the same, and it is counted.
    pub(super) fn request(&self, who: &str, what: impl Display) {
        let mut inner = self.0.lock();
        inner.counts.requests += 1;
        inner.tell(who, &what.to_string());
    }

    /// Asks the oracle.
    pub(super) fn ask<R>(&self, ask: impl FnOnce(&mut Ledger) -> R) -> R {
        ask(&mut self.0.lock().ledger)
    }

    pub(super) fn count(&self, what: &'static str) {
        self.0.lock().counts.note(what);
    }

    pub(super) fn count_if(&self, what: &'static str, happened: bool) {
        if happened {
            self.count(what);
        }
    }

    pub(super) fn counts<R>(&self, change: impl FnOnce(&mut Counts) -> R) -> R {
        change(&mut self.0.lock().counts)
    }

    /// A promise is broken; the first one counts, and everybody leaves.
    pub(super) fn fail(&self, violation: Violation) {
        self.0.lock().break_promise(violation);
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.0.lock().violation.clone()
    }

    /// Calls to the disk fail in this life.
    pub(super) fn set_faulty(&self) {
        self.0.lock().is_faulty = true;
    }

    pub(super) fn is_faulty(&self) -> bool {
        self.0.lock().is_faulty
    }

    /// What the broker shows, as far as it was answered.
    pub(super) fn catalog(&self) -> Catalog {
        self.0.lock().catalog.clone()
    }

    /// What it may show when it is opened again.
    pub(super) fn catalogs(&self) -> Vec<Catalog> {
        self.0.lock().catalogs.clone()
    }

    /// An operation begins that may lead to this; what may have been there before it.
    pub(super) fn begin_operation(&self, after: Catalog) -> Vec<Catalog> {
        let mut inner = self.0.lock();
        let before = inner.catalogs.clone();
        inner.catalogs.push(after);
        before
    }

    /// It is known what the broker shows, and what may be there when it is opened again.
    pub(super) fn end_operation(&self, catalogs: Vec<Catalog>, shown: Catalog) {
        let mut inner = self.0.lock();
        (inner.catalogs, inner.catalog) = (catalogs, shown);
    }

    /// A reader is at this offset of what it follows.
    pub(super) fn follows(&self, reader: usize, at: Option<(PartitionId, Offset)>) {
        let mut inner = self.0.lock();
        match at {
            Some(at) => inner.followed.insert(reader, at),
            None => inner.followed.remove(&reader),
        };
    }

    /// Where every reader is that follows a partition.
    pub(super) fn followed(&self) -> Vec<(PartitionId, Offset)> {
        self.0.lock().followed.values().copied().collect()
    }

    /// Whether a producer has nothing left to do.
    pub(super) fn set_idle(&self, producer: usize, is_idle: bool) {
        let mut inner = self.0.lock();
        if is_idle {
            inner.idle.insert(producer);
        } else {
            inner.idle.remove(&producer);
        }
    }

    pub(super) fn idle_count(&self) -> usize {
        self.0.lock().idle.len()
    }

    /// The trace and the counts, when all is over.
    pub(super) fn take_trace(&self) -> (u64, u64, Vec<String>) {
        let mut inner = self.0.lock();
        (inner.trace.hash(), inner.trace.count(), inner.trace.take())
    }
}

impl Inner {
    fn tell(&mut self, who: &str, what: &str) {
        let at = now();
        let calls = self.disk.told_since(self.told);
        self.told += calls.len();
        for call in calls {
            self.trace.add(at, "disk", &call);
        }
        self.trace.add(at, who, what);
    }

    fn break_promise(&mut self, violation: Violation) {
        self.tell("oracle", &format!("{violation}"));
        self.violation.get_or_insert(violation);
        self.stage = Stage::Over;
    }
}
