//! What is written: groups of record batches of one size, for the store and for a plain file.

use std::{fs::File, io::Write, path::Path, sync::mpsc, time::Instant};

use anyhow::Result;
use bytes::Bytes;
use protocol::{BatchBuilder, Compression, Offset, PartitionId, Record, Retention};
use storage::{Append, Commit, PartitionChange, Store, StoreOptions};

/// Commits that wait while one is written, so that the committer never idles.
const IN_FLIGHT: usize = 4;

/// Bytes of a record's value.
const VALUE_BYTES: usize = 100;

/// How a commit is made up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) partitions: u32,
    /// Of each partition, in each commit.
    pub(crate) batches: u32,
    /// Of one batch, at most; but one record is always in it.
    pub(crate) batch_bytes: usize,
}

impl Shape {
    /// Commits of about `group_bytes`, with one batch for each partition.
    pub(crate) fn split(group_bytes: usize, partitions: u32) -> Shape {
        Shape { partitions, batches: 1, batch_bytes: group_bytes / partitions as usize }
    }

    /// One record of 100 bytes for each partition.
    pub(crate) fn trickle(partitions: u32) -> Shape {
        Shape { partitions, batches: 1, batch_bytes: 0 }
    }
}

/// Makes commits whose offsets go on from one to the next.
pub(crate) struct Load {
    shape: Shape,
    template: Vec<u8>,
    records: u64,
    next: Vec<u64>,
}

impl Load {
    pub(crate) fn new(shape: Shape) -> Load {
        let mut builder = BatchBuilder::new(Compression::None);
        while builder.is_empty() || builder.section_bytes() + 61 + VALUE_BYTES + 10 <= shape.batch_bytes {
            let number = builder.record_count() as usize;
            let value: Vec<u8> = (0..VALUE_BYTES).map(|byte| (byte * 7 + number) as u8).collect();
            builder.append(&Record::unkeyed(value, 0)).expect("the batch is below its limits");
        }
        let records = u64::from(builder.record_count());
        let batch = builder.finish(Offset::ZERO).expect("the batch is below its limits");
        Load { shape, template: batch.bytes().to_vec(), records, next: vec![0; shape.partitions as usize] }
    }

    /// Opens a store whose transactions hold one commit of this load, and makes its partitions where they are missing.
    pub(crate) fn open(&mut self, dir: &Path, retention: Retention) -> Result<Store> {
        let options = StoreOptions { group_bytes_max: self.commit_bytes() as usize, ..StoreOptions::default() };
        let store = Store::open(dir, options)?;
        self.resume(&store, retention)?;
        Ok(store)
    }

    /// Makes the partitions that are missing, and goes on where those that are there end.
    pub(crate) fn resume(&mut self, store: &Store, retention: Retention) -> Result<()> {
        let mut partitions = Vec::new();
        for (id, next) in (0..).map(PartitionId).zip(&mut self.next) {
            match store.partition(id) {
                Some(place) => *next = place.high_watermark.0,
                None => partitions.push(PartitionChange::Create { id, retention }),
            }
        }
        if !partitions.is_empty() {
            store.commit(Commit { partitions, ..Commit::default() })?;
        }
        Ok(())
    }

    /// Bytes of record batches in one commit.
    pub(crate) fn commit_bytes(&self) -> u64 {
        self.template.len() as u64 * u64::from(self.shape.batches) * u64::from(self.shape.partitions)
    }

    /// Commits that hold so many bytes; at least one.
    pub(crate) fn commits_in(&self, bytes: u64) -> usize {
        bytes.div_ceil(self.commit_bytes()).max(1) as usize
    }

    pub(crate) fn commits(&mut self, count: usize) -> Vec<Commit> {
        (0..count).map(|_| self.commit()).collect()
    }

    pub(crate) fn commit(&mut self) -> Commit {
        let Shape { partitions, batches, .. } = self.shape;
        let appends = (0..partitions * batches).map(|number| self.append(number / batches));
        Commit { appends: appends.collect(), ..Commit::default() }
    }

    /// The next batch of one partition.
    pub(crate) fn append(&mut self, id: u32) -> Append {
        let next = &mut self.next[id as usize];
        let start = *next;
        *next += self.records;
        let mut batch = self.template.clone();
        batch[..8].copy_from_slice(&start.to_be_bytes());
        Append {
            partition: PartitionId(id),
            cover_start: Offset(start),
            cover_end: Offset(start + self.records),
            batches: Some(Bytes::from(batch)),
            max_timestamp_ms: 0,
        }
    }

    /// Commits so many bytes, made as they go.
    pub(crate) fn fill(&mut self, store: &Store, bytes: u64) -> Result<()> {
        let count = self.commits_in(bytes);
        commit_all(store, (0..count).map(|_| self.commit()))
    }
}

/// Commits one after the other, a few of them in flight; returns when all are durable.
pub(crate) fn commit_all(store: &Store, commits: impl IntoIterator<Item = Commit>) -> Result<()> {
    let (sender, answers) = mpsc::channel();
    let mut in_flight = 0;
    for commit in commits {
        if in_flight == IN_FLIGHT {
            answers.recv()??;
            in_flight -= 1;
        }
        let sender = sender.clone();
        store.submit(commit, Box::new(move |result| drop(sender.send(result))));
        in_flight += 1;
    }
    for _ in 0..in_flight {
        answers.recv()??;
    }
    Ok(())
}

/// The baseline: a plain file, appended to and synced.
pub(crate) struct RawFile {
    file: File,
}

impl RawFile {
    pub(crate) fn create(path: &Path) -> Result<RawFile> {
        Ok(RawFile { file: File::create_new(path)? })
    }

    /// Appends each group in one call, and syncs after each.
    pub(crate) fn append_all(&mut self, groups: &[Vec<u8>]) -> Result<()> {
        for group in groups {
            self.file.write_all(group)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// The bytes of some commits, as one group.
pub(crate) fn joined(commits: &[Commit]) -> Vec<u8> {
    let appends = commits.iter().flat_map(|commit| &commit.appends);
    appends.filter_map(|append| append.batches.as_deref()).flatten().copied().collect()
}

/// How long it takes.
pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// One pair of measurements, whose order changes with the turn; what each took.
pub(crate) fn pair(
    turn: usize,
    one: impl FnOnce() -> Result<()>,
    other: impl FnOnce() -> Result<()>,
) -> Result<(f64, f64)> {
    if turn.is_multiple_of(2) {
        let first = timed(one)?;
        Ok((first, timed(other)?))
    } else {
        let first = timed(other)?;
        Ok((timed(one)?, first))
    }
}
