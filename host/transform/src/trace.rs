//! A pipeline's work on one batch, record by record: for `plugin test`, for the demo, and for people who wonder.
//!
//! Owns nothing of the work itself: it runs the same pipeline and reads off what each stage did.

use protocol::{BatchHeader, Record, RecordView, TopicName, TransformName, records};

use crate::{
    Pipeline, PipelineError, PipelineInput, PipelineOutput, Worker, frame::Frame, pipeline::Watched, reframe::Reframed,
    stage::Outcome,
};

/// What a pipeline did with a batch.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The stages that ran, in order; none behind one that left nothing.
    pub stages: Vec<StageTrace>,
    /// What came out, as [`Pipeline::run`] returns it.
    pub output: PipelineOutput,
}

/// What one stage did.
#[derive(Debug, Clone)]
pub struct StageTrace {
    /// The transform.
    pub transform: TransformName,
    /// Its input records, in order.
    pub records: Vec<TracedRecord>,
    /// Time the stage took, framing included, in nanoseconds.
    pub ns: u64,
}

/// One record at one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedRecord {
    /// Index in the produced batch of the record it comes from.
    pub source: u32,
    /// The record as it came to the stage.
    pub record: Record,
    /// What the transform said of it.
    pub verdict: TraceVerdict,
}

/// What a transform said of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceVerdict {
    /// It stays as it is.
    Keep,
    /// Another record takes its place.
    Replace(Record),
    /// Several take its place.
    Multiply(Vec<Record>),
    /// It went to other topics, and these records (if any) stay in the own one.
    Route {
        /// Where to, with what.
        routed: Vec<(TopicName, Record)>,
        /// What stays.
        own: Vec<Record>,
    },
    /// It goes no further.
    Drop,
    /// The transform, or the host for it, failed on it.
    Fail {
        /// The plugin's own code, or one of `abi::HostCode`.
        code: u16,
        /// Why.
        text: String,
    },
}

impl Pipeline {
    /// Runs the pipeline as [`Pipeline::run`] does and tells what each stage said of each record.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub fn trace(&self, worker: &Worker, input: &PipelineInput<'_>) -> Result<Trace, PipelineError> {
        let header = input.batch.header();
        let mut stages = Vec::new();
        let output = self.run_watched(worker, input, |watched| stages.push(stage_trace(header, &watched)))?;
        Ok(Trace { stages, output })
    }
}

fn stage_trace(header: &BatchHeader, watched: &Watched<'_>) -> StageTrace {
    let inputs = (0..).zip(views(&watched.before.section)).map(|(index, view)| {
        let verdict = match &watched.ran.outcome {
            Outcome::Unchanged => TraceVerdict::Keep,
            Outcome::Changed(_) => TraceVerdict::Drop,
        };
        TracedRecord { source: source(watched.before, index), record: view.to_record(header), verdict }
    });
    let mut traced: Vec<_> = inputs.collect();
    if let Outcome::Changed(reframed) = &watched.ran.outcome {
        let targets = &watched.transform.spec().targets;
        read_verdicts(header, reframed, targets, &mut traced);
    }
    StageTrace { transform: watched.transform.spec().name.clone(), records: traced, ns: watched.ran.ns }
}

fn source(frame: &Frame, index: u32) -> u32 {
    frame.sources.of(index)
}

/// The records of a section that was validated.
fn views(section: &[u8]) -> impl Iterator<Item = RecordView<'_>> {
    records(section).map_while(Result::ok)
}

fn read_verdicts(header: &BatchHeader, reframed: &Reframed, targets: &[TopicName], traced: &mut [TracedRecord]) {
    let mut own: Vec<Vec<Record>> = vec![Vec::new(); traced.len()];
    for (&origin, view) in reframed.origins.iter().zip(views(reframed.section())) {
        own[origin as usize].push(view.to_record(header));
    }
    for (record, own) in traced.iter_mut().zip(own) {
        record.verdict = of_own(&record.record, own);
    }
    for routed in &reframed.routed {
        let to = (targets[usize::from(routed.target) - 1].clone(), routed.record.clone());
        let record = &mut traced[routed.origin as usize];
        record.verdict.add_route(&record.record, to);
    }
    for failure in &reframed.failures {
        traced[failure.origin as usize].verdict = TraceVerdict::Fail { code: failure.code, text: failure.text.clone() };
    }
}

fn of_own(input: &Record, mut own: Vec<Record>) -> TraceVerdict {
    match own.len() {
        0 => TraceVerdict::Drop,
        1 if own[0] == *input => TraceVerdict::Keep,
        1 => TraceVerdict::Replace(own.remove(0)),
        _ => TraceVerdict::Multiply(own),
    }
}

impl TraceVerdict {
    fn add_route(&mut self, input: &Record, to: (TopicName, Record)) {
        let own = match std::mem::replace(self, TraceVerdict::Drop) {
            TraceVerdict::Route { mut routed, own } => {
                routed.push(to);
                *self = TraceVerdict::Route { routed, own };
                return;
            }
            TraceVerdict::Keep => vec![input.clone()],
            TraceVerdict::Replace(record) => vec![record],
            TraceVerdict::Multiply(records) => records,
            TraceVerdict::Drop | TraceVerdict::Fail { .. } => Vec::new(),
        };
        *self = TraceVerdict::Route { routed: vec![to], own };
    }
}
