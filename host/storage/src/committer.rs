//! Writes commits to redb: one thread, one transaction and one sync for all that wait.
//!
//! Owns the only write transaction on the log, and with it every change of the store. Never looks inside a record.
//!
//! Invariants
//! - The coverage of a partition has no holes: each append begins where the last one ended.
//! - A commit is answered only after its transaction is synced and readers can see it, in the order of arrival.
//! - After a failed transaction its file is never written again: the next segment's header says how far it is valid
//!   before anything else is committed. Where none can be made, what waits is refused until one can; reads go on.
//!
//! ```text
//! submit -> queue -> drain <= 4 MiB -> admit (coverage) -> pack (group) -> transaction + sync
//!                                                              -> state, index, watermarks, tail -> answers
//! ```
//!
//! Start at [`Committer::step`].

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redb::WriteTransaction;

use crate::{
    Commit, CommitError, CommitReceipt, StateTable,
    budget::{DiskBudget, Room},
    coverage::{Admission, commit_bytes},
    fault::Fault,
    group::{Group, Packed, PackedExtent},
    index::PartitionSpan,
    layout,
    partitions::Partitions,
    record::{ChangeRow, PartitionRow, PreviousSegment, SegmentHeader, SnapshotRow, StateRow},
    recovery,
    segment::{NotCreated, Segment},
    store::{CommitDone, Shared},
    sync::{self, Condvar, Mutex, MutexGuard, Sender},
    tail::Tail,
};

/// Bytes of one row of a header's snapshot, about.
const SNAPSHOT_ROW_BYTES: usize = 256 << 10;

/// How often a new segment is tried while none can be made: well within the five seconds that service may take to come
/// back after the disk does.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How often it is looked whether a disk that was full has room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// How long a small group waits for as many commits as the ones before it had: a part of what a sync takes.
const GATHER_WAIT: Duration = Duration::from_micros(100);

/// A group of this many bytes is worth a sync by itself.
const GATHER_BYTES_MAX: usize = 64 << 10;

/// Called when a segment was rolled, or could not be.
pub(crate) type RollDone = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// What waits for the committer.
pub(crate) enum Job {
    Commit {
        commit: Commit,
        done: CommitDone,
    },
    /// Leave the active segment, even if it is not full.
    Roll {
        done: RollDone,
    },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Commit { commit, .. } => commit_bytes(commit),
            Job::Roll { .. } => 0,
        }
    }

    fn appends(&self) -> bool {
        matches!(self, Job::Commit { commit, .. } if !commit.appends.is_empty())
    }

    /// Answers a job that was not done.
    pub(crate) fn refuse(self, error: CommitError) {
        match self {
            Job::Commit { done, .. } => done(Err(error)),
            Job::Roll { done } => done(Err(error)),
        }
    }
}

/// A job, and why it cannot be done, if so.
type Sorted = (Job, Result<(), CommitError>);

/// The queue before the committer. Unbounded: callers bound what they have in flight.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
    /// The committer is to be woken at so many jobs.
    wanted: usize,
    /// Jobs of the last two groups.
    last_groups: [usize; 2],
}

impl Waiting {
    /// Whether what waits is small, and less than the larger of the last two groups: then the others are likely on
    /// their way.
    fn is_worth_gathering(&self) -> bool {
        let expected = self.last_groups[0].max(self.last_groups[1]);
        self.jobs.len() < expected && self.jobs.iter().map(Job::bytes).sum::<usize>() < GATHER_BYTES_MAX
    }
}

impl Queue {
    /// Adds a job; gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(job);
        }
        waiting.jobs.push_back(job);
        if waiting.jobs.len() >= waiting.wanted {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Lets no more in; what waits is still done.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    /// Hands out what waits.
    fn take_waiting(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.waiting.lock().jobs)
    }

    /// Lets no more in, and hands out what waits.
    fn take_all(&self) -> VecDeque<Job> {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        std::mem::take(&mut waiting.jobs)
    }

    /// Waits a while, whatever arrives; not once the queue is closed.
    fn pause(&self, duration: Duration) {
        let mut waiting = self.waiting.lock();
        // Nobody but who closes it wakes us: woken by each arrival, we would wait anew as long as they go on.
        waiting.wanted = usize::MAX;
        if !waiting.closed {
            self.arrived.wait_for(&mut waiting, duration);
        }
    }

    /// Waits until there is something to do, or a time has passed. `false` when the queue is closed and empty.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.wanted = 1;
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return false;
            }
            match at_most {
                None => self.arrived.wait(&mut waiting),
                Some(at_most) if self.arrived.wait_for(&mut waiting, at_most).timed_out() => return true,
                Some(_) => {}
            }
        }
        self.gather(&mut waiting);
        true
    }

    /// Gives those who were in the last groups the moment it takes them to come again. Without it the first of many
    /// producers who wait for their answers is committed alone, and the others with the next sync.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        if waiting.closed || !waiting.is_worth_gathering() {
            return;
        }
        waiting.wanted = waiting.last_groups[0].max(waiting.last_groups[1]);
        self.arrived.wait_for(waiting, GATHER_WAIT);
    }

    /// The next group: what waits, up to about `bytes_max`.
    fn drain(&self, bytes_max: usize) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(job) = waiting.jobs.front() {
            let more = job.bytes();
            let alone = matches!(job, Job::Roll { .. });
            if !group.is_empty() && (alone || bytes + more > bytes_max) {
                break;
            }
            bytes += more;
            group.extend(waiting.jobs.pop_front());
            if alone {
                break;
            }
        }
        waiting.last_groups = [group.len(), waiting.last_groups[0]];
        group
    }
}

/// The committer's own state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    active: Arc<Segment>,
    tail: Tail,
    /// One part while it is put together; kept for its memory.
    scratch: Vec<u8>,
    sealer: Sender<Arc<Segment>>,
    budget: DiskBudget,
    /// The active segment failed, or may not grow any more, and no segment after it could be made yet.
    failed: bool,
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        active: Arc<Segment>,
        budget: DiskBudget,
        sealer: Sender<Arc<Segment>>,
    ) -> Committer {
        let tail = Tail::new(shared.options.tail_bytes_max, shared.counters.tail_bytes.clone());
        Committer { shared, active, tail, scratch: Vec::new(), sealer, budget, failed: false }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            while self.failed && !self.replace_failed() && !self.shared.queue.is_closed() {
                self.refuse_waiting();
                self.shared.queue.pause(RETRY_INTERVAL);
            }
            let is_free = *self.shared.room.lock() == Room::Free;
            if !self.shared.queue.wait((!is_free).then_some(ROOM_INTERVAL)) {
                return;
            }
            let options = &self.shared.options;
            if !options.commit_interval.is_zero() {
                self.shared.queue.pause(options.commit_interval);
            }
            let jobs = self.shared.queue.drain(options.group_bytes_max);
            self.step(jobs);
        }
    }

    /// Does one group and answers all of it.
    pub(crate) fn step(&mut self, jobs: Vec<Job>) {
        if self.failed && !self.replace_failed() {
            return jobs.into_iter().for_each(|job| self.refuse(job));
        }
        let full = self.room_for(&jobs);
        let (admitted, group) = self.admit(jobs, full.as_ref());
        let committed = match group.is_empty() {
            true => Ok(self.shared.counters.commit_sequence.load(Ordering::Acquire)),
            false => self.commit(group),
        };
        for (job, result) in admitted {
            match (job, result) {
                (Job::Commit { done, .. }, Ok(())) => {
                    done(committed.clone().map(|sequence| CommitReceipt { sequence }));
                }
                (Job::Roll { done }, Ok(())) => done(self.roll_on_request()),
                (job, Err(error)) => job.refuse(error),
            }
        }
    }

    fn refuse(&self, job: Job) {
        let why = self.shared.read_only().unwrap_or_default();
        job.refuse(CommitError::ReadOnly { why });
    }

    fn refuse_waiting(&self) {
        self.shared.queue.take_waiting().into_iter().for_each(|job| self.refuse(job));
    }

    /// Whether what is appended has room on the disk; waits where that is getting scarce, and says why where there is none.
    fn room_for(&mut self, jobs: &[Job]) -> Option<CommitError> {
        let growth = self.growth(jobs);
        let is_free = *self.shared.room.lock() == Room::Free;
        if growth == 0 && is_free {
            return None;
        }
        let room = self.budget.room(self.shared.disk_bytes(), growth).unwrap_or_else(|error| {
            tracing::warn!(%error, "the file system does not say what it has left");
            Room::Free
        });
        self.shared.counters.reserve_bytes.store(self.budget.reserve_held_bytes(), Ordering::Relaxed);
        let before = std::mem::replace(&mut *self.shared.room.lock(), room.clone());
        if let (Room::Full { why }, Room::Free | Room::Slow { .. }) = (&room, before) {
            tracing::warn!(why, "appends are refused");
        }
        match room {
            Room::Free => None,
            Room::Slow { delay_ms, .. } => {
                if growth > 0 || jobs.iter().any(Job::appends) {
                    sync::sleep(Duration::from_millis(delay_ms));
                }
                None
            }
            Room::Full { why } => Some(CommitError::Full { why }),
        }
    }

    /// By how much appends let the files grow beyond what they take already: blocks are allocated in large steps.
    fn growth(&self, jobs: &[Job]) -> u64 {
        let bytes: usize = jobs.iter().filter(|job| job.appends()).map(Job::bytes).sum();
        if bytes == 0 {
            return 0;
        }
        let ahead = layout::file_bytes_estimate(bytes, 0);
        let step = self.shared.options.preallocate_bytes;
        let growth = self.active.with_writer(|writer| Ok(writer.meter.growth(ahead, step)));
        growth.unwrap_or(ahead)
    }

    /// Sorts out what cannot be done, and gathers the rest.
    fn admit(&self, jobs: Vec<Job>, full: Option<&CommitError>) -> (Vec<Sorted>, Group) {
        let mut admission = Admission::new(&self.shared.partitions);
        let mut group = Group::default();
        let mut admitted = Vec::with_capacity(jobs.len());
        for mut job in jobs {
            let result = match (&mut job, full) {
                (Job::Commit { commit, .. }, Some(full)) if !commit.appends.is_empty() => Err(full.clone()),
                (Job::Commit { commit, .. }, _) => admission.admit(commit).map(|()| group.add(std::mem::take(commit))),
                (Job::Roll { .. }, _) => Ok(()),
            };
            admitted.push((job, result));
        }
        (admitted, group)
    }

    /// Makes a group durable and visible; its sequence.
    fn commit(&mut self, group: Group) -> Result<u64, CommitError> {
        if let Err(cause) = self.shared.state.wait_for_room() {
            return Err(CommitError::ReadOnly { why: cause });
        }
        if self.is_full(&group) {
            self.roll()?;
        }
        self.allocate(&group)?;
        let sequence = self.active.last_sequence() + 1;
        let packed = self.write(sequence, group).map_err(|fault| self.fail(&fault))?;
        self.publish(sequence, packed);
        Ok(sequence)
    }

    /// Whether the active segment has no room for the group. An empty one takes any.
    fn is_full(&self, group: &Group) -> bool {
        let options = &self.shared.options;
        let held = self.active.with_writer(|writer| Ok((writer.meter.used_bytes(), writer.locator.len())));
        let (written, parts) = held.unwrap_or_default();
        let entries = self.active.memory_index(|index| index.entries()).unwrap_or(0);
        !self.active.is_empty()
            && (written + group.file_bytes_estimate() > options.segment_bytes_max
                || entries.max(parts) + group.entries() > options.segment_entries_max)
    }

    /// Takes disk blocks for the group before anything of it is written, so that a full disk is only a refusal.
    fn allocate(&mut self, group: &Group) -> Result<(), CommitError> {
        let ahead = group.file_bytes_estimate();
        let is_full = matches!(*self.shared.room.lock(), Room::Full { .. });
        // What still goes on when the disk is full takes no more than it needs.
        let step = if is_full { ahead } else { self.shared.options.preallocate_bytes };
        let allocated = self.active.with_writer(|writer| {
            let io = |error| Fault::io(&self.active.path, "allocate blocks for", error);
            writer.meter.allocate_ahead(&*writer.file, ahead, step).map_err(io)
        });
        match allocated {
            Err(fault) if fault.is_disk_full() => {
                // Whatever the file system says it has left; it is looked at again before the next group.
                *self.shared.room.lock() = Room::Full { why: fault.text() };
                Err(CommitError::Full { why: fault.text() })
            }
            Err(fault) => Err(self.fail(&fault)),
            Ok(()) => Ok(()),
        }
    }

    /// One transaction, one sync.
    fn write(&mut self, sequence: u64, group: Group) -> Result<Packed, Fault> {
        let active = self.active.clone();
        let now_ms = self.shared.clock.now_ms();
        active.with_writer(|open| {
            let transaction = open.db.begin_write().map_err(Fault::redb(&active.path, "write to"))?;
            let packed = self.fill(&transaction, sequence, group, now_ms)?;
            let before = open.meter.bytes_written();
            transaction.commit().map_err(Fault::redb(&active.path, "write to"))?;
            let counters = &self.shared.counters;
            counters.bytes_written.fetch_add(open.meter.bytes_written() - before, Ordering::Relaxed);
            Ok(packed)
        })
    }

    fn fill(
        &mut self,
        transaction: &WriteTransaction,
        sequence: u64,
        group: Group,
        now_ms: i64,
    ) -> Result<Packed, Fault> {
        let path = &self.active.path;
        let mut log = transaction.open_table(layout::LOG_TABLE).map_err(Fault::redb(path, "write to"))?;
        let active = &self.active;
        let put = |part: u16, bytes: &mut [u8], body_crc: u32| {
            active.place(sequence, part).write_header(bytes, body_crc);
            log.insert((sequence, part), &*bytes).map(|_| ()).map_err(Fault::redb(path, "write to"))
        };
        group.pack(sequence, now_ms, &mut self.scratch, put)
    }

    /// Shows readers what is durable: state, index, watermarks, tail.
    fn publish(&mut self, sequence: u64, packed: Packed) {
        let shared = &self.shared;
        for row in &packed.record.created {
            let (id, retention) = (row.id, row.retention);
            shared.partitions.insert(PartitionRow { id, retention, log_start: 0, next_offset: 0 });
        }
        shared.state.push(sequence, packed.record.state.into_iter().map(|StateRow(change)| change));
        self.active.set_last_sequence(sequence);
        let mut steps = Vec::with_capacity(packed.extents.len());
        let tiled = self.active.memory_index_mut(|index| {
            packed.extents.into_iter().fold(true, |tiled, PackedExtent { partition, extent, tail }| {
                steps.push((partition, PartitionSpan::of(&extent), tail));
                tiled & index.push(partition, extent)
            })
        });
        assert!(tiled == Some(true), "the active index continues where the partitions ended");
        let mut bytes_appended = 0;
        for (id, step, tail) in steps {
            let Some(partition) = shared.partitions.get(id) else {
                unreachable!("admitted appends are to partitions that exist, or are made in the same commit")
            };
            bytes_appended += step.bytes;
            tail.iter().for_each(|extent| self.tail.note(&partition, extent));
            partition.with(|state| state.extend(&self.active, step, tail));
        }
        self.tail.shrink();
        for change in packed.record.changes {
            apply_change(&shared.partitions, &self.active, change);
        }
        let counters = &shared.counters;
        counters.bytes_appended.fetch_add(bytes_appended, Ordering::Relaxed);
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.commit_sequence.store(sequence, Ordering::Release);
    }

    /// After a failure: the file is never written again, and the store goes on in a new one if it can.
    fn fail(&mut self, fault: &Fault) -> CommitError {
        let cause = fault.text();
        tracing::error!(cause, "a commit failed; its segment is left");
        self.shared.set_read_only(cause.clone());
        self.active.abandon();
        self.failed = true;
        self.replace_failed();
        CommitError::Failed { cause }
    }

    /// Begins the segment after one that failed; whether it could.
    fn replace_failed(&mut self) -> bool {
        match self.begin_next() {
            Ok(()) => {
                tracing::info!(segment = self.active.id, "commits are taken again");
                self.failed = false;
                self.shared.clear_read_only();
            }
            Err(not_created) => {
                let fault = Fault::from(not_created);
                tracing::warn!(cause = fault.text(), "no new segment can be made yet; the store is read-only");
                self.shared.set_read_only(fault.text());
            }
        }
        !self.failed
    }

    fn roll_on_request(&mut self) -> Result<(), CommitError> {
        if self.active.is_empty() { Ok(()) } else { self.roll() }
    }

    /// Begins the next segment. Where it cannot, nothing was committed, and the active one is as good as before; but not if
    /// there may be a next one that says where it ends.
    fn roll(&mut self) -> Result<(), CommitError> {
        self.begin_next().map_err(|not_created| {
            self.failed = matches!(not_created, NotCreated::MaybeNamed(_));
            let fault = Fault::from(not_created);
            tracing::warn!(cause = fault.text(), "no new segment can be made");
            match fault.is_disk_full() {
                true => CommitError::Full { why: fault.text() },
                false => CommitError::ReadOnly { why: fault.text() },
            }
        })
    }

    /// Begins the next segment and leaves the active one to the sealer.
    fn begin_next(&mut self) -> Result<(), NotCreated> {
        let next = Arc::new(begin_segment(&self.shared, Some(&self.active))?);
        self.shared.segments.write().insert(next.id, next.clone());
        let left = std::mem::replace(&mut self.active, next);
        // Without the sealer it stays as it is, with its index in memory, until the next start.
        let _ = self.sealer.send(left);
        Ok(())
    }
}

impl Drop for Committer {
    /// Without a committer nobody would ever answer: after a panic, what waits is refused, and so is what comes.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.set_read_only("the committer panicked".into());
        }
        for job in self.shared.queue.take_all() {
            job.refuse(CommitError::ShuttingDown);
        }
    }
}

/// Makes the segment after `before`, with a snapshot of everything committed so far.
pub(crate) fn begin_segment(shared: &Shared, before: Option<&Segment>) -> Result<Segment, NotCreated> {
    let snapshot = snapshot_rows(shared).map_err(NotCreated::Unnamed)?;
    let previous = before.map(|before| PreviousSegment {
        segment: recovery::end_id(&before.header),
        last_sequence: before.last_sequence(),
    });
    let header = SegmentHeader {
        store: shared.segment_dir.store.0,
        segment: previous.map_or(1, |previous| previous.segment + 1),
        epoch: shared.next_epoch(),
        first_sequence: previous.map_or(1, |previous| previous.last_sequence + 1),
        previous,
        created_at_ms: shared.clock.now_ms(),
        partition_id_next: shared.partitions.next_id(),
        snapshot_rows: snapshot.len() as u16,
        replaces_until: None,
        compacted: Vec::new(),
    };
    Segment::create(&shared.segment_dir, header, &snapshot)
}

/// Partitions and small state, as of the last commit, in rows of bounded size.
fn snapshot_rows(shared: &Shared) -> Result<Vec<SnapshotRow>, Fault> {
    let mut rows = Vec::new();
    for partitions in shared.partitions.rows().chunks(4_096) {
        rows.push(SnapshotRow { partitions: partitions.to_vec(), state: Vec::new() });
    }
    for table in StateTable::ALL.into_iter().filter(|table| table.is_small()) {
        let mut row = SnapshotRow::default();
        let mut bytes = 0;
        for (key, value) in shared.state.scan(table, &[])? {
            bytes += key.len() + value.len();
            row.state.push(StateRow(crate::StateChange { table, key, value: Some(value) }));
            if bytes >= SNAPSHOT_ROW_BYTES {
                rows.push(std::mem::take(&mut row));
                bytes = 0;
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Applies a change of a partition to what readers see.
pub(crate) fn apply_change(partitions: &Partitions, active: &Segment, change: ChangeRow) {
    match change {
        ChangeRow::SetRetention { id, retention } => {
            if let Some(partition) = partitions.get(id) {
                partition.with(|state| state.retention = retention);
            }
        }
        ChangeRow::Delete { id } => {
            partitions.remove(id);
            active.memory_index_mut(|index| index.remove(id));
        }
        ChangeRow::SetLogStart { id, offset } => {
            if let Some(partition) = partitions.get(id) {
                partition.with(|state| state.set_log_start(offset.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_while_jobs_go_on_arriving() {
        let queue = Arc::new(Queue::default());
        let paused = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.pause(Duration::from_millis(50)))
        };
        // Far more often than the pause is long, and for far longer than it.
        for _ in 0..2_000 {
            if paused.is_finished() {
                return paused.join().unwrap();
            }
            assert!(queue.push(Job::Roll { done: Box::new(|_| {}) }).is_ok());
            std::thread::sleep(Duration::from_millis(1));
        }
        queue.close();
        paused.join().unwrap();
        panic!("it did not end before the arrivals did");
    }
}
