//! A data directory as it lies on the disk: its segments and what they say of themselves, looked at without opening the
//! store and without writing anything. What `verify` and `salvage` begin with.
//!
//! Owns the order of segments, where each of them ends, and [`PartitionRows`]: the partitions as headers and commit
//! records make them.
//!
//! Start at [`heads`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::PartitionId;

use crate::{
    OpenError, StoreId, StoreOptions,
    fault::{Fault, file_name},
    file_system::DirLock,
    index_file::{IndexFile, OpenedIndex},
    parts,
    record::{self, ChangeRow, CommitRecord, PartitionRow, SegmentHeader, SnapshotRow},
    recovery::{STATE_FILE, end_id},
    segment::SegmentDir,
};

/// A segment's files, and what is at their beginning. Nothing is kept open.
pub(crate) struct Head {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    pub(crate) index_path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) has_index: bool,
    /// Why the index cannot be used, if there is one.
    pub(crate) index_damage: Option<String>,
    /// From the index, or else from the segment; `None` where neither says it.
    pub(crate) header: Option<SegmentHeader>,
    /// What the index says is the last commit.
    pub(crate) indexed_until: Option<u64>,
}

impl Head {
    /// The last id that the segment stands for.
    pub(crate) fn end_id(&self) -> u64 {
        self.header.as_ref().map_or(self.id, end_id)
    }

    /// Whether the cleaner wrote it: then it has the records that were left, and no commits' own.
    pub(crate) fn is_rewritten(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.replaces_until.is_some())
    }

    /// Opens the index, if it can be used.
    pub(crate) fn open_index(&self, options: &StoreOptions) -> Option<UsableIndex> {
        if !self.has_index || self.index_damage.is_some() {
            return None;
        }
        let file = open(options, &self.index_path).ok()?;
        let opened = IndexFile::open(&self.index_path, self.id, &*file).ok()?;
        Some(UsableIndex { file, opened })
    }
}

/// An index file that says where the segment's parts are; rows of it may still be damaged.
pub(crate) struct UsableIndex {
    pub(crate) file: std::sync::Arc<dyn crate::StoreFile>,
    pub(crate) opened: OpenedIndex,
}

/// Opens a file to read it.
pub(crate) fn open(options: &StoreOptions, path: &Path) -> Result<std::sync::Arc<dyn crate::StoreFile>, Fault> {
    let file = options.file_system.open(path, crate::OpenMode::ReadOnly);
    file.map_err(|error| Fault::io(path, "open", error))
}

/// Takes a directory that has a store in it, as long as nobody else has it.
pub(crate) fn lock(options: &StoreOptions, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    let lock = options.file_system.lock_dir(dir).map_err(|error| Fault::io(dir, "lock", error))?;
    lock.ok_or_else(|| OpenError::InUse { dir: file_name(dir) })
}

/// Every segment in a data directory, oldest first, but for those that another one stands for.
///
/// # Errors
/// When the directory cannot be listed, has no store in it, or a newer weir wrote it.
pub(crate) fn heads(options: &StoreOptions, dir: &Path) -> Result<Vec<Head>, OpenError> {
    let segments = dir.join("segments");
    let list = |dir: &Path| options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error));
    let entries = list(&segments)?;
    if entries.is_empty() && !list(dir)?.iter().any(|entry| entry.name == STATE_FILE) {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no store in it");
        return Err(Fault::io(dir, "read", cause).into());
    }
    let names = SegmentDir::new(options.file_system.clone(), &segments, StoreId([0; 16]), 0);
    let mut heads: Vec<Head> = Vec::new();
    for entry in &entries {
        let Some(id) = SegmentDir::parse_name(&entry.name, ".redb") else { continue };
        let index_path = names.index_path(id);
        let index = entries.iter().find(|entry| index_path.ends_with(&entry.name));
        let mut head = Head {
            id,
            path: names.path(id),
            index_path,
            bytes: entry.disk_bytes + index.map_or(0, |index| index.disk_bytes),
            has_index: index.is_some(),
            index_damage: None,
            header: None,
            indexed_until: None,
        };
        read_head(options, &mut head)?;
        if heads.last().is_none_or(|before| id > before.end_id()) {
            heads.push(head);
        }
    }
    Ok(heads)
}

fn read_head(options: &StoreOptions, head: &mut Head) -> Result<(), OpenError> {
    if head.has_index {
        let opened = open(options, &head.index_path).map_err(OpenError::from);
        match opened.and_then(|file| IndexFile::open(&head.index_path, head.id, &*file)) {
            Ok(opened) => match other_header(options, head, &opened) {
                None => {
                    head.indexed_until = Some(opened.last_sequence);
                    head.header = Some(opened.header);
                    return Ok(());
                }
                Some(header) => {
                    head.index_damage = Some("it is the index of another segment".to_owned());
                    head.header = Some(header);
                    return Ok(());
                }
            },
            Err(error @ OpenError::NewerFormat { .. }) => return Err(error),
            Err(error) => head.index_damage = Some(what(error)),
        }
    }
    // A file that cannot be read has no header; whoever reads on finds out why.
    head.header = open(options, &head.path).ok().and_then(|file| header_of(head.id, &head.path, &*file));
    Ok(())
}

/// What a segment says of itself where its index says something else. One that says nothing does not contradict it.
fn other_header(options: &StoreOptions, head: &Head, index: &OpenedIndex) -> Option<SegmentHeader> {
    let file = open(options, &head.path).ok()?;
    if index.is_confirmed_by(&*file) {
        return None;
    }
    header_of(head.id, &head.path, &*file).filter(|header| *header != index.header)
}

/// The header in a segment's own file, looked for page by page.
fn header_of(id: u64, path: &Path, file: &dyn crate::StoreFile) -> Option<SegmentHeader> {
    let found = parts::scan(path, file).ok()?;
    let headers = found.into_iter().filter(|(place, _)| (place.segment, place.sequence, place.part) == (id, 0, 0));
    let header = |(place, at)| {
        let header: SegmentHeader = record::from_slice(&parts::read_part(path, file, place, at).ok()?)?;
        let same = (header.store, header.segment, header.epoch) == (place.store.0, id, place.epoch);
        (same && header.first_sequence > 0).then_some(header)
    };
    headers.filter_map(header).next()
}

/// What an error says of a file, without its name.
pub(crate) fn what(error: OpenError) -> String {
    match error {
        OpenError::Damaged { what, .. } => what,
        OpenError::Io { action, source, .. } => format!("failed to {action} it: {source}"),
        error => error.to_string(),
    }
}

/// The last commit of a segment: what was found after it says so, or its index.
pub(crate) fn end_sequence(heads: &[Head], at: usize) -> Option<u64> {
    let previous = heads.get(at + 1).and_then(|next| next.header.as_ref()?.previous);
    let said = previous.filter(|previous| previous.segment == heads[at].end_id());
    said.map(|previous| previous.last_sequence).or(heads[at].indexed_until)
}

/// The partitions as they stand after some commits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PartitionRows(pub(crate) BTreeMap<PartitionId, PartitionRow>);

impl PartitionRows {
    pub(crate) fn of_snapshot(rows: &[SnapshotRow]) -> PartitionRows {
        let rows = rows.iter().flat_map(|row| &row.partitions);
        PartitionRows(rows.map(|row| (row.id, *row)).collect())
    }

    pub(crate) fn create(&mut self, record: &CommitRecord) {
        for row in &record.created {
            let (id, retention) = (row.id, row.retention);
            self.0.insert(id, PartitionRow { id, retention, log_start: 0, next_offset: 0 });
        }
    }

    pub(crate) fn change(&mut self, record: &CommitRecord) {
        for change in &record.changes {
            match *change {
                ChangeRow::Delete { id } => drop(self.0.remove(&id)),
                ChangeRow::SetRetention { id, retention } => {
                    self.0.entry(id).and_modify(|row| row.retention = retention);
                }
                ChangeRow::SetLogStart { id, offset } => {
                    self.0.entry(id).and_modify(|row| row.log_start = row.log_start.max(offset.0));
                }
            }
        }
    }
}
