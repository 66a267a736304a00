//! `weir import`: files of record batches into a topic.
//!
//! ```text
//! sources: which file, which partition
//!    └─► reading thread: batches, checked and made fit to be sent ──► send ── (origin, delivery) ──► collect
//! ```
//! Both arrows are bounded. Batches travel whole: their records are looked at only where they have gaps, and with
//! `--partition-map key`.
//!
//! Start at [`run`].

mod reading;
mod sources;

use std::{path::PathBuf, time::Duration};

use client::{
    BatchHandle, Client, CreateTopic, ErrorCode, Producer, ProducerConfig, RecordError, Retention, TopicConfig,
    TopicDescription, TopicName, TopicPartition,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use self::{
    reading::{Item, Job, Origin},
    sources::Source,
};
use super::{
    Context,
    produce::{self, REJECTS_LISTED_MAX},
};
use crate::{
    clock::{self, Stopwatch},
    exit::{Exit, Failure},
    human,
};

/// Batches that were read and not sent.
const BATCHES_AHEAD: usize = 16;

/// Batches that were sent and not answered: more than the producer's buffer holds unless they are tiny.
const UNANSWERED_MAX: usize = 4_096;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir import clicks backup --create                 # backup/clicks-0, clicks-1, ...
  weir import copy backup --source-topic clicks
  weir import clicks /var/lib/kafka/data --create    # of a Kafka broker that is stopped
  weir import clicks 00000000000000000000.log --partition 3
  weir import wide backup --partition-map key        # spread anew over its partitions
  ssh elsewhere weir export clicks --to - --partition 0 | weir import clicks -

A file holds record batches (Kafka's RecordBatch v2), as those of `weir export` and Kafka's own log segments do. Keys, \
values, headers, timestamps and codecs stay; offsets and producers are the topic's, and its transforms run as on any \
record.

Each batch is checked before it is sent. At the first bad one the import ends, and what lay before it is there: an \
import that is repeated sends that again, so repeat it into a new topic.

The last line with --json is the summary: that of `produce`, and files, batches, control_batches_skipped, \
empty_batches_skipped, beyond_retention.")]
pub(crate) struct Args {
    /// The topic
    topic: TopicName,
    /// A directory that holds TOPIC-PARTITION directories, or is one; a file; or `-` for stdin
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Which partition a record goes to: the one it was in, or one by its key, as a producer chooses it
    #[arg(long, value_enum, default_value = "keep", value_name = "RULE")]
    partition_map: PartitionMap,
    /// The partition, for a file or stdin [default: 0]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Create the topic if it is missing, with as many partitions as the files have; it keeps its records for ever
    #[arg(long)]
    create: bool,
    /// The topic to read, where PATH holds several [default: the one called TOPIC, or the only one]
    #[arg(long, value_name = "NAME")]
    source_topic: Option<TopicName>,
    /// Take the records of Kafka's transactions too, whether they were committed or not
    #[arg(long)]
    with_transactions: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PartitionMap {
    Keep,
    Key,
}

/// What became of all batches.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    produced: produce::Summary,
    files: u64,
    #[serde(flatten)]
    counts: Counts,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    /// Batches that were sent, as they lay in the files.
    batches: u64,
    /// Markers of Kafka's transactions.
    control_batches_skipped: u64,
    /// Batches that compaction left without records.
    empty_batches_skipped: u64,
    /// Records older than the topic keeps them, and so soon gone.
    beyond_retention: u64,
}

/// A record that was refused.
#[derive(Debug, Serialize)]
struct RejectedView<'a> {
    rejected_file: &'a str,
    /// Where its batch begins.
    byte: u64,
    /// Its index in the batch.
    index: u32,
    code: u16,
    text: &'a str,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> anyhow::Result<Exit> {
    let sources = sources::find(&args)?;
    let client = context.common.connect().await?;
    let topic = topic(&args, &sources, &client).await?;
    let (summary, failure) = import(&args, sources, &topic, &client, context).await?;
    context.out.item(&summary, text)?;
    context.out.flush()?;
    warn_of_retention(&summary.counts, &topic, context);
    client.close().await;
    match failure {
        Some(failure) => Err(failure),
        None if summary.produced.books.rejected > 0 => Ok(Exit::RecordsRejected),
        None => Ok(Exit::Done),
    }
}

/// The topic, with the partitions that are needed.
async fn topic(args: &Args, sources: &[Source], client: &Client) -> anyhow::Result<TopicDescription> {
    let name = &args.topic;
    let last = sources.iter().map(|source| source.partition).max().unwrap_or(0);
    let needed = last.saturating_add(1);
    let topic = match client.admin().topic(name).await {
        Ok(topic) => topic,
        Err(error) if error.code() != Some(ErrorCode::UnknownTopic) => return Err(error.into()),
        Err(_) if args.create => {
            // Age goes by the records' own timestamps: by the default, what is a week old would be deleted at once.
            let config = TopicConfig { retention: Retention::FOREVER, ..TopicConfig::default() };
            client.admin().create_topic(CreateTopic { name: name.clone(), partitions: needed, config }).await?
        }
        Err(_) => {
            let text = format!("topic `{name}` does not exist");
            let partitions = human::counted(needed.into(), "partition");
            let advice =
                format!("add `--create` to make it with {partitions}, or `weir topic create {name}` as you like it");
            return Err(Failure::new(Exit::NotFound, text, advice).into());
        }
    };
    let has = topic.partitions.len() as u32;
    if args.partition_map == PartitionMap::Keep && needed > has {
        let has = human::counted(has.into(), "partition");
        let text = format!("topic `{name}` has {has}, and there are files for partition {last}");
        let advice = format!("`weir topic alter {name} --partitions {needed}`, or spread them: `--partition-map key`");
        return Err(Failure::new(Exit::NotFound, text, advice).into());
    }
    Ok(topic)
}

async fn import(
    args: &Args,
    sources: Vec<Source>,
    topic: &TopicDescription,
    client: &Client,
    context: &mut Context,
) -> anyhow::Result<(Summary, Option<anyhow::Error>)> {
    let watch = Stopwatch::start();
    let producer = client.producer(ProducerConfig::default());
    let progress = progress(&sources, context);
    let files = sources.iter().map(|source| source.inputs.len() as u64).sum();
    let job = Job {
        sources,
        spread_over: (args.partition_map == PartitionMap::Key).then_some(topic.partitions.len() as u32),
        with_transactions: args.with_transactions,
        progress: progress.clone(),
    };
    let (delivered, deliveries) = mpsc::channel(UNANSWERED_MAX);
    let collecting = tokio::spawn(collect(deliveries));
    let mut counts = Counts::default();
    let sent = send(job, topic, &producer, delivered, &mut counts).await;
    // What failed is known from the deliveries, with its place; the flush itself has nothing to add.
    let _ = producer.flush().await;
    let collected = collecting.await?;
    progress.finish_and_clear();
    list_rejects(&collected, context)?;
    let produced = produce::Summary::of(&producer, &topic.name, watch.elapsed());
    Ok((Summary { produced, files, counts }, collected.failure.or_else(|| sent.err())))
}

/// Reads and sends to the end of the files, or to the first batch that cannot be sent.
async fn send(
    job: Job,
    topic: &TopicDescription,
    producer: &Producer,
    delivered: mpsc::Sender<(Origin, BatchHandle)>,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let (read, mut items) = mpsc::channel(BATCHES_AHEAD);
    // A thread of its own: a read of a pipe cannot be taken back, and must not hold the runtime's end.
    std::thread::spawn(move || reading::read(&job, &read));
    let age_ms = topic.config.retention.expires_age_ms();
    let oldest_kept = age_ms.map(|age_ms| clock::now_ms().saturating_sub_unsigned(age_ms));
    loop {
        let item = tokio::select! {
            // The collector stopped at a failure, which it reports.
            () = delivered.closed() => return Ok(()),
            item = items.recv() => item,
        };
        let Some(item) = item else { return Ok(()) };
        let item = item?;
        counts.add(&item, oldest_kept);
        let Item::Batch(origin, batches) = item else { continue };
        for (partition, batch) in batches {
            let place = TopicPartition { topic: topic.name.clone(), partition };
            let handle = producer.send_encoded(&place, batch).await.map_err(|error| origin.failed(error))?;
            if delivered.send((origin.clone(), handle)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Counts {
    fn add(&mut self, item: &Item, oldest_kept: Option<i64>) {
        match item {
            Item::Control => self.control_batches_skipped += 1,
            Item::Empty => self.empty_batches_skipped += 1,
            Item::Batch(_, batches) => {
                self.batches += 1;
                let headers = batches.iter().map(|(_, batch)| batch.header());
                let old = headers.filter(|header| oldest_kept.is_some_and(|oldest| header.max_timestamp < oldest));
                self.beyond_retention += old.map(|header| u64::from(header.record_count)).sum::<u64>();
            }
        }
    }
}

/// What the deliveries said.
#[derive(Debug, Default)]
struct Collected {
    rejects: Vec<(Origin, RecordError)>,
    rejects_beyond: u64,
    failure: Option<anyhow::Error>,
}

/// Waits for every delivery, in order, until one fails.
async fn collect(mut deliveries: mpsc::Receiver<(Origin, BatchHandle)>) -> Collected {
    let mut collected = Collected::default();
    while let Some((origin, handle)) = deliveries.recv().await {
        match handle.await {
            Ok(delivery) => collected.reject(&origin, &delivery.rejects),
            Err(error) => {
                collected.failure = Some(origin.failed(error));
                return collected;
            }
        }
    }
    collected
}

impl Collected {
    fn reject(&mut self, origin: &Origin, rejects: &[RecordError]) {
        let room = REJECTS_LISTED_MAX - self.rejects.len();
        self.rejects.extend(rejects.iter().take(room).map(|error| (origin.clone(), error.clone())));
        self.rejects_beyond += rejects.len().saturating_sub(room) as u64;
    }
}

fn list_rejects(collected: &Collected, context: &mut Context) -> anyhow::Result<()> {
    for (origin, RecordError { index, code, text }) in &collected.rejects {
        if context.out.is_json() {
            let (rejected_file, byte) = (&*origin.file, origin.position);
            context.out.json_line(&RejectedView { rejected_file, byte, index: *index, code: *code, text })?;
        } else {
            context.out.say(format!("record {index} of the batch at {origin} was rejected: {text} (code {code})"));
        }
    }
    if collected.rejects_beyond > 0 {
        context.out.say(format!("and {} more", human::counted(collected.rejects_beyond, "rejected record")));
    }
    Ok(())
}

fn warn_of_retention(counts: &Counts, topic: &TopicDescription, context: &Context) {
    let Some(age_ms) = topic.config.retention.expires_age_ms() else { return };
    if counts.beyond_retention > 0 {
        let (name, age) = (&topic.name, human::duration_ms(age_ms));
        let records = human::counted(counts.beyond_retention, "record");
        context.out.say(format!(
            "{records} older than topic `{name}` keeps them ({age}) may be deleted soon; to keep them: \
             `weir topic alter {name} --retention-age forever`"
        ));
    }
}

fn text(summary: &Summary) -> String {
    let mut text = produce::text(&summary.produced);
    let Counts { control_batches_skipped, empty_batches_skipped, .. } = summary.counts;
    for (count, noun) in [(control_batches_skipped, "control batch"), (empty_batches_skipped, "empty batch")] {
        if count > 0 {
            text += &format!("; {} skipped", human::counted(count, noun));
        }
    }
    text
}

/// A bar over the files' bytes, where a person waits.
fn progress(sources: &[Source], context: &Context) -> ProgressBar {
    if context.out.is_json() || !context.out.talks_to_a_person() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match sources.iter().map(Source::bytes).sum::<Option<u64>>() {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "  {spinner} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "  {spinner} {binary_bytes}, {binary_bytes_per_sec}"),
    };
    let bar = bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
