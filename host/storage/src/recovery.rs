//! Opening: looks at every file without touching any, then rebuilds in memory what the commits say.
//!
//! Owns the order of things at start: lock, formats, headers, and only then the first write. Everything in memory comes
//! from headers, summaries and commit records; a segment that was not closed is repaired by redb, its commits are read
//! again, and the store goes on in a new one, so that an epoch never sees two histories.
//!
//! Start at [`open`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadOnlyDatabase, ReadableDatabase};

use crate::{
    OpenError, StateChange, StateTable, StoreId, StoreOptions,
    committer::{apply_change, begin_segment},
    fault::{Fault, file_name},
    file_system::{DirLock, FileEntry, FileSystem},
    format::RowPlace,
    index::{MemoryIndex, PartitionSpan},
    partitions::{Partitions, SegmentSpan},
    record::{CommitRecord, CrcChain, PartitionRow, PreviousSegment, SegmentHeader, SnapshotRow, StateRow},
    sealed::{self, Summary},
    segment::{self, Index, NEW_SUFFIX, Segment, SegmentDir, Source},
    state::State,
    state_file::{self, StateFile},
    store::{Counters, Shared},
};

const STATE_FILE: &str = "state.redb";

/// redb writes a transaction's pages early once they fill half its cache, and then some of them twice: room for two
/// large groups, and the trees' own pages even where groups are small.
const ACTIVE_CACHE_BYTES_MIN: usize = 8 << 20;

/// Bytes of state rows that are applied at once while the file is rebuilt.
const REBUILD_BYTES: usize = 4 << 20;

/// An open store, before its threads are started.
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) active: Arc<Segment>,
    /// Segments that were left and not sealed.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    pub(crate) lock: Box<dyn DirLock>,
}

/// Opens the store in `dir`, or makes one there.
pub(crate) fn open(dir: &Path, options: StoreOptions) -> Result<Opened, OpenError> {
    let file_system = options.file_system.clone();
    let lock = lock(&*file_system, dir)?;
    let segments_dir = dir.join("segments");
    let found = look(&options, &segments_dir)?;
    check_state_format(&options, &segments_dir, dir)?;
    check_chain(&segments_dir, &found)?;
    // Every file is of a format we know. From here on things are written.
    file_system.create_dir_all(&segments_dir).map_err(|error| Fault::io(&segments_dir, "create", error))?;
    file_system.sync_dir(dir).map_err(|error| Fault::io(dir, "sync", error))?;
    remove_unfinished(&*file_system, dir)?;
    remove_unfinished(&*file_system, &segments_dir)?;
    let store = match found.last() {
        Some(last) => StoreId(last.header.store),
        None => StoreId(options.clock.random_id()),
    };
    let segment_dir = Arc::new(segment_dir(&options, &segments_dir, store));
    let epoch = found.iter().map(|found| found.header.epoch).max().unwrap_or(0);
    let (segments, clean) = open_segments(&segment_dir, &options, found)?;
    let active = segments.last().cloned();
    let Some(active) = active else { unreachable!("open_segments makes the first segment") };
    let partitions = restore_partitions(&active)?;
    place_spans(&partitions, &segments);
    let state = open_state(dir, &options, store, &segments)?;
    let shared = Shared {
        clock: options.clock.clone(),
        options,
        segment_dir,
        partitions,
        segments: RwLock::new(segments.iter().map(|segment| (segment.id, segment.clone())).collect()),
        state,
        queue: Default::default(),
        counters: Counters::default(),
        read_only: Mutex::default(),
        retention: Mutex::default(),
        last_epoch: epoch.max(active.header.epoch).into(),
    };
    shared.counters.commit_sequence.store(active.last_sequence(), std::sync::atomic::Ordering::Release);
    let active = if clean { active } else { leave_unclean(&shared, &active)? };
    let unsealed = segments.into_iter().filter(|segment| segment.id != active.id && segment.is_writable()).collect();
    Ok(Opened { shared, active, unsealed, lock })
}

fn lock(file_system: &dyn FileSystem, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    file_system.create_dir_all(dir).map_err(|error| Fault::io(dir, "create", error))?;
    let lock = file_system.lock_dir(dir).map_err(|error| Fault::io(dir, "lock", error))?;
    lock.ok_or_else(|| OpenError::InUse { dir: file_name(dir) })
}

fn segment_dir(options: &StoreOptions, dir: &Path, store: StoreId) -> SegmentDir {
    SegmentDir {
        file_system: options.file_system.clone(),
        dir: dir.to_path_buf(),
        store,
        active_cache_bytes: ACTIVE_CACHE_BYTES_MIN.max(4 * options.group_bytes_max),
        sealed_cache_bytes: options.cache_bytes / 4 * 3,
        open_sealed: Mutex::default(),
    }
}

/// A segment's file, as it was found.
struct Found {
    header: SegmentHeader,
    /// Whether it was closed, so that it can be read as it is.
    closed: bool,
    summary: Option<Summary>,
    disk_bytes: u64,
}

/// Reads what every segment says of itself, oldest first. Writes nothing.
fn look(options: &StoreOptions, dir: &Path) -> Result<Vec<Found>, OpenError> {
    // The store's id is not known yet, and not needed to look.
    let segments = segment_dir(options, dir, StoreId([0; 16]));
    let mut files = BTreeMap::new();
    for entry in options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))? {
        if let Some(id) = SegmentDir::parse_name(&entry.name) {
            files.insert(id, entry);
        }
    }
    files.into_iter().map(|(id, entry)| look_at(&segments, id, &entry)).collect()
}

fn look_at(dir: &SegmentDir, id: u64, entry: &FileEntry) -> Result<Found, OpenError> {
    let path = dir.path(id);
    let (header, closed, summary) = match dir.open_read_only(&path)? {
        Some(db) => {
            let (header, summary) = look_into::<ReadOnlyDatabase>(&path, id, &db)?;
            (header, true, summary)
        }
        None => {
            let (header, _) = look_into::<Database>(&path, id, &dir.open_overlay(&path)?)?;
            // Sealed and then not closed: what was written last cannot be told from what was not, so it is read again.
            (header, false, None)
        }
    };
    Ok(Found { header, closed, summary, disk_bytes: entry.disk_bytes })
}

fn look_into<D: ReadableDatabase>(path: &Path, id: u64, db: &D) -> Result<(SegmentHeader, Option<Summary>), OpenError> {
    let snapshot = db.begin_read().map_err(Fault::redb(path, "read"))?;
    let header = segment::read_header(path, id, &snapshot)?;
    let place = RowPlace { store: StoreId(header.store), file: id, table: "summary", key: &[] };
    let summary = sealed::read_summary(path, place, &snapshot)?;
    Ok((header, summary))
}

fn check_state_format(options: &StoreOptions, segments_dir: &Path, dir: &Path) -> Result<(), OpenError> {
    let entries = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
    if !entries.iter().any(|entry| entry.name == STATE_FILE) {
        return Ok(());
    }
    let path = dir.join(STATE_FILE);
    let opener = segment_dir(options, segments_dir, StoreId([0; 16]));
    match opener.open_read_only(&path)? {
        Some(db) => state_file::check_format(&path, &db),
        None => state_file::check_format(&path, &opener.open_overlay(&path)?),
    }
}

/// Whether the files are of one store, and each follows on the one before.
fn check_chain(dir: &Path, found: &[Found]) -> Result<(), OpenError> {
    for pair in found.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let path = dir.join(format!("{:010}.redb", after.header.segment));
        if before.header.store != after.header.store {
            return Err(Fault::damaged(&path, "it belongs to another store").into());
        }
        if after.header.epoch <= before.header.epoch || after.header.first_sequence < before.header.first_sequence {
            return Err(Fault::damaged(&path, "it is older than the segment before it").into());
        }
        let Some(previous) = after.header.previous.filter(|previous| previous.segment == before.header.segment) else {
            continue;
        };
        if before.summary.as_ref().is_some_and(|summary| summary.last_sequence != previous.last_sequence) {
            let what = format!("it says segment {} ended at commit {}", previous.segment, previous.last_sequence);
            return Err(Fault::damaged(&path, what).into());
        }
    }
    Ok(())
}

fn remove_unfinished(file_system: &dyn FileSystem, dir: &Path) -> Result<(), OpenError> {
    for entry in file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))? {
        if entry.name.ends_with(&format!(".redb{NEW_SUFFIX}")) {
            let path = dir.join(&entry.name);
            file_system.remove(&path).map_err(|error| Fault::io(&path, "remove", error))?;
        }
    }
    Ok(())
}

/// Opens every segment as it is to be used, with its index; the last for writing. Also says whether that one was closed.
fn open_segments(
    dir: &Arc<SegmentDir>,
    options: &StoreOptions,
    found: Vec<Found>,
) -> Result<(Vec<Arc<Segment>>, bool), OpenError> {
    let Some(last) = found.last() else {
        let header = SegmentHeader {
            store: dir.store.0,
            segment: 1,
            epoch: 1,
            first_sequence: 1,
            previous: None,
            created_at_ms: options.clock.now_ms(),
            partition_id_next: protocol::PartitionId(0),
            snapshot_rows: 0,
        };
        return Ok((vec![Arc::new(Segment::create(dir, header, &[])?)], true));
    };
    let (last_id, clean) = (last.header.segment, last.closed);
    let ends: Vec<Option<PreviousSegment>> = found.iter().skip(1).map(|next| next.header.previous).collect();
    let mut segments = Vec::with_capacity(found.len());
    for (at, found) in found.into_iter().enumerate() {
        let end = ends.get(at).copied().flatten().filter(|end| end.segment == found.header.segment);
        let segment = open_segment(dir, found, end, last_id)?;
        segments.push(Arc::new(segment));
    }
    Ok((segments, clean))
}

fn open_segment(
    dir: &Arc<SegmentDir>,
    found: Found,
    end: Option<PreviousSegment>,
    last_id: u64,
) -> Result<Segment, OpenError> {
    let Found { header, summary, disk_bytes, .. } = found;
    let path = dir.path(header.segment);
    let is_last = header.segment == last_id;
    if let Some(summary) = summary.filter(|_| !is_last) {
        let segment = Segment::new(dir.clone(), header, Source::Sealed, Index::Sealed);
        segment.set_last_sequence(summary.last_sequence);
        segment.set_disk_bytes(disk_bytes);
        segment.set_spans_found(summary.spans);
        return Ok(segment);
    }
    let failed = end.is_some_and(|end| end.failed);
    let source = match failed {
        true => Source::Overlay(dir.open_overlay(&path)?),
        false => Source::Writable(dir.open_writable(&path, disk_bytes)?),
    };
    let segment = Segment::new(dir.clone(), header, source, Index::Memory(MemoryIndex::default()));
    segment.set_disk_bytes(disk_bytes);
    let last_valid = end.map_or(u64::MAX, |end| end.last_sequence);
    let last = visit_records(&segment, segment.header.first_sequence, last_valid, |sequence, record, inline_base| {
        index_record(&segment, sequence, &record, inline_base)
    })?;
    if end.is_some_and(|end| end.last_sequence != last) {
        let what = format!("it ends at commit {last}, but the next segment says {last_valid}");
        return Err(segment.damaged(what).into());
    }
    segment.set_last_sequence(last);
    let spans = segment.memory_index(MemoryIndex::spans).unwrap_or_default();
    segment.set_spans_found(spans);
    Ok(segment)
}

/// Visits the records of the commits `from..=to` that are there; the last sequence that is.
fn visit_records(
    segment: &Segment,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, CommitRecord, u32) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    segment.with_read(|snapshot| {
        let log = segment.open_log(snapshot)?;
        let mut sequence = from;
        while sequence <= to {
            let Some((record, inline_base)) = segment.commit_record(&log, sequence)? else { break };
            visit(sequence, record, inline_base)?;
            sequence += 1;
        }
        Ok(sequence - 1)
    })
}

fn index_record(segment: &Segment, sequence: u64, record: &CommitRecord, inline_base: u32) -> Result<(), Fault> {
    let mut crcs = CrcChain::default();
    for row in &record.extents {
        let extent = row.extent.extent(sequence, inline_base, &mut crcs);
        let extent = extent.ok_or_else(|| segment.damaged(format!("the record of commit {sequence} is nonsense")))?;
        let tiled = segment.memory_index_mut(|index| index.push(row.partition, extent)).unwrap_or(false);
        if !tiled {
            let what = format!("commit {sequence} does not continue partition {}", row.partition);
            return Err(segment.damaged(what));
        }
    }
    for change in &record.changes {
        if let crate::record::ChangeRow::Delete { id } = change {
            segment.memory_index_mut(|index| index.remove(*id));
        }
    }
    Ok(())
}

/// The partitions, from the last header's snapshot and the commits since.
fn restore_partitions(last: &Segment) -> Result<Partitions, OpenError> {
    let partitions = Partitions::default();
    for SnapshotRow { partitions: rows, .. } in last.snapshot()? {
        rows.into_iter().for_each(|row| partitions.insert(row));
    }
    partitions.set_next_id(last.header.partition_id_next);
    visit_records(last, last.header.first_sequence, last.last_sequence(), |sequence, record, _| {
        for row in &record.created {
            let (id, retention) = (row.id, row.retention);
            partitions.insert(PartitionRow { id, retention, log_start: 0, next_offset: 0 });
        }
        for row in &record.extents {
            let partition = partitions.get(row.partition);
            let continued = partition.is_some_and(|partition| {
                partition.with(|state| {
                    let continues = state.next_offset == row.extent.cover_start;
                    state.next_offset = row.extent.cover_start + row.extent.cover_count;
                    continues
                })
            });
            if !continued {
                let what = format!("commit {sequence} does not continue partition {}", row.partition);
                return Err(last.damaged(what));
            }
        }
        record.changes.iter().for_each(|change| apply_change(&partitions, last, *change));
        Ok(())
    })?;
    Ok(partitions)
}

/// Tells each partition which segments hold it, and says so where one is missing.
fn place_spans(partitions: &Partitions, segments: &[Arc<Segment>]) {
    for segment in segments {
        for (id, span) in segment.take_spans_found() {
            let Some(partition) = partitions.get(id) else { continue };
            partition.with(|state| {
                if span.cover_end > state.log_start {
                    state.spans.push(SegmentSpan { segment: segment.clone(), span });
                }
            });
        }
    }
    for partition in partitions.all() {
        partition.with(|state| {
            let mut next = state.log_start;
            for SegmentSpan { segment, span: PartitionSpan { cover_start, cover_end, .. } } in &state.spans {
                if *cover_start > next {
                    tracing::error!(
                        partition = partition.id.0,
                        from = next,
                        to = cover_start,
                        before = file_name(&segment.path),
                        "offsets are missing: a segment's file is gone; they are refused, the rest is served"
                    );
                }
                next = *cover_end;
            }
        });
    }
}

/// After an unclean stop: the next segment's header says how far this one is valid, before anything else is committed.
fn leave_unclean(shared: &Shared, active: &Segment) -> Result<Arc<Segment>, OpenError> {
    let previous = PreviousSegment { segment: active.id, last_sequence: active.last_sequence(), failed: false };
    let next = Arc::new(begin_segment(shared, active, Some(previous))?);
    shared.segments.write().insert(next.id, next.clone());
    Ok(next)
}

fn open_state(
    dir: &Path,
    options: &StoreOptions,
    store: StoreId,
    segments: &[Arc<Segment>],
) -> Result<State, OpenError> {
    let path = dir.join(STATE_FILE);
    let entries = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
    let cache_bytes = options.cache_bytes / 4;
    let file = match entries.iter().find(|entry| entry.name == STATE_FILE) {
        Some(entry) => StateFile::open(&*options.file_system, &path, Some(entry.disk_bytes), store, cache_bytes)?,
        None => rebuild_state(&path, options, store, segments)?,
    };
    let applied = file.applied()?;
    let state = State::start(file, applied, options.overlay_bytes_max);
    let state = state.map_err(|error| Fault::io(&path, "start the thread for", error))?;
    replay_state(&path, &state, applied, segments)?;
    Ok(state)
}

/// Pushes the state of the commits behind the file.
fn replay_state(path: &Path, state: &State, applied: u64, segments: &[Arc<Segment>]) -> Result<(), OpenError> {
    let last = segments.last().map_or(0, |segment| segment.last_sequence());
    if applied > last {
        let what = format!("it is at commit {applied}, but the log ends at {last}; move it away to have it rebuilt");
        return Err(Fault::damaged(path, what).into());
    }
    let mut next = applied + 1;
    for segment in segments.iter().filter(|segment| segment.last_sequence() > applied) {
        if segment.header.first_sequence > next {
            let what =
                format!("it is at commit {applied}, and the next ones are gone; move it away to have it rebuilt");
            return Err(Fault::damaged(path, what).into());
        }
        let reached = visit_records(segment, next, segment.last_sequence(), |sequence, record, _| {
            state.push(sequence, record.state.into_iter().map(|StateRow(change)| change));
            state.wait_for_room().map_err(|cause| Fault::io(path, "apply to", std::io::Error::other(cause)))
        })?;
        next = reached + 1;
    }
    Ok(())
}

/// Makes the file anew: the small state from the last header and the commits since, plugin state from all commits
/// that are left.
fn rebuild_state(
    path: &Path,
    options: &StoreOptions,
    store: StoreId,
    segments: &[Arc<Segment>],
) -> Result<StateFile, OpenError> {
    let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", path.display()));
    let mut file = StateFile::open(&*options.file_system, &new_path, None, store, options.cache_bytes / 4)?;
    let Some(last) = segments.last() else { unreachable!("a store has a segment") };
    if last.last_sequence() > 0 {
        tracing::warn!(file = file_name(path), "it is missing, and is rebuilt from the segments");
    }
    let mut pending = Pending { file: &file, rows: BTreeMap::new(), bytes: 0 };
    for segment in segments {
        visit_records(segment, segment.header.first_sequence, segment.last_sequence(), |_, record, _| {
            let rows = record.state.into_iter().filter(|StateRow(change)| change.table == StateTable::PluginState);
            pending.add(rows)
        })?;
    }
    for SnapshotRow { state, .. } in last.snapshot()? {
        pending.add(state)?;
    }
    visit_records(last, last.header.first_sequence, last.last_sequence(), |_, record, _| {
        let rows = record.state.into_iter().filter(|StateRow(change)| change.table.is_small());
        pending.add(rows)
    })?;
    pending.apply(last.last_sequence())?;
    file.rename(&*options.file_system, path)?;
    Ok(file)
}

/// Rows on their way into a file that is being rebuilt.
struct Pending<'f> {
    file: &'f StateFile,
    rows: BTreeMap<(StateTable, bytes::Bytes), Option<bytes::Bytes>>,
    bytes: usize,
}

impl Pending<'_> {
    fn add(&mut self, rows: impl IntoIterator<Item = StateRow>) -> Result<(), Fault> {
        for StateRow(StateChange { table, key, value }) in rows {
            self.bytes += key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
            self.rows.insert((table, key), value);
        }
        // Nothing counts as applied until all of it is.
        if self.bytes < REBUILD_BYTES { Ok(()) } else { self.apply(0) }
    }

    fn apply(&mut self, applied: u64) -> Result<(), Fault> {
        self.bytes = 0;
        let change = |((table, key), value)| StateChange { table, key, value };
        let changes: Vec<_> = std::mem::take(&mut self.rows).into_iter().map(change).collect();
        self.file.apply(&changes, applied)
    }
}
