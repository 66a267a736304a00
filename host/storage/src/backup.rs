//! Backup of an open store: sealed segments linked or copied, and a snapshot of the state, while commits go on.
//!
//! Owns a backup's directory. Never writes to a file that the manifest names: a backup that is interrupted leaves the one
//! before as it was, and the next one removes what it left.
//!
//! ```text
//! backup/
//!   backup.manifest                       what there is, with checksums; written last
//!   segments/0000000042-0000000007.redb   by segment and epoch, with its .index
//!   snapshots/0000001234.redb             the state at a sequence
//! ```
//! The order makes it whole: first the snapshot of the state, then the active segment is left, so the sealed segments hold
//! every commit that the snapshot has, and a few more. Nothing is unlinked or replaced in between.
//!
//! Start at [`run`].

pub(crate) mod copy;
pub(crate) mod manifest;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Commit, CommitError, FileSystem, OpenMode, StateChange, StateTable, StoreId,
    backup::{
        copy::Carrier,
        manifest::{
            CommitTimes, Manifest, ManifestFault, SegmentEntry, SegmentKey, SnapshotEntry, segments_dir,
            snapshot_of_name, snapshot_path, snapshots_dir,
        },
    },
    fault::{Fault, file_name},
    format::FORMAT_VERSION,
    recovery,
    segment::{NEW_SUFFIX, Segment},
    store::Shared,
};

/// How often a segment that was left is tried to be sealed, and the wait in between: as long as a disk may take that
/// answers again.
const SEAL_TRIES: usize = 10;
const SEAL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How far a backup or a restore is. Totals grow when more to do is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Files linked or copied, and read to be checked.
    pub files_done: usize,
    /// Of so many.
    pub files_total: usize,
    /// Bytes of those files read, holes included.
    pub bytes_done: u64,
    /// Of so many.
    pub bytes_total: u64,
}

/// Told how far a backup or a restore is; `false` stops it.
pub type Progress<'p> = dyn FnMut(CopyProgress) -> bool + 'p;

/// A run of commits to each of which a restore can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restorable {
    /// The first of them.
    pub commit_min: u64,
    /// The last of them.
    pub commit_max: u64,
    /// From this time on, in milliseconds since 1970.
    pub time_min_ms: i64,
    /// Up to this time.
    pub time_max_ms: i64,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Whose backup it is.
    pub store: StoreId,
    /// The state is kept as of this commit: the first one to which a restore from this snapshot can go.
    pub snapshot_sequence: u64,
    /// The last commit in the backup.
    pub last_sequence: u64,
    /// Segments that were brought.
    pub segments_added: usize,
    /// Segments that were there from backups before.
    pub segments_kept: usize,
    /// What the segments brought take of the disk. Bytes.
    pub bytes_added: u64,
    /// Whether they were linked: they share the store's disk blocks, and whatever happens to those.
    pub linked: bool,
    /// Snapshots and segments forgotten, which no kept snapshot needs.
    pub files_removed: usize,
    /// To where a restore can go now.
    pub restorable: Vec<Restorable>,
}

/// Why a backup was not made. The one before, if any, is as it was.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Another backup is being made there, or the directory is a store's own.
    #[error("`{dir}` is in use by a store or another backup; choose another directory")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// The directory has something else in it.
    #[error("`{dir}` is no backup, and is not empty (it holds `{name}`); choose an empty directory")]
    NotABackup {
        /// The directory.
        dir: String,
        /// A file in it.
        name: String,
    },
    /// It is the backup of another store.
    #[error("`{dir}` is a backup of store {found}, not of {store}; choose another directory")]
    OtherStore {
        /// The directory.
        dir: String,
        /// Whose backup it is.
        found: StoreId,
        /// Whose was to be made.
        store: StoreId,
    },
    /// It is the backup of a store that this one was restored from, or that was restored from this one.
    #[error(
        "`{dir}` has another history of this store: its segment {segment} is not the one here; choose another directory"
    )]
    OtherHistory {
        /// The directory.
        dir: String,
        /// The first segment that differs.
        segment: u64,
    },
    /// What the caller puts beside the store's files could not be.
    #[error("failed to copy what belongs to the backup")]
    Beside(#[source] std::io::Error),
    /// A newer weir made the backup.
    #[error("`{file}` has format version {found}, but this version of weir reads up to {FORMAT_VERSION}")]
    NewerFormat {
        /// The manifest.
        file: String,
        /// The version found.
        found: u32,
    },
    /// The active segment could not be left.
    #[error("failed to begin a new segment")]
    Roll(#[source] CommitError),
    /// A segment was left and could not be sealed.
    #[error("segment {segment} could not be sealed in {tries} tries: {cause}")]
    NotSealed {
        /// Which one.
        segment: u64,
        /// How often it was tried.
        tries: usize,
        /// What was said the last time.
        cause: String,
    },
    /// `state.redb` could not be brought up to date.
    #[error("failed to apply the state: {cause}")]
    State {
        /// What was said.
        cause: String,
    },
    /// A file contradicts itself, so that no restore could begin at this snapshot.
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

impl From<Fault> for BackupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { file, action, cause } => BackupError::Io { action, file, source: cause },
            Fault::Damaged { file, what } => BackupError::Damaged { file, what },
        }
    }
}

impl From<ManifestFault> for BackupError {
    fn from(fault: ManifestFault) -> Self {
        match fault {
            ManifestFault::Newer { file, found } => BackupError::NewerFormat { file, found },
            ManifestFault::Fault(fault) => fault.into(),
        }
    }
}

/// What a backup asks of others.
pub(crate) struct Asks<'a> {
    pub(crate) roll: &'a dyn Fn() -> Result<(), CommitError>,
    pub(crate) commit: &'a dyn Fn(Commit) -> Result<(), CommitError>,
    /// Puts into the backup what its caller wants there.
    pub(crate) beside: &'a mut dyn FnMut(&Path) -> std::io::Result<()>,
}

/// Makes or renews the backup in `to`, of which the newest `keep` snapshots stay.
pub(crate) fn run(
    shared: &Shared,
    to: &Path,
    keep: Option<NonZeroUsize>,
    asks: &mut Asks<'_>,
    progress: &mut Progress<'_>,
) -> Result<BackupReport, BackupError> {
    let file_system = &*shared.options.file_system;
    file_system.create_dir_all(to).map_err(|error| Fault::io(to, "create", error))?;
    let lock = file_system.lock_dir(to).map_err(|error| Fault::io(to, "lock", error))?;
    let _lock = lock.ok_or_else(|| BackupError::InUse { dir: file_name(to) })?;
    let before = read_manifest(file_system, to, shared.segment_dir.store)?;
    remove_unnamed(file_system, to, &before)?;
    for dir in [segments_dir(to), snapshots_dir(to)] {
        file_system.create_dir_all(&dir).map_err(|error| Fault::io(&dir, "create", error))?;
    }
    let mut backup = Backup { shared, to, manifest: before, carrier: Carrier::new(file_system, progress) };
    (asks.beside)(to).map_err(BackupError::Beside)?;
    let mut report = backup.take(asks)?;
    (asks.beside)(to).map_err(BackupError::Beside)?;
    report.files_removed = backup.finish(keep)?;
    report.restorable = backup.manifest.restorable();
    Ok(report)
}

/// The manifest that is there, or one of an empty backup.
fn read_manifest(file_system: &dyn FileSystem, to: &Path, store: StoreId) -> Result<Manifest, BackupError> {
    match Manifest::read(file_system, to)? {
        Some(manifest) if manifest.store == store.0 => Ok(manifest),
        Some(manifest) => Err(BackupError::OtherStore { dir: file_name(to), found: StoreId(manifest.store), store }),
        None => {
            let entries = file_system.list(to).map_err(|error| Fault::io(to, "list", error))?;
            match entries.into_iter().find(|entry| !Manifest::owns_name(&entry.name)) {
                Some(entry) => Err(BackupError::NotABackup { dir: file_name(to), name: entry.name }),
                None => Ok(Manifest { store: store.0, segments: Vec::new(), snapshots: Vec::new() }),
            }
        }
    }
}

/// Removes what an interrupted backup left. Anything that a backup does not make is somebody else's, and refused.
fn remove_unnamed(file_system: &dyn FileSystem, to: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let segment_is_named = |name: &str| SegmentKey::of_name(name).map(|key| manifest.segment(key).is_some());
    let snapshot_is_named = |name: &str| snapshot_of_name(name).map(|at| manifest.snapshot(at).is_some());
    remove_unnamed_in(file_system, &segments_dir(to), segment_is_named)?;
    remove_unnamed_in(file_system, &snapshots_dir(to), snapshot_is_named)
}

fn remove_unnamed_in(
    file_system: &dyn FileSystem,
    dir: &Path,
    is_named: impl Fn(&str) -> Option<bool>,
) -> Result<(), BackupError> {
    for entry in file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))? {
        let finished = entry.name.strip_suffix(NEW_SUFFIX);
        match is_named(finished.unwrap_or(&entry.name)) {
            None => return Err(BackupError::NotABackup { dir: file_name(dir), name: entry.name }),
            Some(true) if finished.is_none() => {}
            Some(_) => remove(file_system, &dir.join(&entry.name))?,
        }
    }
    Ok(())
}

fn remove(file_system: &dyn FileSystem, path: &Path) -> Result<(), Fault> {
    file_system.remove(path).map_err(|error| Fault::io(path, "remove", error))
}

/// A backup that is being made.
struct Backup<'b> {
    shared: &'b Shared,
    to: &'b Path,
    /// As it will be.
    manifest: Manifest,
    carrier: Carrier<'b>,
}

impl Backup<'_> {
    fn file_system(&self) -> &dyn FileSystem {
        &*self.shared.options.file_system
    }

    /// Brings everything that is not there yet.
    fn take(&mut self, asks: &Asks<'_>) -> Result<BackupReport, BackupError> {
        let _in_place = self.shared.files.read();
        let (sequence, file) = self.take_state()?;
        let segments = self.leave_active(asks)?;
        let taken_at_ms = self.shared.clock.now_ms();
        let missing = self.missing(&segments)?;
        let files = |segment: &Arc<Segment>| [segment.path.clone(), self.shared.segment_dir.index_path(segment.id)];
        let bytes: u64 = missing.iter().flat_map(files).map(|path| self.file_bytes(&path)).sum::<Result<_, _>>()?;
        self.carrier.expect(2 * missing.len(), bytes);
        let mut bytes_added = 0;
        for segment in &missing {
            self.take_segment(segment)?;
            bytes_added += segment.disk_bytes();
        }
        let last_sequence = segments.last().map_or(0, |segment| segment.last_sequence());
        let keys = segments.iter().map(|segment| key_of(segment)).collect();
        self.manifest.snapshots.retain(|snapshot| snapshot.sequence != sequence);
        self.manifest.snapshots.push(SnapshotEntry { sequence, last_sequence, taken_at_ms, file, segments: keys });
        self.manifest.snapshots.sort_by_key(|snapshot| snapshot.sequence);
        self.check_reach(last_sequence)?;
        Ok(BackupReport {
            store: self.shared.segment_dir.store,
            snapshot_sequence: sequence,
            last_sequence,
            segments_added: missing.len(),
            segments_kept: segments.len() - missing.len(),
            bytes_added,
            linked: self.carrier.linked(),
            files_removed: 0,
            restorable: Vec::new(),
        })
    }

    fn file_bytes(&self, path: &Path) -> Result<u64, Fault> {
        let io = |error| Fault::io(path, "read", error);
        self.file_system().open(path, OpenMode::ReadOnly).map_err(io)?.len().map_err(io)
    }

    /// Writes the state into a file of its own; at which sequence it is.
    fn take_state(&mut self) -> Result<(u64, manifest::FileSum), BackupError> {
        self.shared.state.flush().map_err(|cause| BackupError::State { cause })?;
        // Its sequence is known only when it is taken, so it gets its name afterwards.
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", snapshot_path(self.to, 0).display()));
        let sequence = self.shared.state.copy_to(&new_path)?;
        if let Some(before) = self.manifest.snapshot(sequence) {
            remove(self.file_system(), &new_path)?;
            return Ok((sequence, before.file));
        }
        let path = snapshot_path(self.to, sequence);
        self.file_system().rename(&new_path, &path).map_err(|error| Fault::io(&path, "name", error))?;
        self.carrier.expect(1, self.file_bytes(&path)?);
        Ok((sequence, self.carrier.sum(&path)?))
    }

    /// Leaves the active segment; every segment before the new one, sealed.
    fn leave_active(&self, asks: &Asks<'_>) -> Result<Vec<Arc<Segment>>, BackupError> {
        (asks.roll)().map_err(BackupError::Roll)?;
        if self.left().last().is_none_or(|last| last.header.replaces_until.is_some()) {
            // A restored store takes its partitions from the last segment's own commits: one that the cleaner wrote has
            // none. The removal of a row that is not there makes a segment that has, and changes nothing.
            let nothing = StateChange { table: StateTable::Catalog, key: Bytes::new(), value: None };
            (asks.commit)(Commit { state: vec![nothing], ..Commit::default() }).map_err(BackupError::Roll)?;
            (asks.roll)().map_err(BackupError::Roll)?;
        }
        let left = self.left();
        left.iter().try_for_each(|segment| seal(segment))?;
        Ok(left)
    }

    fn left(&self) -> Vec<Arc<Segment>> {
        let active = self.shared.active_id();
        self.shared.segments.read().range(..active).map(|(_, segment)| segment.clone()).collect()
    }

    /// The segments that are not in the backup yet.
    fn missing(&self, segments: &[Arc<Segment>]) -> Result<Vec<Arc<Segment>>, BackupError> {
        let dir = segments_dir(self.to);
        let names = self.file_system().list(&dir).map_err(|error| Fault::io(&dir, "list", error))?;
        let is_there = |path: &Path| {
            path.file_name().is_some_and(|name| names.iter().any(|entry| name.to_str() == Some(&entry.name)))
        };
        let mut missing = Vec::new();
        for segment in segments {
            self.check_history(segment)?;
            let key = key_of(segment);
            let known = self.manifest.segment(key).is_some();
            let files = [key.data_path(self.to), key.index_path(self.to)];
            if known && files.iter().all(|path| is_there(path)) {
                continue;
            }
            // Half of it may be there, after somebody removed the other half.
            files.iter().filter(|path| is_there(path)).try_for_each(|path| remove(self.file_system(), path))?;
            missing.push(segment.clone());
        }
        Ok(missing)
    }

    /// Whether what the backup has of a segment is the segment.
    fn check_history(&self, segment: &Segment) -> Result<(), BackupError> {
        if segment.header.replaces_until.is_some() {
            return Ok(());
        }
        let key = key_of(segment);
        let of_id = self.manifest.segments.iter().filter(|entry| entry.key.segment == key.segment);
        let mut uncleaned = of_id.filter(|entry| entry.replayable || entry.key == key);
        let same = |entry: &SegmentEntry| entry.key == key && entry.last_sequence == segment.last_sequence();
        match uncleaned.all(same) {
            true => Ok(()),
            false => Err(BackupError::OtherHistory { dir: file_name(self.to), segment: key.segment }),
        }
    }

    /// A segment that was left after a failure may show bytes that were never synced, and behind its last commit, where nobody
    /// minds; a checksum over them would not be of what the next start finds.
    fn see_the_disk(&self, path: &Path) -> Result<(), Fault> {
        let file = self.file_system().open(path, OpenMode::ReadOnly).map_err(|error| Fault::io(path, "open", error))?;
        recovery::see_the_disk(path, &*file)
    }

    fn take_segment(&mut self, segment: &Segment) -> Result<(), BackupError> {
        let key = key_of(segment);
        let (replayable, times) = commit_times(segment)?;
        self.see_the_disk(&segment.path)?;
        let data = self.carrier.bring(&segment.path, &key.data_path(self.to))?;
        let index_path = self.shared.segment_dir.index_path(segment.id);
        let index = self.carrier.bring(&index_path, &key.index_path(self.to))?;
        let (first_sequence, last_sequence) = (segment.header.first_sequence, segment.last_sequence());
        self.manifest.segments.retain(|entry| entry.key != key);
        let entry = SegmentEntry { key, first_sequence, last_sequence, replayable, times, data, index };
        self.manifest.segments.push(entry);
        self.manifest.segments.sort_by_key(|entry| entry.key);
        Ok(())
    }

    /// A backup from which nothing can be restored is none.
    fn check_reach(&self, last_sequence: u64) -> Result<(), BackupError> {
        if self.manifest.plan(last_sequence).is_some() {
            return Ok(());
        }
        let file = file_name(&self.shared.segment_dir.dir);
        let what = format!("the commits up to {last_sequence} cannot all be read; see the log for the segment");
        Err(BackupError::Damaged { file, what })
    }

    /// Makes it valid, then removes what is not needed any more; how many files.
    fn finish(&mut self, keep: Option<NonZeroUsize>) -> Result<usize, BackupError> {
        for dir in [segments_dir(self.to), snapshots_dir(self.to)] {
            self.file_system().sync_dir(&dir).map_err(|error| Fault::io(&dir, "sync", error))?;
        }
        let gone = self.manifest.prune(keep.map_or(usize::MAX, NonZeroUsize::get));
        self.manifest.write(self.file_system(), self.to)?;
        for SegmentEntry { key, .. } in &gone.segments {
            remove(self.file_system(), &key.data_path(self.to))?;
            remove(self.file_system(), &key.index_path(self.to))?;
        }
        for snapshot in &gone.snapshots {
            remove(self.file_system(), &snapshot_path(self.to, snapshot.sequence))?;
        }
        Ok(2 * gone.segments.len() + gone.snapshots.len())
    }
}

fn key_of(segment: &Segment) -> SegmentKey {
    SegmentKey { segment: segment.id, epoch: segment.header.epoch }
}

/// Seals a segment that was left, if the sealer has not yet.
fn seal(segment: &Segment) -> Result<(), BackupError> {
    for _ in 1..SEAL_TRIES {
        match segment.seal() {
            Ok(()) => return Ok(()),
            Err(fault) => tracing::warn!(cause = fault.text(), "a segment cannot be sealed yet"),
        }
        crate::sync::sleep(SEAL_RETRY_INTERVAL);
    }
    let cause = |fault: Fault| BackupError::NotSealed { segment: segment.id, tries: SEAL_TRIES, cause: fault.text() };
    segment.seal().map_err(cause)
}

/// Whether a restore can go through a segment commit by commit, and when its commits were made. One that cannot be read is
/// brought all the same: its records may be sound.
fn commit_times(segment: &Segment) -> Result<(bool, Option<CommitTimes>), Fault> {
    if segment.header.replaces_until.is_some() {
        return Ok((false, None));
    }
    let mut times: Option<CommitTimes> = None;
    let visited = segment.visit_records(0, segment.last_sequence(), |_, record, _| {
        let at = record.committed_at_ms;
        let CommitTimes { min_ms, max_ms } = times.unwrap_or(CommitTimes { min_ms: at, max_ms: at });
        times = Some(CommitTimes { min_ms: min_ms.min(at), max_ms: max_ms.max(at) });
        Ok(())
    });
    match visited {
        Ok(()) => Ok((true, times)),
        Err(fault @ Fault::Damaged { .. }) => {
            tracing::error!(cause = fault.text(), "no restore can go through this segment, only from behind it");
            Ok((false, None))
        }
        Err(fault) => Err(fault),
    }
}
