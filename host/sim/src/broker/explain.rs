//! Whether a pipeline makes of a batch what was found of it.
//!
//! Owns the comparison, record by record: the own partition at the offsets of the answer, routed records and dead letters
//! in their topics, the books. What retention or a deletion took is excused, and nothing else.
//!
//! Start at [`explain`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use protocol::{PartitionId, ProduceAnswer, Record, TopicName, TransformSpec, partition_for_key};

use super::{
    guests::{Letter, Outputs, TRAPPED, run_pipeline},
    ledger::{BatchFacts, BatchId, Fate, PartitionFacts},
};
use crate::invariants::Violation;

/// A record that was found, and comes from a batch.
#[derive(Debug)]
pub(super) struct Occurrence<'a> {
    partition: PartitionId,
    facts: &'a PartitionFacts,
    offset: u64,
    /// Index in the batch of the record it comes from.
    source: u32,
    record: &'a Record,
}

impl fmt::Display for Occurrence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.record.value.as_deref().unwrap_or_default();
        let value = String::from_utf8_lossy(&value[..value.len().min(16)]);
        write!(f, "record {} ({value}) at offset {} of {}", self.source, self.offset, self.facts.place)
    }
}

/// Every record that was shown, by batch; those of a batch by partition and offset.
#[derive(Debug)]
pub(super) struct Found<'a>(BTreeMap<BatchId, Vec<Occurrence<'a>>>);

impl<'a> Found<'a> {
    /// Sorts out which record comes from which batch.
    ///
    /// # Errors
    /// When one comes from none.
    pub(super) fn index(
        partitions: &'a BTreeMap<PartitionId, PartitionFacts>,
        is_known: impl Fn(&BatchId) -> bool,
    ) -> Result<Found<'a>, Violation> {
        let mut found: BTreeMap<BatchId, Vec<Occurrence<'a>>> = BTreeMap::new();
        for (partition, facts) in partitions {
            for (offset, record) in &facts.seen {
                let Some((id, source)) = origin(record).filter(|(id, _)| is_known(id)) else {
                    let what = format!("offset {offset} of {} is from no batch: {record:?}", facts.place);
                    return Err(Violation::new("nothing is made up", what));
                };
                let occurrence = Occurrence { partition: *partition, facts, offset: *offset, source, record };
                found.entry(id).or_default().push(occurrence);
            }
        }
        Ok(Found(found))
    }

    /// What there is of a batch.
    pub(super) fn of(&self, id: BatchId) -> &[Occurrence<'a>] {
        self.0.get(&id).map_or(&[], Vec::as_slice)
    }
}

/// A record's value: the bytes for the guests, then whose it is, then something.
pub(super) fn value(marks: [u8; 4], id: BatchId, source: u32, filling: &[u8]) -> Bytes {
    let mut value = marks.to_vec();
    value.extend_from_slice(format!("{}.{source}:", id.0).as_bytes());
    value.extend_from_slice(filling);
    value.into()
}

fn origin(record: &Record) -> Option<(BatchId, u32)> {
    let value = record.value.as_deref()?.get(4..)?;
    let end = value.iter().position(|byte| *byte == b':')?;
    let (batch, source) = str::from_utf8(&value[..end]).ok()?.split_once('.')?;
    Some((BatchId(batch.parse().ok()?), source.parse().ok()?))
}

/// What a pipeline made of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explained {
    /// Where its own records are, if that is known.
    pub(super) place: Option<(PartitionId, u64)>,
    /// Records that went to other topics.
    pub(super) routed: usize,
    /// Records on which a guest trapped.
    pub(super) trapped: usize,
}

/// Whether `specs` make of a batch exactly what is there of it.
///
/// # Errors
/// The first difference.
pub(super) fn explain(
    facts: &BatchFacts,
    specs: &[TransformSpec],
    there: &[Occurrence<'_>],
    partitions: &BTreeMap<PartitionId, PartitionFacts>,
) -> Result<Explained, String> {
    let Ok(outputs) = run_pipeline(specs, &facts.made.records) else {
        return Err("it pauses".to_owned());
    };
    let made = &facts.made;
    let letters_topic = format!("{}.dlq", made.place.topic);
    let place = match &facts.fate {
        Fate::Acked(partition, answer) => {
            answers(answer, &outputs)?;
            Some((*partition, answer.base_offset.0))
        }
        _ => infer(facts, &outputs, there, &letters_topic),
    };
    let mut rest: Vec<&Occurrence<'_>> = there.iter().collect();
    let mut own = take(&mut rest, |occurrence| occurrence.facts.place == made.place);
    // A topic that was made anew does not know what its predecessor held.
    own.retain(|occurrence| !occurrence.facts.is_deleted || place.is_some_and(|(id, _)| id == occurrence.partition));
    own_is(facts, &outputs, place, &own, partitions)?;
    let targets: BTreeSet<&TopicName> = specs.iter().flat_map(|spec| &spec.targets).collect();
    for target in targets {
        let expected = outputs.routed.iter().filter(|(to, ..)| to == target);
        let expected: Vec<(u32, Record)> = expected
            .map(|(_, source, value)| {
                let record = &made.records[*source as usize];
                (*source, Record { value: Some(value.clone()), ..record.clone() })
            })
            .collect();
        let found = take(&mut rest, |occurrence| occurrence.facts.place.topic == *target);
        elsewhere(target.as_str(), made.place.partition, &expected, &found, partitions, |found| found.clone())?;
    }
    let expected: Vec<(u32, Record)> =
        outputs.letters.iter().map(|letter| (letter.source, made.records[letter.source as usize].clone())).collect();
    let found = take(&mut rest, |occurrence| occurrence.facts.place.topic.as_str() == letters_topic);
    elsewhere(&letters_topic, made.place.partition, &expected, &found, partitions, |found| Record {
        headers: Vec::new(),
        ..found.clone()
    })?;
    for occurrence in &found {
        let letter = outputs.letters.iter().find(|letter| letter.source == occurrence.source);
        says_why(occurrence, letter.ok_or("a dead letter that is none")?, facts, place.map(|(_, base)| base), specs)?;
    }
    let trapped = outputs.letters.iter().filter(|letter| letter.code == TRAPPED).count();
    match rest.first() {
        None => Ok(Explained { place, routed: outputs.routed.len(), trapped }),
        Some(occurrence) => Err(format!("{occurrence} has no business there")),
    }
}

fn take<'o, 'a>(rest: &mut Vec<&'o Occurrence<'a>>, is: impl Fn(&Occurrence<'a>) -> bool) -> Vec<&'o Occurrence<'a>> {
    let (taken, left) = rest.drain(..).partition(|occurrence| is(occurrence));
    *rest = left;
    taken
}

fn answers(answer: &ProduceAnswer, outputs: &Outputs) -> Result<(), String> {
    let span = answer.next_offset.0 - answer.base_offset.0;
    if span != outputs.span {
        return Err(format!("it covers {span} offsets, not {}", outputs.span));
    }
    if answer.books != outputs.books {
        return Err(format!("its books are {:?}, not {:?}", answer.books, outputs.books));
    }
    let rejects: Vec<(u32, u16)> = answer.rejects.iter().map(|reject| (reject.index, reject.code)).collect();
    if rejects != outputs.rejects {
        return Err(format!("its rejects are {rejects:?}, not {:?}", outputs.rejects));
    }
    Ok(())
}

/// Where a batch without an answer is, by what is there of it.
fn infer(
    facts: &BatchFacts,
    outputs: &Outputs,
    there: &[Occurrence<'_>],
    letters_topic: &str,
) -> Option<(PartitionId, u64)> {
    let is_own =
        |occurrence: &&Occurrence<'_>| occurrence.facts.place == facts.made.place && !occurrence.facts.is_deleted;
    if let Some(first) = there.iter().find(is_own) {
        let own = outputs.own.iter().find(|own| own.source == first.source)?;
        return Some((first.partition, first.offset.checked_sub(own.delta.into())?));
    }
    let letter = there.iter().find(|occurrence| occurrence.facts.place.topic.as_str() == letters_topic)?;
    let offset: u64 = header(letter.record, "offset")?.parse().ok()?;
    let partition = *facts.offered.first()?;
    Some((partition, offset.checked_sub(letter.source.into())?))
}

/// The own partition has these records at these offsets, and no others where the batch is.
fn own_is(
    facts: &BatchFacts,
    outputs: &Outputs,
    place: Option<(PartitionId, u64)>,
    found: &[&Occurrence<'_>],
    partitions: &BTreeMap<PartitionId, PartitionFacts>,
) -> Result<(), String> {
    let Some((id, base)) = place else {
        return match (found.first(), outputs.own.is_empty()) {
            (Some(occurrence), _) => Err(format!("{occurrence} should not be there")),
            (None, true) => Ok(()),
            (None, false) if facts.offered.iter().any(|id| partitions[id].is_trimmed()) => Ok(()),
            (None, false) => Err("none of its own records is there".to_owned()),
        };
    };
    let partition = partitions.get(&id).ok_or("its partition was never seen")?;
    let expected: BTreeMap<u64, Record> = outputs
        .own
        .iter()
        .map(|own| {
            let record = &facts.made.records[own.source as usize];
            (base + u64::from(own.delta), Record { value: Some(own.value.clone()), ..record.clone() })
        })
        .collect();
    for (offset, record) in &expected {
        match partition.seen.get(offset) {
            Some(seen) if seen == record => {}
            Some(seen) => return Err(format!("offset {offset} is {seen:?}, not {record:?}")),
            None if partition.may_lack(*offset) => {}
            None => return Err(format!("offset {offset} is missing")),
        }
    }
    let stray = found.iter().find(|found| found.partition != id || !expected.contains_key(&found.offset));
    if let Some(stray) = stray {
        return Err(format!("{stray} is there as well"));
    }
    let foreign = partition.seen.range(base..base + outputs.span).find(|(offset, _)| !expected.contains_key(offset));
    match foreign {
        None => Ok(()),
        Some((offset, record)) => Err(format!("offset {offset} is within it, and is {record:?}")),
    }
}

/// Another topic has these records, in order, side by side, in the partitions where they belong.
fn elsewhere(
    topic: &str,
    source_partition: u32,
    expected: &[(u32, Record)],
    found: &[&Occurrence<'_>],
    partitions: &BTreeMap<PartitionId, PartitionFacts>,
    as_produced: impl Fn(&Record) -> Record,
) -> Result<(), String> {
    let of_topic: Vec<&PartitionFacts> =
        partitions.values().filter(|facts| facts.place.topic.as_str() == topic).collect();
    let is_trimmed = of_topic.is_empty() || of_topic.iter().any(|facts| facts.is_trimmed());
    let mut open: Vec<Option<&(u32, Record)>> = expected.iter().map(Some).collect();
    for occurrence in found {
        let record = as_produced(occurrence.record);
        let slot = open
            .iter_mut()
            .find(|slot| slot.is_some_and(|(source, expected)| *source == occurrence.source && *expected == record));
        slot.ok_or_else(|| format!("{occurrence} is not among its outputs, or there too often"))?.take();
        let count = of_topic.len() as u32;
        let number = |count| match &record.key {
            Some(key) => partition_for_key(key, count),
            None => source_partition % count,
        };
        if !(1..=count).any(|count| number(count) == occurrence.facts.place.partition) {
            return Err(format!("{occurrence} belongs into another partition"));
        }
    }
    if let Some((source, _)) = open.iter().flatten().next()
        && !is_trimmed
    {
        return Err(format!("record {source} is not in {topic}"));
    }
    let mut by_partition: BTreeMap<PartitionId, Vec<&Occurrence<'_>>> = BTreeMap::new();
    found.iter().for_each(|occurrence| by_partition.entry(occurrence.partition).or_default().push(occurrence));
    for run in by_partition.values() {
        let in_order =
            |pair: &[&Occurrence<'_>]| pair[0].source <= pair[1].source && pair[0].offset + 1 == pair[1].offset;
        if !run.windows(2).all(in_order) {
            return Err(format!("its records in {topic} are out of order, or apart"));
        }
    }
    Ok(())
}

fn header(record: &Record, name: &str) -> Option<String> {
    let name = format!("weir.dlq.{name}");
    let found = record.headers.iter().find(|header| header.name == name.as_bytes())?;
    String::from_utf8(found.value.as_ref()?.to_vec()).ok()
}

fn says_why(
    occurrence: &Occurrence<'_>,
    letter: &Letter,
    facts: &BatchFacts,
    base: Option<u64>,
    specs: &[TransformSpec],
) -> Result<(), String> {
    let spec = specs.iter().find(|spec| spec.name == letter.transform);
    let mut expected = vec![
        ("transform", letter.transform.to_string()),
        ("topic", facts.made.place.topic.to_string()),
        ("partition", facts.made.place.partition.to_string()),
        ("code", letter.code.to_string()),
    ];
    expected.extend(spec.map(|spec| ("plugin", spec.plugin_hash.to_string())));
    expected.extend(base.map(|base| ("offset", (base + u64::from(letter.source)).to_string())));
    for (name, value) in expected {
        let found = header(occurrence.record, name);
        if found.as_ref() != Some(&value) {
            return Err(format!("{occurrence} says `{name}` is {found:?}, not {value}"));
        }
    }
    Ok(())
}
