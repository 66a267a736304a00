//! A topic's transforms, one after the other, on one batch.
//!
//! Owns the order of things: read the records once, hand them from stage to stage with each record's source, encode
//! once at the end, and not at all when nothing changed. Each stage's work is [`stage`]'s, the books are
//! [`settle`]'s.
//!
//! Start at [`Pipeline::run`].

use std::sync::Arc;

use abi::HostCode;
use bytes::Bytes;
use protocol::{
    BatchError, Offset, PluginHash, RecordBatch, RecordError, TopicName, TransformName,
    limits::{DECOMPRESSED_BYTES_MAX, REJECT_TEXT_BYTES_PER_BATCH},
    records,
};

use crate::{
    PipelineOutput, Transform, Worker,
    frame::{Frame, Sources},
    reframe::{Failure, Reframed, Unreadable},
    settle::{self, Closed, Ledger, Pause},
    stage::{self, Batch, Outcome, Ran, StageError},
};

/// The ordered transforms of a topic. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    stages: Vec<Arc<Transform>>,
}

/// One produced batch for a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct PipelineInput<'a> {
    /// The topic it was produced to.
    pub topic: &'a TopicName,
    /// The partition.
    pub partition: u32,
    /// The offset of its first record. A batch that has it set already passes through without a copy.
    pub base_offset: Offset,
    /// The batch; its records are checked here, before a guest sees them.
    pub batch: &'a RecordBatch,
    /// The topic's limit, for its inputs and its outputs.
    pub max_record_bytes: u32,
    /// Topics that take only records with a key, because they compact by key: of the own topic and the targets, those.
    pub keyed_topics: &'a [TopicName],
}

/// Why a batch is not stored, nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A transform with `on_error = pause` failed on a record.
    #[error("transform `{transform}` failed on record {record} and pauses: {text}")]
    Paused {
        /// The transform.
        transform: TransformName,
        /// Its plugin.
        plugin: PluginHash,
        /// Index of the record in the batch.
        record: u32,
        /// The plugin's own code, or one of `abi::HostCode`.
        code: u16,
        /// Why it failed.
        text: String,
    },
    /// No record is to blame; the same batch may pass later.
    #[error("transform `{transform}` could not run: {text}")]
    Retriable {
        /// The transform.
        transform: TransformName,
        /// What was in the way.
        text: String,
    },
    /// The batch itself is not sound.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// A stage that has just run, for whoever watches.
pub(crate) struct Watched<'a> {
    pub(crate) transform: &'a Transform,
    pub(crate) before: &'a Frame,
    pub(crate) ran: &'a Ran,
}

impl Pipeline {
    /// A pipeline of these transforms, in order.
    #[must_use]
    pub const fn new(stages: Vec<Arc<Transform>>) -> Pipeline {
        Pipeline { stages }
    }

    /// Whether batches pass untouched.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Its transforms, in order.
    #[must_use]
    pub fn stages(&self) -> &[Arc<Transform>] {
        &self.stages
    }

    /// Runs all transforms on a batch. An empty pipeline passes it on as it is, records unchecked.
    ///
    /// # Errors
    /// When the batch is not sound, a transform pauses, or the host cannot run one now. Nothing of the batch may be
    /// stored then.
    pub fn run(&self, worker: &Worker, input: &PipelineInput<'_>) -> Result<PipelineOutput, PipelineError> {
        self.run_watched(worker, input, |_| {})
    }

    pub(crate) fn run_watched(
        &self,
        worker: &Worker,
        input: &PipelineInput<'_>,
        mut watch: impl FnMut(Watched<'_>),
    ) -> Result<PipelineOutput, PipelineError> {
        let (batch, header) = (input.batch, input.batch.header());
        let mut ledger = Ledger::new(header.record_count);
        // Nobody looks at the records of a batch that no transform sees.
        let mut section = Bytes::new();
        if !self.is_empty() {
            section = batch.records_section(DECOMPRESSED_BYTES_MAX)?;
            batch.validate_records(&section, input.max_record_bytes as usize)?;
        }
        let mut frame = Frame::produced(section.clone(), header.record_count, header.last_offset_delta);
        let context = Batch {
            topic: input.topic,
            partition: input.partition,
            base_offset: input.base_offset.0,
            header,
            max_record_bytes: input.max_record_bytes as usize,
            keyed_topics: input.keyed_topics,
        };
        // Who made the batch what it is: answers for one that comes out too large.
        let mut changed_by = None;
        for transform in &self.stages {
            if frame.record_count == 0 {
                break;
            }
            let ran = stage::run(worker, transform, &context, &frame).map_err(|error| of_stage(transform, error))?;
            watch(Watched { transform, before: &frame, ran: &ran });
            if let Outcome::Changed(reframed) = ran.outcome {
                frame = next_frame(&mut ledger, transform, frame, reframed)?;
                changed_by = Some(transform);
            }
        }
        if let [.., last] = &self.stages[..]
            && input.keyed_topics.contains(input.topic)
            && reject_unkeyed(&mut ledger, &frame)?
        {
            frame = frame.filtered(|source, _| !ledger.has_failed(source)).map_err(of_unreadable)?;
            changed_by = Some(changed_by.unwrap_or(last));
        }
        let (own, frame) = match changed_by {
            Some(transform) => encode(&mut ledger, transform, input, frame)?,
            None => (Some(batch.clone().with_base_offset(input.base_offset)), frame),
        };
        let span = span_of(header.record_count, &frame);
        let Closed { routed, dead_letters, rejects, books } = ledger.close(header, &section, &frame)?;
        Ok(PipelineOutput { own, span, routed, dead_letters, rejects, books })
    }
}

fn span_of(record_count: u32, frame: &Frame) -> u64 {
    let of_outputs = if frame.record_count == 0 { 0 } else { u64::from(frame.last_offset_delta) + 1 };
    of_outputs.max(record_count.into())
}

/// Enters what a stage did and makes its output the next stage's input.
fn next_frame<'a>(
    ledger: &mut Ledger<'a>,
    transform: &'a Transform,
    frame: Frame,
    reframed: Reframed,
) -> Result<Frame, PipelineError> {
    let Reframed { roomy, origins, routed, failures, last_offset_delta, max_timestamp_delta } = reframed;
    let spec = transform.spec();
    let source_of = |origin| frame.sources.of(origin);
    let any_failed = ledger.fail(spec, failures, source_of).map_err(|pause| paused(transform, pause))?;
    ledger.route(spec, routed, source_of);
    let next = Frame::written(roomy, frame.sources.then(origins), last_offset_delta, max_timestamp_delta);
    // A record that came from a flat-map takes its siblings with it when it fails.
    if any_failed && matches!(frame.sources, Sources::Of(_)) {
        return next.filtered(|source, _| !ledger.has_failed(source)).map_err(of_unreadable);
    }
    Ok(next)
}

/// Rejects the sources of records that are left without a key; `true` when there are any. The stages may give and take
/// keys, so this comes after the last one, and is the producer's to know whoever left the key out.
fn reject_unkeyed(ledger: &mut Ledger<'_>, frame: &Frame) -> Result<bool, PipelineError> {
    let text = "record has no key, and the topic compacts by key";
    let mut room = REJECT_TEXT_BYTES_PER_BATCH;
    let mut any = false;
    for (index, record) in (0..frame.record_count).zip(records(&frame.section)) {
        if record?.key.is_some() {
            continue;
        }
        let fits = room >= text.len();
        room -= if fits { text.len() } else { 0 };
        let text = if fits { text.to_owned() } else { String::new() };
        any |= ledger.reject(RecordError { index: frame.sources.of(index), code: HostCode::KeyMissing as u16, text });
    }
    Ok(any)
}

/// Encodes what is left. When it comes out larger than a batch may be, the records behind the limit fail.
fn encode<'a>(
    ledger: &mut Ledger<'a>,
    transform: &'a Transform,
    input: &PipelineInput<'_>,
    mut frame: Frame,
) -> Result<(Option<RecordBatch>, Frame), PipelineError> {
    let header = input.batch.header();
    while frame.record_count > 0 {
        let span = span_of(header.record_count, &frame);
        let bytes = match settle::encode(header, &mut frame, input.base_offset, span) {
            Ok(own) => return Ok((Some(own), frame)),
            Err(BatchError::TooLarge { bytes }) => bytes,
            Err(error) => return Err(error.into()),
        };
        let kept = settle::fitting_bytes(frame.section.len(), bytes, header.attributes.compression());
        frame = cut_off(ledger, transform, frame, kept)?;
    }
    Ok((None, frame))
}

/// Fails the sources of all records that end behind `kept_bytes`.
fn cut_off<'a>(
    ledger: &mut Ledger<'a>,
    transform: &'a Transform,
    frame: Frame,
    kept_bytes: usize,
) -> Result<Frame, PipelineError> {
    let mut too_many = std::cell::RefCell::new(Vec::new());
    let within = |source, end| {
        if end > kept_bytes {
            too_many.borrow_mut().push(source);
        }
        end <= kept_bytes
    };
    frame.filtered(within).map_err(of_unreadable)?;
    let failure = |source: &u32| Failure {
        origin: *source,
        code: HostCode::BadOutput as u16,
        text: "batch comes out larger than `batch_bytes_max`: produce smaller batches, or return less".into(),
        backtrace: None,
    };
    let failures = too_many.get_mut().iter().map(failure).collect();
    ledger.fail(transform.spec(), failures, |source| source).map_err(|pause| paused(transform, pause))?;
    frame.filtered(|source, _| !ledger.has_failed(source)).map_err(of_unreadable)
}

fn paused(transform: &Transform, pause: Pause) -> PipelineError {
    let Pause { source: record, code, text } = pause;
    let spec = transform.spec();
    PipelineError::Paused { transform: spec.name.clone(), plugin: spec.plugin_hash, record, code, text }
}

fn of_stage(transform: &Transform, error: StageError) -> PipelineError {
    match error {
        StageError::Host(text) => PipelineError::Retriable { transform: transform.spec().name.clone(), text },
        StageError::Unreadable => of_unreadable(Unreadable),
    }
}

fn of_unreadable(_: Unreadable) -> PipelineError {
    BatchError::MalformedRecord { index: 0, what: "a record that was checked cannot be read again" }.into()
}
