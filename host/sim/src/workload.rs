//! What is asked of a store, as a seed says.
//!
//! Start at [`Workload::run`].

use bytes::Bytes;
use protocol::{BatchBuilder, CleanupPolicy, Compression, Offset, PartitionId, Record, Retention};
use storage::{Append, Budget, Commit, PartitionChange, StateChange, StateTable, StoreOptions};

use crate::{
    disk::{FaultKind, Faults},
    invariants::Violation,
    model::Batch,
    rng::Rng,
    run::RunOptions,
    session::Session,
    tally::Tally,
};

/// A record is at most this large.
const RECORD_BYTES_MAX: usize = 400_000;

/// How often a store is asked to take a commit after a fault: longer than it takes to try a new segment.
const RETRIES_MAX: usize = 400;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How the run is done.
    pub run: RunOptions,
    /// Sizes of the store.
    pub options: StoreOptions,
    /// Things to do.
    steps: usize,
    /// Commits without an answer, at most.
    in_flight_max: usize,
    /// Bytes of batches, about.
    bytes_left: usize,
    /// Bytes of a large batch.
    batch_bytes_max: u64,
    partitions_max: usize,
    /// Faults come at all.
    faulty: bool,
}

/// Sizes under which everything happens early.
fn small_options(rng: &mut Rng) -> StoreOptions {
    StoreOptions {
        segment_bytes_max: rng.pick(&[256 << 10, 1 << 20, 2 << 20]),
        segment_entries_max: rng.pick(&[20, 100, 1_000]),
        group_bytes_max: rng.pick(&[64 << 10, 1 << 20, 4 << 20]),
        tail_bytes_max: rng.pick(&[0, 0, 64 << 10, 1 << 20]),
        preallocate_bytes: rng.pick(&[0, 64 << 10, 1 << 20]),
        cache_bytes: 1 << 20,
        overlay_bytes_max: rng.pick(&[2 << 10, 64 << 10, 16 << 20]),
        compaction_bytes: 1 << 20,
        budget: Budget::default(),
        reserve_bytes: rng.pick(&[0, 1 << 20]),
        ..StoreOptions::default()
    }
}

impl Workload {
    /// A long one, in which anything may happen.
    #[must_use]
    pub fn long(rng: &mut Rng, run: RunOptions) -> Workload {
        Workload {
            run,
            options: small_options(rng),
            steps: rng.within(20..=90) as usize,
            in_flight_max: rng.pick(&[1, 3, 8, 20]),
            bytes_left: rng.pick(&[200_000, 2_000_000, 6_000_000]),
            batch_bytes_max: rng.pick(&[2_000, 100_000, 1_500_000]),
            partitions_max: rng.pick(&[1, 4, 12]),
            faulty: rng.percent(50) && run.faults,
        }
    }

    /// A short one, for a store that was cut: does it go on?
    #[must_use]
    pub fn short(&self, rng: &mut Rng) -> Workload {
        Workload {
            steps: rng.within(1..=8) as usize,
            bytes_left: 400_000,
            faulty: rng.percent(30) && self.run.faults,
            ..self.clone()
        }
    }

    /// Asks for all of it.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn run(mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        for _ in 0..self.steps {
            self.step(session, rng, tally)?;
            if session.stumbled {
                self.recover(session, rng)?;
            }
        }
        session.disk.set_faults(None);
        session.wait(0)?;
        if session.stumbled {
            self.recover(session, rng)?;
        }
        Ok(())
    }

    fn step(&mut self, session: &mut Session, rng: &mut Rng, tally: &mut Tally) -> Result<(), Violation> {
        if self.faulty && rng.percent(15) {
            session.disk.set_faults(Some(faults(rng)));
        }
        match rng.below(100) {
            0..70 => {
                let (commit, batches) = self.commit(session, rng);
                session.submit(commit, batches);
                return session.wait(self.in_flight_max);
            }
            70..76 => {
                if self.faulty && rng.percent(40) {
                    session.disk.set_faults(Some(Faults { after: rng.within(0..=12), ..faults(rng) }));
                }
                // Commits before and behind it are on their way meanwhile.
                let _ = session.during("rolling", |store| store.roll());
            }
            76..80 => {
                let now_ms = rng.below(session.next_number as usize + 200) as i64;
                let round = session.start("retention", move |store| store.run_retention(now_ms));
                self.meanwhile(session, rng)?;
                session.finish_retention(round);
            }
            80..88 => {
                let mut steps = if rng.percent(60) { usize::MAX } else { rng.below(6) };
                let round = session.start("cleaning", move |store| {
                    store.clean(0, &mut |_| {
                        steps = steps.saturating_sub(1);
                        steps > 0
                    })
                });
                self.meanwhile(session, rng)?;
                if let Some(Ok(report)) = session.finish(round) {
                    tally.note_if("a segment was rewritten", report.segments_rewritten > 0);
                    tally.note_if("the cleaner was stopped", report.stopped);
                }
            }
            88..93 => session.show(),
            93..97 => session.reopen(rng, tally)?,
            _ => drop(session.check(rng)?),
        }
        Ok(())
    }

    /// Commits while something else goes on.
    fn meanwhile(&mut self, session: &mut Session, rng: &mut Rng) -> Result<(), Violation> {
        for _ in 0..rng.below(6) {
            if session.stumbled {
                break;
            }
            let (commit, batches) = self.commit(session, rng);
            session.submit(commit, batches);
            session.wait(self.in_flight_max)?;
        }
        Ok(())
    }

    /// After a commit that did not go well: the disk heals, and the store takes commits again, soon.
    fn recover(&mut self, session: &mut Session, rng: &mut Rng) -> Result<(), Violation> {
        if rng.percent(50) {
            session.disk.set_faults(None);
        }
        session.wait(0)?;
        for attempt in 0..RETRIES_MAX {
            session.stumbled = false;
            let (commit, batches) = self.commit(session, rng);
            session.submit(commit, batches);
            session.wait(0)?;
            if !session.stumbled {
                return Ok(());
            }
            if attempt >= 3 {
                session.disk.set_faults(None);
                storage::sync::sleep(std::time::Duration::from_millis(5));
            }
        }
        Err(Violation::new("serves", "no commit is taken any more after a fault that is over"))
    }

    fn commit(&mut self, session: &Session, rng: &mut Rng) -> (Commit, Vec<Batch>) {
        let mut commit = Commit::default();
        let mut batches = Vec::new();
        let partitions = &session.projected.partitions;
        let mut next: Vec<(PartitionId, u64)> = partitions.iter().map(|(id, log)| (*id, log.next_offset)).collect();
        if next.is_empty() || (next.len() < self.partitions_max && rng.percent(15)) {
            let id = PartitionId(session.projected.next_id + u32::from(rng.percent(10)));
            commit.partitions.push(PartitionChange::Create { id, retention: retention(rng) });
            next.push((id, 0));
        }
        for _ in 0..rng.within(0..=6) {
            let at = rng.below(next.len());
            let (id, offset) = next[at];
            let (append, batch) = self.append(id, offset, session.next_number, rng);
            next[at].1 = append.cover_end.0;
            commit.appends.push(append);
            batches.extend(batch);
        }
        if rng.percent(12) {
            let (id, end) = next[rng.below(next.len())];
            commit.partitions.push(match rng.below(6) {
                0 => PartitionChange::Delete { id },
                1 => PartitionChange::SetRetention { id, retention: retention(rng) },
                _ => PartitionChange::SetLogStart { id, offset: Offset(rng.within(0..=end)) },
            });
        }
        for _ in 0..rng.within(0..=4) {
            commit.state.push(row(rng));
        }
        (commit, batches)
    }

    fn append(&mut self, id: PartitionId, start: u64, number: u64, rng: &mut Rng) -> (Append, Option<Batch>) {
        let count = rng.within(1..=5);
        let cover_end = start + count + rng.within(0..=2) * rng.below(2) as u64;
        let mut append = Append {
            partition: id,
            cover_start: Offset(start),
            cover_end: Offset(cover_end),
            batches: None,
            max_timestamp_ms: 0,
        };
        if rng.percent(15) {
            return (append, None);
        }
        let bytes = match rng.below(10) {
            0..6 => rng.within(0..=300),
            6..8 => rng.within(300..=20_000),
            _ => rng.within(0..=self.batch_bytes_max),
        };
        let bytes = (bytes as usize).min(self.bytes_left);
        self.bytes_left -= bytes;
        let bytes = batch(start, count as u32, bytes, number as i64, rng);
        append.batches = Some(bytes.clone());
        append.max_timestamp_ms = number as i64;
        (append, Some(Batch { start, end: start + count, bytes }))
    }
}

fn batch(base: u64, count: u32, bytes: usize, timestamp_ms: i64, rng: &mut Rng) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        let value = rng.bytes((bytes / count as usize).min(RECORD_BYTES_MAX) + 8);
        builder.append(&Record::unkeyed(value, timestamp_ms)).expect("a record below the limit");
    }
    builder.finish(Offset(base)).expect("a batch below the limit").into_bytes()
}

fn retention(rng: &mut Rng) -> Retention {
    let policy = CleanupPolicy::Delete;
    match rng.below(4) {
        0 => Retention { age_ms: Some(rng.within(0..=60)), policy, ..Retention::FOREVER },
        1 => Retention { bytes: Some(rng.within(0..=500_000)), policy, ..Retention::FOREVER },
        _ => Retention::FOREVER,
    }
}

fn row(rng: &mut Rng) -> StateChange {
    let table = rng.pick(&StateTable::ALL);
    let key = format!("key {}", rng.below(12)).into();
    let bytes = rng.pick(&[1, 10, 100, 5_000]);
    StateChange { table, key, value: rng.percent(80).then(|| rng.bytes(bytes).into()) }
}

fn faults(rng: &mut Rng) -> Faults {
    Faults {
        kind: rng.pick(&[FaultKind::Io, FaultKind::Full, FaultKind::Sync, FaultKind::Sync]),
        after: rng.within(0..=60),
        count: rng.pick(&[1, 1, 2, 10]),
        evict: rng.percent(50),
    }
}
