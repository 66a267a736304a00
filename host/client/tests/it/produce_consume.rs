//! Records go in and come out: all codecs, keys, headers, places, push and pull, batches and records.

use std::time::Duration;

use client::{
    Assignment, BatchBuilder, Client, Compression, ConsumedRecord, Consumer, ConsumerConfig, DeliveryMode, Header, NOW,
    Offset, OffsetSpec, Outcome, ProducerConfig, Record, RecordBatch, TopicName, Until,
};
use tokio::time::timeout;

use crate::common::{TestBroker, create, drain, follow, numbers, place, whole, within};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

#[tokio::test]
async fn what_goes_in_comes_out_with_every_codec_pushed_and_pulled() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    for compression in CODECS {
        let name = create(&client, &format!("codec-{compression}"), 1).await;
        let producer = client.producer(ProducerConfig { compression, batch_records: 7, ..ProducerConfig::default() });
        let sent: Vec<Record> = (0..50).map(record).collect();
        for record in &sent {
            drop(producer.send(&name, record.clone()).await.unwrap());
        }
        let books = within(producer.close()).await.unwrap();
        assert_eq!((books.records_in, books.kept, books.balance()), (50, 50, true));

        for delivery in [DeliveryMode::Push, DeliveryMode::Pull] {
            let config = ConsumerConfig { delivery, ..whole(&name, 1) };
            let received = drain(client.consumer(config)).await;
            let offsets: Vec<u64> = received.iter().map(|record| record.offset.0).collect();
            assert_eq!(offsets, (0..50).collect::<Vec<_>>(), "{compression} {delivery:?}");
            for (received, sent) in received.iter().zip(&sent) {
                assert_eq!((&received.key, &received.value), (&sent.key, &sent.value));
                assert_eq!((&received.headers, received.timestamp), (&sent.headers, sent.timestamp));
            }
        }
    }
}

fn record(index: u32) -> Record {
    let key = (!index.is_multiple_of(3)).then(|| format!("key-{index}").into());
    let value = (!index.is_multiple_of(5)).then(|| "value ".repeat(index as usize).into());
    let headers = (0..index % 3).map(|header| Header::new(format!("h{header}"), "x")).collect();
    Record { key, value, headers, timestamp: 1_700_000_000_000 + i64::from(index) }
}

#[tokio::test]
async fn a_delivery_names_partition_and_offset() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 3).await;
    let producer = client.producer(ProducerConfig::default());
    for expected in 0..3 {
        let delivery = producer.send_to(&place(&name, 2), Record::unkeyed("v", NOW)).await.unwrap();
        producer.flush().await.unwrap();
        let delivery = within(delivery).await.unwrap();
        assert_eq!((delivery.partition(), delivery.offset()), (&place(&name, 2), Offset(expected)));
        assert_eq!(delivery.outcome(), Outcome::Accepted);
    }
}

#[tokio::test]
async fn keyed_records_go_to_the_partition_kafka_chooses() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 10).await;
    let producer = client.producer(ProducerConfig::default());
    // Kafka's murmur2 of `abc`, without its sign, modulo 10.
    let delivery = producer.send(&name, Record::new("abc", "v", NOW)).await.unwrap();
    assert_eq!(within(delivery).await.unwrap().partition().partition, 479_470_107 % 10);
}

#[tokio::test]
async fn a_whole_batch_has_one_answer() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig { compression: Compression::Lz4, ..ProducerConfig::default() });
    let mut answers = Vec::new();
    for start in 0..20_u32 {
        let mut batch = producer.batch();
        for index in 0..100 {
            let number = (start * 100 + index).to_string();
            batch.append_parts(index, 5, None, Some(number.as_bytes()), std::iter::empty()).unwrap();
        }
        answers.push(producer.send_batch(&place(&name, 0), batch).await.unwrap());
    }
    for (index, answer) in answers.into_iter().enumerate() {
        let delivery = within(answer).await.unwrap();
        assert_eq!((delivery.base_offset.0, delivery.next_offset.0), (index as u64 * 100, index as u64 * 100 + 100));
    }
    let mut consumer = client.consumer(whole(&name, 1));
    let mut count = 0;
    while let Some(batch) = within(consumer.next_batch()).await {
        for record in batch.unwrap().records() {
            assert_eq!(record.value, Some(count.to_string().as_bytes()));
            count += 1;
        }
    }
    assert_eq!(count, 2_000);
    assert!(producer.send_batch(&place(&name, 0), producer.batch()).await.is_err(), "an empty batch is refused");
}

#[tokio::test]
async fn an_encoded_batch_is_copied_without_touching_its_records() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let (from, to) = (create(&client, "from", 1).await, create(&client, "to", 1).await);
    for compression in CODECS {
        let producer = client.producer(ProducerConfig { compression, batch_records: 7, ..ProducerConfig::default() });
        for index in 0..20 {
            drop(producer.send(&from, record(index)).await.unwrap());
        }
        within(producer.close()).await.unwrap();
    }

    let producer = client.producer(ProducerConfig::default());
    let stored = encoded(client.consumer(whole(&from, 1))).await;
    let mut answers = Vec::new();
    for batch in &stored {
        let batch = batch.clone().into_produced().unwrap();
        answers.push(producer.send_encoded(&place(&to, 0), batch).await.unwrap());
    }
    for (answer, batch) in answers.into_iter().zip(&stored) {
        let delivery = within(answer).await.unwrap();
        assert_eq!((delivery.base_offset, delivery.next_offset), (batch.header().base_offset, batch.next_offset()));
    }
    let section = |batch: &RecordBatch| batch.bytes().slice(protocol::HEADER_BYTES..);
    let copied = encoded(client.consumer(whole(&to, 1))).await;
    assert_eq!(copied.iter().map(section).collect::<Vec<_>>(), stored.iter().map(section).collect::<Vec<_>>());
    let id = |batch: &RecordBatch| batch.header().producer_id;
    assert!(copied.iter().all(|batch| id(batch) == id(&copied[0]) && id(batch) != id(&stored[0])), "the sender's own");
    assert_eq!(whole_records(&client, &to).await, whole_records(&client, &from).await);

    let empty = BatchBuilder::new(Compression::None).finish(Offset::ZERO).unwrap();
    assert!(producer.send_encoded(&place(&to, 0), empty).await.is_err(), "an empty batch is refused");
}

async fn encoded(mut consumer: Consumer) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = within(consumer.next_batch()).await {
        batches.push(batch.unwrap().encoded().clone());
    }
    batches
}

async fn whole_records(client: &Client, topic: &TopicName) -> Vec<Record> {
    let records = drain(client.consumer(whole(topic, 1))).await.into_iter();
    let owned = |ConsumedRecord { key, value, headers, timestamp, .. }| Record { key, value, headers, timestamp };
    records.map(owned).collect()
}

#[tokio::test]
async fn a_consumer_begins_where_it_is_told() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig::default());
    for batch in 0..5_u32 {
        for index in 0..10 {
            let number = batch * 10 + index;
            let record = Record::unkeyed(number.to_string(), 1_000 + i64::from(number));
            drop(producer.send(&name, record).await.unwrap());
        }
        producer.flush().await.unwrap();
    }
    for delivery in [DeliveryMode::Push, DeliveryMode::Pull] {
        let read = async |from| {
            let assignment = Assignment { topic: name.clone(), partition: 0, from };
            let config = ConsumerConfig { until: Until::End, delivery, ..ConsumerConfig::new([assignment]) };
            numbers(&drain(client.consumer(config)).await)
        };
        // In the middle of a batch, by offset and by time.
        assert_eq!(read(OffsetSpec::At(Offset(13))).await, (13..50).collect::<Vec<_>>());
        assert_eq!(read(OffsetSpec::Timestamp(1_027)).await, (27..50).collect::<Vec<_>>());
        assert_eq!(read(OffsetSpec::Timestamp(9_999)).await, [0_u64; 0]);
        assert_eq!(read(OffsetSpec::End).await, [0_u64; 0]);
    }
}

#[tokio::test]
async fn a_consumer_knows_where_it_is_and_can_go_elsewhere() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig::default());
    for number in 0..10 {
        drop(producer.send(&name, Record::unkeyed(number.to_string(), NOW)).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut consumer = client.consumer(follow(&name, 1));
    let partition = place(&name, 0);
    assert_eq!(consumer.position(&partition), None);
    for _ in 0..4 {
        within(consumer.next()).await.unwrap().unwrap();
    }
    assert_eq!(consumer.position(&partition), Some(Offset(4)));
    assert_eq!(consumer.high_watermark(&partition), Some(Offset(10)));
    // Records and batches mix: the rest of the batch in hand comes first.
    let rest = within(consumer.next_batch()).await.unwrap().unwrap();
    assert_eq!(rest.records().map(|record| record.offset.0).collect::<Vec<_>>(), (4..10).collect::<Vec<_>>());
    assert!(consumer.is_at_end());

    consumer.seek(&partition, OffsetSpec::At(Offset(8))).unwrap();
    assert!(!consumer.is_at_end());
    let record = within(consumer.next()).await.unwrap().unwrap();
    assert_eq!(record.offset, Offset(8));
    assert!(consumer.seek(&place(&name, 1), OffsetSpec::End).is_err());
}

#[tokio::test]
async fn a_slow_consumer_with_a_small_buffer_gets_everything() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 2).await;
    let producer = client.producer(ProducerConfig { batch_records: 100, ..ProducerConfig::default() });
    for number in 0..2_000_u32 {
        let record = Record::new(number.to_string(), vec![b'x'; 1_000], NOW);
        drop(producer.send(&name, record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for delivery in [DeliveryMode::Push, DeliveryMode::Pull] {
        let config = ConsumerConfig { buffer_bytes: 1, delivery, ..whole(&name, 2) };
        let mut keys: Vec<u32> = drain(client.consumer(config))
            .await
            .iter()
            .map(|r| str::from_utf8(r.key.as_ref().unwrap()).unwrap().parse().unwrap())
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..2_000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_consumer_that_follows_sees_what_comes_later() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let mut push = client.consumer(follow(&name, 1));
    let mut pull = client.consumer(ConsumerConfig { delivery: DeliveryMode::Pull, ..follow(&name, 1) });
    let producer = client.producer(ProducerConfig::default());
    for number in 0..5_u64 {
        let delivery = producer.send(&name, Record::unkeyed(number.to_string(), NOW)).await.unwrap();
        within(delivery).await.unwrap();
        for consumer in [&mut push, &mut pull] {
            assert_eq!(within(consumer.next()).await.unwrap().unwrap().offset, Offset(number));
        }
    }
}

#[tokio::test]
async fn waits_that_are_cancelled_lose_nothing() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let mut consumer = client.consumer(follow(&name, 1));
    // So small a buffer that a send waits for the answer to the one before.
    let producer =
        client.producer(ProducerConfig { buffer_bytes: 10, linger: Duration::ZERO, ..ProducerConfig::default() });
    let mut taken_over = 0_u64;
    while taken_over < 100 {
        let send = producer.send(&name, Record::unkeyed(format!("{taken_over:010}"), NOW));
        match timeout(Duration::from_micros(50), send).await {
            Ok(sent) => {
                drop(sent.unwrap());
                taken_over += 1;
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
    let mut read = Vec::new();
    while read.len() < 100 {
        if let Ok(record) = timeout(Duration::from_micros(50), consumer.next()).await {
            read.push(record.unwrap().unwrap());
        }
    }
    assert_eq!(numbers(&read), (0..100).collect::<Vec<_>>());
    assert_eq!(within(producer.close()).await.unwrap().records_in, 100);
}

#[tokio::test]
async fn what_was_handed_over_is_sent_although_the_producer_is_dropped() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let mut consumer = client.consumer(follow(&name, 1));
    let producer = client.producer(ProducerConfig { linger: Duration::from_secs(3_600), ..ProducerConfig::default() });
    // The connection lives as long as somebody needs it.
    drop(client);
    let handle = producer.send(&name, Record::unkeyed("0", NOW)).await.unwrap();
    drop(producer);
    assert_eq!(within(handle).await.unwrap().offset(), Offset(0));
    assert_eq!(within(consumer.next()).await.unwrap().unwrap().offset, Offset(0));
}

#[tokio::test]
async fn more_partitions_than_streams_are_read_all_the_same() {
    const PARTITIONS: u32 = 100;
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", PARTITIONS).await;
    let producer = client.producer(ProducerConfig::default());
    for partition in 0..PARTITIONS {
        let record = Record::unkeyed(partition.to_string(), NOW);
        drop(producer.send_to(&place(&name, partition), record).await.unwrap());
    }
    within(producer.flush()).await.unwrap();
    let mut read = numbers(&drain(client.consumer(whole(&name, PARTITIONS))).await);
    read.sort_unstable();
    assert_eq!(read, (0..u64::from(PARTITIONS)).collect::<Vec<_>>());
}
