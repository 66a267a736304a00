//! The reading thread: batches out of files, checked, and as they are to be sent.
//!
//! Invariant: nothing follows a batch that is refused.
//!
//! Start at [`read`].

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    sync::Arc,
};

use client::{BatchBuilder, BatchError, Offset, RecordBatch};
use indicatif::ProgressBar;
use protocol::{limits::DECOMPRESSED_BYTES_MAX, partition_for_key, records};
use tokio::sync::mpsc;

use super::sources::{Input, Source, unreadable};
use crate::{
    batch_file::{BatchReader, ReadError},
    exit::{Exit, Failure},
};

const BUFFER_BYTES: usize = 1 << 20;

/// What is to be read, and how.
pub(super) struct Job {
    pub(super) sources: Vec<Source>,
    /// Spread the records over so many partitions by their keys; `None` leaves them in theirs.
    pub(super) spread_over: Option<u32>,
    pub(super) with_transactions: bool,
    /// Told of every byte that was read.
    pub(super) progress: ProgressBar,
}

/// Where a batch comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) file: Arc<str>,
    /// The byte it begins at.
    pub(super) position: u64,
}

/// What was found at one place.
pub(super) enum Item {
    /// A batch: what is to be sent of it, to which partitions.
    Batch(Origin, Vec<(u32, RecordBatch)>),
    /// A marker of Kafka's, which is no data.
    Control,
    /// A batch without records.
    Empty,
}

/// Where the reading thread puts what it found.
type Items = mpsc::Sender<anyhow::Result<Item>>;

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of `{}`", self.position, self.file)
    }
}

impl Origin {
    /// An error with this place before it.
    pub(super) fn failed(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        error.into().context(format!("batch at {self}"))
    }

    fn refused(&self, advice: impl Into<String>, cause: BatchError) -> Failure {
        Failure::new(Exit::Refused, format!("the import ends at {self}"), advice).because(cause)
    }
}

/// Reads all sources in order, to the end or the first error.
pub(super) fn read(job: &Job, items: &Items) {
    for source in &job.sources {
        if let Err(error) = read_source(job, source, items) {
            // Nobody listens any more when the sending side failed first.
            let _ = items.blocking_send(Err(error.into()));
            return;
        }
    }
}

fn read_source(job: &Job, source: &Source, items: &Items) -> Result<(), Failure> {
    let mut next_offset = Offset::ZERO;
    for input in &source.inputs {
        let (file, reader) = open(input)?;
        let mut batches = BatchReader::new(BufReader::with_capacity(BUFFER_BYTES, reader));
        loop {
            let origin = Origin { file: Arc::clone(&file), position: batches.position() };
            let Some(batch) = batches.next().map_err(|error| job.unread(source.partition, &origin, error))? else {
                break;
            };
            let base_offset = batch.header().base_offset;
            if base_offset < next_offset {
                return Err(overlap(&origin, base_offset, next_offset));
            }
            next_offset = batch.next_offset();
            job.progress.inc(batch.bytes().len() as u64);
            let item = job.prepare(source.partition, origin, batch)?;
            if items.blocking_send(Ok(item)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn open(input: &Input) -> Result<(Arc<str>, Box<dyn Read>), Failure> {
    match input {
        Input::Stdin => Ok(("-".into(), Box::new(io::stdin()))),
        Input::File(path) => match File::open(path) {
            Ok(file) => Ok((path.display().to_string().into(), Box::new(file))),
            Err(error) => Err(unreadable(path, error)),
        },
    }
}

impl Job {
    fn prepare(&self, partition: u32, origin: Origin, batch: RecordBatch) -> Result<Item, Failure> {
        let header = batch.header();
        if header.attributes.is_control() {
            return Ok(Item::Control);
        }
        if header.record_count == 0 {
            return Ok(Item::Empty);
        }
        if header.attributes.is_transactional() && !self.with_transactions {
            return Err(transactional(&origin));
        }
        let prepared = match self.spread_over {
            Some(partitions) => spread(&batch, partition, partitions),
            None => batch.into_produced().map(|batch| vec![(partition, batch)]),
        };
        match prepared {
            Ok(batches) => Ok(Item::Batch(origin, batches)),
            Err(cause) => {
                let advice = "its checksum is right, so it was written like this: see what wrote it";
                Err(origin.refused(advice, cause))
            }
        }
    }

    /// What to say of bytes that are no batch, and what to do.
    fn unread(&self, partition: u32, origin: &Origin, error: ReadError) -> Failure {
        let cause = match error {
            ReadError::Batch(cause) => cause,
            ReadError::Io(cause) => {
                let text = format!("cannot read on at {origin}");
                return Failure::new(Exit::Failed, text, "what lies before that byte was sent").because(cause);
            }
        };
        if matches!(cause, BatchError::Magic { .. }) {
            let advice = "it is of Kafka before 0.11, or none of batches; have such a topic copied by a newer Kafka";
            return origin.refused(advice, cause);
        }
        let (file, from) = (&origin.file, origin.position + 1);
        let rule = match self.spread_over {
            Some(_) => "--partition-map key".to_owned(),
            None => format!("--partition {partition}"),
        };
        let advice = format!(
            "copy it again from its source; what lies before that byte was sent, the rest is \
             `tail -c +{from} {file} | weir import TOPIC - {rule}`"
        );
        origin.refused(advice, cause)
    }
}

/// The records by the partitions of their keys; those without one by the partition they were in.
fn spread(batch: &RecordBatch, from: u32, partitions: u32) -> Result<Vec<(u32, RecordBatch)>, BatchError> {
    let header = batch.header();
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX)?;
    batch.validate_records(&section, usize::MAX)?;
    let mut builders: BTreeMap<u32, BatchBuilder> = BTreeMap::new();
    for record in records(&section) {
        let record = record?;
        let to = record.key.map_or(from % partitions, |key| partition_for_key(key, partitions));
        let builder = builders.entry(to).or_insert_with(|| BatchBuilder::new(header.attributes.compression()));
        let timestamp = header.timestamp(record.timestamp_delta);
        builder.append_parts(builder.record_count(), timestamp, record.key, record.value, record.headers)?;
    }
    builders.into_iter().map(|(to, builder)| Ok((to, builder.finish(Offset::ZERO)?))).collect()
}

fn overlap(origin: &Origin, base_offset: Offset, next_offset: Offset) -> Failure {
    let text = format!(
        "the batch at {origin} begins at offset {base_offset}, and the one before it reaches up to offset {next_offset}"
    );
    Failure::new(Exit::Refused, text, "files of one partition must not overlap: leave those of one export")
}

fn transactional(origin: &Origin) -> Failure {
    let text = format!("the batch at {origin} is of a transaction, and whether it was committed is not followed");
    let advice = "take the records of all transactions, aborted ones too: `--with-transactions`; or copy the topic with \
                  a consumer of Kafka's that reads committed records alone";
    Failure::new(Exit::Refused, text, advice)
}

#[cfg(test)]
mod tests {
    use client::{Compression, Record};

    use super::*;

    #[test]
    fn keys_decide_where_records_go_and_their_order_stays() {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        let keys = (0..100_i64).map(|index| (index % 5 > 0).then(|| format!("key-{}", index % 7)));
        for (index, key) in (0..).zip(keys) {
            let value = Some(index.to_string().into());
            builder.append(&Record { key: key.map(Into::into), value, headers: Vec::new(), timestamp: index }).unwrap();
        }
        let batch = builder.finish(Offset(40)).unwrap();
        let mut seen = 0;
        for (to, part) in spread(&batch, 5, 3).unwrap() {
            part.check_produced().unwrap();
            assert_eq!(part.header().attributes.compression(), Compression::Lz4);
            let section = part.records_section(1 << 20).unwrap();
            let mut last = -1;
            for record in records(&section).map(Result::unwrap) {
                assert_eq!(to, record.key.map_or(5 % 3, |key| partition_for_key(key, 3)));
                let timestamp = part.header().timestamp(record.timestamp_delta);
                assert_eq!(record.value, Some(timestamp.to_string().as_bytes()));
                assert!(timestamp > last, "{timestamp} after {last}");
                last = timestamp;
                seen += 1;
            }
        }
        assert_eq!(seen, 100);
    }
}
