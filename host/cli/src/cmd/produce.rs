//! `weir produce`: lines in, a record each; what became of them out.
//!
//! ```text
//! reading thread ── lines ──► send ── (line, delivery) ──► collect: rejects, the first failure
//! ```
//! Both arrows are bounded, so a quick file waits for a slow broker.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use client::{
    Client, Compression, DeliveryHandle, Header, NOW, Outcome, ProduceError, Producer, ProducerConfig, Record,
    TopicName, TopicPartition,
};
use indicatif::{ProgressBar, ProgressStyle};
use protocol::RecordError;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Context;
use crate::{
    clock::Stopwatch,
    exit::{Exit, Failure},
    human,
    lines::{LineError, Lines},
    view::{BooksView, RejectedView},
};

/// Lines that travel to the sender together, at most.
const CHUNK_LINES: usize = 512;

/// Bytes of lines that travel to the sender together, about.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that were read and not sent.
const CHUNKS_AHEAD: usize = 8;

/// Records that were sent and not answered: what a producer's window holds of records of 100 B, and more.
const UNANSWERED_MAX: usize = 128 << 10;

/// Records from which on the summary tells a rate.
const RECORDS_FOR_A_RATE: u64 = 1_000;

/// Rejected records that are listed one by one; the rest is counted.
pub(super) const REJECTS_LISTED_MAX: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir produce clicks --file clicks.jsonl
  tail -F /var/log/nginx/access.log | weir produce web
  echo '{\"user\":7}' | weir produce clicks --key user-7 --header source=shell
  weir produce clicks --file big.log --compression zstd --json | tail -n 1

Each line is a record; its end (LF or CRLF) is not part of it. The command ends when everything is acknowledged.
The last line with --json is the summary: records_in, kept, stored, dropped, dead_lettered, rejected, acked, failed.")]
pub(crate) struct Args {
    /// The topic
    topic: TopicName,
    /// Read this file [default: stdin]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Key of every record; records of one key keep their order and share a partition
    #[arg(long)]
    key: Option<String>,
    /// A header of every record; can be given more than once
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<Header>,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", default_value_t = Compression::None)]
    compression: Compression,
    /// Send to this partition [default: by key, else one after the other]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if name.is_empty() {
        return Err(format!("`{text}` has no name before the `=`"));
    }
    Ok(Header::new(name.to_owned(), value.to_owned()))
}

/// What became of all lines.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    topic: String,
    #[serde(flatten)]
    pub(super) books: BooksView,
    /// Records the broker took over durably: stored, dropped or dead-lettered.
    acked: u64,
    /// Records that were handed over and not answered.
    failed: u64,
    elapsed_ms: u64,
}

impl Summary {
    /// What a producer has done that sent to one topic.
    pub(super) fn of(producer: &Producer, topic: &TopicName, elapsed: Duration) -> Summary {
        let books = producer.books();
        Summary {
            topic: topic.to_string(),
            books: books.into(),
            acked: books.records_in - books.rejected,
            failed: producer.records_failed(),
            elapsed_ms: elapsed.as_millis() as u64,
        }
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> anyhow::Result<Exit> {
    let input = open(&args)?;
    let client = context.common.connect().await?;
    // Before anything is read: an unknown topic is said at once, not after the first line that is typed.
    let topic = client.admin().topic(&args.topic).await?;
    check_partition(&args, topic.partitions.len())?;
    if types(&args) {
        context.out.say("each line you type is a record; Ctrl-D ends");
    }
    let (summary, failure) = produce(&args, input, &client, context).await?;
    context.out.item(&summary, text)?;
    context.out.flush()?;
    client.close().await;
    match failure {
        Some(failure) => Err(failure),
        None if summary.books.rejected > 0 => Ok(Exit::RecordsRejected),
        None => Ok(Exit::Done),
    }
}

fn open(args: &Args) -> anyhow::Result<Box<dyn Read + Send>> {
    let Some(path) = &args.file else {
        return Ok(Box::new(io::stdin()));
    };
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => {
            let text = format!("cannot read `{}`", path.display());
            Err(Failure::new(Exit::Refused, text, "give a file of lines, or pipe them in").because(error).into())
        }
    }
}

fn check_partition(args: &Args, partitions: usize) -> Result<(), Failure> {
    match args.partition {
        Some(partition) if partition as usize >= partitions => {
            let text = format!(
                "topic `{}` has no partition {partition}; it has {}",
                args.topic,
                human::counted(partitions as u64, "partition")
            );
            Err(Failure::new(Exit::NotFound, text, "partitions are numbered from 0: `weir topic describe NAME`"))
        }
        _ => Ok(()),
    }
}

async fn produce(
    args: &Args,
    input: Box<dyn Read + Send>,
    client: &Client,
    context: &mut Context,
) -> anyhow::Result<(Summary, Option<anyhow::Error>)> {
    let watch = Stopwatch::start();
    let producer = client.producer(ProducerConfig { compression: args.compression, ..ProducerConfig::default() });
    let progress = progress(args, context);
    let (delivered, deliveries) = mpsc::channel(UNANSWERED_MAX);
    let collecting = tokio::spawn(collect(deliveries));
    let sent = send(args, input, &producer, delivered, &progress).await;
    // What failed is known from the deliveries, with its line; the flush itself has nothing to add.
    let _ = producer.flush().await;
    let collected = collecting.await?;
    progress.finish_and_clear();
    list_rejects(&collected, context)?;
    let summary = Summary::of(&producer, &args.topic, watch.elapsed());
    Ok((summary, sent.err().or(collected.failure)))
}

/// Reads and sends to the end of the input, or to the first record that cannot be sent.
async fn send(
    args: &Args,
    input: Box<dyn Read + Send>,
    producer: &Producer,
    delivered: mpsc::Sender<(u64, DeliveryHandle)>,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let (chunks, mut lines) = mpsc::channel(CHUNKS_AHEAD);
    // A thread of its own: a read of a terminal or a pipe cannot be taken back, and must not hold the runtime's end.
    std::thread::spawn(move || read(input, &chunks));
    let partition = args.partition.map(|partition| TopicPartition { topic: args.topic.clone(), partition });
    let mut line = 0;
    loop {
        let chunk = tokio::select! {
            // The collector stopped at a failure, which it reports; whoever types the next line need not do so first.
            () = delivered.closed() => return Ok(()),
            chunk = lines.recv() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        for value in chunk? {
            line += 1;
            let record = Record {
                key: args.key.clone().map(Into::into),
                value: Some(value.into()),
                headers: args.headers.clone(),
                timestamp: NOW,
            };
            let sent = match &partition {
                Some(partition) => producer.send_to(partition, record).await,
                None => producer.send(&args.topic, record).await,
            };
            let handle = sent.map_err(|error| at_line(line, error))?;
            if delivered.send((line, handle)).await.is_err() {
                return Ok(());
            }
        }
        progress.set_position(line);
    }
}

type Chunk = Result<Vec<Vec<u8>>, LineError>;

/// The reading thread: hands lines over in chunks, and at once where no more are at hand.
fn read(input: Box<dyn Read + Send>, chunks: &mpsc::Sender<Chunk>) {
    let mut lines = Lines::new(BufReader::with_capacity(256 << 10, input));
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        match lines.read(&mut line) {
            Ok(true) => {
                bytes += line.len();
                chunk.push(line);
            }
            Ok(false) => {
                let _ = chunks.blocking_send(Ok(chunk));
                return;
            }
            Err(error) => {
                // The lines before the bad one are good.
                let _ = chunks.blocking_send(Ok(chunk)).and_then(|()| chunks.blocking_send(Err(error)));
                return;
            }
        }
        if chunk.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES || lines.reader().buffer().is_empty() {
            bytes = 0;
            if chunks.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                return;
            }
        }
    }
}

/// What the deliveries said.
#[derive(Debug, Default)]
struct Collected {
    rejects: Vec<(u64, RecordError)>,
    rejects_beyond: u64,
    failure: Option<anyhow::Error>,
}

/// Waits for every delivery, in order, until one fails.
async fn collect(mut deliveries: mpsc::Receiver<(u64, DeliveryHandle)>) -> Collected {
    let mut collected = Collected::default();
    while let Some((line, handle)) = deliveries.recv().await {
        match handle.await {
            Ok(delivery) => {
                if let Outcome::Rejected(error) = delivery.outcome() {
                    collected.reject(line, error);
                }
            }
            Err(error) => {
                collected.failure = Some(at_line(line, error));
                return collected;
            }
        }
    }
    collected
}

impl Collected {
    fn reject(&mut self, line: u64, error: &RecordError) {
        if self.rejects.len() < REJECTS_LISTED_MAX {
            self.rejects.push((line, error.clone()));
        } else {
            self.rejects_beyond += 1;
        }
    }
}

fn at_line(line: u64, error: ProduceError) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("line {line}"))
}

fn list_rejects(collected: &Collected, context: &mut Context) -> anyhow::Result<()> {
    for (line, error) in &collected.rejects {
        if context.out.is_json() {
            context.out.json_line(&RejectedView::new(*line, error))?;
        } else {
            context.out.say(format!("line {line} was rejected: {} (code {})", error.text, error.code));
        }
    }
    if collected.rejects_beyond > 0 {
        context.out.say(format!("and {} more", human::counted(collected.rejects_beyond, "rejected record")));
    }
    Ok(())
}

/// Whether the lines are typed.
fn types(args: &Args) -> bool {
    args.file.is_none() && io::stdin().is_terminal()
}

/// A spinner where a person waits for a file or a pipe; nothing where they type themselves.
fn progress(args: &Args, context: &Context) -> ProgressBar {
    if types(args) || context.out.is_json() || !context.out.talks_to_a_person() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {human_pos} records sent, {per_sec}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

pub(super) fn text(summary: &Summary) -> String {
    let BooksView { records_in, kept, stored, dropped, dead_lettered, rejected } = summary.books;
    let mut text = format!("{} acknowledged by topic `{}`", human::counted(records_in, "record"), summary.topic);
    let parts = [
        (dropped + dead_lettered + rejected > 0 || stored != kept, stored, "stored"),
        (dropped > 0, dropped, "dropped"),
        (dead_lettered > 0, dead_lettered, "dead-lettered"),
        (rejected > 0, rejected, "rejected"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(said, ..)| *said)
        .map(|(_, number, word)| format!("{} {word}", human::count(*number)))
        .collect();
    if !parts.is_empty() {
        text += &format!(": {}", parts.join(", "));
    }
    if summary.failed > 0 {
        text += &format!("; {} without an answer", human::counted(summary.failed, "record"));
    }
    // A rate out of a handful of records would say more about the start than about the broker.
    let ms = if records_in < RECORDS_FOR_A_RATE { 0 } else { summary.elapsed_ms };
    let rate = (records_in * 1_000)
        .checked_div(ms)
        .map_or_else(String::new, |rate| format!(", {} records/s", human::count(rate)));
    format!("{text} ({}{rate})", human::elapsed(Duration::from_millis(summary.elapsed_ms)))
}
