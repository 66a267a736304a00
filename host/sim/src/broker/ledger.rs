//! The oracle: what was asked, answered and shown, and what must follow from it.
//!
//! Owns the promises. A value without I/O: clients tell it what happened, in order, and it says when a promise is broken;
//! what needs the whole history is said by [`Ledger::close`].
//!
//! Invariants
//! - A batch that has no answer may be stored once, or not at all; one that was refused for good is not.
//! - What a reader was shown is part of the log for ever: every reader, in every life of the broker, sees the same there.
//!
//! Start at [`Ledger::shown`] and [`Ledger::close`].

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Offset, PartitionId, ProduceAnswer, Record, RecordBatch, TopicName, TopicPartition, TransformSpec, records,
};

use super::{
    explain::{self, Explained, Found},
    ranges::Ranges,
};
use crate::invariants::Violation;

/// A point in the order of events.
pub(super) type Moment = u64;

/// Which batch: the number its records carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BatchId(pub(super) u64);

/// A batch as a client made it.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Who makes it, if the batches of that one keep their order in a partition.
    pub(super) order: Option<usize>,
    pub(super) place: TopicPartition,
    pub(super) records: Vec<Record>,
}

/// What is known of a batch.
#[derive(Debug)]
pub(super) struct BatchFacts {
    pub(super) made: Made,
    /// Where it was offered to the broker.
    pub(super) offered: BTreeSet<PartitionId>,
    first_offered: Moment,
    settled: Option<Moment>,
    pub(super) fate: Fate,
}

/// How a batch was answered in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not at all.
    Unknown,
    Acked(PartitionId, ProduceAnswer),
    /// It is not stored and never will be.
    Refused,
}

/// A pipeline, and when batches may have gone through it.
#[derive(Debug, Clone)]
struct Spell {
    specs: Vec<TransformSpec>,
    from: Moment,
    until: Option<Moment>,
}

/// What is known of a partition.
#[derive(Debug)]
pub(super) struct PartitionFacts {
    pub(super) place: TopicPartition,
    /// Every record that anybody was shown.
    pub(super) seen: BTreeMap<u64, Record>,
    /// Offsets that anybody was shown, records or gaps.
    pub(super) covered: Ranges,
    /// What a reader saw at least, once.
    log_start: u64,
    high_watermark: u64,
    /// It was deleted, or may have been.
    pub(super) is_deleted: bool,
}

impl PartitionFacts {
    /// Whether readers may have missed what was there.
    pub(super) fn may_lack(&self, offset: u64) -> bool {
        self.is_deleted || offset < self.log_start
    }

    /// Whether records may be missing without anybody's fault.
    pub(super) fn is_trimmed(&self) -> bool {
        self.is_deleted || self.log_start > 0
    }
}

/// What a fetch showed.
pub(super) struct ShownRun<'a> {
    pub(super) from: Offset,
    pub(super) next_offset: Offset,
    pub(super) high_watermark: Offset,
    pub(super) batches: &'a [RecordBatch],
}

/// What was known of a partition when an observation began, below which it must not fall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    log_start: u64,
    high_watermark: u64,
}

impl Floor {
    pub(super) fn high_watermark(self) -> u64 {
        self.high_watermark
    }
}

/// What the whole history held.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Closing {
    /// Records that were routed.
    pub(super) routed: usize,
    /// Records on which a guest trapped.
    pub(super) trapped: usize,
    /// Batches that may have gone through one pipeline or another.
    pub(super) in_doubt: usize,
    /// Batches without an answer.
    pub(super) unanswered: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    moment: Moment,
    pub(super) batches: BTreeMap<BatchId, BatchFacts>,
    pub(super) partitions: BTreeMap<PartitionId, PartitionFacts>,
    spells: BTreeMap<TopicName, Vec<Spell>>,
}

fn broken(promise: &'static str, what: impl Into<String>) -> Violation {
    Violation::new(promise, what)
}

impl Ledger {
    fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// A partition exists.
    pub(super) fn partition_is(&mut self, id: PartitionId, place: &TopicPartition) -> Result<(), Violation> {
        let facts = self.partitions.entry(id).or_insert_with(|| PartitionFacts {
            place: place.clone(),
            seen: BTreeMap::new(),
            covered: Ranges::default(),
            log_start: 0,
            high_watermark: 0,
            is_deleted: false,
        });
        if facts.place != *place {
            return Err(broken("catalog", format!("partition {id} of {} became {place}'s", facts.place)));
        }
        Ok(())
    }

    /// A topic's partitions are deleted, or may be.
    pub(super) fn may_be_deleted(&mut self, topic: &TopicName) {
        let of_topic = self.partitions.values_mut().filter(|facts| facts.place.topic == *topic);
        of_topic.for_each(|facts| facts.is_deleted = true);
    }

    /// A partition is there, and was not deleted.
    pub(super) fn exists(&mut self, id: PartitionId, place: &TopicPartition) -> Result<(), Violation> {
        self.partition_is(id, place)?;
        self.partitions.entry(id).and_modify(|facts| facts.is_deleted = false);
        Ok(())
    }

    /// From now on batches of a topic may go through this pipeline, besides those that they may go through already.
    pub(super) fn pipeline_may_be(&mut self, topic: &TopicName, specs: Vec<TransformSpec>) {
        let from = self.tick();
        self.spells.entry(topic.clone()).or_default().push(Spell { specs, from, until: None });
    }

    /// From now on batches that begin go through this pipeline and no other.
    pub(super) fn pipeline_is(&mut self, topic: &TopicName, specs: Vec<TransformSpec>) {
        let now = self.tick();
        let spells = self.spells.entry(topic.clone()).or_default();
        let mut is_open = false;
        for spell in spells.iter_mut().filter(|spell| spell.until.is_none()) {
            if spell.specs == specs && !is_open {
                is_open = true;
            } else {
                spell.until = Some(now);
            }
        }
        if !is_open {
            spells.push(Spell { specs, from: now, until: None });
        }
    }

    /// A client made a batch.
    pub(super) fn made(&mut self, id: BatchId, made: Made) {
        let first_offered = self.tick();
        let facts = BatchFacts { made, offered: BTreeSet::new(), first_offered, settled: None, fate: Fate::Unknown };
        self.batches.insert(id, facts);
    }

    /// A batch is handed to the broker this moment.
    pub(super) fn offered(&mut self, id: BatchId, partition: PartitionId) {
        let now = self.tick();
        let facts = self.batches.get_mut(&id).expect("it was made");
        if facts.offered.is_empty() {
            facts.first_offered = now;
        }
        facts.offered.insert(partition);
    }

    /// A batch was acknowledged.
    pub(super) fn acked(
        &mut self,
        id: BatchId,
        partition: PartitionId,
        answer: &ProduceAnswer,
    ) -> Result<(), Violation> {
        let now = self.tick();
        if !answer.books.balance() {
            return Err(broken("books", format!("the books of batch {} do not balance: {:?}", id.0, answer.books)));
        }
        let end = answer.next_offset.0;
        if let Some(facts) = self.partitions.get_mut(&partition) {
            facts.high_watermark = facts.high_watermark.max(end);
        }
        let facts = self.batches.get_mut(&id).expect("it was made");
        let fate = Fate::Acked(partition, answer.clone());
        match &facts.fate {
            Fate::Unknown => {
                facts.settled = Some(now);
                facts.fate = fate;
                Ok(())
            }
            before if *before == fate => Ok(()),
            before => {
                Err(broken("answered alike", format!("batch {} was answered {before:?}, and then {fate:?}", id.0)))
            }
        }
    }

    /// A batch was refused for good.
    pub(super) fn refused(&mut self, id: BatchId) {
        let now = self.tick();
        let facts = self.batches.get_mut(&id).expect("it was made");
        if facts.fate == Fate::Unknown {
            facts.settled = Some(now);
            facts.fate = Fate::Refused;
        }
    }

    /// What is known of a partition, before it is looked at.
    pub(super) fn floor(&self, id: PartitionId) -> Floor {
        let facts = self.partitions.get(&id);
        Floor {
            log_start: facts.map_or(0, |facts| facts.log_start),
            high_watermark: facts.map_or(0, |facts| facts.high_watermark),
        }
    }

    /// A reader saw where a partition stands.
    pub(super) fn stands(
        &mut self,
        id: PartitionId,
        floor: Floor,
        log_start: Offset,
        high_watermark: Offset,
    ) -> Result<(), Violation> {
        if log_start.0 < floor.log_start {
            let what = format!("log start of partition {id} fell from {} to {}", floor.log_start, log_start.0);
            return Err(broken("watermarks", what));
        }
        if log_start > high_watermark {
            let what = format!("partition {id} begins at {} and ends at {}", log_start.0, high_watermark.0);
            return Err(broken("watermarks", what));
        }
        self.reaches(id, floor, high_watermark)?;
        let facts = self.partitions.get_mut(&id).expect("readers say which partition it is");
        facts.log_start = facts.log_start.max(log_start.0);
        Ok(())
    }

    /// A reader saw how far a partition reaches.
    fn reaches(&mut self, id: PartitionId, floor: Floor, high_watermark: Offset) -> Result<(), Violation> {
        if high_watermark.0 < floor.high_watermark {
            let what =
                format!("high watermark of partition {id} fell from {} to {}", floor.high_watermark, high_watermark.0);
            return Err(broken("watermarks", what));
        }
        let facts = self.partitions.get_mut(&id).expect("readers say which partition it is");
        facts.high_watermark = facts.high_watermark.max(high_watermark.0);
        Ok(())
    }

    /// A fetch showed something.
    pub(super) fn shown(&mut self, id: PartitionId, floor: Floor, run: &ShownRun<'_>) -> Result<(), Violation> {
        let ShownRun { from, next_offset, high_watermark, batches } = *run;
        self.reaches(id, floor, high_watermark)?;
        if next_offset > high_watermark || next_offset < from {
            let what = format!(
                "a fetch of partition {id} from {} led to {}, and the high watermark is {}",
                from.0, next_offset.0, high_watermark.0
            );
            return Err(broken("watermarks", what));
        }
        let mut fresh = BTreeMap::new();
        let mut begin = from.0;
        for batch in batches {
            let header = batch.header();
            begin = begin.min(header.base_offset.0);
            let section = batch.records_section(usize::MAX >> 1).map_err(|error| unreadable(id, &error))?;
            for view in records(&section) {
                let view = view.map_err(|error| unreadable(id, &error))?;
                let offset = header.base_offset.plus(view.offset_delta.into()).0;
                if offset >= next_offset.0 {
                    let what = format!("partition {id} showed offset {offset}, behind what it said it did");
                    return Err(broken("watermarks", what));
                }
                if fresh.insert(offset, view.to_record(header)).is_some() {
                    return Err(broken("shown stays", format!("partition {id} showed offset {offset} twice")));
                }
            }
        }
        let facts = self.partitions.get_mut(&id).expect("readers say which partition it is");
        for known in facts.covered.within(begin, next_offset.0) {
            let (before, now) = (facts.seen.range(known.clone()), fresh.range(known.clone()));
            if !before.eq(now) {
                let what = format!(
                    "partition {id} was {} in {known:?}, and is {} now",
                    told(facts.seen.range(known.clone())),
                    told(fresh.range(known.clone()))
                );
                return Err(broken("shown stays", what));
            }
        }
        facts.covered.add(begin, next_offset.0);
        facts.seen.extend(fresh);
        Ok(())
    }

    /// Compares everything that was promised with everything that was shown.
    pub(super) fn close(&self) -> Result<Closing, Violation> {
        let mut closing = Closing::default();
        let found = Found::index(&self.partitions, |id| self.batches.contains_key(id))?;
        let mut places: BTreeMap<PartitionId, Vec<(u64, u64, BatchId)>> = BTreeMap::new();
        let mut orders: BTreeMap<(PartitionId, usize), Vec<(BatchId, u64)>> = BTreeMap::new();
        for (id, facts) in &self.batches {
            let Some(explained) = self.explain(*id, facts, &found)? else { continue };
            closing.routed += explained.routed;
            closing.trapped += explained.trapped;
            closing.in_doubt += usize::from(self.pipelines(facts).len() > 1);
            if let Some((partition, base_offset)) = explained.place {
                if let Fate::Acked(_, answer) = &facts.fate {
                    places.entry(partition).or_default().push((base_offset, answer.next_offset.0, *id));
                }
                if let Some(producer) = facts.made.order {
                    orders.entry((partition, producer)).or_default().push((*id, base_offset));
                }
            }
        }
        for (partition, mut places) in places {
            places.sort_unstable();
            if let Some(pair) = places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
                return Err(broken("offsets", format!("batches of partition {partition} overlap: {pair:?}")));
            }
        }
        for ((partition, producer), mut order) in orders {
            order.sort_unstable();
            if let Some(pair) = order.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
                let what = format!("batches of producer {producer} in partition {partition} changed places: {pair:?}");
                return Err(broken("order", what));
            }
        }
        closing.unanswered = self.batches.values().filter(|facts| facts.fate == Fate::Unknown).count();
        Ok(closing)
    }

    /// Finds a pipeline that explains what there is of a batch, if there is anything, or an answer.
    fn explain(&self, id: BatchId, facts: &BatchFacts, found: &Found<'_>) -> Result<Option<Explained>, Violation> {
        let there = found.of(id);
        if facts.fate == Fate::Refused && !facts.offered.iter().any(|id| self.partitions[id].is_deleted) {
            return match there.first() {
                None => Ok(None),
                Some(record) => {
                    Err(broken("refused is not stored", format!("batch {} was refused, and {record} is there", id.0)))
                }
            };
        }
        if there.is_empty() && !matches!(facts.fate, Fate::Acked(..)) {
            return Ok(None);
        }
        let pipelines = self.pipelines(facts);
        let mut why = Vec::new();
        for specs in &pipelines {
            match explain::explain(facts, specs, there, &self.partitions) {
                Ok(explained) => return Ok(Some(explained)),
                Err(reason) => why.push(reason),
            }
        }
        let what = format!(
            "batch {} to {} ({:?}) is not what any of {} pipelines makes of it: {}; there is {}",
            id.0,
            facts.made.place,
            facts.fate,
            pipelines.len(),
            why.join("; "),
            there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        Err(broken("stored once and whole", what))
    }

    /// The pipelines that a batch may have gone through.
    fn pipelines(&self, facts: &BatchFacts) -> Vec<&[TransformSpec]> {
        let until = facts.settled.unwrap_or(Moment::MAX);
        let spells = self.spells.get(&facts.made.place.topic).into_iter().flatten();
        let in_force = spells.filter(|spell| {
            spell.from <= until && spell.until.is_none_or(|spell_until| spell_until >= facts.first_offered)
        });
        let mut pipelines: Vec<&[TransformSpec]> = Vec::new();
        for spell in in_force {
            if !pipelines.contains(&&spell.specs[..]) {
                pipelines.push(&spell.specs);
            }
        }
        pipelines
    }
}

fn unreadable(id: PartitionId, error: &protocol::BatchError) -> Violation {
    broken("shown stays", format!("partition {id} showed a batch that cannot be read: {error}"))
}

/// Some records, for people.
fn told<'a>(records: impl Iterator<Item = (&'a u64, &'a Record)>) -> String {
    let told = |(offset, record): (&u64, &Record)| {
        let value = record.value.as_deref().unwrap_or_default();
        format!("{offset}:{}", String::from_utf8_lossy(&value[..value.len().min(24)]))
    };
    let all: Vec<String> = records.take(12).map(told).collect();
    if all.is_empty() { "empty".to_owned() } else { all.join(" ") }
}
