//! `weir plugin test --check-determinism`: whether a plugin answers the same record alike, whatever batch it comes in and
//! whichever instance it meets.
//!
//! Owns the runs and the comparison. What is compared is all that is stored of an answer: verdict, records, targets, and
//! the code of a failure, but not its text. Each record has its own timestamp, so that the time of a batch is not that
//! of its records.
//!
//! Start at [`check`].

use std::{fmt, io::BufRead, ops::Range};

use client::Record;
use protocol::{
    Offset, TransformLimits,
    limits::{BATCH_RECORDS_MAX, GUEST_FAILURE_MS_CEILING, GUEST_FAILURES_PER_BATCH_CEILING},
};
use serde::Serialize;
use serde_json::Value;
use transform::{TraceVerdict, TracedRecord};

use super::{BATCH_BYTES, details, to_json, word};
use crate::{clock, cmd::Context, exit::Exit, human, lines::Lines, trial::Trial};

/// Records in a batch: one alone, splits that never meet, sizes as producers have them, and as many as fit.
const SPLITS: [usize; 7] = [1, 2, 3, 7, 100, 1_000, usize::MAX];

/// The most of a file that is looked at: it is kept in memory, and run more than a dozen times.
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// One way to run the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Run {
    /// Records in a batch; as many as fit where it is `None`.
    batch: Option<usize>,
    instances: Instances,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Instances {
    /// One for all batches, as long as it serves well.
    Reused,
    /// One for each batch.
    Fresh,
}

/// What has to differ between two runs for their answers to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    /// Nothing: two runs that are alike.
    Chance,
    /// The instance: what another batch left in its memory.
    Memory,
    /// The batch: where it begins, what else is in it.
    Batch,
}

/// What the runs came to.
#[derive(Debug, Serialize)]
struct Finding {
    deterministic: bool,
    records_in: usize,
    /// How often the file was run.
    runs: usize,
    #[serde(flatten)]
    difference: Option<Difference>,
}

/// The first record that is not always answered alike.
#[derive(Debug, Serialize)]
struct Difference {
    line: usize,
    cause: Cause,
    first: Answer,
    second: Answer,
}

/// One of two answers that differ.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    run: Run,
    answer: Value,
    #[serde(skip)]
    text: String,
}

/// Runs the lines in every way and tells of the first record that is not always answered alike.
pub(super) fn check(
    trial: &mut Trial,
    lines: &mut Lines<impl BufRead>,
    batch: usize,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let records = read(lines)?;
    trial.renew_with(follow_every_failure)?;
    let first = Run { batch: Some(batch), instances: Instances::Reused };
    let mut expected = Vec::with_capacity(records.len());
    run(trial, &records, first, |_, answer| {
        expected.push(answer);
        true
    })?;
    let mut finding = Finding { deterministic: true, records_in: records.len(), runs: 1, difference: None };
    for (other, cause) in runs(first) {
        finding.runs += 1;
        let mut different = None;
        run(trial, &records, other, |index, answer| {
            if !is_same(&expected[index].verdict, &answer.verdict) {
                different = Some((index, answer));
            }
            different.is_none()
        })?;
        if let Some((index, answer)) = different {
            let line = index + 1;
            let (first, second) = (Answer::new(first, line, &expected[index]), Answer::new(other, line, &answer));
            finding.deterministic = false;
            finding.difference = Some(Difference { line, cause, first, second });
            break;
        }
    }
    context.out.item(&finding, Finding::text)?;
    Ok(if finding.deterministic { Exit::Done } else { Exit::NotDeterministic })
}

/// What the host makes of many failures goes by the batch. It is no answer of the plugin's, so it is left out.
fn follow_every_failure(limits: TransformLimits) -> TransformLimits {
    TransformLimits {
        failures: GUEST_FAILURES_PER_BATCH_CEILING,
        failure_ms: GUEST_FAILURE_MS_CEILING,
        breaker_batches: 0,
        ..limits
    }
}

/// The lines as records, a millisecond apart.
fn read(lines: &mut Lines<impl BufRead>) -> anyhow::Result<Vec<Record>> {
    let begin_ms = clock::now_ms();
    let (mut records, mut line, mut bytes) = (Vec::new(), Vec::new(), 0);
    while bytes < RECORDS_BYTES_MAX && lines.read(&mut line)? {
        bytes += line.len();
        records.push(Record::unkeyed(std::mem::take(&mut line), begin_ms + records.len() as i64));
    }
    Ok(records)
}

/// What is compared with the first run: what differs least from it comes first, so that its difference says the cause.
fn runs(first: Run) -> Vec<(Run, Cause)> {
    let of_instances = |instances| SPLITS.map(|split| Run { batch: (split < usize::MAX).then_some(split), instances });
    let mut runs = vec![(first, Cause::Chance), (Run { instances: Instances::Fresh, ..first }, Cause::Memory)];
    // A fresh instance for each batch leaves the batch alone to make a difference.
    runs.extend(of_instances(Instances::Fresh).map(|run| (run, Cause::Batch)));
    runs.extend(of_instances(Instances::Reused).map(|run| (run, Cause::Memory)));
    runs
}

/// Runs all records in one way and hands out each answer with the record's index, until `each` has heard enough.
fn run(
    trial: &mut Trial,
    records: &[Record],
    run: Run,
    mut each: impl FnMut(usize, TracedRecord) -> bool,
) -> anyhow::Result<()> {
    trial.renew()?;
    let mut at = 0;
    while at < records.len() {
        let batch = next_batch(records, at, run.batch.unwrap_or(usize::MAX));
        let trace = trial.trace_records(&records[batch.clone()], Offset(batch.start as u64))?;
        let stage = trace.stages.into_iter().next().ok_or_else(|| anyhow::anyhow!("the module did not run"))?;
        for answer in stage.records {
            if !each(batch.start + answer.source as usize, answer) {
                return Ok(());
            }
        }
        at = batch.end;
        if run.instances == Instances::Fresh {
            trial.renew()?;
        }
    }
    Ok(())
}

fn next_batch(records: &[Record], start: usize, count: usize) -> Range<usize> {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        let before = bytes;
        bytes += record.value.as_ref().map_or(0, |value| value.len());
        before < BATCH_BYTES
    };
    start..start + records[start..].iter().take(count.min(BATCH_RECORDS_MAX)).take_while(fits).count()
}

fn is_same(first: &TraceVerdict, second: &TraceVerdict) -> bool {
    match (first, second) {
        (TraceVerdict::Fail { code: first, .. }, TraceVerdict::Fail { code: second, .. }) => first == second,
        _ => first == second,
    }
}

impl Answer {
    fn new(run: Run, line: usize, answer: &TracedRecord) -> Answer {
        let text = format!("{} {}", word(&answer.verdict), details(&answer.verdict));
        Answer { run, answer: to_json(line as u64, answer), text: text.trim_end().to_owned() }
    }
}

impl Finding {
    fn text(&self) -> String {
        let Some(Difference { line, cause, first, second }) = &self.difference else {
            let records = human::counted(self.records_in as u64, "record");
            return format!("deterministic: {records} had the same answers in {} runs", self.runs);
        };
        format!(
            "not deterministic: line {line} has two answers\n  {}: {}\n  {}: {}\n{cause}",
            first.run, first.text, second.run, second.text
        )
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.batch {
            Some(1) => f.write_str("in batches of 1 record")?,
            Some(count) => write!(f, "in batches of {count} records")?,
            None => f.write_str("in batches as large as they can be")?,
        }
        f.write_str(match self.instances {
            Instances::Reused => ", on an instance that is used again",
            Instances::Fresh => ", each on a fresh instance",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Chance => "the two runs are alike: time or chance comes in from outside",
            Cause::Memory => "it depends on what earlier batches left in the instance's memory",
            Cause::Batch => "it depends on the batch: on where it begins, or on what else is in it",
        })
    }
}
