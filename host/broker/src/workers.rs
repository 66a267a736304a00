//! The threads that run pipelines.
//!
//! Owns nothing but the threads: which batch runs next is the sequencer's, what becomes of a record the pipeline's, and
//! which guest runs on which processor the plugin engine's. A guest that loops holds one thread, and its own partition,
//! until its deadline; others are made beside it.
//!
//! Start at [`run`].

use std::panic::AssertUnwindSafe;

use protocol::{RecordBatch, RecordError, TopicName, TopicPartition, limits::REJECT_TEXT_BYTES_PER_BATCH};
use transform::{PipelineError, PipelineInput, PipelineOutput, PluginHost, Worker};

use crate::{
    ProduceError,
    core::{Core, Settings, Slot},
    dead_letter::{self, DeadLetters},
    directory::Directory,
    partition::{check_records, refused},
    route::Router,
    sequencer::{Finished, Work},
};

/// One thread: takes batches until the broker stops.
pub(crate) fn run(core: &Core, directory: &Directory, host: &PluginHost) {
    stand_back();
    let worker = Worker::new(host);
    while let Some((work, slot)) = core.next_work() {
        let (partition, run) = (work.partition, work.run);
        let Work { base_offset, batch, checked, place, .. } = work;
        let batch = Offered { batch: batch.with_base_offset(base_offset), checked };
        let finish = std::panic::catch_unwind(AssertUnwindSafe(|| run_batch(&batch, &slot, &worker, directory)));
        // What waits behind it may have its room.
        drop(place);
        let outcome = finish.unwrap_or_else(|_| {
            // Our bug, said by the panic itself; the partition goes on.
            Err(ProduceError::Internal { why: "a pipeline panicked; see the broker's log".into() })
        });
        core.sequence(|sequencer, effects| sequencer.finish(partition, run, outcome, effects));
    }
}

/// Network and commits go first where processors are short: a guest can use up whole ones, and a few of them all.
#[cfg(target_os = "linux")]
fn stand_back() {
    // For this thread alone, as Linux has it. It can always be asked for, and without it the broker is only less polite.
    let _ = rustix::process::setpriority_process(None, 10);
}

#[cfg(not(target_os = "linux"))]
fn stand_back() {}

/// A batch for a pipeline, its base offset set: so one that passes unchanged is never copied.
struct Offered {
    batch: RecordBatch,
    /// Whether its records were validated already.
    checked: bool,
}

fn run_batch(
    Offered { batch, checked }: &Offered,
    slot: &Slot,
    worker: &Worker,
    directory: &Directory,
) -> Result<Finished, ProduceError> {
    let settings = slot.settings();
    if settings.deployment.is_empty() {
        if !checked {
            check_records(batch, &settings, &slot.place.topic)?;
        }
        return Ok(Finished::unchanged(batch.clone()));
    }
    let keyed_topics = keyed_topics(&settings, &slot.place.topic, directory);
    let input = PipelineInput {
        topic: &slot.place.topic,
        partition: slot.place.partition,
        base_offset: batch.header().base_offset,
        batch,
        max_record_bytes: settings.max_record_bytes,
        keyed_topics: &keyed_topics,
    };
    let output = run_pipeline(&settings, worker, &input)?;
    let mut router = Router::new(directory, slot.place.partition, batch.header().attributes.compression());
    settle(output, &input, &slot.place, &mut router, batch.header().max_timestamp)
        .and_then(|finished| Ok(Finished { routed: router.finish()?, ..finished }))
}

/// Of the topics that the batch may be written to, those that take only records with a key; most often none. (Dead
/// letters are records as they were produced, so their topic takes them as they are, whatever its settings.)
fn keyed_topics(settings: &Settings, own: &TopicName, directory: &Directory) -> Vec<TopicName> {
    let targets = settings.deployment.transforms.iter().flat_map(|transform| &transform.spec().targets);
    let keyed_targets = targets.filter(|target| directory.compacts(target));
    settings.keyed.then_some(own).into_iter().chain(keyed_targets).cloned().collect()
}

fn run_pipeline(
    settings: &Settings,
    worker: &Worker,
    input: &PipelineInput<'_>,
) -> Result<PipelineOutput, ProduceError> {
    let output = settings.deployment.pipeline.run(worker, input);
    output.map_err(|error| match error {
        PipelineError::Paused { .. } => ProduceError::Paused { why: error.to_string().into() },
        PipelineError::Retriable { .. } => ProduceError::TransformBusy { why: error.to_string().into() },
        PipelineError::Batch(error) => refused(error, input.topic),
    })
}

/// Sorts a pipeline's output into what stays and what goes elsewhere (into `router`).
fn settle(
    output: PipelineOutput,
    input: &PipelineInput<'_>,
    place: &TopicPartition,
    router: &mut Router<'_>,
    max_timestamp_ms: i64,
) -> Result<Finished, ProduceError> {
    let PipelineOutput { own, span, routed, dead_letters, rejects, books } = output;
    assert!(books.balance(), "the books of a batch balance: {books:?}");
    for routed in &routed {
        router.put(&routed.target, &routed.record)?;
    }
    if !dead_letters.is_empty() {
        let target = dead_letter::topic_of(&place.topic).map_err(|error| internal(&error))?;
        let mut letters = DeadLetters::new(place, input.base_offset);
        for letter in dead_letters {
            router.put(&target, &letters.write(letter))?;
        }
    }
    Ok(Finished { own, span, max_timestamp_ms, routed: Vec::new(), books, rejects: shorten(rejects) })
}

fn internal(error: &dyn std::error::Error) -> ProduceError {
    ProduceError::Internal { why: error.to_string().into() }
}

/// The answer is kept with the producer's window, so its texts have a bound; index and code are never lost.
fn shorten(mut rejects: Vec<RecordError>) -> Vec<RecordError> {
    let mut left = REJECT_TEXT_BYTES_PER_BATCH;
    for reject in &mut rejects {
        let text = std::mem::take(&mut reject.text);
        reject.text = dead_letter::cut_at(text, left);
        left -= reject.text.len();
    }
    rejects
}
