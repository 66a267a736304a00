//! Compaction by key, the part without I/O: which record of each key is the newest, and a run without the others.
//!
//! Owns the two passes of a cleaning as values. First the newest offset of each key is noted ([`note_keys`]), then
//! every run is written anew without what is superseded ([`compact_run`]). The caller reads and writes, and says how far
//! the partition was cleaned before.
//!
//! Invariants
//! - The newest record of a key stays, unless it is a tombstone that has served its time.
//! - Kept records keep their offsets; batches keep theirs, and vanish when they end empty.
//! - What is not understood stays: records without a key, control batches, batches that cannot be read.
//! - A tombstone goes only after what it deletes: in a later cleaning than the one in which its elders went.
//!
//! ```text
//!            clean_until                noted until
//!   ─────────────┼──────────────────────────┼────────────►  offsets of a partition
//!   one record   │ keys noted in the map;   │ not looked at: kept
//!   a key        │ any number of a key      │
//! ```
//!
//! Start at [`compact_run`].

use std::hash::Hasher;

use bytes::{Bytes, BytesMut};
use protocol::{BatchError, PartitionId, RecordBatch, RecordView, Retained, limits::DECOMPRESSED_BYTES_MAX, records};

use crate::batches::{self, BatchSpan};

/// Newest offset of each key, in memory of a fixed size.
///
/// Keys are told apart by 128 bits of hash, as in Kafka's cleaner: a key of 16 bytes and one of a kilobyte take the
/// same room, which is all there is. Two keys of one hash would be one key here, and the older record would be lost, so
/// the hash is SipHash under keys that nobody outside of the process knows: a producer that chooses its keys cannot find
/// two that collide, as it could with a plain hash (Kafka's is MD5), and by chance it takes 2^64 keys. Two independent
/// 64-bit halves make the 128 bits.
///
/// Linear probing in one table that is never fuller than [`KeyMap::LOAD`], so that a search ends soon.
pub(crate) struct KeyMap {
    /// Keys of the two halves of the hash.
    seeds: [u64; 4],
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    /// [`EMPTY`] in a slot that nobody has.
    offset: u64,
}

/// No record has this offset: those of a partition end before 2^63.
const EMPTY: u64 = u64::MAX;

impl KeyMap {
    /// Of ten slots, how many may be taken.
    const LOAD: usize = 8;

    /// An empty map that takes `budget_bytes` at most, all of them now. `seeds` are random and new for each map.
    pub(crate) fn new(budget_bytes: usize, seeds: [u64; 4]) -> KeyMap {
        let slots = budget_bytes / size_of::<Slot>();
        KeyMap { seeds, slots: vec![Slot { hash: [0; 2], offset: EMPTY }; slots], len: 0 }
    }

    /// How many keys fit.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len() / 10 * Self::LOAD + self.slots.len() % 10 * Self::LOAD / 10
    }

    /// How many keys are noted.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Notes that a key has a record at this offset. `false` when the key is new and the map is full: then nothing
    /// changed.
    #[must_use]
    pub(crate) fn note(&mut self, partition: PartitionId, key: &[u8], offset: u64) -> bool {
        debug_assert_ne!(offset, EMPTY);
        let hash = self.hash(partition, key);
        let is_full = self.len >= self.capacity();
        let Some(at) = self.find(hash) else { return false };
        let slot = &mut self.slots[at];
        if slot.offset != EMPTY {
            slot.offset = slot.offset.max(offset);
        } else if is_full {
            return false;
        } else {
            *slot = Slot { hash, offset };
            self.len += 1;
        }
        true
    }

    /// The newest offset noted of a key.
    pub(crate) fn newest(&self, partition: PartitionId, key: &[u8]) -> Option<u64> {
        let slot = self.slots[self.find(self.hash(partition, key))?];
        (slot.offset != EMPTY).then_some(slot.offset)
    }

    /// The slot that has this hash, or would take it; `None` in a map without slots.
    fn find(&self, hash: [u64; 2]) -> Option<usize> {
        // The high half of the product spreads evenly over any number of slots.
        let start = ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize;
        let (before, from) = self.slots.split_at(start);
        let place = from.iter().chain(before).position(|slot| slot.offset == EMPTY || slot.hash == hash)?;
        Some((start + place) % self.slots.len())
    }

    fn hash(&self, partition: PartitionId, key: &[u8]) -> [u64; 2] {
        let [a, b, c, d] = self.seeds;
        [(a, b), (c, d)].map(|(k0, k1)| {
            let mut hasher = keyed_hasher(k0, k1);
            // Four bytes always, then the key to its end: no two pairs give the same bytes.
            hasher.write(&partition.0.to_be_bytes());
            hasher.write(key);
            hasher.finish()
        })
    }
}

#[expect(deprecated, reason = "std's one hash that takes keys; what is to replace it takes none")]
fn keyed_hasher(k0: u64, k1: u64) -> impl Hasher {
    std::hash::SipHasher::new_with_keys(k0, k1)
}

/// How far the keys of a run were noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoteOutcome {
    /// All of them.
    All,
    /// Those of all records before this offset; there the map was full.
    FullAt(u64),
}

/// Notes the newest offset of each key of a run, of records from offset `from` on. Call it with the runs of a partition
/// in order, from where it was cleaned before, until the map is full.
///
/// Batches that cannot be read are passed over: they stay as they are, so nothing is lost by it.
///
/// # Errors
/// When the run is not made of whole batches.
pub(crate) fn note_keys(
    map: &mut KeyMap,
    partition: PartitionId,
    run: &Bytes,
    from: u64,
) -> Result<NoteOutcome, &'static str> {
    for span in batches::walk(run) {
        let span = span?;
        if span.next_offset <= from {
            continue;
        }
        let Some(batch) = readable(run, &span) else { continue };
        let Ok(section) = batch.records_section(DECOMPRESSED_BYTES_MAX) else { continue };
        // Half of a batch must not be noted: a key in it would be held against records that stay.
        if batch.validate_records(&section, usize::MAX).is_err() {
            continue;
        }
        for record in records(&section).map_while(Result::ok) {
            let offset = span.base_offset + u64::from(record.offset_delta);
            let is_noted = offset < from || record.key.is_none_or(|key| map.note(partition, key, offset));
            if !is_noted {
                return Ok(NoteOutcome::FullAt(offset));
            }
        }
    }
    Ok(NoteOutcome::All)
}

/// When a record may go that is the newest of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompactRule {
    /// Tombstones whose timestamp is before this have been readable for long enough.
    pub(crate) tombstones_before_ms: i64,
}

/// A run without what is superseded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompactedRun {
    /// What is left: whole batches, ascending; empty when nothing is. The run itself when nothing went.
    pub(crate) bytes: Bytes,
    /// Largest timestamp of what is left; `i64::MIN` when nothing is.
    pub(crate) max_timestamp_ms: i64,
    /// Records that went.
    pub(crate) records_removed: u64,
    /// Bytes of the run.
    pub(crate) bytes_before: u64,
    /// Offset of the first batch that kept what is superseded, because it would be too large without it: its codec had
    /// pressed it better than ours does. The partition is clean up to there at most, or else a tombstone could go
    /// before what it deletes.
    pub(crate) stuck_at: Option<u64>,
}

/// Writes a run anew without the records that the map knows a newer one of, and without tombstones that have served
/// their time.
///
/// A tombstone goes when nothing newer of its key is known, it lies below `clean_until` (up to there, an earlier cleaning
/// has removed, durably, what the tombstones delete), and `rule` lets it. The map must know every key from
/// `clean_until` to where its noting ended.
///
/// # Errors
/// When the run is not made of whole batches.
pub(crate) fn compact_run(
    run: &Bytes,
    partition: PartitionId,
    map: &KeyMap,
    clean_until: u64,
    rule: CompactRule,
) -> Result<CompactedRun, &'static str> {
    let cleaning = Cleaning { partition, map, clean_until, rule };
    let mut out = Output::new(run);
    for span in batches::walk(run) {
        let span = span?;
        let Some(batch) = readable(run, &span) else {
            out.keep(&span);
            continue;
        };
        match batch.retain(|_, record| cleaning.keeps(&batch, record), DECOMPRESSED_BYTES_MAX) {
            Ok(Retained::Whole) => out.keep(&span),
            Err(BatchError::TooLarge { .. }) => out.keep_stuck(&span),
            // Readers cannot read it either, so it costs room and nothing else.
            Err(_) => out.keep(&span),
            Ok(Retained::Part(left)) => out.replace(&span, &batch, Some(&left)),
            Ok(Retained::Nothing) => out.replace(&span, &batch, None),
        }
    }
    Ok(out.finish())
}

/// A sound batch of records; control batches are the broker's, and their keys are no keys.
fn readable(run: &Bytes, span: &BatchSpan) -> Option<RecordBatch> {
    let batch = RecordBatch::decode(run.slice(span.start..span.end)).ok()?;
    (!batch.header().attributes.is_control()).then_some(batch)
}

struct Cleaning<'a> {
    partition: PartitionId,
    map: &'a KeyMap,
    clean_until: u64,
    rule: CompactRule,
}

impl Cleaning<'_> {
    fn keeps(&self, batch: &RecordBatch, record: &RecordView<'_>) -> bool {
        let Some(key) = record.key else { return true };
        let offset = batch.header().base_offset.0 + u64::from(record.offset_delta);
        if self.map.newest(self.partition, key).is_some_and(|newest| newest > offset) {
            return false;
        }
        let is_tombstone = record.value.is_none();
        // Where the broker's time of arrival counts, this is the batch's.
        let timestamp_ms = batch.header().timestamp(record.timestamp_delta);
        let has_served = offset < self.clean_until && timestamp_ms < self.rule.tombstones_before_ms;
        !(is_tombstone && has_served)
    }
}

/// A run as it is written anew: nothing is copied until something goes.
struct Output<'a> {
    run: &'a Bytes,
    written: BytesMut,
    /// Bytes of the run that are in `written`, or have gone.
    done: usize,
    max_timestamp_ms: i64,
    records_removed: u64,
    stuck_at: Option<u64>,
}

impl<'a> Output<'a> {
    fn new(run: &'a Bytes) -> Output<'a> {
        Output {
            run,
            written: BytesMut::new(),
            done: 0,
            max_timestamp_ms: i64::MIN,
            records_removed: 0,
            stuck_at: None,
        }
    }

    fn keep(&mut self, span: &BatchSpan) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(span.max_timestamp_ms);
    }

    fn keep_stuck(&mut self, span: &BatchSpan) {
        self.keep(span);
        self.stuck_at.get_or_insert(span.base_offset);
    }

    fn replace(&mut self, span: &BatchSpan, batch: &RecordBatch, with: Option<&RecordBatch>) {
        self.copy_until(span.start);
        self.done = span.end;
        self.records_removed += u64::from(batch.header().record_count);
        if let Some(left) = with {
            self.written.extend_from_slice(left.bytes());
            self.max_timestamp_ms = self.max_timestamp_ms.max(left.header().max_timestamp);
            self.records_removed -= u64::from(left.header().record_count);
        }
    }

    fn copy_until(&mut self, end: usize) {
        self.written.extend_from_slice(&self.run[self.done..end]);
    }

    fn finish(mut self) -> CompactedRun {
        let bytes_before = self.run.len() as u64;
        let bytes = if self.done == 0 {
            self.run.clone()
        } else {
            self.copy_until(self.run.len());
            self.written.freeze()
        };
        let Output { max_timestamp_ms, records_removed, stuck_at, .. } = self;
        CompactedRun { bytes, max_timestamp_ms, records_removed, bytes_before, stuck_at }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::{
        collection::vec,
        prelude::*,
        sample::select,
        test_runner::{Config, RngSeed},
    };
    use protocol::{BatchBuilder, Compression, Offset};

    use super::*;

    const P: PartitionId = PartitionId(3);
    const SEEDS: [u64; 4] = [1, 2, 3, 4];
    const ALL_TOMBSTONES: CompactRule = CompactRule { tombstones_before_ms: i64::MAX };

    /// The same cases on every run.
    fn cases(cases: u32) -> Config {
        Config { cases, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Data,
        /// Timestamps are the batch's.
        LogAppendTime,
        /// Stays as it is, and says nothing of keys.
        Control,
        Damaged,
    }

    /// A record to write: gap before it, key, value, timestamp.
    type Sent = (u32, Option<u8>, Option<u8>, i64);

    #[derive(Debug, Clone)]
    struct Batch {
        kind: Kind,
        codec: Compression,
        sent: Vec<Sent>,
    }

    fn batch(kinds: &[Kind], codecs: &[Compression]) -> impl Strategy<Value = Batch> + use<> {
        let sent = (0..3u32, prop::option::weighted(0.9, 0..8u8), prop::option::weighted(0.7, any::<u8>()), 0..100i64);
        (select(kinds.to_vec()), select(codecs.to_vec()), vec(sent, 1..12)).prop_map(|(kind, codec, sent)| Batch {
            kind,
            codec,
            sent,
        })
    }

    /// For tests of many rounds, so with codecs that are quick.
    fn data() -> impl Strategy<Value = Batch> {
        batch(&[Kind::Data, Kind::LogAppendTime], &[Compression::None, Compression::Snappy])
    }

    fn any_batch() -> impl Strategy<Value = Batch> {
        batch(
            &[Kind::Data, Kind::Data, Kind::Data, Kind::LogAppendTime, Kind::Control, Kind::Damaged],
            Compression::ALL,
        )
    }

    fn encode(base: u64, batch: &Batch) -> RecordBatch {
        let mut builder = BatchBuilder::new(batch.codec);
        for &(gap, key, value, timestamp) in &batch.sent {
            let delta = builder.next_offset_delta() + gap;
            let (key, value) = (key.map(|key| [key; 5]), value.map(|value| [value; 40]));
            let (key, value) = (key.as_ref().map(|key| &key[..]), value.as_ref().map(|value| &value[..]));
            builder.append_parts(delta, timestamp, key, value, std::iter::empty()).unwrap();
        }
        let mut bytes = builder.finish(Offset(base)).unwrap().into_bytes().to_vec();
        match batch.kind {
            Kind::Data | Kind::Damaged => {}
            Kind::LogAppendTime => bytes[22] |= 1 << 3,
            Kind::Control => bytes[22] |= 1 << 5,
        }
        RecordBatch::decode(with_length_and_crc(bytes).into()).unwrap()
    }

    fn with_length_and_crc(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len() as u32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Batches one after the other, with a gap before each.
    fn encode_all(batches: &[Batch]) -> Vec<RecordBatch> {
        let mut next = 0;
        let encode = |batch: &Batch| {
            let encoded = encode(next + 2, batch);
            next = encoded.next_offset().0;
            encoded
        };
        batches.iter().map(encode).collect()
    }

    fn run_of<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Bytes {
        batches.into_iter().flat_map(|batch| batch.bytes().to_vec()).collect::<Vec<u8>>().into()
    }

    fn split(mut run: Bytes) -> Vec<RecordBatch> {
        std::iter::from_fn(|| RecordBatch::split_first(&mut run).unwrap()).collect()
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Found {
        offset: u64,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        timestamp_ms: i64,
    }

    fn read(batch: &RecordBatch) -> Vec<Found> {
        let section = batch.records_section(1 << 20).unwrap();
        batch.validate_records(&section, 1 << 20).unwrap();
        let found = |record: RecordView<'_>| Found {
            offset: batch.header().base_offset.0 + u64::from(record.offset_delta),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp_ms: batch.header().timestamp(record.timestamp_delta),
        };
        records(&section).map(|record| found(record.unwrap())).collect()
    }

    /// What a reader who follows from the beginning ends up with.
    fn table(runs: &[Bytes]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut table = BTreeMap::new();
        for record in runs.iter().cloned().flat_map(split).flat_map(|batch| read(&batch)) {
            let Some(key) = record.key else { continue };
            match record.value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
        table
    }

    proptest! {
        #![proptest_config(cases(200))]

        #[test]
        fn a_run_keeps_what_a_plain_map_says(
            batches in vec(any_batch(), 1..12),
            clean_until in 0..80u64,
            tombstones_before_ms in 0..100i64,
        ) {
            let encoded = encode_all(&batches);
            let mut newest = BTreeMap::new();
            let (mut expected, mut removed, mut bytes) = (Vec::new(), 0, Vec::new());
            for (batch, encoded) in batches.iter().zip(&encoded) {
                bytes.extend_from_slice(encoded.bytes());
                match batch.kind {
                    Kind::Data | Kind::LogAppendTime => {
                        newest.extend(read(encoded).into_iter().filter_map(|found| Some((found.key?, found.offset))));
                    }
                    Kind::Control => {}
                    Kind::Damaged => *bytes.last_mut().unwrap() ^= 1,
                }
            }
            let keeps = |found: &Found| {
                let Some(key) = &found.key else { return true };
                let served = found.offset < clean_until && found.timestamp_ms < tombstones_before_ms;
                newest[key] == found.offset && !(found.value.is_none() && served)
            };
            for (batch, encoded) in batches.iter().zip(&encoded) {
                let found = read(encoded);
                let touchable = matches!(batch.kind, Kind::Data | Kind::LogAppendTime);
                let kept: Vec<Found> = found.iter().filter(|found| !touchable || keeps(found)).cloned().collect();
                removed += (found.len() - kept.len()) as u64;
                if !kept.is_empty() {
                    expected.push((batch, encoded, found.len() == kept.len(), kept));
                }
            }

            let run = Bytes::from(bytes);
            let mut map = KeyMap::new(1 << 10, SEEDS);
            prop_assert_eq!(note_keys(&mut map, P, &run, 0), Ok(NoteOutcome::All));
            prop_assert_eq!(map.len(), newest.len());
            let rule = CompactRule { tombstones_before_ms };
            let compacted = compact_run(&run, P, &map, clean_until, rule).unwrap();
            prop_assert_eq!((compacted.records_removed, compacted.bytes_before), (removed, run.len() as u64));
            prop_assert_eq!(compacted.stuck_at, None);

            let spans: Vec<BatchSpan> = batches::walk(&compacted.bytes).map(Result::unwrap).collect();
            prop_assert_eq!(spans.len(), expected.len());
            let newest_ms = spans.iter().map(|span| span.max_timestamp_ms).max().unwrap_or(i64::MIN);
            prop_assert_eq!(compacted.max_timestamp_ms, newest_ms);
            for (span, (batch, original, is_whole, kept)) in spans.iter().zip(&expected) {
                let left = compacted.bytes.slice(span.start..span.end);
                let place = (span.base_offset, span.next_offset);
                prop_assert_eq!(place, (original.header().base_offset.0, original.next_offset().0));
                if batch.kind == Kind::Damaged {
                    prop_assert_eq!(&left[..left.len() - 1], &original.bytes()[..left.len() - 1]);
                } else if *is_whole {
                    prop_assert_eq!(&left, original.bytes());
                } else {
                    prop_assert_eq!(&read(&RecordBatch::decode(left).unwrap()), kept);
                }
            }

            let again = compact_run(&compacted.bytes, P, &map, clean_until, rule).unwrap();
            prop_assert_eq!((&again.bytes, again.records_removed), (&compacted.bytes, 0));
        }

        #[test]
        fn cleaning_round_after_round_changes_nothing_for_a_reader_of_the_latest(
            batches in vec(data(), 1..15),
            per_run in 1..4usize,
            map_bytes in 48..260usize,
        ) {
            let encoded = encode_all(&batches);
            let end = encoded.last().unwrap().next_offset().0;
            let mut runs: Vec<Bytes> = encoded.chunks(per_run).map(run_of).collect();
            let before = table(&runs);
            let mut clean_until = 0;
            // The last round finds everything clean, so that the tombstones of the one before may go.
            for is_last in [false, true] {
                while clean_until < end || is_last {
                    let mut map = KeyMap::new(map_bytes, SEEDS);
                    let mut outcomes = runs.iter().map(|run| note_keys(&mut map, P, run, clean_until).unwrap());
                    let noted_until = match outcomes.find(|outcome| *outcome != NoteOutcome::All) {
                        Some(NoteOutcome::FullAt(offset)) => offset,
                        _ => end,
                    };
                    prop_assert!(noted_until > clean_until || is_last, "each round gets on");
                    for run in &mut runs {
                        *run = compact_run(run, P, &map, clean_until, ALL_TOMBSTONES).unwrap().bytes;
                    }
                    prop_assert_eq!(&table(&runs), &before);
                    clean_until = noted_until;
                    if is_last {
                        break;
                    }
                }
            }
            let left: Vec<Found> = runs.iter().cloned().flat_map(split).flat_map(|batch| read(&batch)).collect();
            let keyed: Vec<&Found> = left.iter().filter(|found| found.key.is_some()).collect();
            prop_assert_eq!(keyed.len(), before.len(), "one record for each key that has a value");
            prop_assert!(keyed.iter().all(|found| found.value.is_some()));
        }

        #[test]
        fn the_map_knows_what_a_plain_one_knows_and_says_when_it_is_full(
            noted in vec((0..3u32, 0..60u16, 0..1_000u64), 0..200),
            budget_bytes in 0..1_500usize,
        ) {
            let mut map = KeyMap::new(budget_bytes, SEEDS);
            prop_assert!(map.slots.len() * size_of::<Slot>() <= budget_bytes);
            prop_assert!(map.capacity() * 10 <= map.slots.len() * KeyMap::LOAD);
            let mut plain = HashMap::new();
            for (partition, key, offset) in noted {
                let fits = plain.contains_key(&(partition, key)) || plain.len() < map.capacity();
                prop_assert_eq!(map.note(PartitionId(partition), &key.to_be_bytes(), offset), fits);
                if fits {
                    let newest = plain.entry((partition, key)).or_insert(offset);
                    *newest = offset.max(*newest);
                }
            }
            prop_assert_eq!(map.len(), plain.len());
            for (partition, key) in (0..3).flat_map(|partition| (0..60u16).map(move |key| (partition, key))) {
                let found = map.newest(PartitionId(partition), &key.to_be_bytes());
                prop_assert_eq!(found, plain.get(&(partition, key)).copied());
            }
        }
    }

    #[test]
    fn a_run_in_which_nothing_goes_is_not_copied() {
        let batches = [Batch { kind: Kind::Data, codec: Compression::Zstd, sent: vec![(0, Some(1), Some(1), 5)] }];
        let run = run_of(&encode_all(&batches));
        let compacted = compact_run(&run, P, &KeyMap::new(1 << 10, SEEDS), 0, ALL_TOMBSTONES).unwrap();
        assert_eq!((compacted.bytes.as_ptr(), compacted.max_timestamp_ms), (run.as_ptr(), 5));
    }

    #[test]
    fn a_tombstone_stays_for_one_cleaning_and_as_long_as_the_rule_says() {
        let sent = vec![(0, Some(1), Some(1), 10), (0, Some(1), None, 20)];
        let run = run_of(&encode_all(&[Batch { kind: Kind::Data, codec: Compression::Lz4, sent }]));
        let mut map = KeyMap::new(1 << 10, SEEDS);
        note_keys(&mut map, P, &run, 0).unwrap();
        let left = |clean_until, tombstones_before_ms| {
            let rule = CompactRule { tombstones_before_ms };
            split(compact_run(&run, P, &map, clean_until, rule).unwrap().bytes).iter().flat_map(read).count()
        };
        // Its offset is 3, behind the value's, and the value goes in any case.
        assert_eq!((left(3, 21), left(4, 20), left(4, 21)), (1, 1, 0));
    }

    /// A bare snappy block that copies from `period` bytes before wherever it can: farther than our encoder looks.
    fn snappy_from_afar(section: &[u8], period: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut length = section.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        let mut at = 0;
        while at < section.len() {
            let same = |ahead: &usize| at >= period && section.get(at + ahead) == Some(&section[at + ahead - period]);
            let copied = (0..64).take_while(same).count();
            if copied > 0 {
                out.push((copied as u8 - 1) << 2 | 3);
                out.extend((period as u32).to_le_bytes());
            } else {
                out.extend([0, section[at]]);
            }
            at += copied.max(1);
        }
        out
    }

    #[test]
    fn a_batch_that_would_be_too_large_without_a_record_stays_and_says_so() {
        // Noise that comes back after 100 KB: 4.5 MB of it are too much for a batch, unless a codec looks that far back.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        let value: Vec<u8> = (0..100_000).map(|_| noise()).collect();
        let mut builder = BatchBuilder::new(Compression::Zstd);
        for delta in 0..45 {
            let key = [delta.max(1) as u8];
            builder.append_parts(delta, 5, Some(&key), Some(&value), std::iter::empty()).unwrap();
        }
        let pressed = builder.finish(Offset(7)).unwrap();
        let section = pressed.records_section(DECOMPRESSED_BYTES_MAX).unwrap();
        let mut bytes = pressed.bytes()[..61].to_vec();
        bytes.extend(snappy_from_afar(&section, section.len() / 45));
        bytes[22] = Compression::Snappy.number() as u8;
        let run: Bytes = with_length_and_crc(bytes).into();

        let mut map = KeyMap::new(1 << 12, SEEDS);
        assert_eq!(note_keys(&mut map, P, &run, 0), Ok(NoteOutcome::All));
        assert_eq!(map.len(), 44, "the first record is superseded by the second one");
        let compacted = compact_run(&run, P, &map, 0, ALL_TOMBSTONES).unwrap();
        assert_eq!((compacted.bytes.as_ptr(), compacted.records_removed), (run.as_ptr(), 0));
        assert_eq!((compacted.stuck_at, compacted.max_timestamp_ms), (Some(7), 5));
    }

    #[test]
    fn other_seeds_give_other_hashes() {
        let hash = |seeds| KeyMap::new(0, seeds).hash(P, b"key");
        let (first, half) = (hash(SEEDS), hash([1, 2, 3, 5]));
        assert_eq!(first[0], half[0]);
        assert_ne!(first[1], half[1]);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_run_that_is_cut_off_is_an_error() {
        let batches = [Batch { kind: Kind::Data, codec: Compression::None, sent: vec![(0, Some(1), Some(1), 5)] }];
        let run = run_of(&encode_all(&batches));
        let cut = run.slice(..run.len() - 1);
        let mut map = KeyMap::new(1 << 10, SEEDS);
        assert!(note_keys(&mut map, P, &cut, 0).is_err());
        assert!(compact_run(&cut, P, &map, 0, ALL_TOMBSTONES).is_err());
    }
}
