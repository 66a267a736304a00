//! Puts the records that leave their batch (routed ones, dead letters) into batches of other partitions.
//!
//! Owns the choice of the partition: a keyed record goes to its key's partition, an unkeyed one to the source's number
//! modulo the target's count. Gives no offsets; the sequencer does.

use std::collections::BTreeMap;

use protocol::{
    BatchBuilder, Compression, Offset, PartitionId, Record, RecordBatch, TopicName, limits::ROUTED_BYTES_PER_BATCH_MAX,
    partition_for_key,
};

use crate::{ProduceError, directory::Directory, sequencer::RoutedBatches};

/// A batch is closed when its records take this much before compression: readers fetch batches whole.
const BATCH_BYTES: usize = 1 << 20;

/// Records on their way out of one batch.
pub(crate) struct Router<'a> {
    directory: &'a Directory,
    source_partition: u32,
    compression: Compression,
    topics: BTreeMap<TopicName, Vec<PartitionId>>,
    open: BTreeMap<PartitionId, Open>,
    /// What the sealed batches take.
    bytes: usize,
}

struct Open {
    builder: BatchBuilder,
    done: Vec<RecordBatch>,
}

impl<'a> Router<'a> {
    /// For a batch of this partition number and codec.
    pub(crate) fn new(directory: &'a Directory, source_partition: u32, compression: Compression) -> Router<'a> {
        Router { directory, source_partition, compression, topics: BTreeMap::new(), open: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a record to its partition of `target`.
    pub(crate) fn put(&mut self, target: &TopicName, record: &Record) -> Result<(), ProduceError> {
        let partition = self.partition(target, record.key.as_deref())?;
        let compression = self.compression;
        let open = self
            .open
            .entry(partition)
            .or_insert_with(|| Open { builder: BatchBuilder::new(compression), done: Vec::new() });
        let before = open.builder.section_bytes();
        if before > 0 && before + payload_bytes(record) > BATCH_BYTES {
            self.bytes += open.close(compression)?;
            check_bytes(self.bytes)?;
        }
        open.builder.append(record).map_err(ProduceError::Batch)
    }

    /// Everything that was put, by partition.
    pub(crate) fn finish(mut self) -> Result<Vec<RoutedBatches>, ProduceError> {
        let mut routed = Vec::with_capacity(self.open.len());
        for (target, mut open) in std::mem::take(&mut self.open) {
            self.bytes += open.close(self.compression)?;
            check_bytes(self.bytes)?;
            routed.push(RoutedBatches { target, batches: open.done });
        }
        Ok(routed)
    }

    fn partition(&mut self, target: &TopicName, key: Option<&[u8]>) -> Result<PartitionId, ProduceError> {
        if !self.topics.contains_key(target) {
            let partitions = self.directory.partition_ids(target).ok_or(ProduceError::TargetGone)?;
            self.topics.insert(target.clone(), partitions);
        }
        let partitions = &self.topics[target];
        let count = partitions.len() as u32;
        let number = key.map_or(self.source_partition % count, |key| partition_for_key(key, count));
        Ok(partitions[number as usize])
    }
}

impl Open {
    /// Seals the records put so far; returns the bytes they take.
    fn close(&mut self, compression: Compression) -> Result<usize, ProduceError> {
        let full = std::mem::replace(&mut self.builder, BatchBuilder::new(compression));
        let batch = full.finish(Offset::ZERO).map_err(ProduceError::Batch)?;
        let bytes = batch.bytes().len();
        self.done.push(batch);
        Ok(bytes)
    }
}

fn check_bytes(bytes: usize) -> Result<(), ProduceError> {
    match bytes > ROUTED_BYTES_PER_BATCH_MAX {
        true => Err(ProduceError::RoutedTooLarge { bytes }),
        false => Ok(()),
    }
}

fn payload_bytes(record: &Record) -> usize {
    let part = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.name.len() + part(&header.value)).sum();
    part(&record.key) + part(&record.value) + headers
}
