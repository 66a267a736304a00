//! The store's handle: opening, and every operation in one place.
//!
//! Start at [`Store::open`].

use std::{
    collections::BTreeMap,
    fmt, io,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use protocol::{Health, Offset, PartitionId, Retention};
use thiserror::Error;

use crate::{
    BackupError, BackupReport, Budget, CleanError, CleanReport, Clock, Commit, CommitError, CommitReceipt, FileSystem,
    HostClock, HostFileSystem, InProcess, Prober, Progress, ReadError, ReadOutcome, RetentionError, RetentionReport,
    Space, StateTable, backup,
    budget::{DiskBudget, Room},
    cleaner,
    committer::{Committer, Job, Queue},
    fault::Fault,
    file_system::DirLock,
    partitions::Partitions,
    read, recovery, retention,
    scrub::{Scrub, ScrubProgress},
    segment::{Segment, SegmentDir},
    state::State,
    sync::{self, JoinHandle, Mutex, Receiver, RecvTimeoutError, RwLock},
};

/// How long a segment that could not be sealed waits for the next try.
const SEAL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Called once with a commit's answer, on the committer's thread: be quick (send on a channel).
pub type CommitDone = Box<dyn FnOnce(Result<CommitReceipt, CommitError>) + Send>;

/// A store's identity, made at its creation: parts of other stores are never taken for its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Sizes of a store; the defaults suit an edge host.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// A segment's file is rolled before it grows past this, or past 1/8 of the budget. Bytes.
    pub segment_bytes_max: u64,
    /// A segment is rolled at this many index entries, which bounds the memory of the active index.
    pub segment_entries_max: usize,
    /// What one transaction gathers from the commits that wait. Bytes.
    pub group_bytes_max: usize,
    /// Memory that keeps the newest batches of all partitions for readers. Bytes.
    pub tail_bytes_max: usize,
    /// How far ahead of the commit the active segment's blocks are allocated. Bytes.
    pub preallocate_bytes: u64,
    /// redb's cache for the state. Bytes.
    pub cache_bytes: usize,
    /// Memory for the keys of one round of compaction, taken as long as it lasts. Bytes; 30 of them a key.
    pub compaction_bytes: usize,
    /// State changes committed but not yet in `state.redb`; past it the committer waits. Bytes.
    pub overlay_bytes_max: usize,
    /// How much of the disk all files may take together: past it, commits with appends are refused.
    pub budget: Budget,
    /// Disk blocks kept back within the budget, for what frees space when it is full; at most 1/16 of it. Bytes.
    pub reserve_bytes: u64,
    /// How long the committer lets commits gather before it writes them together, on hosts whose flash wears out. Each
    /// commit is answered that much later. Zero: it never waits.
    pub commit_interval: Duration,
    /// The disk. Tests and the simulator put theirs here.
    pub file_system: Arc<dyn FileSystem>,
    /// The clock. Likewise.
    pub clock: Arc<dyn Clock>,
    /// Where files that may be damaged are looked at; a broker does it in a process of its own.
    pub prober: Arc<dyn Prober>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            segment_bytes_max: 256 << 20,
            segment_entries_max: 64 << 10,
            group_bytes_max: 4 << 20,
            tail_bytes_max: 32 << 20,
            preallocate_bytes: 16 << 20,
            cache_bytes: 4 << 20,
            compaction_bytes: 16 << 20,
            overlay_bytes_max: 16 << 20,
            budget: Budget::default(),
            reserve_bytes: 32 << 20,
            commit_interval: Duration::ZERO,
            file_system: Arc::new(HostFileSystem),
            clock: Arc::new(HostClock),
            prober: Arc::new(InProcess),
        }
    }
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPlace {
    /// First offset still kept.
    pub log_start_offset: Offset,
    /// First offset readers may not see yet: the end of the last synced commit.
    pub high_watermark: Offset,
    /// Bytes of its record batches.
    pub bytes: u64,
    /// When its records may be deleted.
    pub retention: Retention,
}

/// The store in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// What they may take, in bytes; 0 where the file system does not say how large it is.
    pub budget_bytes: u64,
    /// What the file system has left for us, in bytes; 0 where it does not say.
    pub available_bytes: u64,
    /// Segments, the active one included.
    pub segments: usize,
    /// Segments that were left, and have no index file yet.
    pub unsealed: usize,
    /// Sequence of the last commit.
    pub commit_sequence: u64,
    /// Sequence up to which `state.redb` is applied.
    pub applied_sequence: u64,
    /// Why `state.redb` is not being applied for now, if so; commits go on until the changes that wait are too many.
    pub state_failure: Option<String>,
    /// Transactions since the store was opened.
    pub commits: u64,
    /// Bytes of record batches taken since the store was opened.
    pub bytes_appended: u64,
    /// Bytes written to segments since the store was opened.
    pub bytes_written: u64,
    /// Bytes of record batches held in memory for readers.
    pub tail_bytes: usize,
    /// Bytes of sealed segments that the scrub has read since the store was opened.
    pub scrubbed_bytes: u64,
    /// Places in them that it found damaged.
    pub damages: usize,
    /// Whether commits are taken, and if not all of them, why not.
    pub health: Health,
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process (or another handle of this one) has it open.
    #[error("`{dir}` is in use by another broker; stop it first, or choose another data directory")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// A newer weir wrote it. Nothing was touched.
    #[error("`{file}` has format version {found}, but this version of weir reads up to {supported}; use a newer weir")]
    NewerFormat {
        /// The file that says so.
        file: String,
        /// The version found.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The bytes of a file are not what a store writes.
    #[error("`{file}` is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What does not match.
        what: String,
    },
    /// The disk or the system refused.
    #[error("failed to {action} `{file}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why closing did not end well. What was acknowledged is durable all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CloseError {
    /// `state.redb` could not be brought up to the last commit; the next start does it.
    #[error("failed to apply the state: {cause}")]
    State {
        /// What was said.
        cause: String,
    },
    /// The active segment could not be closed; the next start repairs it.
    #[error("failed to close the active segment: {cause}")]
    Segment {
        /// What was said.
        cause: String,
    },
}

/// What the threads of a store share.
pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) segment_dir: Arc<SegmentDir>,
    pub(crate) partitions: Partitions,
    /// By id; the last is the active one.
    pub(crate) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pub(crate) state: State,
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
    pub(crate) read_only: Mutex<Option<String>>,
    /// Whether appends have room on the disk, as of the last time it was looked.
    pub(crate) room: Mutex<Room>,
    /// Held by a round of retention, or of the cleaner.
    pub(crate) retention: Mutex<()>,
    /// Keeps the names of sealed segments as they are: shared while they are copied or linked, alone around whatever
    /// unlinks or replaces one. Neither readers nor the committer take it.
    pub(crate) files: RwLock<()>,
    /// Held by a step of the scrub.
    pub(crate) scrub: Mutex<Scrub>,
    pub(crate) last_epoch: AtomicU64,
}

/// Numbers for [`StoreStats`], and the last sequence.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commit_sequence: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) bytes_appended: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) tail_bytes: Arc<AtomicUsize>,
    /// What the disk reserve takes.
    pub(crate) reserve_bytes: AtomicU64,
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) damages: AtomicUsize,
}

impl Shared {
    pub(crate) fn read_only(&self) -> Option<String> {
        self.read_only.lock().clone()
    }

    /// Takes no commits for now. The first reason stays.
    pub(crate) fn set_read_only(&self, why: String) {
        self.read_only.lock().get_or_insert(why);
    }

    pub(crate) fn clear_read_only(&self) {
        *self.read_only.lock() = None;
    }

    /// An epoch never used before.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.last_epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// What all files take of the disk, but for the reserve. Bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let segments: u64 = self.segments.read().values().map(|segment| segment.disk_bytes()).sum();
        segments + self.state.disk_bytes()
    }

    fn health(&self) -> Health {
        if let Some(why) = self.read_only() {
            return Health::ReadOnly { why };
        }
        match self.room.lock().clone() {
            Room::Free => Health::Healthy,
            Room::Slow { why, .. } => Health::Slowed { why },
            Room::Full { why } => Health::Full { why },
        }
    }

    pub(crate) fn active_id(&self) -> u64 {
        self.segments.read().last_key_value().map_or(0, |(id, _)| *id)
    }
}

/// A handle on an open store. Cheap to clone; the last one dropped closes the store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

/// The threads, and the lock on the directory; closes the store when the last handle goes.
struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    _lock: Box<dyn DirLock>,
}

struct Threads {
    committer: JoinHandle<()>,
    sealer: JoinHandle<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("id", &self.store_id()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, and makes a new one where there is none.
    ///
    /// # Errors
    /// See [`OpenError`]. A newer format and a directory in use are refused before anything is written.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Store, OpenError> {
        Store::open_above(dir, options, 0)
    }

    /// [`Store::open`], with an epoch above this one.
    pub(crate) fn open_above(dir: &Path, options: StoreOptions, epoch: u64) -> Result<Store, OpenError> {
        let options = fitted(dir, options)?;
        let recovery::Opened { shared, active, unsealed, budget, lock } = recovery::open(dir, options, epoch)?;
        let shared = Arc::new(shared);
        let threads = start_threads(&shared, active, unsealed, budget)
            .map_err(|error| Fault::io(dir, "start threads for", error));
        let threads = match threads {
            Ok(threads) => threads,
            Err(fault) => {
                // The projector runs already; without this it would wait for ever.
                let _ = shared.state.close();
                return Err(fault.into());
            }
        };
        let running = Running { shared: shared.clone(), threads: Mutex::new(Some(threads)), _lock: lock };
        Ok(Store { shared, _running: Arc::new(running) })
    }

    /// The store's identity.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.shared.segment_dir.store
    }

    /// Hands a commit to the committer. Never blocks; first come, first served; the caller bounds what is in flight.
    ///
    /// `done` runs after the sync and after the watermarks moved, in the order of the submits.
    pub fn submit(&self, commit: Commit, done: CommitDone) {
        if let Err(job) = self.shared.queue.push(Job::Commit { commit, done }) {
            job.refuse(CommitError::ShuttingDown);
        }
    }

    /// [`Store::submit`], and waits for the answer. Not to be called from a `done`.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(&self, commit: Commit) -> Result<CommitReceipt, CommitError> {
        let (sender, answer) = sync::channel();
        self.submit(commit, Box::new(move |result| drop(sender.send(result))));
        answer.recv().unwrap_or(Err(CommitError::ShuttingDown))
    }

    /// Leaves the active segment for a new one, if there is anything in it.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn roll(&self) -> Result<(), CommitError> {
        let (sender, answer) = sync::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        if let Err(job) = self.shared.queue.push(Job::Roll { done }) {
            job.refuse(CommitError::ShuttingDown);
        }
        answer.recv().unwrap_or(Err(CommitError::ShuttingDown))
    }

    /// Where a partition stands; `None` when there is none of that id.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<PartitionPlace> {
        self.shared.partitions.get(id).map(|partition| partition.place())
    }

    /// Every partition, by id.
    #[must_use]
    pub fn partitions(&self) -> Vec<(PartitionId, PartitionPlace)> {
        self.shared.partitions.all().iter().map(|partition| (partition.id, partition.place())).collect()
    }

    /// The lowest id never used.
    #[must_use]
    pub fn partition_id_next(&self) -> PartitionId {
        self.shared.partitions.next_id()
    }

    /// Reads from memory alone, without waiting for anything slow. `None` when the tail does not reach back to `from`
    /// (or the offset is out of range): use [`Store::read`] then.
    #[must_use]
    pub fn read_tail(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Option<ReadOutcome> {
        read::read_tail(&self.shared.partitions, id, from, max_bytes)
    }

    /// Reads whole batches from `from` on, about `max_bytes` of them, the first even if it is larger. May read the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Result<ReadOutcome, ReadError> {
        read::read(&self.shared.partitions, id, from, max_bytes)
    }

    /// The first record at or after a time: its offset, or `None` when every record is older.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_timestamp(&self, id: PartitionId, timestamp_ms: i64) -> Result<Option<Offset>, ReadError> {
        read::offset_for_timestamp(&self.shared.partitions, id, timestamp_ms)
    }

    /// One row of the state, as of the last commit.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn state_get(&self, table: StateTable, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.shared.state.get(table, key)?)
    }

    /// Every row whose key begins with `prefix`, in order of keys, as of the last commit.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn state_scan(&self, table: StateTable, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        Ok(self.shared.state.scan(table, prefix)?)
    }

    /// Deletes what has expired at `now_ms`. Blocks for a commit and for unlinks.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub fn run_retention(&self, now_ms: i64) -> Result<RetentionReport, RetentionError> {
        retention::run(&self.shared, now_ms, |commit| self.commit(commit).map(drop), || self.roll())
    }

    /// Rewrites what is more than half dead, and compacts partitions that keep the newest record of each key. `pace` is
    /// told of the bytes of every step, about 1 MiB, and waits as long as is good for the disk; when it says `false`, the
    /// round stops there, at once, and nothing is lost but the rewriting of one segment.
    ///
    /// # Errors
    /// See [`CleanError`].
    pub fn clean(&self, now_ms: i64, pace: &mut dyn FnMut(usize) -> bool) -> Result<CleanReport, CleanError> {
        cleaner::clean(&self.shared, now_ms, pace)
    }

    /// Makes a backup in a directory, or brings the one that is there up to date, while commits go on: sealed segments
    /// are linked where the file system can, else copied, and the state is written as of one commit. Of the snapshots
    /// of the state the newest `keep` stay; all without. Blocks; [`restore()`](crate::restore()) is the way back.
    ///
    /// `beside` puts into the directory what the commits name and the store does not have. It is called twice, before and
    /// behind the last commit of the backup, so that it sees what is deleted and what is made meanwhile.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn backup(
        &self,
        to: &Path,
        keep: Option<NonZeroUsize>,
        beside: &mut dyn FnMut(&Path) -> io::Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<BackupReport, BackupError> {
        let mut asks = backup::Asks { roll: &|| self.roll(), commit: &|commit| self.commit(commit).map(drop), beside };
        backup::run(&self.shared, to, keep, &mut asks, progress)
    }

    /// Checks more of the sealed segments, in order and from the beginning again at the end: about `bytes_max`, and at least
    /// one part, which is 1 MiB at most. What is damaged is logged once, and counted in the [`stats`](Store::stats).
    pub fn scrub_step(&self, bytes_max: usize) -> ScrubProgress {
        self.shared.scrub.lock().step(&self.shared, bytes_max)
    }

    /// Milliseconds since the Unix epoch, by the store's clock.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.options.clock.now_ms()
    }

    /// The store in numbers.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = &self.shared;
        let counters = &shared.counters;
        let segments: Vec<_> = shared.segments.read().values().cloned().collect();
        let SegmentDir { file_system, dir, .. } = &*shared.segment_dir;
        let space = file_system.space(dir).unwrap_or(Space { total_bytes: 0, available_bytes: 0 });
        StoreStats {
            disk_bytes: shared.disk_bytes() + counters.reserve_bytes.load(Ordering::Relaxed),
            budget_bytes: shared.options.budget.limit_bytes(space),
            available_bytes: space.available_bytes,
            segments: segments.len(),
            unsealed: segments.iter().filter(|segment| !segment.is_sealed()).count().saturating_sub(1),
            commit_sequence: counters.commit_sequence.load(Ordering::Acquire),
            applied_sequence: shared.state.applied(),
            state_failure: shared.state.failure(),
            commits: counters.commits.load(Ordering::Relaxed),
            bytes_appended: counters.bytes_appended.load(Ordering::Relaxed),
            bytes_written: counters.bytes_written.load(Ordering::Relaxed),
            tail_bytes: counters.tail_bytes.load(Ordering::Relaxed),
            scrubbed_bytes: counters.scrubbed_bytes.load(Ordering::Relaxed),
            damages: counters.damages.load(Ordering::Relaxed),
            health: shared.health(),
        }
    }

    /// Commits what waits, applies the state, ends the threads, closes the files. Later submits get `ShuttingDown`;
    /// records can still be read, state not. Dropping the last handle does the same, and gives up the directory.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub fn close(&self) -> Result<(), CloseError> {
        self._running.close()
    }
}

impl Running {
    fn close(&self) -> Result<(), CloseError> {
        // Held to the end: a second caller returns when the store is closed, not before.
        let mut threads = self.threads.lock();
        let Some(Threads { committer, sealer }) = threads.take() else { return Ok(()) };
        self.shared.queue.close();
        let committer = committer.join();
        // The committer held the other end of the sealer's channel.
        let sealer = sealer.join();
        let state = self.shared.state.close();
        let segments: Vec<_> = self.shared.segments.read().values().cloned().collect();
        for segment in segments {
            segment.seal().map_err(|fault| CloseError::Segment { cause: fault.text() })?;
        }
        if committer.is_err() || sealer.is_err() {
            return Err(CloseError::Segment { cause: "a thread of the store panicked".into() });
        }
        state.map_err(|cause| CloseError::State { cause })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed cleanly; the next start repairs it");
        }
    }
}

/// The options as they suit the file system that the store lies on; where that does not say how large it is, as given.
fn fitted(dir: &Path, options: StoreOptions) -> Result<StoreOptions, OpenError> {
    let file_system = options.file_system.clone();
    file_system.create_dir_all(dir).map_err(|error| Fault::io(dir, "create", error))?;
    match file_system.space(dir) {
        Ok(space) => Ok(options.fitted_to_budget(space)),
        Err(error) => {
            tracing::warn!(%error, "the file system does not say how large it is");
            Ok(options)
        }
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    active: Arc<Segment>,
    unsealed: Vec<Arc<Segment>>,
    budget: DiskBudget,
) -> std::io::Result<Threads> {
    let (sender, to_seal) = sync::channel::<Arc<Segment>>();
    unsealed.into_iter().for_each(|segment| drop(sender.send(segment)));
    let sealer = sync::spawn("weir-sealer", move || seal_all(&to_seal))?;
    let committer = Committer::new(shared.clone(), active, budget, sender);
    let committer = sync::spawn("weir-committer", move || committer.run())?;
    Ok(Threads { committer, sealer })
}

/// Seals what is left, until the committer ends. What cannot be sealed is tried again; its index stays in memory so long.
fn seal_all(to_seal: &Receiver<Arc<Segment>>) {
    let mut unsealed: Vec<Arc<Segment>> = Vec::new();
    loop {
        let next = match unsealed.is_empty() {
            true => to_seal.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => to_seal.recv_timeout(SEAL_RETRY_INTERVAL),
        };
        match next {
            Ok(segment) => unsealed.push(segment),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        unsealed.retain(|segment| match segment.seal() {
            Ok(()) => false,
            Err(fault) => {
                tracing::warn!(cause = fault.text(), "a segment cannot be sealed yet; its index stays in memory");
                true
            }
        });
    }
}
