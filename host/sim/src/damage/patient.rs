//! A store as it was before anything was done to its files: their bytes, everything a reader could have of it, and where
//! in the files that lies.
//!
//! Owns the knowledge of what a damaged place may cost ([`Patient::harmed_by`]). It knows of the formats what their
//! drawings say: batches are found by their bytes, parts by their magic number.
//!
//! Start at [`Patient`].

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::{Offset, PartitionId, Retention};
use storage::{Append, Clock, Commit, PartitionChange, StateChange, StateTable, Store, StoreOptions};

use super::content::Content;
use crate::{
    batches::append,
    clock::SimClock,
    disk::{Blocks, FileId, Node, Op, SimDisk, Tree},
    invariants::Violation,
    rng::Rng,
    run::RunOptions,
    schedule,
    session::{Session, on_disk},
    tally::Tally,
    workload::Workload,
};

/// Where the store lies.
pub(super) const DIR: &str = "/disk/data";

/// The unit in which files are swapped about and forgotten.
pub(super) const PAGE_BYTES: usize = 4096;

/// What a part begins with, and how long its header is.
const PART_MAGIC: &[u8] = b"wprt";
const PART_HEADER_BYTES: usize = 64;

/// So many older versions of a page are kept.
const STALE_MAX: usize = 3;

/// A part as its header says that it is.
#[derive(Debug, Clone)]
struct Part {
    file: PathBuf,
    range: Range<usize>,
    place: PartPlace,
}

/// Which part: epoch, sequence, number.
type PartPlace = (u64, u64, u16);

/// A batch, and every place where all of it lies.
#[derive(Debug, Clone)]
struct Placed {
    id: PartitionId,
    start: u64,
    end: u64,
    copies: Vec<(PathBuf, Range<usize>)>,
}

/// A store as it was.
#[derive(Debug, Clone)]
pub struct Patient {
    /// Its sizes.
    pub options: StoreOptions,
    /// Its disk.
    pub tree: Tree,
    /// The bytes of its files.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What can be read of it.
    pub content: Content,
    /// Pages that had other bytes once: file, position, and these bytes.
    pub stale: Vec<(PathBuf, usize, Vec<u8>)>,
    /// Files that had these names once.
    pub elders: BTreeMap<PathBuf, Vec<u8>>,
    parts: Vec<Part>,
    placed: Vec<Placed>,
}

/// A clock with an identity of its own, so that stores can be told apart.
#[derive(Debug)]
struct OwnClock(SimClock, u64);

impl Clock for OwnClock {
    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn random_id(&self) -> [u8; 16] {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.1.to_le_bytes());
        id
    }
}

/// The options of a store on a disk, with an identity should it be made.
pub(super) fn options_on(disk: &SimDisk, options: &StoreOptions, identity: u64) -> StoreOptions {
    StoreOptions { clock: Arc::new(OwnClock(SimClock::default(), identity)), ..on_disk(disk, options) }
}

/// Files of a few dozen pages.
fn tiny() -> StoreOptions {
    StoreOptions {
        segment_bytes_max: 256 << 10,
        tail_bytes_max: 0,
        preallocate_bytes: 0,
        cache_bytes: 1 << 20,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

impl Patient {
    /// A store with a bit of everything, so small that each of its bytes can be looked at: a segment that was rewritten
    /// and stands for two, one that is sealed, one that was not closed, rows that are applied and rows that are not, and
    /// bytes that nobody needs any more.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn small(identity: u64) -> Result<Patient, Violation> {
        simulated(identity, move || Patient::make_small(identity))
    }

    fn make_small(identity: u64) -> Result<Patient, Violation> {
        let disk = SimDisk::new(Tree::empty(), identity);
        let options = tiny();
        let store = Store::open(Path::new(DIR), options_on(&disk, &options, identity)).map_err(broken)?;
        let mut author = Author { store, next: BTreeMap::new(), rng: Rng::new(identity), number: 0 };
        author.create(3)?;
        author.write(&[(0, 300), (2, 20_000)])?;
        author.write(&[(2, 200), (0, 50)])?;
        author.store.roll().map_err(broken)?;
        author.write(&[(0, 120)])?;
        author
            .commit(Commit { partitions: vec![PartitionChange::Delete { id: PartitionId(2) }], ..Commit::default() })?;
        author.store.roll().map_err(broken)?;
        let before = files_of(&disk.tree());
        let report = author.store.clean(0, &mut |_| true).map_err(broken)?;
        if report.segments_rewritten == 0 {
            return Err(Violation::new("damage", "the small store has no segment that was rewritten"));
        }
        author.write(&[(1, 17_500), (0, 400)])?;
        author.gap(1)?;
        author.write(&[(1, 90), (0, 700)])?;
        author.store.roll().map_err(broken)?;
        author.until_sealed();
        author.write(&[(0, 500), (1, 60)])?;
        author.write(&[(1, 17_000), (0, 33)])?;
        author.write(&[(0, 250)])?;
        let patient = Patient::of(&disk, options, identity, before);
        drop(author);
        patient
    }

    /// A store to which a seed has done this and that.
    ///
    /// # Errors
    /// When it breaks a promise by itself.
    pub fn lived(seed: u64) -> Result<Patient, Violation> {
        simulated(seed, move || Patient::make_lived(seed))
    }

    fn make_lived(seed: u64) -> Result<Patient, Violation> {
        let mut rng = Rng::new(seed);
        let run = RunOptions { faults: false, ..RunOptions::default() };
        let workload = Workload::long(&mut rng, &run);
        let disk = SimDisk::new(Tree::empty(), seed);
        let options = StoreOptions { tail_bytes_max: 0, ..workload.sizes.options.clone() };
        let mut session = Session::begin(disk.clone(), Path::new(DIR), &options)?;
        let mut tally = Tally::default();
        workload.run(&mut session, &mut tally)?;
        let closed = rng.percent(30);
        if closed {
            session.reopen(&mut rng, &mut tally)?;
        }
        let patient = Patient::of(&disk, options, seed, BTreeMap::new());
        session.end()?;
        patient
    }

    /// What is on a disk now.
    fn of(
        disk: &SimDisk,
        options: StoreOptions,
        identity: u64,
        elders: BTreeMap<PathBuf, Vec<u8>>,
    ) -> Result<Patient, Violation> {
        let tree = disk.tree();
        let files = files_of(&tree);
        let content = {
            let disk = SimDisk::new(tree.clone(), identity);
            let store = Store::open(Path::new(DIR), options_on(&disk, &options, identity)).map_err(broken)?;
            let content = Content::of(&store)?;
            store.close().map_err(broken)?;
            content
        };
        let elders = elders.into_iter().filter(|(path, bytes)| files.get(path).is_some_and(|now| now != bytes));
        let mut patient = Patient {
            stale: stale_pages(disk, &tree, &files),
            parts: files.iter().flat_map(|(path, bytes)| parts_in(path, bytes)).collect(),
            placed: Vec::new(),
            elders: elders.collect(),
            options,
            tree,
            files,
            content,
        };
        let batches = patient.content.batches();
        let mut placed: Vec<Placed> =
            batches.map(|(id, start, end, bytes)| patient.place(id, start, end, bytes)).collect();
        widen(&mut placed);
        patient.placed = placed;
        Ok(patient)
    }

    fn place(&self, id: PartitionId, start: u64, end: u64, batch: &Bytes) -> Placed {
        let places = |(path, bytes): (&PathBuf, &Vec<u8>)| {
            finds(bytes, batch).map(|at| (path.clone(), at..at + batch.len())).collect::<Vec<_>>()
        };
        Placed { id, start, end, copies: self.files.iter().flat_map(places).collect() }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// The segments that have an index file.
    fn is_indexed(&self, segment: &Path) -> bool {
        self.files.contains_key(&segment.with_extension("index"))
    }

    /// Which records may be lost where these bytes are not what they were: those that lie there, and those that can only
    /// be found by what lies there.
    #[must_use]
    pub fn harmed_by(&self, touched: &[Touched]) -> Harmed {
        let is_touched = |path: &Path, range: &Range<usize>| touched.iter().any(|touched| touched.is_in(path, range));
        let mut harmed = Harmed::default();
        for batch in &self.placed {
            let (mut unread, mut unsaved) = (true, true);
            for (path, range) in &batch.copies {
                let index_touched = touched.iter().any(|touched| touched.file == path.with_extension("index"));
                let indexed = self.is_indexed(path) && !index_touched;
                let gone = is_touched(path, range) || (!indexed && !self.is_found(path, range, &is_touched));
                unsaved &= gone;
                unread &= gone || index_touched;
            }
            if unread {
                harmed.unread.insert((batch.id, batch.start), batch.end);
            }
            if unsaved {
                harmed.unsaved.insert((batch.id, batch.start), batch.end);
            }
        }
        harmed.last_commit = self.last_commit().any(|part| is_touched(&part.file, &part.range));
        harmed
    }

    /// Whether what lies in a range is found without an index: its part is whole, and so is the record of its commit.
    fn is_found(&self, path: &Path, range: &Range<usize>, is_touched: &dyn Fn(&Path, &Range<usize>) -> bool) -> bool {
        let of_file = || self.parts.iter().filter(|part| part.file == path);
        let part = of_file().find(|part| part.range.start <= range.start && range.end <= part.range.end);
        part.is_some_and(|part| {
            let (epoch, sequence, _) = part.place;
            let mut records = of_file().filter(|other| other.place == (epoch, sequence, 0));
            !is_touched(path, &part.range) && records.any(|record| !is_touched(path, &record.range))
        })
    }

    /// The parts of the last commit, where its segment was not closed: nothing but they themselves says that there was such
    /// a commit, so that one that is damaged cannot be told from one that was never finished.
    fn last_commit(&self) -> impl Iterator<Item = &Part> {
        let segments = self.files.keys().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("segments")));
        let last = segments.filter(|path| path.extension().is_some_and(|suffix| suffix == "redb")).max();
        let last = last.filter(|path| !self.is_indexed(path));
        let of_last = move |part: &&Part| Some(&part.file) == last;
        let commit = self.parts.iter().filter(of_last).map(|part| (part.place.0, part.place.1)).max();
        self.parts.iter().filter(of_last).filter(move |part| Some((part.place.0, part.place.1)) == commit)
    }
}

/// Bytes of a file that are not what they were.
#[derive(Debug, Clone)]
pub struct Touched {
    /// The file.
    pub file: PathBuf,
    /// The bytes.
    pub range: Range<usize>,
}

impl Touched {
    fn is_in(&self, file: &Path, range: &Range<usize>) -> bool {
        self.file == file && self.range.start < range.end && range.start < self.range.end
    }
}

/// Batches by partition and first offset, with the offset behind them.
#[derive(Debug, Clone, Default)]
pub struct Harmed {
    /// Of which no copy is left that could be read.
    pub unread: BTreeMap<(PartitionId, u64), u64>,
    /// Of which no copy is left that could be saved.
    pub unsaved: BTreeMap<(PartitionId, u64), u64>,
    /// Whether the last commit may be taken for one that was never finished.
    pub last_commit: bool,
}

/// Batches of a partition that adjoin in a file share their checksum, and so their fate.
fn widen(placed: &mut [Placed]) {
    let mut runs: BTreeMap<(PathBuf, PartitionId), Vec<Range<usize>>> = BTreeMap::new();
    for Placed { id, copies, .. } in placed.iter() {
        for (path, range) in copies {
            runs.entry((path.clone(), *id)).or_default().push(range.clone());
        }
    }
    for ranges in runs.values_mut() {
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let adjoins = before.end == next.start;
            before.end = if adjoins { next.end } else { before.end };
            adjoins
        });
    }
    for Placed { id, copies, .. } in placed {
        for (path, range) in copies {
            let runs = &runs[&(path.clone(), *id)];
            let run = runs.iter().find(|run| run.start <= range.start && range.end <= run.end);
            range.clone_from(run.expect("every copy is in a run"));
        }
    }
}

/// Writes into the small store.
struct Author {
    store: Store,
    next: BTreeMap<u32, u64>,
    rng: Rng,
    number: u64,
}

impl Author {
    fn commit(&mut self, mut commit: Commit) -> Result<(), Violation> {
        self.number += 1;
        for (table, key) in StateTable::ALL.into_iter().zip(["a", "b", "c", "d", "e"]) {
            let key = format!("{key}{}", self.number % 3).into();
            let value = format!("{table:?} {}", self.number);
            commit.state.push(StateChange { table, key, value: Some(value.into()) });
        }
        self.store.commit(commit).map_err(broken).map(drop)
    }

    fn create(&mut self, partitions: u32) -> Result<(), Violation> {
        self.next = (0..partitions).map(|id| (id, 0)).collect();
        let create = |id| PartitionChange::Create { id: PartitionId(id), retention: Retention::FOREVER };
        self.commit(Commit { partitions: (0..partitions).map(create).collect(), ..Commit::default() })
    }

    /// A commit with batches of about these sizes.
    fn write(&mut self, batches: &[(u32, usize)]) -> Result<(), Violation> {
        let appends = batches.iter().map(|(id, bytes)| {
            let start = self.next[id];
            self.next.insert(*id, start + 2);
            append(PartitionId(*id), start, *bytes, self.number as i64, &mut self.rng)
        });
        let appends = appends.collect();
        self.commit(Commit { appends, ..Commit::default() })
    }

    /// A commit whose records were all dropped.
    fn gap(&mut self, id: u32) -> Result<(), Violation> {
        let start = self.next[&id];
        self.next.insert(id, start + 3);
        let (cover_start, cover_end) = (Offset(start), Offset(start + 3));
        let gap = Append { partition: PartitionId(id), cover_start, cover_end, batches: None, max_timestamp_ms: 0 };
        self.commit(Commit { appends: vec![gap], ..Commit::default() })
    }

    /// The sealer is a thread of its own.
    fn until_sealed(&self) {
        while self.store.stats().unsealed > 0 {
            schedule::sleep(Duration::from_millis(1));
        }
    }
}

fn simulated(
    seed: u64,
    make: impl FnOnce() -> Result<Patient, Violation> + Send + 'static,
) -> Result<Patient, Violation> {
    schedule::run(seed, make).unwrap_or_else(|stuck| Err(broken(stuck)))
}

fn broken(error: impl std::error::Error) -> Violation {
    Violation::new("damage", format!("before any damage: {error}"))
}

/// All files of a disk, with their bytes.
pub(super) fn files_of(tree: &Tree) -> BTreeMap<PathBuf, Vec<u8>> {
    let named =
        tree.dirs.iter().flat_map(|(dir, entries)| entries.iter().map(move |(name, node)| (dir.join(name), node)));
    let files = named.filter_map(|(path, node)| Some((path, tree.files.get(&node.file()?)?)));
    files.map(|(path, blocks)| (path, bytes_of(blocks))).collect()
}

fn bytes_of(blocks: &Blocks) -> Vec<u8> {
    let mut bytes = vec![0; blocks.len() as usize];
    blocks.read(0, &mut bytes);
    bytes
}

/// Where some bytes lie in a file.
fn finds<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = wanted[0];
    let candidates = bytes.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at);
    candidates.filter(move |at| bytes[*at..].starts_with(wanted))
}

fn parts_in(path: &Path, bytes: &[u8]) -> Vec<Part> {
    let part = |at: usize| {
        let header = bytes.get(at..at + PART_HEADER_BYTES)?;
        let number =
            |range: Range<usize>| header[range].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let range = at..at + PART_HEADER_BYTES + number(48..52) as usize;
        Some(Part { file: path.to_path_buf(), range, place: (number(16..24), number(8..16), number(4..6) as u16) })
    };
    finds(bytes, PART_MAGIC).filter_map(part).collect()
}

/// What pages of today's files had in them before, as the journal has it.
fn stale_pages(disk: &SimDisk, tree: &Tree, files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<(PathBuf, usize, Vec<u8>)> {
    let mut names: BTreeMap<FileId, PathBuf> = BTreeMap::new();
    for (dir, entries) in &tree.dirs {
        names.extend(entries.iter().filter_map(|(name, node)| match node {
            Node::File(file) => Some((*file, dir.join(name))),
            Node::Dir => None,
        }));
    }
    let mut versions: BTreeMap<(FileId, usize), Vec<Vec<u8>>> = BTreeMap::new();
    let mut blocks: BTreeMap<FileId, Blocks> = BTreeMap::new();
    let (_, journal) = disk.history();
    for op in &journal {
        match op {
            Op::Write { file, offset, data } if names.contains_key(file) => {
                let blocks = blocks.entry(*file).or_default();
                blocks.write(*offset, data);
                let pages = *offset as usize / PAGE_BYTES..(*offset as usize + data.len()).div_ceil(PAGE_BYTES);
                for page in pages {
                    let mut bytes = vec![0; PAGE_BYTES];
                    if blocks.read((page * PAGE_BYTES) as u64, &mut bytes) {
                        versions.entry((*file, page)).or_default().push(bytes);
                    }
                }
            }
            Op::SetLen { file, len } => blocks.entry(*file).or_default().set_len(*len),
            _ => {}
        }
    }
    let mut stale = Vec::new();
    for ((file, page), versions) in versions {
        let (path, at) = (&names[&file], page * PAGE_BYTES);
        let now = files[path].get(at..at + PAGE_BYTES);
        let older = versions.into_iter().rev().filter(|bytes| Some(&bytes[..]) != now);
        stale.extend(older.take(STALE_MAX).map(|bytes| (path.clone(), at, bytes)));
    }
    stale
}
