//! One transform's turn at a batch.
//!
//! Owns the way of a batch through one guest: the one call that nearly always suffices, and after a fault the pieces
//! of [`Search`], each on a fresh instance. Never decides what becomes of a failed record: see [`settle`](crate::settle).

use std::{ops::Range, sync::Arc};

use abi::{
    HostCode,
    input::InputHeader,
    output::{Decisions, Output},
};
use bytes::Bytes;
use protocol::{TopicName, TransformStats};

use crate::{
    Fault, Transform, Worker, clock,
    failure::{Next, Search},
    fault::CallError,
    frame::Frame,
    instance::{Input, PluginInstance},
    plugin::StartError,
    reframe::{Piece, Reframed, Reframer, Rules, Unreadable},
    scan,
};

/// What all stages of one batch share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) topic: &'a TopicName,
    pub(crate) partition: u32,
    pub(crate) base_offset: u64,
    pub(crate) header: &'a protocol::BatchHeader,
    pub(crate) max_record_bytes: usize,
    pub(crate) keyed_topics: &'a [TopicName],
}

/// What a stage did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All records stay as they are.
    Unchanged,
    /// Something was dropped, changed, made, or failed.
    Changed(Reframed),
}

/// A stage that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// Wall time, framing included.
    pub(crate) ns: u64,
}

/// Why a stage could not do its work; no record is to blame.
#[derive(Debug, Clone)]
pub(crate) enum StageError {
    /// The host's state; the batch may pass later.
    Host(String),
    /// See [`Unreadable`].
    Unreadable,
}

impl From<Unreadable> for StageError {
    fn from(_: Unreadable) -> StageError {
        StageError::Unreadable
    }
}

/// Runs one transform on the records, and counts what it did.
pub(crate) fn run(
    worker: &mut Worker,
    transform: &Arc<Transform>,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Result<Ran, StageError> {
    let began = clock::wall();
    let mut traps = 0;
    let outcome = Stage { worker, transform, batch, frame, traps: &mut traps }.run()?;
    let mut stats = match &outcome {
        Outcome::Unchanged => unchanged(frame.record_count),
        Outcome::Changed(reframed) => changed(frame.record_count, reframed),
    };
    (stats.traps, stats.ns) = (traps, clock::ns_since(began));
    transform.counters().add(&stats);
    Ok(Ran { outcome, ns: stats.ns })
}

fn unchanged(record_count: u32) -> TransformStats {
    let count = record_count.into();
    TransformStats { batches: 1, records_in: count, kept: count, records_out: count, ..TransformStats::default() }
}

fn changed(record_count: u32, reframed: &Reframed) -> TransformStats {
    let (records_in, failed) = (u64::from(record_count), reframed.failures.len() as u64);
    let kept = reframed.kept_count();
    TransformStats {
        batches: 1,
        records_in,
        kept,
        records_out: (reframed.origins.len() + reframed.routed.len()) as u64,
        dropped: records_in - kept - failed,
        failed,
        ..TransformStats::default()
    }
}

struct Stage<'a> {
    worker: &'a mut Worker,
    transform: &'a Arc<Transform>,
    batch: &'a Batch<'a>,
    frame: &'a Frame,
    traps: &'a mut u64,
}

/// How one call went.
enum Called {
    /// Everything stays: nothing needs to be written.
    KeptAll,
    /// Its decisions are carried out.
    Applied,
    /// The guest's fault, with the record in its hand.
    Failed(Fault, Option<u32>),
    /// A fresh instance did not come up, and will not for any other piece either.
    NotStarted(Fault),
}

impl Stage<'_> {
    fn run(mut self) -> Result<Outcome, StageError> {
        let (frame, spec) = (self.frame, self.transform.spec());
        let mut search = Search::new(frame.record_count, spec.limits.deadline_ms);
        let mut reframer = Reframer::new(self.rules(), frame.section.len(), frame.record_count);
        let mut starts = Vec::new();
        while let Some(piece) = search.next() {
            let is_whole = piece.len() == frame.record_count as usize;
            if !is_whole && starts.is_empty() {
                starts = starts_of(&frame.section)?;
            }
            let section = if is_whole { frame.section.clone() } else { cut(&frame.section, &starts, &piece) };
            match self.call(&piece, &section, is_whole, &mut search, &mut reframer)? {
                Called::KeptAll => return Ok(Outcome::Unchanged),
                Called::Applied => search.passed(&piece),
                Called::Failed(fault, cursor) => blame(search.failed(piece, cursor), fault, &mut reframer),
                Called::NotStarted(fault) => blame(search.give_up(piece), fault, &mut reframer),
            }
        }
        Ok(Outcome::Changed(reframer.finish()?))
    }

    /// One call into the guest, and its decisions carried out.
    fn call(
        &mut self,
        piece: &Range<u32>,
        section: &Bytes,
        is_whole: bool,
        search: &mut Search,
        reframer: &mut Reframer,
    ) -> Result<Called, StageError> {
        let mut instance = match self.worker.take(self.transform) {
            Ok(instance) => instance,
            Err(error) => return not_started(error),
        };
        let cpu_before = search.has_faulted().then(clock::thread_cpu);
        let called = self.exchange(&mut instance, piece, section, is_whole, reframer);
        if let Some(before) = cpu_before {
            search.spend(clock::thread_cpu().saturating_sub(before));
        }
        let (called, may_serve_again) = called?;
        if may_serve_again {
            self.worker.give_back(self.transform, instance);
        } else {
            *self.traps += 1;
        }
        Ok(called)
    }

    fn exchange(
        &self,
        instance: &mut PluginInstance,
        piece: &Range<u32>,
        section: &Bytes,
        is_whole: bool,
        reframer: &mut Reframer,
    ) -> Result<(Called, bool), StageError> {
        let record_count = piece.end - piece.start;
        let answer = match instance.process(self.worker.host(), self.input(record_count, section)) {
            Ok(answer) => answer,
            Err(failed) => {
                return match failed.error {
                    CallError::Fault(fault) => Ok((Called::Failed(fault, failed.cursor), false)),
                    CallError::Host(text) => Err(StageError::Host(text)),
                };
            }
        };
        let output = match Output::decode(answer.output, record_count) {
            Ok(output) => output,
            Err(error) => {
                let fault = Fault::new(HostCode::BadOutput, error.to_string());
                return Ok((Called::Failed(fault, None), false));
            }
        };
        if is_whole && keeps_all(&output, record_count) {
            return Ok((Called::KeptAll, true));
        }
        let piece = Piece { first: piece.start, section };
        let is_clean = reframer.apply(piece, &output, answer.memory)?;
        Ok((Called::Applied, is_clean))
    }

    fn rules(&self) -> Rules {
        let spec = self.transform.spec();
        Rules {
            header: *self.batch.header,
            max_record_bytes: self.batch.max_record_bytes,
            target_count: spec.targets.len(),
            keyed_targets: Rules::keyed_targets(&spec.targets, self.batch.keyed_topics),
            output_bytes: spec.limits.output_bytes,
        }
    }

    fn input<'s>(&'s self, record_count: u32, section: &'s Bytes) -> Input<'s> {
        let batch = self.batch;
        let header = InputHeader {
            record_count,
            base_timestamp: batch.header.base_timestamp,
            base_offset: batch.base_offset.cast_signed(),
            attributes: batch.header.attributes.bits(),
            partition: batch.partition,
            topic: batch.topic.as_str().as_bytes(),
        };
        Input { header, section }
    }
}

fn blame(next: Next, fault: Fault, reframer: &mut Reframer) {
    match next {
        Next::Smaller => {}
        Next::Blame(record) => reframer.fail(record, fault),
        Next::GiveUp(rest) => {
            let text = format!("not tried singly: {}", fault.text);
            for record in rest.into_iter().flatten() {
                reframer.fail(record, Fault::new(fault.code, text.clone()));
            }
        }
    }
}

fn not_started(error: StartError) -> Result<Called, StageError> {
    let refused = |text| Fault::new(HostCode::BatchFailed, text);
    Ok(Called::NotStarted(match error {
        StartError::Call(CallError::Host(text)) => return Err(StageError::Host(text)),
        StartError::Call(CallError::Fault(fault)) => fault,
        StartError::Refused(text) => refused(format!("a fresh instance refused the configuration: {text}")),
        StartError::AbiVersion { found } => refused(format!("a fresh instance speaks version {found} of the ABI")),
    }))
}

/// Where each record begins, and the end.
fn starts_of(section: &[u8]) -> Result<Vec<usize>, Unreadable> {
    let mut starts = vec![0];
    let mut at = 0;
    while at < section.len() {
        at = scan::next(section, at).ok_or(Unreadable)?;
        starts.push(at);
    }
    Ok(starts)
}

fn cut(section: &Bytes, starts: &[usize], piece: &Range<u32>) -> Bytes {
    section.slice(starts[piece.start as usize]..starts[piece.end as usize])
}

/// Whether nothing has to be written.
fn keeps_all(output: &Output<'_>, record_count: u32) -> bool {
    let keeps = match output.decisions {
        Decisions::KeepAll => true,
        Decisions::Bitmap(kept) => kept.kept_count() == record_count,
        _ => false,
    };
    keeps && output.failures.is_empty()
}
