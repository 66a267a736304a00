//! What a batch comes to in the end: the own topic's batch, what goes elsewhere, and the books.
//!
//! Owns the rule that every input is accounted for once: a source that failed at any stage takes all its outputs with
//! it, routed ones included; of the others, those with an output are kept and the rest were dropped.

use abi::HostCode;
use protocol::{
    BatchError, BatchHeader, Books, Compression, HEADER_BYTES, Offset, OnError, PluginHash, Record, RecordBatch,
    RecordError, TopicName, TransformName, TransformSpec, encode_in_place, encode_section, limits::BATCH_BYTES_MAX,
    records,
};

use crate::{
    frame::{Frame, Marks, Sources},
    reframe::{Failure, RoutedRecord},
};

/// What a pipeline makes of a batch.
#[derive(Debug, Clone)]
pub struct PipelineOutput {
    /// For the own topic, base offset set; producer fields and codec are the input's. `None` when nothing is left.
    pub own: Option<RecordBatch>,
    /// Offsets the batch covers: one per input, or per own output where there are more.
    pub span: u64,
    /// For other topics, by source.
    pub routed: Vec<Routed>,
    /// For the dead letter topic, by source.
    pub dead_letters: Vec<DeadLetter>,
    /// For the producer, by index.
    pub rejects: Vec<RecordError>,
    /// What became of the inputs. `stored` counts own and routed records.
    pub books: Books,
}

/// A record for another topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The topic.
    pub target: TopicName,
    /// Index in the batch of the record it comes from.
    pub source: u32,
    /// The record.
    pub record: Record,
}

/// A record that a transform failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its index in the batch; its offset is the base offset plus this.
    pub source: u32,
    /// The transform.
    pub transform: TransformName,
    /// Its plugin.
    pub plugin: PluginHash,
    /// The plugin's own code, or one of `abi::HostCode`.
    pub code: u16,
    /// Why.
    pub text: String,
    /// The functions the guest was in when it trapped.
    pub backtrace: Option<String>,
    /// The record as it was produced.
    pub record: Record,
}

/// A transform with `on_error = pause` failed on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) source: u32,
    pub(crate) code: u16,
    pub(crate) text: String,
}

/// The books of one batch while it goes through the stages.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    record_count: u32,
    failed: Marks,
    /// By the transform's policy: dead letters and rejects, each with its source.
    dead: Vec<(u32, &'a TransformSpec, Failure)>,
    rejects: Vec<RecordError>,
    routed: Vec<Routed>,
}

impl<'a> Ledger<'a> {
    /// Nothing has happened yet.
    pub(crate) fn new(record_count: u32) -> Ledger<'a> {
        let failed = Marks::new(record_count);
        Ledger { record_count, failed, dead: Vec::new(), rejects: Vec::new(), routed: Vec::new() }
    }

    /// Enters a stage's failures. `true` when there were any.
    pub(crate) fn fail(
        &mut self,
        spec: &'a TransformSpec,
        failures: Vec<Failure>,
        source_of: impl Fn(u32) -> u32,
    ) -> Result<bool, Pause> {
        let any = !failures.is_empty();
        for failure in failures {
            let source = source_of(failure.origin);
            // Of several outputs of one source the first failure counts.
            if !self.failed.mark(source) {
                continue;
            }
            // What an open breaker keeps from a guest is not for its policy on single records to drop or refuse.
            let is_bypassed = failure.code == HostCode::BreakerOpen as u16;
            match if is_bypassed { OnError::DeadLetter } else { spec.on_error } {
                OnError::DeadLetter => self.dead.push((source, spec, failure)),
                OnError::Drop => {}
                OnError::Reject => {
                    self.rejects.push(RecordError { index: source, code: failure.code, text: failure.text });
                }
                OnError::Pause => return Err(Pause { source, code: failure.code, text: failure.text }),
            }
        }
        Ok(any)
    }

    /// Refuses a record that no transform is to blame for. `false` when it had failed already.
    pub(crate) fn reject(&mut self, reject: RecordError) -> bool {
        let is_new = self.failed.mark(reject.index);
        if is_new {
            self.rejects.push(reject);
        }
        is_new
    }

    /// Enters a stage's routed records.
    pub(crate) fn route(&mut self, spec: &TransformSpec, routed: Vec<RoutedRecord>, source_of: impl Fn(u32) -> u32) {
        for RoutedRecord { origin, target, record } in routed {
            // The stage has checked that the target is declared.
            let target = spec.targets[usize::from(target) - 1].clone();
            self.routed.push(Routed { target, source: source_of(origin), record });
        }
    }

    /// Whether a source failed.
    pub(crate) fn has_failed(&self, source: u32) -> bool {
        self.failed.has(source)
    }

    /// Closes the books. `section` is the batch's as produced, which dead letters are taken from.
    pub(crate) fn close(mut self, header: &BatchHeader, section: &[u8], frame: &Frame) -> Result<Closed, BatchError> {
        self.routed.retain(|routed| !self.failed.has(routed.source));
        self.routed.sort_by_key(|routed| routed.source);
        self.rejects.sort_by_key(|reject| reject.index);
        let kept = self.kept_count(frame);
        let dead_letters = dead_letters(self.dead, header, section)?;

        let records_in = u64::from(self.record_count);
        let (dead_lettered, rejected) = (dead_letters.len() as u64, self.rejects.len() as u64);
        let books = Books {
            records_in,
            kept,
            stored: u64::from(frame.record_count) + self.routed.len() as u64,
            dropped: records_in - kept - dead_lettered - rejected,
            dead_lettered,
            rejected,
        };
        assert!(books.balance(), "every input is accounted for once");
        Ok(Closed { routed: self.routed, dead_letters, rejects: self.rejects, books })
    }

    /// Sources that something came of: here, elsewhere or both.
    fn kept_count(&self, frame: &Frame) -> u64 {
        match (&frame.sources, &self.routed[..]) {
            (Sources::Same, []) => frame.record_count.into(),
            // Ascending, and one source of several records is there several times.
            (Sources::Of(sources), []) => sources.chunk_by(u32::eq).count() as u64,
            (sources, routed) => {
                let mut kept = Marks::new(self.record_count);
                (0..frame.record_count).for_each(|index| _ = kept.mark(sources.of(index)));
                routed.iter().for_each(|routed| _ = kept.mark(routed.source));
                kept.count()
            }
        }
    }
}

/// A batch's books, closed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) routed: Vec<Routed>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) rejects: Vec<RecordError>,
    pub(crate) books: Books,
}

/// Takes the failed records from the batch as it was produced, in one walk.
fn dead_letters(
    mut dead: Vec<(u32, &TransformSpec, Failure)>,
    header: &BatchHeader,
    section: &[u8],
) -> Result<Vec<DeadLetter>, BatchError> {
    if dead.is_empty() {
        return Ok(Vec::new());
    }
    dead.sort_by_key(|(source, ..)| *source);
    let mut letters = Vec::with_capacity(dead.len());
    let mut dead = dead.into_iter().peekable();
    for (index, record) in (0..).zip(records(section)) {
        let Some((source, spec, failure)) = dead.next_if(|(source, ..)| *source == index) else { continue };
        letters.push(DeadLetter {
            source,
            transform: spec.name.clone(),
            plugin: spec.plugin_hash,
            code: failure.code,
            text: failure.text,
            backtrace: failure.backtrace,
            record: record?.to_record(header),
        });
    }
    Ok(letters)
}

/// The batch for the own topic. Takes the frame's section along where that spares a copy.
pub(crate) fn encode(
    header: &BatchHeader,
    frame: &mut Frame,
    base_offset: Offset,
    span: u64,
) -> Result<RecordBatch, BatchError> {
    let header = BatchHeader {
        base_offset,
        // Up to the end of what the batch covers, so that readers step over dropped records behind the last kept one.
        last_offset_delta: (span - 1) as u32,
        max_timestamp: header.timestamp(frame.max_timestamp_delta),
        record_count: frame.record_count,
        ..*header
    };
    let compression = header.attributes.compression();
    let fits_as_it_is = compression == Compression::None && frame.section.len() <= BATCH_BYTES_MAX - HEADER_BYTES;
    match fits_as_it_is.then(|| frame.take_roomy()).flatten() {
        Some(roomy) => encode_in_place(&header, roomy),
        None => encode_section(&header, &frame.section, compression),
    }
}

/// How many bytes of the section to keep so that a batch that came out too large will fit.
pub(crate) fn fitting_bytes(section_bytes: usize, encoded_bytes: usize, compression: Compression) -> usize {
    let room = BATCH_BYTES_MAX as u64 - 1024;
    match compression {
        Compression::None => room as usize,
        // What compressed so well on the whole may do so less well in part: leave some room, and try again if need be.
        _ => (section_bytes as u64 * room / encoded_bytes.max(1) as u64 * 15 / 16) as usize,
    }
}
