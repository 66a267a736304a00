//! A broker in a directory of its own, and short ways to say what the tests say often.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{path::Path, sync::Arc, time::Duration};

use broker::{Broker, BrokerOptions, Partition, StoreOptions};
use bytes::Bytes;
use protocol::{
    BatchBuilder, BatchProducer, CleanupPolicy, Compression, Epoch, Offset, PluginName, ProducerId, Record,
    RecordBatch, Sequence, TopicConfig, TopicName, TopicPartition, TransformName, TransformSpec,
    control::{CreateTopic, DeployTransform},
    records,
};

pub(crate) const VERDICTS: &str = include_str!("verdicts.wat");
pub(crate) const KEEP: &str = include_str!("keep.wat");

/// Time in which anything that is going to happen has happened; only a test that hangs sees it pass.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) fn open(dir: &Path) -> Broker {
    let store = StoreOptions { preallocate_bytes: 1 << 20, ..StoreOptions::default() };
    Broker::open(BrokerOptions { store, plugin_workers: 2, ..BrokerOptions::new(dir) }).unwrap()
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn transform_name(name: &str) -> TransformName {
    TransformName::new(name).unwrap()
}

pub(crate) fn plugin_name(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

pub(crate) fn create(name: &str, partitions: u32) -> CreateTopic {
    CreateTopic { name: topic_name(name), partitions, config: TopicConfig::default() }
}

/// A topic and its partitions.
pub(crate) async fn topic(broker: &Broker, name: &str, partitions: u32) -> Vec<Arc<Partition>> {
    broker.create_topic(create(name, partitions)).await.unwrap();
    (0..partitions).map(|number| partition(broker, name, number)).collect()
}

pub(crate) fn partition(broker: &Broker, topic: &str, partition: u32) -> Arc<Partition> {
    broker.partition(&TopicPartition { topic: topic_name(topic), partition }).unwrap()
}

pub(crate) async fn upload(broker: &Broker, name: &str, wat: &str) {
    let wasm = Bytes::from(wat::parse_str(wat).unwrap());
    broker.upload_plugin(plugin_name(name), wasm).await.unwrap();
}

pub(crate) fn deploy(topic: &str, plugin: &str) -> DeployTransform {
    DeployTransform::new(topic_name(topic), plugin_name(plugin))
}

/// Names of a topic's transforms, in order.
pub(crate) fn pipeline(broker: &Broker, topic: &str) -> Vec<TransformSpec> {
    let transforms = broker.list_transforms(Some(&topic_name(topic))).unwrap();
    transforms.into_iter().map(|transform| transform.spec).collect()
}

/// A batch of records with these values, without keys.
pub(crate) fn batch<V: AsRef<[u8]>>(values: &[V]) -> RecordBatch {
    build(values, None)
}

/// A batch of an idempotent producer.
pub(crate) fn produced<V: AsRef<[u8]>>(values: &[V], producer: u64, epoch: u16, sequence: u32) -> RecordBatch {
    let (id, epoch, base_sequence) = (ProducerId(producer), Epoch(epoch), Sequence(sequence));
    build(values, Some(BatchProducer { id, epoch, base_sequence }))
}

/// A batch of records with these keys and values.
pub(crate) fn keyed(records: &[(&str, &str)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (key, value) in records {
        builder.append(&Record::new(key.to_string(), value.to_string(), 1_700_000_000_000)).unwrap();
    }
    builder.finish(Offset::ZERO).unwrap()
}

/// A topic of one partition that keeps the newest record of each key.
pub(crate) async fn compacted(broker: &Broker, name: &str) -> Arc<Partition> {
    let mut create = create(name, 1);
    create.config.retention.policy = CleanupPolicy::Compact;
    broker.create_topic(create).await.unwrap();
    partition(broker, name, 0)
}

fn build<V: AsRef<[u8]>>(values: &[V], producer: Option<BatchProducer>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.append(&Record::unkeyed(value.as_ref().to_vec(), 1_700_000_000_000)).unwrap();
    }
    if let Some(producer) = producer {
        builder.producer(producer);
    }
    builder.finish(Offset::ZERO).unwrap()
}

/// Every record of a partition with its offset.
pub(crate) async fn read(partition: &Partition) -> Vec<(Offset, Record)> {
    let place = partition.place().unwrap();
    let (mut next, mut all) = (place.log_start_offset, Vec::new());
    while next < place.high_watermark {
        let outcome = partition.fetch(next, 1 << 20).await.unwrap();
        assert!(outcome.next_offset > next, "a fetch below the high watermark moves on");
        for mut run in outcome.batches {
            while let Some(batch) = RecordBatch::split_first(&mut run).unwrap() {
                let section = batch.records_section(32 << 20).unwrap();
                for view in records(&section) {
                    let view = view.unwrap();
                    let offset = batch.header().base_offset.plus(view.offset_delta.into());
                    all.push((offset, view.to_record(batch.header())));
                }
            }
        }
        next = outcome.next_offset;
    }
    all
}

/// The values of a partition, as text.
pub(crate) async fn values(partition: &Partition) -> Vec<String> {
    read(partition).await.into_iter().map(|(_, record)| text(record.value)).collect()
}

pub(crate) fn text(bytes: Option<Bytes>) -> String {
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

/// A record's header as text.
pub(crate) fn header(record: &Record, name: &str) -> Option<String> {
    let found = record.headers.iter().find(|header| header.name == name)?;
    Some(text(found.value.clone()))
}
