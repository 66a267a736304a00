//! One damaged segment, as much of it as can be read: by its index, by its commit records, and where these fail by looking
//! at every page, where redb's old copies of small parts turn up as well.
//!
//! Invariant: nothing is handed out that does not have the checksum with which it was written.
//!
//! Start at [`Source::open`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use protocol::PartitionId;

use crate::{
    StoreFile, StoreId, StoreOptions,
    index::{Extent, Piece},
    inspect::{self, Head, UsableIndex},
    layout::{PAGE_BYTES, PART_HEADER_BYTES, PartPlace},
    parts::{self, PartAt},
    record::{self, CommitRecord, CrcChain, SegmentHeader, SnapshotRow},
};

/// Where a part is to be found: the first that is whole serves. The last ones are whole in part only, or old.
type Copies = BTreeMap<(u64, u16), Vec<PartAt>>;

/// An extent, and how its pieces' positions are meant.
#[derive(Debug, Clone)]
pub(super) struct SourceExtent {
    pub(super) partition: PartitionId,
    pub(super) extent: Extent,
    /// Within the file, as its index has them; else within parts.
    in_file: bool,
}

/// A segment that may be damaged.
pub(super) struct Source<'s> {
    pub(super) head: &'s Head,
    file: Arc<dyn StoreFile>,
    index: Option<UsableIndex>,
    store: StoreId,
    epoch: u64,
    copies: Copies,
    searched: bool,
}

impl<'s> Source<'s> {
    /// Finds out where things are. `store` is whose the segment should be, where its own header does not say so. `None`
    /// when there is nothing of a segment in the file.
    pub(super) fn open(options: &StoreOptions, head: &'s Head, store: StoreId) -> Option<Source<'s>> {
        let file: Arc<dyn StoreFile> = Arc::new(Tolerant(inspect::open(options, &head.path).ok()?));
        let index = head.open_index(options);
        let (store, epoch) = match &head.header {
            Some(header) => (StoreId(header.store), header.epoch),
            None => (store, epoch_of(head, &*file, store)?),
        };
        let listed = index.as_ref().and_then(|index| index.opened.index.parts(&*index.file).ok());
        let copies = listed.unwrap_or_default().into_iter().map(|(key, at)| (key, vec![at])).collect();
        let mut source = Source { head, file, index, store, epoch, copies, searched: false };
        if source.copies.is_empty() {
            source.search();
        }
        Some(source)
    }

    /// Looks at every page of the file for what is not listed, once.
    pub(super) fn search(&mut self) {
        if std::mem::replace(&mut self.searched, true) {
            return;
        }
        // The file reads as zeros where it cannot be read, so this has an answer.
        let mut found = parts::scan_headers(&self.head.path, &*self.file).unwrap_or_default();
        found.retain(|part| {
            let PartPlace { store, segment, epoch, .. } = part.place;
            (store, segment, epoch) == (self.store, self.head.id, self.epoch)
        });
        found.sort_by_key(|part| !part.whole);
        for part in found {
            let copies = self.copies.entry((part.place.sequence, part.place.part)).or_default();
            if !copies.contains(&part.at) {
                copies.push(part.at);
            }
        }
    }

    fn place(&self, sequence: u64, part: u16) -> PartPlace {
        PartPlace { store: self.store, segment: self.head.id, epoch: self.epoch, sequence, part }
    }

    /// The body of a part, whole.
    fn part(&mut self, sequence: u64, part: u16) -> Option<Vec<u8>> {
        let place = self.place(sequence, part);
        self.try_copies(sequence, part, |source, at| parts::read_part(&source.head.path, &*source.file, place, at).ok())
    }

    /// The first answer that one of a part's copies gives; those that are known first, then any.
    fn try_copies<R>(
        &mut self,
        sequence: u64,
        part: u16,
        look: impl Fn(&Source<'_>, PartAt) -> Option<R>,
    ) -> Option<R> {
        loop {
            let copies = self.copies.get(&(sequence, part)).into_iter().flatten();
            let found = copies.copied().find_map(|at| look(self, at));
            if found.is_some() || self.searched {
                return found;
            }
            self.search();
        }
    }

    /// The small state and the partitions as of its beginning, if all of that can be read.
    pub(super) fn snapshot(&mut self) -> Option<(SegmentHeader, Vec<SnapshotRow>)> {
        let header = self.head.header.clone().filter(|header| header.replaces_until.is_none())?;
        let row = |number| record::from_slice(&self.part(0, number)?);
        let rows: Option<Vec<SnapshotRow>> = (1..=header.snapshot_rows).map(row).collect();
        Some((header, rows?))
    }

    /// The commits of which there is anything.
    pub(super) fn sequences(&self) -> BTreeSet<u64> {
        self.copies.range((1, 0)..).map(|((sequence, _), _)| *sequence).collect()
    }

    /// What a commit says, and the extents it names.
    pub(super) fn commit(&mut self, sequence: u64) -> Option<(CommitRecord, Vec<SourceExtent>)> {
        let place = self.place(sequence, 0);
        let (record, inline_base) = self.try_copies(sequence, 0, |source, at| {
            parts::read_record(&source.head.path, &*source.file, place, at).ok()
        })?;
        let mut crcs = CrcChain::default();
        let extent = |row: &record::PartitionExtent| {
            let extent = row.extent.extent(sequence, inline_base, &mut crcs)?;
            Some(SourceExtent { partition: row.partition, extent, in_file: false })
        };
        let extents: Option<Vec<SourceExtent>> = record.extents.iter().map(extent).collect();
        Some((record, extents?))
    }

    /// What the index says lies in the segment; as much of it as can be read.
    pub(super) fn indexed(&self) -> Vec<SourceExtent> {
        let Some(UsableIndex { file, opened }) = &self.index else { return Vec::new() };
        let of_partition = |id: &PartitionId| {
            let (partition, (extents, _)) = (*id, opened.index.extents(&**file, *id));
            extents.into_iter().map(move |extent| SourceExtent { partition, extent, in_file: true })
        };
        opened.spans.iter().flat_map(|(id, _)| of_partition(id)).collect()
    }

    /// The record batches of an extent, if all of them are as they were written.
    pub(super) fn read(&mut self, extent: &SourceExtent) -> Option<Bytes> {
        let mut run = Vec::with_capacity(extent.extent.bytes() as usize);
        for piece in extent.extent.pieces() {
            let bytes = match extent.in_file {
                true => self.read_piece(piece, piece.position),
                false => self.try_copies(extent.extent.sequence, piece.part, |source, at| {
                    source.read_piece(piece, at.position + PART_HEADER_BYTES as u64 + piece.position)
                }),
            };
            run.extend_from_slice(&bytes?);
        }
        Some(run.into())
    }

    fn read_piece(&self, piece: &Piece, position: u64) -> Option<Vec<u8>> {
        if position.checked_add(u64::from(piece.length))? > self.file.len().ok()? {
            return None;
        }
        let mut bytes = vec![0; piece.length as usize];
        self.file.read_at(position, &mut bytes).ok()?;
        piece.is(&bytes).then_some(bytes)
    }
}

/// The epoch of a segment that has lost its header: that of most of its parts.
fn epoch_of(head: &Head, file: &dyn StoreFile, store: StoreId) -> Option<u64> {
    let found = parts::scan_headers(&head.path, file).ok()?;
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for part in found.iter().filter(|part| (part.place.store, part.place.segment) == (store, head.id)) {
        *counts.entry(part.place.epoch).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(epoch, _)| epoch)
}

/// The store that most parts of a file are of.
pub(super) fn store_in(options: &StoreOptions, head: &Head) -> Option<StoreId> {
    let file = Tolerant(inspect::open(options, &head.path).ok()?);
    let found = parts::scan_headers(&head.path, &file).ok()?;
    let mut counts: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for part in found.iter().filter(|part| part.place.segment == head.id) {
        *counts.entry(part.place.store.0).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(store, _)| StoreId(store))
}

/// A file that reads as zeros where the disk does not answer: what was there is lost, and its neighbours are not.
#[derive(Debug)]
struct Tolerant(Arc<dyn StoreFile>);

impl StoreFile for Tolerant {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(offset, out).is_ok() {
            return Ok(());
        }
        let mut at = 0;
        while at < out.len() {
            // To the end of a page of the file: a bad sector spoils no more.
            let page_end = (offset + at as u64 + 1).next_multiple_of(PAGE_BYTES as u64);
            let end = out.len().min((page_end - offset) as usize);
            if self.0.read_at(offset + at as u64, &mut out[at..end]).is_err() {
                out[at..end].fill(0);
            }
            at = end;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn release(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}
