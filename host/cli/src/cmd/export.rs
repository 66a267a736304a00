//! `weir export`: a topic's batches in files, as they are stored.
//!
//! Where a partition begins and ends is settled before anything is read, so an export is a snapshot and never follows.
//! Batches that lie in it whole are written byte for byte; one that a `--from` or `--until` lies in is cut.
//!
//! Start at [`run`].

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use client::{
    Admin, Assignment, BatchBuilder, BatchError, Client, ConsumedBatch, ConsumerConfig, Offset, OffsetSpec,
    PartitionDescription, RecordBatch, TopicDescription, TopicName, TopicPartition, Until,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Context;
use crate::{
    batch_file::{NewFile, Target},
    clock::Stopwatch,
    exit::{Exit, Failure},
    human,
    place::{self, Place},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir export clicks --to backup        # backup/clicks-0/00000000000000000000.log and so on
  weir export clicks --to today --from -24h --json
  weir export clicks --to part --partition 0 --from 1000 --until 2000
  weir export clicks --to - --partition 0 | ssh elsewhere weir import clicks -

A file holds record batches (Kafka's RecordBatch v2), one behind the other, and nothing else: what a segment of Kafka's \
own log holds. `kafka-dump-log.sh --deep-iteration --print-data-log --files FILE` shows one; `weir import` reads it. \
Offsets have gaps where records were dropped or compacted. Files get their names when all of them are whole and synced.

The summary with --json: topic, partitions (each with records, batches, bytes, first_offset, next_offset), records, \
batches, bytes. With `--to -` it goes to stderr.")]
pub(crate) struct Args {
    /// The topic
    topic: TopicName,
    /// A directory, made if it is missing; or `-` for stdout, with one partition
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Export this partition; can be given more than once [default: all]
    #[arg(long = "partition", value_name = "N")]
    partitions: Vec<u32>,
    /// Where to begin: beginning, an offset, a time (RFC 3339), or how long ago (-10m)
    #[arg(long, default_value = "beginning", value_name = "PLACE", value_parser = place::parse, allow_hyphen_values = true)]
    from: Place,
    /// Where to end, in the same words; what is there stays out. At most what is the end now
    #[arg(long, default_value = "end", value_name = "PLACE", value_parser = place::parse, allow_hyphen_values = true)]
    until: Place,
    /// Replace the files that an earlier export of the topic left there
    #[arg(long)]
    force: bool,
}

/// What is exported of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    partition: u32,
    first: Offset,
    next: Offset,
}

/// What was written of one partition.
#[derive(Debug, Serialize)]
struct PartitionSummary {
    partition: u32,
    file: Option<String>,
    records: u64,
    batches: u64,
    bytes: u64,
    /// The offsets it is for: from this one on,
    first_offset: u64,
    /// up to this one, which is not in it. Some may have no record.
    next_offset: u64,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    to: String,
    partitions: Vec<PartitionSummary>,
    records: u64,
    batches: u64,
    bytes: u64,
    elapsed_ms: u64,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> anyhow::Result<Exit> {
    let watch = Stopwatch::start();
    check(&args)?;
    let client = context.common.connect().await?;
    let topic = client.admin().topic(&args.topic).await?;
    let ranges = ranges(&args, &topic, &client.admin()).await?;
    let progress = progress(&ranges, context);
    let partitions = match to_stdout(&args) {
        true => to_pipe(&args, &ranges, &client, context, &progress).await,
        false => to_dir(&args, &ranges, &client, &progress).await,
    };
    progress.finish_and_clear();
    tell(Summary::new(&args, partitions?, watch.elapsed()), to_stdout(&args), context)?;
    client.close().await;
    Ok(Exit::Done)
}

fn to_stdout(args: &Args) -> bool {
    args.to == Path::new("-")
}

/// What is wrong whatever the topic is like.
fn check(args: &Args) -> Result<(), Failure> {
    if let (Place::Spec(OffsetSpec::At(from)), Place::Spec(OffsetSpec::At(until))) = (args.from, args.until)
        && until < from
    {
        let text = format!("`--until {until}` lies before `--from {from}`");
        return Err(Failure::new(Exit::Usage, text, "swap them"));
    }
    if to_stdout(args) && io::stdout().is_terminal() {
        let advice = "pipe it into a file or a program, or give a directory: `--to DIR`";
        return Err(Failure::new(Exit::Usage, "record batches are nothing for a terminal", advice));
    }
    Ok(())
}

/// Settles what is exported, for all partitions by the same look at the topic.
async fn ranges(args: &Args, topic: &TopicDescription, admin: &Admin) -> anyhow::Result<Vec<Range>> {
    let count = topic.partitions.len() as u32;
    let mut chosen = args.partitions.clone();
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        chosen.extend(0..count);
    }
    if to_stdout(args) && chosen.len() > 1 {
        let text = format!("stdout takes one partition, and `{}` would give {}", args.topic, chosen.len());
        return Err(Failure::new(Exit::Usage, text, "choose one: `--partition N`; or give a directory").into());
    }
    let mut ranges = Vec::new();
    for partition in chosen {
        let Some(described) = topic.partitions.get(partition as usize) else {
            let has = human::counted(count.into(), "partition");
            let text = format!("topic `{}` has no partition {partition}; it has {has}", args.topic);
            let advice = "partitions are numbered from 0: `weir topic describe NAME`";
            return Err(Failure::new(Exit::NotFound, text, advice).into());
        };
        let place = TopicPartition { topic: args.topic.clone(), partition };
        let first = offset_of(args.from, &place, described, admin).await?;
        if first < described.log_start_offset {
            let start = described.log_start_offset;
            let text = format!("offset {first} of `{place}` is gone; its records begin at {start}");
            return Err(Failure::new(Exit::Refused, text, "give `--from beginning` to take what is still there").into());
        }
        let next = offset_of(args.until, &place, described, admin).await?;
        let first = first.min(described.high_watermark);
        ranges.push(Range { partition, first, next: next.clamp(first, described.high_watermark) });
    }
    Ok(ranges)
}

async fn offset_of(
    wanted: Place,
    place: &TopicPartition,
    described: &PartitionDescription,
    admin: &Admin,
) -> anyhow::Result<Offset> {
    Ok(match wanted.spec() {
        OffsetSpec::Beginning => described.log_start_offset,
        OffsetSpec::End => described.high_watermark,
        OffsetSpec::At(offset) => offset,
        time @ OffsetSpec::Timestamp(_) => admin.find_offset(place, time).await?,
    })
}

async fn to_dir(
    args: &Args,
    ranges: &[Range],
    client: &Client,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<PartitionSummary>> {
    let target = Target::prepare(&args.to, &args.topic, &args.partitions, args.force)?;
    let (mut files, mut summaries): (Vec<NewFile>, Vec<_>) = (Vec::new(), Vec::new());
    for range in ranges {
        let mut file = target.file(range.partition, range.first)?;
        let mut summary = PartitionSummary::new(range, Some(file.name().display().to_string()));
        copy(args, range, client, progress, |batch| {
            summary.add(batch);
            Ok(file.write(batch.bytes())?)
        })
        .await?;
        files.push(file);
        summaries.push(summary);
    }
    target.publish(files)?;
    Ok(summaries)
}

async fn to_pipe(
    args: &Args,
    ranges: &[Range],
    client: &Client,
    context: &mut Context,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<PartitionSummary>> {
    let mut summaries = Vec::new();
    for range in ranges {
        let mut summary = PartitionSummary::new(range, None);
        copy(args, range, client, progress, |batch| {
            summary.add(batch);
            context.out.raw(batch.bytes())
        })
        .await?;
        summaries.push(summary);
    }
    context.out.flush()?;
    Ok(summaries)
}

/// Hands the batches of a partition over, in order.
async fn copy(
    args: &Args,
    range: &Range,
    client: &Client,
    progress: &ProgressBar,
    mut write: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if range.first == range.next {
        return Ok(());
    }
    let (topic, partition) = (args.topic.clone(), range.partition);
    let assignment = Assignment { topic, partition, from: OffsetSpec::At(range.first) };
    let place = assignment.topic_partition();
    let mut consumer = client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([assignment]) });
    let done = progress.position();
    while let Some(batch) = consumer.next_batch().await {
        let batch = batch?;
        if batch.encoded().header().base_offset >= range.next {
            break;
        }
        if let Some(batch) = range.cut(&batch)? {
            write(&batch)?;
        }
        progress.set_position(done + batch.next_offset().min(range.next).since(range.first));
        if batch.next_offset() >= range.next {
            break;
        }
    }
    if consumer.high_watermark(&place) < Some(range.next) {
        // The end was there a moment ago: the topic was deleted and made again, or its broker lost its data.
        let text = format!("`{place}` ends before offset {}, which it had reached", range.next);
        return Err(Failure::new(Exit::Failed, text, "see what became of it: `weir topic describe NAME`").into());
    }
    progress.set_position(done + range.next.since(range.first));
    Ok(())
}

impl Range {
    /// What of a batch lies in the range: mostly all of it, as it is.
    fn cut(&self, batch: &ConsumedBatch) -> Result<Option<RecordBatch>, BatchError> {
        let whole = batch.encoded();
        let header = whole.header();
        if self.first <= header.base_offset && whole.next_offset() <= self.next {
            return Ok(Some(whole.clone()));
        }
        // It covers what it is for and no more, so that two exports that meet at an offset can be joined.
        let first = header.base_offset.max(self.first);
        let next = whole.next_offset().min(self.next);
        let mut part = BatchBuilder::with_capacity(header.attributes.compression(), batch.section_bytes());
        for record in batch.records().filter(|record| (first..next).contains(&record.offset)) {
            let offset_delta = record.offset.since(first) as u32;
            part.append_parts(offset_delta, record.timestamp, record.key, record.value, record.headers)?;
        }
        if part.is_empty() {
            return Ok(None);
        }
        part.cover((next.since(first) - 1) as u32);
        part.finish(first).map(Some)
    }
}

impl PartitionSummary {
    fn new(range: &Range, file: Option<String>) -> PartitionSummary {
        let Range { partition, first, next } = *range;
        PartitionSummary {
            partition,
            file,
            records: 0,
            batches: 0,
            bytes: 0,
            first_offset: first.0,
            next_offset: next.0,
        }
    }

    fn add(&mut self, batch: &RecordBatch) {
        self.records += u64::from(batch.header().record_count);
        self.batches += 1;
        self.bytes += batch.bytes().len() as u64;
    }
}

impl Summary {
    fn new(args: &Args, partitions: Vec<PartitionSummary>, elapsed: Duration) -> Summary {
        Summary {
            topic: args.topic.to_string(),
            to: args.to.display().to_string(),
            records: partitions.iter().map(|partition| partition.records).sum(),
            batches: partitions.iter().map(|partition| partition.batches).sum(),
            bytes: partitions.iter().map(|partition| partition.bytes).sum(),
            partitions,
            elapsed_ms: elapsed.as_millis() as u64,
        }
    }
}

/// Where the batches went to stdout, the summary must not.
fn tell(summary: Summary, on_stderr: bool, context: &mut Context) -> anyhow::Result<()> {
    match (on_stderr, context.out.is_json()) {
        (false, _) => context.out.item(&summary, text),
        (true, true) => {
            context.out.say(serde_json::to_string(&summary)?);
            Ok(())
        }
        (true, false) => {
            context.out.say(text(&summary));
            Ok(())
        }
    }
}

fn text(summary: &Summary) -> String {
    let to = if summary.to == "-" { "stdout".to_owned() } else { format!("`{}`", summary.to) };
    format!(
        "{} of topic `{}` in {} and {} ({}) written to {to} ({})",
        human::counted(summary.records, "record"),
        summary.topic,
        human::counted(summary.batches, "batch"),
        human::counted(summary.partitions.len() as u64, "partition"),
        human::bytes(summary.bytes),
        human::elapsed(Duration::from_millis(summary.elapsed_ms)),
    )
}

/// A bar over the offsets, where a person waits.
fn progress(ranges: &[Range], context: &Context) -> ProgressBar {
    if context.out.is_json() || !context.out.talks_to_a_person() {
        return ProgressBar::hidden();
    }
    let offsets = ranges.iter().map(|range| range.next.since(range.first)).sum();
    let style = ProgressStyle::with_template("  {spinner} {human_pos} of {human_len} offsets, {per_sec}, {eta} left");
    let bar = ProgressBar::new(offsets).with_style(style.expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
