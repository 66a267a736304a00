//! Restore: makes a data directory out of a backup, as the store stood at one commit.
//!
//! Owns the way there: which snapshot and which segments, and the segment in which the point lies, written anew up to the
//! point, so that it is what a store that stopped there would have left. The state is the snapshot's; opening the result
//! once replays the commits behind it, and proves that it opens.
//!
//! Everything is made beside its place, and gets its name at the end: a directory of the name asked for is whole.
//!
//! The store keeps its id: records say which store they are of. It goes on with epochs that no history of it has had, but
//! two stores of one id must never be mixed.
//!
//! Start at [`restore`].

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::units;
use thiserror::Error;

use crate::{
    FileSystem, OpenError, OpenMode, Restorable, Store, StoreFile, StoreId, StoreOptions,
    backup::{
        Progress,
        copy::Carrier,
        manifest::{FileSum, Manifest, ManifestFault, Plan, SegmentEntry, snapshot_path},
    },
    fault::{Fault, file_name},
    format::FORMAT_VERSION,
    index_file::IndexFile,
    layout::{LOG_TABLE, PartPlace},
    parts::{PartMap, read_part},
    record::{self, CommitRecord, SegmentHeader, SnapshotRow},
    recovery::{self, STATE_FILE},
    segment::{Segment, SegmentDir, Writer, parse_record},
};

/// Suffix of a directory that is being made.
const STAGING_SUFFIX: &str = ".restoring";

/// Bytes of a segment that is cut which are written in one transaction.
const CUT_BYTES: u64 = 4 << 20;

/// redb's cache for a segment that is cut: room for a transaction, and for the largest commit.
const CUT_CACHE_BYTES: usize = 16 << 20;

/// What a store is restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestorePoint {
    /// The last commit in the backup.
    Latest,
    /// This commit, and none after it.
    Commit(u64),
    /// The last commit made at or before this time, in milliseconds since 1970.
    Time(i64),
}

impl fmt::Display for RestorePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestorePoint::Latest => f.write_str("its last commit"),
            RestorePoint::Commit(sequence) => write!(f, "commit {sequence}"),
            RestorePoint::Time(ms) => f.write_str(&units::time(*ms)),
        }
    }
}

impl fmt::Display for Restorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restorable { commit_min, commit_max, time_min_ms, time_max_ms } = *self;
        let (from, to) = (units::time(time_min_ms), units::time(time_max_ms));
        write!(f, "commits {commit_min} to {commit_max} ({from} to {to})")
    }
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The store's id, the same as ever.
    pub store: StoreId,
    /// The last commit in it.
    pub commit: u64,
    /// The commit of the snapshot from which it was restored.
    pub snapshot_sequence: u64,
    /// Segments brought whole.
    pub segments_whole: usize,
    /// Whether one more had to be cut.
    pub cut: bool,
    /// Whether the segments are linked: they share the backup's disk blocks.
    pub linked: bool,
}

/// Why a store was not restored. The directory it was to be in is as it was.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// There is no backup.
    #[error("`{dir}` is no backup: it has no `backup.manifest`")]
    NotABackup {
        /// The directory.
        dir: String,
    },
    /// A newer weir made the backup.
    #[error("`{file}` has format version {found}, but this version of weir reads up to {FORMAT_VERSION}")]
    NewerFormat {
        /// The manifest.
        file: String,
        /// The version found.
        found: u32,
    },
    /// The new data directory has something in it.
    #[error("`{dir}` is not empty (it holds `{name}`); choose a new directory")]
    NotEmpty {
        /// The directory.
        dir: String,
        /// A file in it.
        name: String,
    },
    /// A restore to the same directory was interrupted, or is under way.
    #[error("`{dir}` was left by a restore that did not finish; remove it, and try again")]
    Unfinished {
        /// The directory.
        dir: String,
    },
    /// The backup cannot take the store to that point.
    #[error("`{dir}` cannot be restored to {point}; it can be to {}", runs(possible))]
    OutOfReach {
        /// The backup.
        dir: String,
        /// Where it was to go.
        point: RestorePoint,
        /// Where it can go.
        possible: Vec<Restorable>,
    },
    /// A file of the backup is not what was put there.
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
    /// What was restored does not open.
    #[error("failed to open what was restored in `{dir}`")]
    Open {
        /// Where it is; it is left there.
        dir: String,
        /// Why not.
        #[source]
        source: OpenError,
    },
}

fn runs(possible: &[Restorable]) -> String {
    let runs: Vec<_> = possible.iter().map(Restorable::to_string).collect();
    if runs.is_empty() { "nothing".to_owned() } else { runs.join(", ") }
}

impl From<Fault> for RestoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { file, action, cause } => RestoreError::Io { action, file, source: cause },
            Fault::Damaged { file, what } => RestoreError::Damaged { file, what },
        }
    }
}

impl From<ManifestFault> for RestoreError {
    fn from(fault: ManifestFault) -> Self {
        match fault {
            ManifestFault::Newer { file, found } => RestoreError::NewerFormat { file, found },
            ManifestFault::Fault(fault) => fault.into(),
        }
    }
}

/// A restored store that has not got its name yet, so that more can be put beside it.
#[derive(Debug)]
#[must_use = "the directory gets its name from `finish`"]
pub struct Restored {
    file_system: Arc<dyn FileSystem>,
    staging: PathBuf,
    to: PathBuf,
    report: RestoreReport,
}

impl Restored {
    /// Where it is until [`finish`](Restored::finish).
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.staging
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// When the system refuses: a directory of that name has got something in it, say.
    pub fn finish(self) -> Result<RestoreReport, RestoreError> {
        let Restored { file_system, staging, to, report } = self;
        file_system.sync_dir(&staging).map_err(|error| Fault::io(&staging, "sync", error))?;
        file_system.rename(&staging, &to).map_err(|error| Fault::io(&to, "name", error))?;
        if let Some(parent) = to.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            file_system.sync_dir(parent).map_err(|error| Fault::io(parent, "sync", error))?;
        }
        Ok(report)
    }
}

/// Restores the backup in `from` to a point, for a new data directory `to`, which is not there yet, or empty.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    from: &Path,
    to: &Path,
    point: RestorePoint,
    options: StoreOptions,
    progress: &mut Progress<'_>,
) -> Result<Restored, RestoreError> {
    let file_system = options.file_system.clone();
    let manifest = Manifest::read(&*file_system, from)?;
    let manifest = manifest.ok_or_else(|| RestoreError::NotABackup { dir: file_name(from) })?;
    check_empty(&*file_system, to)?;
    let staging = PathBuf::from(format!("{}{STAGING_SUFFIX}", to.display()));
    let unfinished = |_| RestoreError::Unfinished { dir: file_name(&staging) };
    check_empty(&*file_system, &staging).map_err(unfinished)?;
    let source = Source { file_system: &file_system, backup: from, manifest: &manifest };
    let commit = source.resolve(point)?;
    let plan = manifest.plan(commit).ok_or_else(|| source.out_of_reach(point))?;
    let linked = source.bring(&plan, commit, &staging, progress)?;
    let report = RestoreReport {
        store: StoreId(manifest.store),
        commit,
        snapshot_sequence: plan.snapshot.sequence,
        segments_whole: plan.whole.len(),
        cut: plan.cut.is_some(),
        linked,
    };
    open_once(&staging, options, &manifest, commit)?;
    Ok(Restored { file_system, staging, to: to.to_path_buf(), report })
}

/// Whether there is nothing of a store in a directory, nor any other file.
fn check_empty(file_system: &dyn FileSystem, dir: &Path) -> Result<(), RestoreError> {
    for dir in [dir, &dir.join("segments")] {
        let entries = file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
        if let Some(entry) = entries.into_iter().next() {
            return Err(RestoreError::NotEmpty { dir: file_name(dir), name: entry.name });
        }
    }
    Ok(())
}

/// Opens what was restored: replays the state, and begins a segment whose epoch no other history of the store has.
fn open_once(staging: &Path, options: StoreOptions, manifest: &Manifest, commit: u64) -> Result<(), RestoreError> {
    // The store that was backed up goes on counting from the epochs it has. A time in milliseconds is far above those.
    let epoch = manifest.segments.iter().map(|entry| entry.key.epoch).max().unwrap_or(0);
    let epoch = epoch.max(options.clock.now_ms().max(0) as u64);
    let failed = |source| RestoreError::Open { dir: file_name(staging), source };
    let store = Store::open_above(staging, options, epoch).map_err(failed)?;
    let found = store.stats().commit_sequence;
    if found != commit {
        return Err(Fault::damaged(staging, format!("it ends at commit {found}, not {commit}")).into());
    }
    let closed = store.close();
    closed.map_err(|error| Fault::io(staging, "close", std::io::Error::other(error)).into())
}

/// The backup.
struct Source<'s> {
    file_system: &'s Arc<dyn FileSystem>,
    backup: &'s Path,
    manifest: &'s Manifest,
}

impl Source<'_> {
    fn out_of_reach(&self, point: RestorePoint) -> RestoreError {
        let possible = self.manifest.restorable();
        RestoreError::OutOfReach { dir: file_name(self.backup), point, possible }
    }

    /// The commit that a point means.
    fn resolve(&self, point: RestorePoint) -> Result<u64, RestoreError> {
        let latest = || self.manifest.restorable().iter().map(|run| run.commit_max).max();
        let commit = match point {
            RestorePoint::Commit(sequence) => Some(sequence),
            RestorePoint::Latest => latest(),
            RestorePoint::Time(ms) => self.commit_at(ms)?,
        };
        commit.ok_or_else(|| self.out_of_reach(point))
    }

    /// The last commit made at or before a time; `None` where the backup does not say which that is.
    fn commit_at(&self, ms: i64) -> Result<Option<u64>, RestoreError> {
        let snapshots = &self.manifest.snapshots;
        let of_snapshot = snapshots.iter().filter(|snapshot| snapshot.taken_at_ms <= ms).map(|s| s.last_sequence).max();
        let Some(commit) = self.commit_at_by_records(ms)?.max(of_snapshot) else { return Ok(None) };
        // Nothing came between it and that time: either the next commit is known to be later, or a backup was made
        // later and had none.
        let next = commit + 1;
        let next_is_known = self.replayable().any(|entry| (entry.first_sequence..=entry.last_sequence).contains(&next));
        let none_until =
            snapshots.iter().any(|snapshot| snapshot.last_sequence == commit && snapshot.taken_at_ms >= ms);
        Ok((next_is_known || none_until).then_some(commit))
    }

    fn commit_at_by_records(&self, ms: i64) -> Result<Option<u64>, RestoreError> {
        for entry in self.replayable().rev() {
            match entry.times {
                Some(times) if times.max_ms <= ms => return Ok(Some(entry.last_sequence)),
                Some(times) if times.min_ms <= ms => return self.commit_in(entry, ms),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The segments in which every commit can be found, by sequence.
    fn replayable(&self) -> impl DoubleEndedIterator<Item = &SegmentEntry> {
        self.manifest.segments.iter().filter(|entry| entry.replayable)
    }

    /// The last commit of a segment made at or before a time.
    fn commit_in(&self, entry: &SegmentEntry, ms: i64) -> Result<Option<u64>, RestoreError> {
        let segment = SourceSegment::open(self, entry)?;
        let mut last = None;
        for sequence in entry.first_sequence..=entry.last_sequence {
            if segment.record(sequence)?.0.committed_at_ms <= ms {
                last = Some(sequence);
            }
        }
        Ok(last)
    }

    /// Brings everything a plan names into a directory; whether the segments are linked.
    fn bring(
        &self,
        plan: &Plan<'_>,
        commit: u64,
        staging: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RestoreError> {
        let dir = staging.join("segments");
        self.file_system.create_dir_all(&dir).map_err(|error| Fault::io(&dir, "create", error))?;
        let mut carrier = Carrier::new(&**self.file_system, progress);
        let segments = plan.whole.iter().copied().chain(plan.cut);
        let bytes = segments.map(|entry| entry.data.bytes + entry.index.bytes).sum::<u64>();
        carrier.expect(1 + 2 * (plan.whole.len() + usize::from(plan.cut.is_some())), bytes + plan.snapshot.file.bytes);
        let snapshot = snapshot_path(self.backup, plan.snapshot.sequence);
        // A copy, because a store writes to its state.
        let sum = carrier.copy(&snapshot, &staging.join(STATE_FILE));
        check(&snapshot, sum, plan.snapshot.file)?;
        let store = StoreId(self.manifest.store);
        let target = SegmentDir::new(self.file_system.clone(), &dir, store, CUT_CACHE_BYTES);
        for entry in &plan.whole {
            let SegmentEntry { key, data, index, .. } = entry;
            let (data_path, index_path) = (key.data_path(self.backup), key.index_path(self.backup));
            check(&data_path, carrier.bring(&data_path, &target.path(key.segment)), *data)?;
            check(&index_path, carrier.bring(&index_path, &target.index_path(key.segment)), *index)?;
        }
        if let Some(entry) = plan.cut {
            let SegmentEntry { key, data, index, .. } = entry;
            let (data_path, index_path) = (key.data_path(self.backup), key.index_path(self.backup));
            check(&data_path, carrier.sum(&data_path), *data)?;
            check(&index_path, carrier.sum(&index_path), *index)?;
            SourceSegment::open(self, entry)?.cut(&Arc::new(target), commit)?;
        }
        self.file_system.sync_dir(&dir).map_err(|error| Fault::io(&dir, "sync", error))?;
        Ok(carrier.linked())
    }
}

/// Compares a file of the backup with what the manifest says of it.
fn check(path: &Path, found: Result<FileSum, Fault>, expected: FileSum) -> Result<(), RestoreError> {
    let found = found.map_err(|fault| match fault {
        Fault::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => {
            Fault::damaged(path, "it is missing")
        }
        fault => fault,
    })?;
    let what = match found {
        FileSum { bytes, .. } if bytes != expected.bytes => {
            format!("it has {bytes} bytes, and had {} in the backup", expected.bytes)
        }
        found if found != expected => "its bytes are not those that were backed up".to_owned(),
        _ => return Ok(()),
    };
    Err(Fault::damaged(path, what).into())
}

/// A segment of the backup, with its parts at hand.
struct SourceSegment {
    path: PathBuf,
    file: Arc<dyn StoreFile>,
    header: SegmentHeader,
    parts: PartMap,
}

impl SourceSegment {
    fn open(source: &Source<'_>, entry: &SegmentEntry) -> Result<SourceSegment, RestoreError> {
        let (path, index_path) = (entry.key.data_path(source.backup), entry.key.index_path(source.backup));
        let open = |path: &Path| {
            let opened = source.file_system.open(path, OpenMode::ReadOnly);
            opened.map_err(|error| Fault::io(path, "open", error))
        };
        let (file, index_file) = (open(&path)?, open(&index_path)?);
        let opened = IndexFile::open(&index_path, entry.key.segment, &*index_file);
        let opened = opened.map_err(|error| match error {
            OpenError::Damaged { file, what } => RestoreError::Damaged { file, what },
            OpenError::Io { action, file, source } => RestoreError::Io { action, file, source },
            other => Fault::damaged(&index_path, other.to_string()).into(),
        })?;
        let parts = opened.index.parts(&*index_file)?;
        if (opened.header.store, opened.header.epoch) != (source.manifest.store, entry.key.epoch) {
            return Err(Fault::damaged(&index_path, "it is the index of another segment").into());
        }
        Ok(SourceSegment { path, file, header: opened.header, parts })
    }

    fn place(&self, sequence: u64, part: u16) -> PartPlace {
        let SegmentHeader { store, segment, epoch, .. } = self.header;
        PartPlace { store: StoreId(store), segment, epoch, sequence, part }
    }

    /// A part's body, checked.
    fn body(&self, sequence: u64, part: u16) -> Result<Vec<u8>, Fault> {
        let missing = || Fault::damaged(&self.path, format!("part {part} of commit {sequence} is missing"));
        let at = self.parts.get(&(sequence, part)).ok_or_else(missing)?;
        read_part(&self.path, &*self.file, self.place(sequence, part), *at)
    }

    /// The record of a commit, and where its small data begins.
    fn record(&self, sequence: u64) -> Result<(CommitRecord, u64), Fault> {
        let unread = || Fault::damaged(&self.path, format!("the record of commit {sequence} cannot be read"));
        parse_record(&self.body(sequence, 0)?).ok_or_else(unread)
    }

    /// The snapshot of the small state in the header.
    fn snapshot(&self) -> Result<Vec<SnapshotRow>, Fault> {
        let unread = || Fault::damaged(&self.path, "a row of its snapshot cannot be read");
        let row = |number| record::from_slice(&self.body(0, number)?).ok_or_else(unread);
        (1..=self.header.snapshot_rows).map(row).collect()
    }

    /// Writes the segment anew as if it had ended at a commit. Its parts keep their places: what was committed stays
    /// where, and what, it was.
    fn cut(&self, target: &Arc<SegmentDir>, commit: u64) -> Result<(), Fault> {
        let segment = Segment::create(target, self.header.clone(), &self.snapshot()?)?;
        segment.with_writer(|writer| self.write_commits(&segment.path, writer, commit))?;
        for sequence in self.header.first_sequence..=commit {
            let (record, inline_base) = self.record(sequence)?;
            recovery::index_record(&segment, sequence, &record, inline_base)?;
        }
        segment.set_last_sequence(commit);
        segment.seal()
    }

    /// Writes every part of the commits up to one.
    fn write_commits(&self, path: &Path, writer: &Writer, commit: u64) -> Result<(), Fault> {
        let mut parts = self.parts.range((1, 0)..(commit + 1, 0)).peekable();
        while parts.peek().is_some() {
            let transaction = writer.db.begin_write().map_err(Fault::redb(path, "write to"))?;
            {
                let mut log = transaction.open_table(LOG_TABLE).map_err(Fault::redb(path, "write to"))?;
                let mut bytes = 0;
                while let Some((&(sequence, number), at)) = parts.next_if(|_| bytes < CUT_BYTES) {
                    let part = self.place(sequence, number).part_of(&self.body(sequence, number)?);
                    log.insert((sequence, number), part.as_slice()).map_err(Fault::redb(path, "write to"))?;
                    bytes += u64::from(at.bytes);
                }
            }
            transaction.commit().map_err(Fault::redb(path, "write to"))?;
        }
        Ok(())
    }
}
