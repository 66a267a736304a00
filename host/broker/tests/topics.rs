//! Topics and reading through the public face.

mod common;

use broker::{Broker, BrokerOptions, FetchError, ProduceError, StoreOptions, TopicError};
use common::{LONG, batch, compacted, create, keyed, open, partition, produced, topic, topic_name, values};
use protocol::{
    BatchBuilder, CleanupPolicy, Compression, ErrorCode, Health, Offset, Record, Retention, TopicPartition, WireError,
    control::{AlterTopic, OffsetSpec},
};

fn alter(name: &str) -> AlterTopic {
    AlterTopic { name: topic_name(name), retention: None, max_record_bytes: None, partitions: None }
}

#[tokio::test]
async fn creating_what_exists_alike_succeeds_and_otherwise_says_what_is_different() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let first = broker.create_topic(create("orders", 3)).await.unwrap();
    assert_eq!(broker.create_topic(create("orders", 3)).await.unwrap(), first);
    let other = broker.create_topic(create("orders", 4)).await.unwrap_err();
    let wire = WireError::from(&other);
    assert_eq!(wire.code, ErrorCode::AlreadyExists);
    assert!(wire.text.contains("3 partitions, not 4"), "{}", wire.text);
    let none = broker.create_topic(create("none", 0)).await.unwrap_err();
    assert!(matches!(none, TopicError::Partitions { partitions: 0 }));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_restart_keeps_topics_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "orders", 2).await;
    let retention = Retention { bytes: Some(1 << 30), policy: CleanupPolicy::CompactAndDelete, ..Retention::FOREVER };
    let altered = AlterTopic {
        retention: Some(retention),
        partitions: Some(3),
        max_record_bytes: Some(5_000),
        ..alter("orders")
    };
    broker.alter_topic(altered).await.unwrap();
    partition(&broker, "orders", 2).produce(keyed(&[("x", "1")])).await.unwrap();
    let before = broker.describe_topics(&[]).unwrap();
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(broker.describe_topics(&[]).unwrap(), before);
    assert_eq!((before[0].config.retention, before[0].config.max_record_bytes), (retention, 5_000));
    assert_eq!(before[0].partitions[2].high_watermark, Offset(1));
    let status = broker.status();
    assert_eq!((status.topics, status.partitions, &status.health), (1, 3, &Health::Healthy));
    assert!((1..=status.budget_bytes).contains(&status.disk_bytes) && status.available_bytes > 0, "{status:?}");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_compacts_takes_no_record_without_a_key_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let prices = compacted(&broker, "prices").await;
    prices.produce(keyed(&[("a", "1"), ("b", "2")])).await.unwrap();
    let mut mixed = BatchBuilder::new(Compression::Zstd);
    mixed.append(&Record::new("a", "3", 1)).unwrap();
    mixed.append(&Record::unkeyed("no key", 1)).unwrap();
    let error = prices.produce(mixed.finish(Offset::ZERO).unwrap()).await.unwrap_err();
    assert!(matches!(&error, ProduceError::KeyMissing { index: 1, topic } if *topic == topic_name("prices")));
    let wire = WireError::from(&error);
    assert_eq!((wire.code, wire.code.is_retryable()), (ErrorCode::InvalidRecord, false));
    assert!(wire.text.contains("`weir topic alter prices --cleanup-policy delete`"), "{}", wire.text);
    assert_eq!(values(&prices).await, ["1", "2"], "nothing of the batch is stored");

    let other = broker.create_topic(create("prices", 1)).await.unwrap_err();
    assert!(WireError::from(other).text.contains("cleanup policy `compact`, not `delete`"));
    let delete = AlterTopic { retention: Some(Retention::default()), ..alter("prices") };
    broker.alter_topic(delete).await.unwrap();
    prices.produce(batch(&["no key"])).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn partitions_only_grow() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "orders", 2).await;
    let shrink = broker.alter_topic(AlterTopic { partitions: Some(1), ..alter("orders") }).await.unwrap_err();
    assert!(matches!(shrink, TopicError::Shrink { partitions: 2, asked: 1, .. }));
    let unknown = broker.alter_topic(alter("nobody")).await.unwrap_err();
    assert_eq!(WireError::from(unknown).code, ErrorCode::UnknownTopic);
    let place = TopicPartition { topic: topic_name("orders"), partition: 2 };
    assert_eq!(WireError::from(broker.partition(&place).unwrap_err()).code, ErrorCode::UnknownPartition);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let old = topic(&broker, "orders", 1).await.remove(0);
    old.produce(produced(&["a"], 1, 0, 0)).await.unwrap();
    let waiting = {
        let old = old.clone();
        tokio::spawn(async move { old.wait_for(Offset(10)).await })
    };
    broker.delete_topic(topic_name("orders")).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(FetchError::PartitionGone)));
    assert!(matches!(old.produce(batch(&["b"])).await, Err(ProduceError::PartitionGone)));
    assert!(matches!(old.fetch(Offset(0), 1_000).await, Err(FetchError::PartitionGone)));
    assert!(broker.describe_topics(&[]).unwrap().is_empty());
    assert!(matches!(broker.delete_topic(topic_name("orders")).await, Err(TopicError::Unknown(_))));

    let new = topic(&broker, "orders", 1).await.remove(0);
    assert!(new.id() > old.id(), "ids are never used again");
    assert!(new.producer_place(protocol::ProducerId(1)).is_none());
    new.produce(produced(&["c"], 1, 0, 0)).await.unwrap();
    broker.shutdown().await;
    drop((broker, old, new));
    let broker = open(dir.path());
    assert_eq!(values(&partition(&broker, "orders", 0)).await, ["c"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn places_are_found_and_offsets_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = topic(&broker, "orders", 1).await.remove(0);
    partition.produce(batch(&["a", "b", "c"])).await.unwrap();
    assert_eq!(partition.find_offset(OffsetSpec::Beginning).await.unwrap(), Offset(0));
    assert_eq!(partition.find_offset(OffsetSpec::End).await.unwrap(), Offset(3));
    assert_eq!(partition.find_offset(OffsetSpec::At(Offset(2))).await.unwrap(), Offset(2));
    assert_eq!(partition.find_offset(OffsetSpec::Timestamp(0)).await.unwrap(), Offset(0));
    assert_eq!(partition.find_offset(OffsetSpec::Timestamp(i64::MAX)).await.unwrap(), Offset(3));
    assert!(partition.find_offset(OffsetSpec::At(Offset(4))).await.is_err());
    let beyond = partition.fetch(Offset(4), 100).await.unwrap_err();
    assert!(matches!(beyond, FetchError::OffsetOutOfRange { offset: Offset(4), high_watermark: Offset(3), .. }));
    let end = partition.fetch(Offset(3), 100).await.unwrap();
    assert!(end.batches.is_empty());
    broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_by_the_record_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = topic(&broker, "orders", 1).await.remove(0);
    let waiting = {
        let partition = partition.clone();
        tokio::spawn(async move {
            partition.wait_for(Offset(1)).await.unwrap();
            values(&partition).await
        })
    };
    partition.produce(batch(&["a"])).await.unwrap();
    partition.produce(batch(&["b"])).await.unwrap();
    assert_eq!(waiting.await.unwrap(), ["a", "b"]);
    let closing = {
        let partition = partition.clone();
        tokio::spawn(async move { partition.wait_for(Offset(100)).await })
    };
    broker.shutdown().await;
    assert!(matches!(closing.await.unwrap(), Err(FetchError::ShuttingDown)));
}

#[tokio::test]
async fn expired_records_go_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let store = StoreOptions { segment_bytes_max: 1 << 20, preallocate_bytes: 64 << 10, ..StoreOptions::default() };
    let options = BrokerOptions { store, retention_interval_ms: 20, ..BrokerOptions::new(dir.path()) };
    let broker = Broker::open(options).unwrap();
    let mut create = create("orders", 1);
    create.config.retention = Retention { age_ms: Some(1), ..Retention::FOREVER };
    broker.create_topic(create).await.unwrap();
    let partition = partition(&broker, "orders", 0);
    let old = vec![b'x'; 200 << 10];
    let trimmed = async {
        // Records of 2023; they go with their segment, when the next one begins.
        while partition.place().unwrap().log_start_offset == Offset::ZERO {
            partition.produce(batch(&[&old])).await.unwrap();
        }
    };
    tokio::time::timeout(LONG, trimmed).await.expect("the first records go");
    let gone = partition.fetch(Offset::ZERO, 100).await.unwrap_err();
    assert!(matches!(gone, FetchError::OffsetOutOfRange { .. }));
    partition.produce(batch(&["new"])).await.unwrap();
    broker.shutdown().await;
}
