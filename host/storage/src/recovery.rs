//! Opening: looks at every file without touching any, then rebuilds in memory what the commits say.
//!
//! Owns the order of things at start: lock, formats, headers, and only then the first write. Everything in memory comes
//! from headers, index files and commit records. A segment without an index file was not closed: its parts are looked up
//! page by page, and how far its commits reach is said by the header of the next one, or by redb (`probe`). The store
//! always goes on in a new segment, whose header says how far the one before is valid: no file is ever written by two
//! runs, and no epoch sees two histories.
//!
//! Start at [`open`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    OpenError, ProbedFile, StateChange, StateTable, StoreId, StoreOptions,
    budget::{DiskBudget, Room},
    committer::{apply_change, begin_segment},
    fault::{Fault, file_name},
    file_system::{DirLock, FileEntry, FileSystem, OpenMode, StoreFile},
    index::{MemoryIndex, PartitionSpan},
    index_file::{IndexFile, OpenedIndex},
    layout::PartPlace,
    partitions::{Partitions, SegmentSpan},
    parts::{self, PartMap},
    record::{self, CommitRecord, CrcChain, PartitionRow, SegmentHeader, SnapshotRow, StateRow},
    segment::{NEW_SUFFIX, Segment, SegmentDir},
    state::State,
    state_file::StateFile,
    store::{Counters, Shared},
    sync::{Mutex, RwLock},
};

pub(crate) const STATE_FILE: &str = "state.redb";

/// redb writes a transaction's pages early once they fill half its cache, and then some of them twice: half is room for a
/// large group and the trees' own pages.
const ACTIVE_CACHE_BYTES_MIN: usize = 8 << 20;

/// Bytes of state rows that are applied at once while the file is rebuilt.
const REBUILD_BYTES: usize = 4 << 20;

/// An open store, before its threads are started.
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) active: Arc<Segment>,
    /// Segments that were left and not sealed.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    pub(crate) budget: DiskBudget,
    pub(crate) lock: Box<dyn DirLock>,
}

/// Opens the store in `dir`, or makes one there, with an epoch above all it has and above this one.
pub(crate) fn open(dir: &Path, options: StoreOptions, epoch_min: u64) -> Result<Opened, OpenError> {
    let file_system = options.file_system.clone();
    let lock = lock(&*file_system, dir)?;
    let segments_dir = dir.join("segments");
    let found = look(&options, &segments_dir)?;
    let state_applied = probe_state(&options, dir)?;
    check_chain(&segments_dir, &found)?;
    // Every file is of a format we know. From here on things are written.
    file_system.create_dir_all(&segments_dir).map_err(|error| Fault::io(&segments_dir, "create", error))?;
    file_system.sync_dir(dir).map_err(|error| Fault::io(dir, "sync", error))?;
    sync_own_name(&*file_system, dir)?;
    // Names that a killed process gave become durable before anything is removed because of them.
    file_system.sync_dir(&segments_dir).map_err(|error| Fault::io(&segments_dir, "sync", error))?;
    remove_unfinished(&*file_system, dir)?;
    remove_unfinished(&*file_system, &segments_dir)?;
    let found = remove_replaced(&*file_system, &segments_dir, found)?;
    let store = match found.last() {
        Some(last) => StoreId(last.header.store),
        None => StoreId(options.clock.random_id()),
    };
    let segment_dir = Arc::new(segment_dir(&options, &segments_dir, store));
    let epoch = found.iter().map(|found| found.header.epoch).max().unwrap_or(0).max(epoch_min);
    let segments = open_segments(&segment_dir, &options, found)?;
    let partitions = segments.last().map_or_else(|| Ok(Partitions::default()), |last| restore_partitions(last))?;
    place_spans(&partitions, &segments);
    let state = open_state(dir, &options, store, state_applied, &segments)?;
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
        room: Mutex::new(Room::Free),
        retention: Mutex::default(),
        files: RwLock::default(),
        scrub: Mutex::default(),
        last_epoch: epoch.into(),
    };
    let last_sequence = segments.last().map_or(0, |last| last.last_sequence());
    shared.counters.commit_sequence.store(last_sequence, std::sync::atomic::Ordering::Release);
    let active = begin_segment(&shared, segments.last().map(|last| &**last)).map_err(Fault::from)?;
    let active = Arc::new(active);
    shared.segments.write().insert(active.id, active.clone());
    let budget = DiskBudget::open(&shared.options, dir).map_err(|error| Fault::io(dir, "list", error))?;
    let unsealed = segments.into_iter().filter(|segment| !segment.is_sealed()).collect();
    Ok(Opened { shared, active, unsealed, budget, lock })
}

/// Makes the directory's own name durable, and those of all directories above it, whoever made them and however short
/// ago: a process that was killed may have come no further than to make them.
fn sync_own_name(file_system: &dyn FileSystem, dir: &Path) -> Result<(), Fault> {
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match file_system.sync_dir(above) {
            Err(error) if is_of_somebody_else(&error) => {}
            result => result.map_err(|error| Fault::io(above, "sync", error))?,
        }
    }
    Ok(())
}

/// Whether a directory cannot be synced because it is not ours to change: who may not look into it, or lies on a file system
/// that is never written, has made nothing there.
fn is_of_somebody_else(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

fn lock(file_system: &dyn FileSystem, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    file_system.create_dir_all(dir).map_err(|error| Fault::io(dir, "create", error))?;
    let lock = file_system.lock_dir(dir).map_err(|error| Fault::io(dir, "lock", error))?;
    lock.ok_or_else(|| OpenError::InUse { dir: file_name(dir) })
}

fn segment_dir(options: &StoreOptions, dir: &Path, store: StoreId) -> SegmentDir {
    let active_cache_bytes = ACTIVE_CACHE_BYTES_MIN.max(options.group_bytes_max / 2 * 5);
    SegmentDir::new(options.file_system.clone(), dir, store, active_cache_bytes)
}

/// A segment's file, as it was found.
struct Found {
    header: SegmentHeader,
    content: Content,
    disk_bytes: u64,
}

enum Content {
    Sealed(Box<OpenedIndex>),
    /// Without an index file: its parts, also those that were never committed.
    Parts(PartMap),
}

/// Reads what every segment says of itself, oldest first. Writes nothing.
fn look(options: &StoreOptions, dir: &Path) -> Result<Vec<Found>, OpenError> {
    // The store's id is not known yet, and not needed to look.
    let segments = segment_dir(options, dir, StoreId([0; 16]));
    let (mut files, mut indices) = (BTreeMap::new(), BTreeMap::new());
    for entry in options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))? {
        if let Some(id) = SegmentDir::parse_name(&entry.name, ".redb") {
            files.insert(id, entry);
        } else if let Some(id) = SegmentDir::parse_name(&entry.name, ".index") {
            indices.insert(id, entry);
        }
    }
    files.into_iter().map(|(id, entry)| look_at(&segments, id, &entry, indices.get(&id))).collect()
}

fn look_at(dir: &SegmentDir, id: u64, entry: &FileEntry, index: Option<&FileEntry>) -> Result<Found, OpenError> {
    let disk_bytes = entry.disk_bytes + index.map_or(0, |index| index.disk_bytes);
    if index.is_some() {
        let path = dir.index_path(id);
        match dir.open_to_read(&path).map_err(OpenError::from).and_then(|file| IndexFile::open(&path, id, &*file)) {
            Ok(opened) if !opened.is_of(&*dir.open_to_read(&dir.path(id))?) => {
                tracing::warn!(
                    file = file_name(&path),
                    "it is the index of another segment of that name; it is made anew"
                );
            }
            Ok(opened) => {
                let (header, content) = (opened.header.clone(), Content::Sealed(Box::new(opened)));
                return Ok(Found { header, content, disk_bytes });
            }
            Err(error @ OpenError::NewerFormat { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an index is made anew from its segment");
            }
        }
    }
    let path = dir.path(id);
    let file = dir.open_to_read(&path)?;
    see_the_disk(&path, &*file)?;
    let found = parts::scan(&path, &*file)?;
    // A file's parts are of one making; anything else was put there by somebody else.
    let header = found.iter().find(|(place, _)| (place.segment, place.sequence, place.part) == (id, 0, 0));
    let missing = || Fault::damaged(&path, "its header is missing, or has a wrong checksum");
    let (header_place, header_at) = *header.ok_or_else(missing)?;
    let body = parts::read_part(&path, &*file, header_place, header_at)?;
    let header: SegmentHeader = record::from_slice(&body).ok_or_else(missing)?;
    let same =
        |place: &PartPlace| (place.store.0, place.segment, place.epoch) == (header.store, header.segment, header.epoch);
    if !same(&header_place) || header.first_sequence == 0 {
        return Err(missing().into());
    }
    let parts = found.into_iter().filter(|(place, _)| same(place));
    let parts = parts.map(|(place, at)| ((place.sequence, place.part), at)).collect();
    Ok(Found { header, content: Content::Parts(parts), disk_bytes })
}

/// Has what is read of a file be what is on the disk, for good. A process that was killed may have left a commit in the
/// system's memory alone, and a sync that failed there something that never will be on the disk: what is shown to readers
/// from here on must not go with the power.
pub(crate) fn see_the_disk(path: &Path, file: &dyn StoreFile) -> Result<(), Fault> {
    // An error of before may be reported now, once; what it was about is not in the file then.
    let synced = file.sync_data().or_else(|_| file.sync_data());
    synced.map_err(|error| Fault::io(path, "sync", error))?;
    file.forget_cached().map_err(|error| Fault::io(path, "read", error))
}

/// The sequence up to which the state is applied; `None` when there is no state, or none that can be used.
fn probe_state(options: &StoreOptions, dir: &Path) -> Result<Option<u64>, OpenError> {
    let entries = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
    if !entries.iter().any(|entry| entry.name == STATE_FILE) {
        return Ok(None);
    }
    let path = dir.join(STATE_FILE);
    let file = options.file_system.open(&path, OpenMode::ReadOnly).map_err(|error| Fault::io(&path, "open", error))?;
    see_the_disk(&path, &*file)?;
    match options.prober.probe(&*options.file_system, &path, ProbedFile::State) {
        Ok(applied) => Ok(Some(applied)),
        Err(error @ OpenError::Damaged { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the state is set aside, and rebuilt");
            Ok(None)
        }
        Err(error) => Err(error),
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
        if after.header.segment <= end_id(&before.header) {
            continue;
        }
        if after.header.first_sequence < before.header.first_sequence {
            return Err(Fault::damaged(&path, "it is older than the segment before it").into());
        }
        let (Some(end), Content::Sealed(opened)) = (end_of(&before.header, &after.header), &before.content) else {
            continue;
        };
        if opened.last_sequence != end {
            let what = format!("it says segment {} ended at commit {end}", before.header.segment);
            return Err(Fault::damaged(&path, what).into());
        }
    }
    Ok(())
}

/// The last id that a segment stands for.
pub(crate) fn end_id(header: &SegmentHeader) -> u64 {
    header.replaces_until.unwrap_or(header.segment)
}

/// Where a segment ends, if the one found after it was made right after it.
fn end_of(header: &SegmentHeader, after: &SegmentHeader) -> Option<u64> {
    after.previous.filter(|previous| previous.segment == end_id(header)).map(|previous| previous.last_sequence)
}

/// Removes what was never finished, and indices whose segment is gone.
fn remove_unfinished(file_system: &dyn FileSystem, dir: &Path) -> Result<(), OpenError> {
    let entries = file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
    for FileEntry { name, .. } in &entries {
        let unfinished =
            name.ends_with(&format!(".redb{NEW_SUFFIX}")) || name.ends_with(&format!(".index{NEW_SUFFIX}"));
        let orphan = name.strip_suffix(".index").is_some_and(|stem| {
            let segment = format!("{stem}.redb");
            !entries.iter().any(|entry| entry.name == segment)
        });
        if unfinished || orphan {
            let path = dir.join(name);
            file_system.remove(&path).map_err(|error| Fault::io(&path, "remove", error))?;
        }
    }
    Ok(())
}

/// Removes segments for which another one stands: the cleaner was stopped between naming that one and removing these.
fn remove_replaced(file_system: &dyn FileSystem, dir: &Path, found: Vec<Found>) -> Result<Vec<Found>, OpenError> {
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for found in found {
        if kept.last().is_some_and(|before| found.header.segment <= end_id(&before.header)) {
            for suffix in ["redb", "index"] {
                let path = dir.join(format!("{:010}.{suffix}", found.header.segment));
                match file_system.remove(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Fault::io(&path, "remove", error).into());
                    }
                    _ => {}
                }
            }
        } else {
            kept.push(found);
        }
    }
    Ok(kept)
}

/// Every segment, ready to be read.
fn open_segments(
    dir: &Arc<SegmentDir>,
    options: &StoreOptions,
    found: Vec<Found>,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let ends: Vec<Option<u64>> = found.windows(2).map(|pair| end_of(&pair[0].header, &pair[1].header)).collect();
    let mut segments = Vec::with_capacity(found.len());
    for (at, found) in found.into_iter().enumerate() {
        let end = ends.get(at).copied().flatten();
        segments.push(Arc::new(open_segment(dir, options, found, end)?));
    }
    Ok(segments)
}

fn open_segment(
    dir: &Arc<SegmentDir>,
    options: &StoreOptions,
    found: Found,
    end: Option<u64>,
) -> Result<Segment, OpenError> {
    let Found { header, content, disk_bytes } = found;
    let parts = match content {
        Content::Sealed(opened) => return Ok(Segment::sealed(dir, *opened, disk_bytes)),
        Content::Parts(parts) => parts,
    };
    let path = dir.path(header.segment);
    let file = dir.open_to_read(&path)?;
    let before_first = header.first_sequence - 1;
    // Commits end where the next segment says so; otherwise redb knows which of them it had finished, if not all of them.
    let last = match end {
        Some(end) => end.max(before_first),
        None => {
            let shown = options.prober.probe(&*options.file_system, &path, ProbedFile::Segment)?.max(before_first);
            let (segment, epoch) = (header.segment, header.epoch);
            let place = PartPlace { store: StoreId(header.store), segment, epoch, sequence: 0, part: 0 };
            let last = parts::end_of_commits(&path, &*file, place, &parts, shown)?;
            if last > shown {
                tracing::warn!(
                    file = file_name(&path),
                    shown,
                    last,
                    "redb does not show the last commits, which are whole"
                );
            }
            last
        }
    };
    let segment = Segment::found(dir, header, file, parts, disk_bytes);
    segment.set_last_sequence(last);
    segment.visit_records(0, last, |sequence, record, inline_base| {
        index_record(&segment, sequence, &record, inline_base)
    })?;
    let spans = segment.memory_index(MemoryIndex::spans).unwrap_or_default();
    segment.set_spans_found(spans);
    Ok(segment)
}

/// Adds what a commit record says to the index of a segment that is not sealed.
pub(crate) fn index_record(
    segment: &Segment,
    sequence: u64,
    record: &CommitRecord,
    inline_base: u64,
) -> Result<(), Fault> {
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
    last.visit_records(0, last.last_sequence(), |sequence, record, _| {
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

fn open_state(
    dir: &Path,
    options: &StoreOptions,
    store: StoreId,
    applied: Option<u64>,
    segments: &[Arc<Segment>],
) -> Result<State, OpenError> {
    let path = dir.join(STATE_FILE);
    let cache_bytes = options.cache_bytes;
    let file = match applied {
        Some(_) => {
            let entries = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
            let disk_bytes = entries.iter().find(|entry| entry.name == STATE_FILE).map(|entry| entry.disk_bytes);
            StateFile::open(&options.file_system, &path, disk_bytes, store, cache_bytes)?
        }
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
        segment.visit_records(next, segment.last_sequence(), |sequence, record, _| {
            state.push(sequence, record.state.into_iter().map(|StateRow(change)| change));
            state.wait_for_room().map_err(|cause| Fault::io(path, "apply to", std::io::Error::other(cause)))
        })?;
        next = segment.last_sequence() + 1;
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
    let mut file = StateFile::open(&options.file_system, &new_path, None, store, options.cache_bytes)?;
    let Some(last) = segments.last() else {
        file.rename(path)?;
        return Ok(file);
    };
    tracing::warn!(file = file_name(path), "it is missing or damaged, and is rebuilt from the segments");
    let mut pending = Pending { file: &file, rows: BTreeMap::new(), bytes: 0 };
    for segment in segments {
        segment.visit_records(0, segment.last_sequence(), |_, record, _| {
            let rows = record.state.into_iter().filter(|StateRow(change)| change.table == StateTable::PluginState);
            pending.add(rows)
        })?;
    }
    for SnapshotRow { state, .. } in last.snapshot()? {
        pending.add(state)?;
    }
    last.visit_records(0, last.last_sequence(), |_, record, _| {
        let rows = record.state.into_iter().filter(|StateRow(change)| change.table.is_small());
        pending.add(rows)
    })?;
    pending.apply(last.last_sequence())?;
    set_aside(&*options.file_system, path)?;
    file.rename(path)?;
    Ok(file)
}

/// Gives a damaged file another name, for whoever wants to look into it; the one before it goes.
fn set_aside(file_system: &dyn FileSystem, path: &Path) -> Result<(), Fault> {
    let aside = PathBuf::from(format!("{}.damaged", path.display()));
    match file_system.rename(path, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::io(path, "set aside", error)),
        _ => Ok(()),
    }
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
