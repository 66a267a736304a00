//! Reads one topic back while it is written, and counts what comes.
//!
//! Invariant: offsets ascend; a record that came twice ends the reading with an error.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use client::{Assignment, Client, ConsumedRecord, Consumer, ConsumerConfig, Offset, OffsetSpec, TopicName};
use serde_json::Value;
use tokio::task::JoinHandle;

/// Records that are kept to be shown.
const KEPT_TO_SHOW: usize = 1_000;

/// What was read of one topic.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) count: u64,
    /// How many records have each value of the field that tells them apart.
    pub(super) by_value: BTreeMap<String, u64>,
    /// The first records.
    pub(super) first: Vec<ConsumedRecord>,
}

/// A topic that is being read.
pub(super) struct Reading {
    read: Arc<Mutex<Read>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Reading {
    /// Reads the topic's only partition from its present end on.
    pub(super) async fn start(client: &Client, topic: &TopicName, tell_by: &'static str) -> anyhow::Result<Reading> {
        let described = client.admin().topic(topic).await?;
        let end = described.partitions.first().map_or(Offset::ZERO, |partition| partition.high_watermark);
        let assignment = Assignment { topic: topic.clone(), partition: 0, from: OffsetSpec::At(end) };
        let consumer = client.consumer(ConsumerConfig::new([assignment]));
        let read = Arc::<Mutex<Read>>::default();
        let task = tokio::spawn(follow(consumer, end, Arc::clone(&read), tell_by));
        Ok(Reading { read, task })
    }

    /// Records read so far.
    pub(super) fn count(&self) -> u64 {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Fails when the reading has failed.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        if self.task.is_finished() {
            (&mut self.task).await??;
            anyhow::bail!("reading ended early");
        }
        Ok(())
    }

    /// Ends it.
    pub(super) fn finish(self) -> Read {
        self.task.abort();
        std::mem::take(&mut *self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn follow(
    mut consumer: Consumer,
    from: Offset,
    read: Arc<Mutex<Read>>,
    tell_by: &'static str,
) -> anyhow::Result<()> {
    let mut next = from;
    while let Some(record) = consumer.next().await {
        let record = record?;
        anyhow::ensure!(record.offset >= next, "offset {} of `{}` was read twice", record.offset, record.partition);
        next = record.offset.plus(1);
        read.lock().unwrap_or_else(PoisonError::into_inner).take(record, tell_by);
    }
    Ok(())
}

impl Read {
    fn take(&mut self, record: ConsumedRecord, tell_by: &str) {
        self.count += 1;
        if let Some(value) = record.value.as_deref().and_then(|value| field(value, tell_by)) {
            *self.by_value.entry(value).or_default() += 1;
        }
        if self.first.len() < KEPT_TO_SHOW {
            self.first.push(record);
        }
    }
}

/// A field of a JSON object, as text.
fn field(value: &[u8], name: &str) -> Option<String> {
    let object: Value = serde_json::from_slice(value).ok()?;
    match object.get(name)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
