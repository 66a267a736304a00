//! One transform's turn at a batch.
//!
//! Owns the way of a batch through one guest: the one call that nearly always suffices, and after a fault the pieces
//! of [`Search`], each on a fresh instance. Never decides what becomes of a failed record: see [`settle`](crate::settle).

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use abi::{
    HostCode,
    input::InputHeader,
    output::{Decisions, Output},
};
use bytes::Bytes;
use protocol::{BreakerPolicy, TopicName, TransformStats};

use crate::{
    Fault, Transform, Worker,
    breaker::Change,
    clock,
    failure::{Next, Search},
    fault::CallError,
    frame::Frame,
    instance::{Input, PluginInstance},
    plugin::StartError,
    reframe::{Piece, Reframed, Reframer, Rules, Unreadable},
    scan,
    slots::Turn,
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

/// Runs one transform on the records, in its turn, and counts what it did.
pub(crate) fn run(
    worker: &Worker,
    transform: &Arc<Transform>,
    batch: &Batch<'_>,
    frame: &Frame,
) -> Result<Ran, StageError> {
    let usage = transform.usage();
    let _running = usage.running();
    let began = clock::wall();
    if !usage.ask_breaker(began) {
        return bypass(transform, batch, frame, began);
    }
    let turn = Some(worker.host().slots().take(&usage.account, began));
    let mut stage = Stage { worker, transform, batch, frame, began, turn, tally: Tally::default() };
    let outcome = stage.run();
    let now = clock::wall();
    let (cpu, tally) = (stage.turn.take().map_or(Duration::ZERO, |turn| turn.end(now)), stage.tally);
    let outcome = outcome.inspect_err(|_| usage.untold())?;
    let change = usage.tell_breaker(tally.failure(frame.record_count), transform.spec().limits.breaker_batches, now);
    tell(transform, change, now);

    let stats = TransformStats {
        traps: tally.traps,
        deadline_hits: tally.deadline_hits,
        ns: ns(now.saturating_duration_since(began)),
        cpu_ns: ns(cpu),
        trips: (change == Change::Opened).into(),
        ..counted(frame, &outcome)
    };
    usage.counters.add(&stats);
    Ok(Ran { outcome, ns: stats.ns })
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What becomes of a batch while the breaker is open: as the transform's policy says.
fn bypass(transform: &Transform, batch: &Batch<'_>, frame: &Frame, now: Instant) -> Result<Ran, StageError> {
    let spec = transform.spec();
    let open = transform.usage().breaker_open(now);
    let (cause, retry_in_ms) = open.map_or((String::new(), 0), |open| (open.cause, open.retry_in_ms));
    let text = format!("its breaker is open: {cause}");
    let outcome = match spec.breaker {
        BreakerPolicy::Pause => {
            return Err(StageError::Host(format!("{text}; the next batch is tried in {retry_in_ms} ms")));
        }
        BreakerPolicy::PassThrough => Outcome::Unchanged,
        BreakerPolicy::DeadLetter => {
            let mut reframer = Reframer::new(rules(transform, batch), 0, frame.record_count);
            let fault = Fault::new(HostCode::BreakerOpen, text);
            (0..frame.record_count).for_each(|record| reframer.fail(record, fault.clone()));
            Outcome::Changed(reframer.finish()?)
        }
    };
    let stats = TransformStats { bypassed: frame.record_count.into(), ..counted(frame, &outcome) };
    transform.usage().counters.add(&stats);
    Ok(Ran { outcome, ns: ns(clock::wall().saturating_duration_since(now)) })
}

/// Says it when a breaker opens or closes: it concerns whoever looks after the broker.
fn tell(transform: &Transform, change: Change, now: Instant) {
    let (name, policy) = (transform.spec().name.as_str(), transform.spec().breaker.as_str());
    match change {
        Change::None => {}
        Change::Opened => {
            let cause = transform.usage().breaker_open(now).map_or_else(String::new, |open| open.cause);
            tracing::warn!(transform = name, policy, "transform keeps failing, its breaker is open: {cause}");
        }
        Change::Closed => tracing::info!(transform = name, "transform works again, its breaker is closed"),
    }
}

fn counted(frame: &Frame, outcome: &Outcome) -> TransformStats {
    let bytes_in = frame.section.len() as u64;
    let (stats, bytes_out) = match outcome {
        Outcome::Unchanged => (unchanged(frame.record_count), bytes_in),
        Outcome::Changed(reframed) => (changed(frame.record_count, reframed), reframed.section().len() as u64),
    };
    TransformStats { bytes_in, bytes_out, ..stats }
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
    worker: &'a Worker,
    transform: &'a Arc<Transform>,
    batch: &'a Batch<'a>,
    frame: &'a Frame,
    began: Instant,
    /// Lent to the instance that runs.
    turn: Option<Turn>,
    tally: Tally,
}

/// What went wrong in one batch.
#[derive(Debug, Default)]
struct Tally {
    traps: u64,
    deadline_hits: u64,
    /// Records that failed for a reason that the host found.
    faulted: u32,
    /// The last of these reasons.
    cause: Option<String>,
    /// Whole records returned so far, over all pieces.
    returned_records: u64,
}

impl Tally {
    fn enter(&mut self, fault: &Fault) {
        self.traps += 1;
        self.deadline_hits += u64::from(fault.code == HostCode::Deadline);
    }

    /// The batch as the breaker sees it: failed when the guest could do nothing with at least half of it. What a guest
    /// says of single records is its work, and no failure.
    fn failure(&self, record_count: u32) -> Option<&str> {
        let failed = u64::from(self.faulted) * 2 >= u64::from(record_count);
        self.cause.as_deref().filter(|_| failed)
    }
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
    fn run(&mut self) -> Result<Outcome, StageError> {
        let frame = self.frame;
        let mut search = Search::new(frame.record_count, &self.transform.spec().limits);
        let rules = rules(self.transform, self.batch);
        let mut reframer = Reframer::new(rules, frame.section.len(), frame.record_count);
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
                Called::Failed(fault, cursor) => self.blame(search.failed(piece, cursor), fault, &mut reframer),
                Called::NotStarted(fault) => self.blame(search.give_up(piece), fault, &mut reframer),
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
        self.turn.take().into_iter().for_each(|turn| instance.lend(turn));
        let called = self.exchange(&mut instance, piece, section, (is_whole, search.believes_hints()), reframer);
        self.turn = instance.take_back();
        if let Some(before) = cpu_before {
            search.spend(clock::thread_cpu().saturating_sub(before));
        }
        let (called, may_serve_again) = called?;
        if may_serve_again {
            self.worker.give_back(self.transform, instance, self.began);
        }
        Ok(called)
    }

    fn exchange(
        &mut self,
        instance: &mut PluginInstance,
        piece: &Range<u32>,
        section: &Bytes,
        (is_whole, believes_cursor): (bool, bool),
        reframer: &mut Reframer,
    ) -> Result<(Called, bool), StageError> {
        let record_count = piece.end - piece.start;
        let input = Input { believes_cursor, ..self.input(record_count, section) };
        let answer = match instance.process(self.worker.host(), input) {
            Ok(answer) => answer,
            Err(failed) => {
                return match failed.error {
                    CallError::Fault(fault) => Ok((self.faulted(fault, failed.cursor), false)),
                    CallError::Host(text) => Err(StageError::Host(text)),
                };
            }
        };
        let output = match self.decode(answer.output, record_count) {
            Ok(output) => output,
            Err(fault) => return Ok((self.faulted(fault, None), false)),
        };
        if is_whole && keeps_all(&output, record_count) {
            return Ok((Called::KeptAll, true));
        }
        let piece = Piece { first: piece.start, section };
        let is_clean = reframer.apply(piece, &output, answer.memory)?;
        Ok((Called::Applied, is_clean))
    }

    /// Reads what the guest returned, as far as it can be known without its memory.
    fn decode<'o>(&mut self, output: &'o [u8], record_count: u32) -> Result<Output<'o>, Fault> {
        let output = Output::decode(output, record_count);
        let output = output.map_err(|error| Fault::new(HostCode::BadOutput, error.to_string()))?;
        if let Decisions::Records(entries) = &output.decisions {
            let limit = self.transform.spec().limits.output_records;
            let returned = self.tally.returned_records + entries.iter().len() as u64;
            if returned > u64::from(limit) {
                let text = format!("output of {returned} records is over `output_records` ({limit})");
                return Err(Fault::new(HostCode::BadOutput, text));
            }
            self.tally.returned_records = returned;
        }
        Ok(output)
    }

    fn faulted(&mut self, fault: Fault, cursor: Option<u32>) -> Called {
        self.tally.enter(&fault);
        Called::Failed(fault, cursor)
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
        Input { header, section, believes_cursor: true }
    }

    fn blame(&mut self, next: Next, fault: Fault, reframer: &mut Reframer) {
        let rest = match next {
            Next::Smaller => return,
            Next::Blame(record) => {
                self.tally.faulted += 1;
                self.tally.cause = Some(fault.text.clone());
                return reframer.fail(record, fault);
            }
            Next::GiveUp(rest) => rest,
        };
        let text = format!("not tried singly: {}", fault.text);
        for record in rest.into_iter().flatten() {
            self.tally.faulted += 1;
            reframer.fail(record, Fault::new(fault.code, text.clone()));
        }
        self.tally.cause = Some(fault.text);
    }
}

/// What the transform's records are measured by, on this batch.
fn rules(transform: &Transform, batch: &Batch<'_>) -> Rules {
    let spec = transform.spec();
    Rules {
        header: *batch.header,
        max_record_bytes: batch.max_record_bytes,
        target_count: spec.targets.len(),
        keyed_targets: Rules::keyed_targets(&spec.targets, batch.keyed_topics),
        output_bytes: spec.limits.output_bytes,
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
