//! One segment: every part, every commit record, every batch, and whether the index says the same.
//!
//! Start at [`SegmentCheck::run`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{PartitionId, RecordBatch};

use super::Findings;
use crate::{
    StoreFile, StoreId, StoreOptions,
    index::{Extent, Piece, span_of},
    inspect::{self, Head, PartitionRows, UsableIndex, what},
    layout::{PART_HEADER_BYTES, PartPlace},
    parts::{self, PartAt, PartMap},
    record::{self, ChangeRow, CommitRecord, CrcChain, SegmentHeader, SnapshotRow},
    segment::LOST,
};

/// Extents by partition, in order of offsets.
type Extents = BTreeMap<PartitionId, Vec<Extent>>;

/// Where a segment's commits end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// There, as its index or the next segment says.
    At(u64),
    /// There or behind: redb shows those up to this one.
    Shown(u64),
}

/// The check of one segment.
pub(super) struct SegmentCheck<'s, 'p> {
    head: &'s Head,
    header: &'s SegmentHeader,
    file: Arc<dyn StoreFile>,
    parts: PartMap,
    index: Option<UsableIndex>,
    /// What the index says; positions within the file.
    indexed: Extents,
    /// What the commit records say, placed in the file likewise.
    recorded: Extents,
    /// Commits of which the record cannot be read.
    unread: BTreeSet<u64>,
    until: u64,
    findings: &'s mut Findings<'p>,
}

impl<'s, 'p> SegmentCheck<'s, 'p> {
    /// Finds out where the parts are; `None`, and said so, when nothing can be read. Without an `end` all
    /// commits count.
    pub(super) fn open(
        options: &StoreOptions,
        head: &'s Head,
        end: Option<End>,
        findings: &'s mut Findings<'p>,
    ) -> Option<Self> {
        let Some(header) = &head.header else {
            findings.file(&head.path, "its header is missing, or has a wrong checksum");
            return None;
        };
        let file = match inspect::open(options, &head.path) {
            Ok(file) => file,
            Err(fault) => {
                findings.file(&head.path, what(fault.into()));
                return None;
            }
        };
        let index = head.open_index(options);
        let listed = index.as_ref().map(|index| index.opened.index.parts(&*index.file));
        let parts = match listed {
            Some(Ok(parts)) => parts,
            unlisted => {
                if let Some(Err(fault)) = unlisted {
                    findings.file(&head.index_path, what(fault.into()));
                }
                scanned(head, header, &*file, findings)?
            }
        };
        let until = match end {
            Some(End::At(until)) => until,
            Some(End::Shown(shown)) => {
                let shown = shown.max(header.first_sequence.saturating_sub(1));
                let SegmentHeader { store, segment, epoch, .. } = *header;
                let place = PartPlace { store: StoreId(store), segment, epoch, sequence: 0, part: 0 };
                parts::end_of_commits(&head.path, &*file, place, &parts, shown).unwrap_or(shown)
            }
            None => parts.last_key_value().map_or(0, |((sequence, _), _)| *sequence),
        };
        let (indexed, recorded, unread) = Default::default();
        Some(SegmentCheck { head, header, file, parts, index, indexed, recorded, unread, until, findings })
    }

    /// The last commit.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    /// Checks all of it. `rows` are the partitions as they were before it, if `rows_known`, and then as they are after it.
    pub(super) fn run(&mut self, rows: &mut PartitionRows, rows_known: &mut bool) {
        self.read_index();
        self.header_part();
        self.snapshot(rows, rows_known);
        self.commits(rows, rows_known);
        self.compare();
        *rows_known &= self.unread.is_empty() && !self.head.is_rewritten();
    }

    /// The offsets it covers, in runs without holes.
    pub(super) fn into_coverage(self) -> Vec<(PartitionId, Range<u64>)> {
        let mut runs: Vec<(PartitionId, Range<u64>)> = Vec::new();
        for (partition, extents) in &self.recorded {
            for extent in extents {
                match runs.last_mut().filter(|last| last.0 == *partition && last.1.end == extent.cover_start) {
                    Some(last) => last.1.end = extent.cover_end,
                    None => runs.push((*partition, extent.cover_start..extent.cover_end)),
                }
            }
        }
        runs
    }

    fn place(&self, sequence: u64, part: u16) -> PartPlace {
        let SegmentHeader { store, segment, epoch, .. } = *self.header;
        PartPlace { store: StoreId(store), segment, epoch, sequence, part }
    }

    fn read_index(&mut self) {
        let Some(UsableIndex { file, opened }) = &self.index else { return };
        for (partition, span) in &opened.spans {
            let (extents, fault) = opened.index.extents(&**file, *partition);
            if let Some(fault) = fault {
                let lost = span.cover_start..span.cover_end;
                self.findings.records(&self.head.index_path, what(fault.into()), *partition, lost);
            } else if span_of(&extents) != Some(*span) {
                let lost = span.cover_start..span.cover_end;
                self.findings.records(&self.head.index_path, "what it says of them in sum is wrong", *partition, lost);
            }
            self.indexed.insert(*partition, extents);
        }
    }

    fn header_part(&mut self) {
        match self.read_whole(0, 0) {
            Ok(part) if record::from_slice(&part[PART_HEADER_BYTES..]).as_ref() == Some(self.header) => {}
            Ok(_) => self.findings.file(&self.head.path, "its header is not the one that its index says"),
            Err(what) => self.findings.file(&self.head.path, format!("{what} (its header)")),
        }
    }

    fn snapshot(&mut self, rows: &mut PartitionRows, rows_known: &mut bool) {
        if self.head.is_rewritten() {
            return;
        }
        let mut snapshot: Vec<SnapshotRow> = Vec::new();
        for number in 1..=self.header.snapshot_rows {
            let read = self.read_whole(0, number);
            let row =
                read.and_then(|part| record::from_slice(&part[PART_HEADER_BYTES..]).ok_or_else(|| NONSENSE.to_owned()));
            match row {
                Ok(row) => snapshot.push(row),
                Err(what) => {
                    *rows_known = false;
                    return self.findings.file(&self.head.path, format!("{what} (row {number} of its snapshot)"));
                }
            }
        }
        let found = PartitionRows::of_snapshot(&snapshot);
        if *rows_known && *rows != found {
            self.findings.file(&self.head.path, "its snapshot says something else than the commits before it");
        }
        (*rows, *rows_known) = (found, true);
    }

    fn commits(&mut self, rows: &mut PartitionRows, rows_known: &mut bool) {
        let sequences: BTreeSet<u64> = self.parts.range((1, 0)..).map(|((sequence, _), _)| *sequence).collect();
        let mut expected = self.header.first_sequence;
        for sequence in sequences {
            if sequence > self.until {
                // In a file that was not closed there may be what was never committed.
                if self.index.is_some() {
                    self.findings.file(&self.head.index_path, "it lists parts behind its last commit");
                }
                break;
            }
            self.missing(expected, sequence);
            expected = sequence + 1;
            self.commit(sequence, rows, rows_known);
        }
        self.missing(expected, self.until + 1);
    }

    /// Commits of which there is no part at all.
    fn missing(&mut self, from: u64, to: u64) {
        if from >= to || self.head.is_rewritten() {
            return;
        }
        self.findings.file(&self.head.path, format!("commits {from} to {} are missing", to - 1));
        for sequence in from..to {
            self.unread.insert(sequence);
            let indexed = self.indexed_of(sequence);
            self.keep(&indexed);
        }
    }

    fn commit(&mut self, sequence: u64, rows: &mut PartitionRows, rows_known: &mut bool) {
        self.findings.report.commits += 1;
        let mut parts = CommitParts::default();
        self.read_into(&mut parts, sequence, 0);
        let record = parts.bodies.get(&0).and_then(|part| {
            let (record, inline_base) = parts::sound_record(self.place(sequence, 0), part).ok()?;
            Some((extents_of(&record, sequence, inline_base)?, record))
        });
        let extents = match &record {
            Some((extents, record)) => {
                self.apply(sequence, record, rows, *rows_known);
                self.keep(extents);
                for change in &record.changes {
                    if let ChangeRow::Delete { id } = change {
                        self.recorded.remove(id);
                    }
                }
                extents.clone()
            }
            None => {
                let cause = parts.tell(0).unwrap_or_else(|| NONSENSE.to_owned());
                self.findings.file(&self.head.path, format!("{cause} (the record of commit {sequence})"));
                self.unread.insert(sequence);
                *rows_known = false;
                let indexed = self.indexed_of(sequence);
                self.keep(&indexed);
                indexed
            }
        };
        let listed = record.as_ref().map_or(0, |(_, record)| record.parts);
        self.batches(sequence, listed, &extents, parts);
    }

    /// Reads the parts of a commit one after the other, and checks each extent as soon as all of it is there.
    fn batches(&mut self, sequence: u64, listed: u16, extents: &[(PartitionId, Extent)], mut parts: CommitParts) {
        let last = self.parts.range((sequence, 0)..=(sequence, u16::MAX)).next_back().map_or(0, |((_, part), _)| *part);
        let mut waiting = extents.iter().peekable();
        for part in 1..=last.max(listed) {
            self.read_into(&mut parts, sequence, part);
            while let Some((partition, extent)) = waiting.next_if(|(_, extent)| last_part(extent) <= part) {
                self.extent(*partition, extent, &mut parts);
            }
            let first = waiting.peek().map_or(u16::MAX, |(_, extent)| first_part(extent));
            parts.bodies.retain(|number, _| *number == 0 || *number >= first);
        }
        for (partition, extent) in waiting {
            self.extent(*partition, extent, &mut parts);
        }
        for (part, what) in parts.untold() {
            self.findings.file(&self.head.path, format!("{what} (commit {sequence}, part {part})"));
        }
    }

    fn read_into(&mut self, parts: &mut CommitParts, sequence: u64, part: u16) {
        let Some(at) = self.parts.get(&(sequence, part)).copied() else {
            parts.bad.insert(part, "a part is missing".to_owned());
            return;
        };
        match read_raw(&*self.file, at) {
            Ok(bytes) => {
                if let Err(what) = self.place(sequence, part).check_whole(&bytes) {
                    parts.bad.insert(part, what.to_owned());
                }
                parts.bodies.insert(part, bytes);
            }
            Err(what) => drop(parts.bad.insert(part, what)),
        }
        self.findings.advance(u64::from(at.bytes));
    }

    fn read_whole(&mut self, sequence: u64, part: u16) -> Result<Vec<u8>, String> {
        let at = *self.parts.get(&(sequence, part)).ok_or("a part is missing")?;
        let bytes = read_raw(&*self.file, at)?;
        self.place(sequence, part).check_whole(&bytes)?;
        self.findings.advance(u64::from(at.bytes));
        Ok(bytes)
    }

    fn extent(&mut self, partition: PartitionId, extent: &Extent, parts: &mut CommitParts) {
        let path: &Path = &self.head.path;
        let offsets = extent.cover_start..extent.cover_end;
        let Some(run) = parts.run(extent) else {
            let numbers: BTreeSet<u16> = extent.pieces().map(|piece| piece.part).collect();
            let causes: Vec<String> = numbers.iter().filter_map(|part| parts.tell(*part)).collect();
            let cause = causes.first().map_or("record batches have a wrong checksum", |cause| cause);
            return self.findings.records(path, format!("{cause} (commit {})", extent.sequence), partition, offsets);
        };
        match check_run(run, &offsets) {
            Ok(batches) => self.findings.report.record_batches += batches,
            Err(what) => {
                self.findings.records(path, format!("{what} (commit {})", extent.sequence), partition, offsets);
            }
        }
    }

    /// What a record makes of the partitions, and whether it goes on where they ended.
    fn apply(&mut self, sequence: u64, record: &CommitRecord, rows: &mut PartitionRows, known: bool) {
        if self.head.is_rewritten() {
            return;
        }
        rows.create(record);
        for row in &record.extents {
            let (start, end) = (row.extent.cover_start, row.extent.cover_start.saturating_add(row.extent.cover_count));
            let found = rows.0.get_mut(&row.partition);
            let next = found.as_ref().map(|row| row.next_offset);
            if known && next != Some(start) {
                let next = next.map_or_else(|| "there is none".to_owned(), |next| format!("it ended at {next}"));
                let what = format!("commit {sequence} does not continue the partition: {next}");
                self.findings.records(&self.head.path, what, row.partition, start..end);
            }
            if let Some(found) = found {
                found.next_offset = end;
            }
        }
        rows.change(record);
    }

    /// The index's extents of a commit, as its record would have them: positions within parts.
    fn indexed_of(&self, sequence: u64) -> Vec<(PartitionId, Extent)> {
        let within = |piece: &Piece| {
            let at = self.parts.get(&(sequence, piece.part))?;
            piece.position.checked_sub(at.position + PART_HEADER_BYTES as u64)
        };
        let of_partition = |(id, extents): (&PartitionId, &Vec<Extent>)| {
            let of_commit = extents.iter().filter(|extent| extent.sequence == sequence);
            let unplaced = of_commit.map(|extent| extent.placed(|piece| within(piece).unwrap_or(LOST)));
            unplaced.map(|extent| (*id, extent)).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = self.indexed.iter().flat_map(of_partition).collect();
        // As they were packed: what rides in part 0 comes last.
        found.sort_by_key(|(partition, extent)| (last_part(extent) == 0, *partition, extent.cover_start));
        found
    }

    /// Keeps a commit's extents, placed in the file, to compare them with the index.
    fn keep(&mut self, extents: &[(PartitionId, Extent)]) {
        for (partition, extent) in extents {
            let position = |piece: &Piece| match self.parts.get(&(extent.sequence, piece.part)) {
                Some(at) if piece.position != LOST => at.position + PART_HEADER_BYTES as u64 + piece.position,
                _ => LOST,
            };
            self.recorded.entry(*partition).or_default().push(extent.placed(position));
        }
    }

    /// Whether the index says what the commits say.
    fn compare(&mut self) {
        if self.index.is_none() || !self.unread.is_empty() {
            return;
        }
        let ids: BTreeSet<PartitionId> = self.indexed.keys().chain(self.recorded.keys()).copied().collect();
        for id in ids {
            let none = Vec::new();
            let (indexed, recorded) = (self.indexed.get(&id), self.recorded.get(&id));
            let (indexed, recorded) = (indexed.unwrap_or(&none), recorded.unwrap_or(&none));
            let same = indexed.iter().zip(recorded).take_while(|(indexed, recorded)| indexed == recorded).count();
            let differ = indexed[same..].iter().chain(&recorded[same..]);
            let start = differ.clone().map(|extent| extent.cover_start).min();
            let end = differ.map(|extent| extent.cover_end).max();
            if let (Some(start), Some(end)) = (start, end) {
                self.findings.records(&self.head.index_path, "it says something else than the commits", id, start..end);
            }
        }
    }
}

/// What is said of a part whose bytes are whole, and mean nothing.
const NONSENSE: &str = "a part makes no sense";

/// The parts found page by page, of a segment whose index does not say where they are.
fn scanned(head: &Head, header: &SegmentHeader, file: &dyn StoreFile, findings: &mut Findings<'_>) -> Option<PartMap> {
    match parts::scan(&head.path, file) {
        Ok(found) => {
            let same = |place: &PartPlace| {
                (place.store.0, place.segment, place.epoch) == (header.store, header.segment, header.epoch)
            };
            let found = found.into_iter().filter(|(place, _)| same(place));
            Some(found.map(|(place, at)| ((place.sequence, place.part), at)).collect())
        }
        Err(fault) => {
            findings.file(&head.path, what(fault.into()));
            None
        }
    }
}

fn read_raw(file: &dyn StoreFile, at: PartAt) -> Result<Vec<u8>, String> {
    let refused = |error: std::io::Error| format!("a part cannot be read: {error}");
    // A length is believed only as far as there are bytes.
    if at.position.saturating_add(u64::from(at.bytes)) > file.len().map_err(refused)? {
        return Err("a part is cut off".to_owned());
    }
    let mut bytes = vec![0; at.bytes as usize];
    file.read_at(at.position, &mut bytes).map_err(refused)?;
    Ok(bytes)
}

/// The extents of a commit record, positions within parts; `None` when its numbers make no sense.
fn extents_of(record: &CommitRecord, sequence: u64, inline_base: u64) -> Option<Vec<(PartitionId, Extent)>> {
    let mut crcs = CrcChain::default();
    let extent =
        |row: &record::PartitionExtent| Some((row.partition, row.extent.extent(sequence, inline_base, &mut crcs)?));
    record.extents.iter().map(extent).collect()
}

/// The number of the last part that an extent needs beside part 0.
fn last_part(extent: &Extent) -> u16 {
    extent.pieces().map(|piece| piece.part).max().unwrap_or(0)
}

fn first_part(extent: &Extent) -> u16 {
    extent.pieces().map(|piece| piece.part).filter(|part| *part > 0).min().unwrap_or(u16::MAX)
}

/// The parts of a commit that are needed yet, headers included, and those with something wrong.
#[derive(Default)]
struct CommitParts {
    bodies: BTreeMap<u16, Vec<u8>>,
    bad: BTreeMap<u16, String>,
    told: BTreeSet<u16>,
}

impl CommitParts {
    /// The bytes of an extent, if they are the ones that were written.
    fn run(&self, extent: &Extent) -> Option<Bytes> {
        let mut run = Vec::with_capacity(extent.bytes() as usize);
        for piece in extent.pieces() {
            let body = self.bodies.get(&piece.part)?.get(PART_HEADER_BYTES..)?;
            let start = usize::try_from(piece.position).ok()?;
            let bytes = body.get(start..start.checked_add(piece.length as usize)?)?;
            if !piece.is(bytes) {
                return None;
            }
            run.extend_from_slice(bytes);
        }
        Some(run.into())
    }

    /// What is wrong with a part, which is said now.
    fn tell(&mut self, part: u16) -> Option<String> {
        let what = self.bad.get(&part).cloned();
        self.told.insert(part);
        what
    }

    /// What is wrong with parts, and was not said of any records.
    fn untold(&self) -> impl Iterator<Item = (u16, &String)> {
        self.bad.iter().filter(|(part, _)| !self.told.contains(part)).map(|(part, what)| (*part, what))
    }
}

/// Checks the batches of an extent, each by itself and in its place; how many.
fn check_run(mut run: Bytes, offsets: &Range<u64>) -> Result<u64, String> {
    let mut next = offsets.start;
    let mut count = 0;
    while let Some(batch) = RecordBatch::split_first(&mut run).map_err(|error| error.to_string())? {
        let header = batch.header();
        let base = header.base_offset.0;
        let end = base.saturating_add(u64::from(header.last_offset_delta) + 1);
        if base < next || end > offsets.end {
            return Err(format!("a record batch at {base} to {end} is not where it belongs"));
        }
        (next, count) = (end, count + 1);
    }
    Ok(count)
}
