//! One commit while it is made: what may be asked of a store that looks like this.
//!
//! Owns what a broker would have to say: records of the version that its topic has, sequences and answers of producers in
//! the commit of their batch, rows of topics in the commit that makes or changes their partitions.
//!
//! Start at [`Draft::on`].

use bytes::{Bytes, BytesMut};
use protocol::{
    BatchBuilder, BatchProducer, CleanupPolicy, Compression, Epoch, Offset, PartitionId, ProducerId, Record,
    RecordBatch, Retention, Sequence,
};
use storage::{Append, Commit, PartitionChange, StateChange, StateTable};

use crate::{
    model::{Batch, Model, Written},
    records::{self, KEYS, version_of},
    rng::Rng,
    rows::{ProducerRow, TopicRow},
};

/// A record is at most this large.
const RECORD_BYTES_MAX: usize = 400_000;

/// Producers of a partition.
const PRODUCERS: u64 = 2;

/// A commit, and the batches in it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The commit.
    pub commit: Commit,
    /// Its batches.
    pub written: Vec<Written>,
    /// The store as the commit leaves it.
    after: Model,
    number: u64,
}

impl Draft {
    /// An empty commit.
    #[must_use]
    pub fn on(model: &Model, number: u64) -> Draft {
        Draft { commit: Commit::default(), written: Vec::new(), after: model.clone(), number }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commit.appends.is_empty() && self.commit.partitions.is_empty() && self.commit.state.is_empty()
    }

    /// Some topic.
    #[must_use]
    pub fn topic(&self, rng: &mut Rng) -> Option<(u8, TopicRow)> {
        let topics: Vec<_> = self.after.topics().collect();
        (!topics.is_empty()).then(|| topics[rng.below(topics.len())].clone())
    }

    /// Makes a topic, with partitions of new ids.
    pub fn create(&mut self, rng: &mut Rng) {
        let taken: Vec<u8> = self.after.topics().map(|(name, _)| name).collect();
        let Some(name) = (0..8).find(|name| !taken.contains(name)) else { return };
        let retention = retention(rng);
        let mut topic = TopicRow { version: 1, partitions: Vec::new() };
        for _ in 0..rng.pick(&[1, 1, 2, 5]) {
            let id = PartitionId(self.after.next_id + u32::from(rng.percent(10)));
            self.change(PartitionChange::Create { id, retention });
            topic.partitions.push((id, 0));
        }
        self.set(TopicRow::change(name, Some(&topic)));
    }

    /// Deletes a topic, with the answers to its producers.
    pub fn delete(&mut self, name: u8, topic: &TopicRow) {
        for (id, _) in &topic.partitions {
            let keys: Vec<Bytes> = self
                .after
                .state
                .keys()
                .filter(|(table, key)| *table == StateTable::Producers && key.starts_with(&id.0.to_be_bytes()))
                .map(|(_, key)| key.clone())
                .collect();
            for key in keys {
                self.set(StateChange { table: StateTable::Producers, key, value: None });
            }
            self.change(PartitionChange::Delete { id: *id });
        }
        self.set(TopicRow::change(name, None));
    }

    /// Puts a new version of a topic's pipeline in force, here and now.
    pub fn deploy(&mut self, name: u8, topic: &TopicRow) {
        let begins_at = |id: &PartitionId| self.after.partitions[id].next_offset;
        let partitions = topic.partitions.iter().map(|(id, _)| (*id, begins_at(id))).collect();
        self.set(TopicRow::change(name, Some(&TopicRow { version: topic.version + 1, partitions })));
    }

    /// Another retention, or log start, of a partition.
    pub fn change_partition(&mut self, rng: &mut Rng) {
        let Some(id) = self.partition(rng) else { return };
        let end = self.after.partitions[&id].next_offset;
        self.change(match rng.below(3) {
            0 => PartitionChange::SetRetention { id, retention: retention(rng) },
            _ => PartitionChange::SetLogStart { id, offset: Offset(rng.within(0..=end)) },
        });
    }

    /// Everything in a topic's partitions goes.
    pub fn trim(&mut self, topic: &TopicRow) {
        for (id, _) in &topic.partitions {
            let offset = Offset(self.after.partitions[id].next_offset);
            self.change(PartitionChange::SetLogStart { id: *id, offset });
        }
    }

    /// A row of some table.
    pub fn row(&mut self, rng: &mut Rng) {
        let table = rng.pick(&[StateTable::GroupOffsets, StateTable::Positions, StateTable::PluginState]);
        let key = format!("key {}", rng.below(12)).into();
        let bytes = rng.pick(&[1, 10, 100, 1_000]);
        self.set(StateChange { table, key, value: rng.percent(80).then(|| rng.bytes(bytes).into()) });
    }

    /// Records of some topic: kept, dropped or multiplied. `bytes` are taken from what is left for a run.
    pub fn produce(&mut self, bytes: usize, rng: &mut Rng) {
        let Some((name, topic)) = self.topic(rng) else { return };
        let (id, _) = topic.partitions[rng.below(topic.partitions.len())];
        let start = self.after.partitions[&id].next_offset;
        let fate = rng.below(20);
        if fate < 3 {
            // Every record was dropped.
            return self.append(id, start + rng.within(1..=4), Vec::new());
        }
        // A record that was multiplied becomes a batch more.
        let batches = if fate < 6 { rng.within(2..=3) } else { 1 };
        let producer = (batches == 1 && rng.percent(60)).then(|| self.producer(id, rng));
        let mut content =
            Content { id, version: topic.version, keyed: name % 2 == 0, timestamp_ms: self.number as i64, producer };
        let mut made = Vec::new();
        let mut at = start;
        for _ in 0..batches {
            let batch = content.batch(at, bytes / batches as usize, rng);
            at = batch.next_offset().0;
            made.push(batch);
            content.producer = None;
        }
        // The last records may have been dropped, too.
        self.append(id, at + rng.within(0..=2) * u64::from(rng.percent(30)), made);
    }

    /// A batch that was sent before, again; `false` where another version of its pipeline would make another one of it.
    pub fn produce_again(&mut self, written: &Written) -> bool {
        let is_its = |topic: &TopicRow| topic.partitions.iter().any(|(id, _)| *id == written.partition);
        let Some((_, topic)) = self.after.topics().find(|(_, topic)| is_its(topic)) else { return false };
        if version_of(&written.batch.bytes) != Some(topic.version) {
            return false;
        }
        let log = &self.after.partitions[&written.partition];
        let batch = RecordBatch::decode(written.batch.bytes.clone()).expect("it was made here");
        let batch = batch.with_base_offset(Offset(log.next_offset));
        self.append(written.partition, batch.next_offset().0, vec![batch]);
        true
    }

    fn producer(&self, id: PartitionId, rng: &mut Rng) -> (u64, ProducerRow) {
        let producer = rng.within(1..=PRODUCERS);
        let last = self.after.answers(id, producer).max_by_key(|row| row.number);
        let none = ProducerRow { number: 0, sequence: 0, count: 0, base_offset: 0 };
        let next =
            last.map_or(none, |row| ProducerRow { number: row.number + 1, sequence: row.next_sequence(), ..none });
        (producer, next)
    }

    fn partition(&self, rng: &mut Rng) -> Option<PartitionId> {
        let ids: Vec<PartitionId> = self.after.partitions.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[rng.below(ids.len())])
    }

    fn change(&mut self, change: PartitionChange) {
        let commit = Commit { partitions: vec![change], ..Commit::default() };
        self.after.apply(&commit, &[]);
        self.commit.partitions.push(change);
    }

    fn set(&mut self, change: StateChange) {
        let commit = Commit { state: vec![change.clone()], ..Commit::default() };
        self.after.apply(&commit, &[]);
        self.commit.state.push(change);
    }

    /// Appends, with the answers of the producers.
    fn append(&mut self, id: PartitionId, cover_end: u64, batches: Vec<RecordBatch>) {
        let cover_start = Offset(self.after.partitions[&id].next_offset);
        let mut bytes = BytesMut::new();
        for batch in &batches {
            bytes.extend_from_slice(batch.bytes());
            self.answer(id, batch);
        }
        let append = Append {
            partition: id,
            cover_start,
            cover_end: Offset(cover_end),
            batches: (!bytes.is_empty()).then(|| bytes.freeze()),
            max_timestamp_ms: batches.iter().map(|batch| batch.header().max_timestamp).max().unwrap_or(0),
        };
        let written: Vec<Written> =
            batches.into_iter().map(|batch| Written { partition: id, batch: as_written(batch) }).collect();
        self.after.apply(&Commit { appends: vec![append.clone()], ..Commit::default() }, &written);
        self.commit.appends.push(append);
        self.written.extend(written);
    }

    fn answer(&mut self, id: PartitionId, batch: &RecordBatch) {
        let Some(BatchProducer { id: producer, base_sequence, .. }) = batch.header().producer() else { return };
        let last = self.after.answers(id, producer.0).map(|row| row.number).max();
        let row = ProducerRow {
            number: last.map_or(0, |number| number + 1),
            sequence: base_sequence.0,
            count: batch.header().record_count,
            base_offset: batch.header().base_offset.0,
        };
        self.set(row.change(id, producer.0));
    }
}

fn as_written(batch: RecordBatch) -> Batch {
    let (start, end) = (batch.header().base_offset.0, batch.next_offset().0);
    let producer = batch.header().producer().map(|producer| producer.id.0);
    Batch { start, end, producer, bytes: batch.into_bytes() }
}

/// What a batch is made of.
struct Content {
    id: PartitionId,
    version: u32,
    keyed: bool,
    timestamp_ms: i64,
    producer: Option<(u64, ProducerRow)>,
}

impl Content {
    fn batch(&self, base: u64, bytes: usize, rng: &mut Rng) -> RecordBatch {
        let count = rng.within(1..=4) as usize;
        let mut builder = BatchBuilder::new(rng.pick(&[Compression::None, Compression::None, Compression::Lz4]));
        for _ in 0..count {
            builder.append(&self.record((bytes / count).min(RECORD_BYTES_MAX), rng)).expect("a record below the limit");
        }
        if let Some((producer, row)) = self.producer {
            let base_sequence = Sequence(row.sequence);
            builder.producer(BatchProducer { id: ProducerId(producer), epoch: Epoch(0), base_sequence });
        } else if rng.percent(20) {
            // Its last record was dropped.
            builder.cover(builder.next_offset_delta());
        }
        builder.finish(Offset(base)).expect("a batch below the limit")
    }

    fn record(&self, bytes: usize, rng: &mut Rng) -> Record {
        let key = (self.keyed && self.id.0.is_multiple_of(2) || rng.percent(20)).then(|| records::key(rng.below(KEYS)));
        let value = (key.is_none() || rng.percent(85)).then(|| records::value(self.version, bytes, rng));
        Record { key, value, headers: Vec::new(), timestamp: self.timestamp_ms }
    }
}

fn retention(rng: &mut Rng) -> Retention {
    let policy = rng.pick(&[CleanupPolicy::Delete, CleanupPolicy::Compact, CleanupPolicy::CompactAndDelete]);
    let delete_retention_ms = rng.pick(&[0, 0, 40]);
    let forever = Retention { policy, delete_retention_ms, ..Retention::FOREVER };
    match rng.below(5) {
        0 => Retention { age_ms: Some(rng.within(0..=60)), ..forever },
        1 => Retention { bytes: Some(rng.pick(&[0, 1_000, 100_000])), ..forever },
        _ => forever,
    }
}
