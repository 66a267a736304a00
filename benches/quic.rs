//! Produce and consume over loopback QUIC, client and broker in one process: 100-byte records in batches of 1,000, every
//! batch durable before it is answered.
//!
//! `cargo bench --bench quic`

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use client::{
    Assignment, BatchBuilder, Client, ClientConfig, Compression, Consumer, ConsumerConfig, CreateTopic, Identity, NOW,
    OffsetSpec, Producer, ProducerConfig, Record, TopicConfig, TopicName, TopicPartition, Until,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use server::{Server, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const RECORD_BYTES: usize = 100;
const BATCH_RECORDS: u32 = 1_000;
/// What one iteration sends or reads: about 50 MB.
const BATCHES: u32 = 500;
const RECORDS: u64 = BATCHES as u64 * BATCH_RECORDS as u64;

/// A broker and a client on a runtime of their own.
struct Loopback {
    runtime: Runtime,
    client: Client,
    _server: Server,
    _data_dir: TempDir,
}

impl Loopback {
    fn start() -> Result<Loopback> {
        let runtime = Runtime::new()?;
        let data_dir = tempfile::tempdir()?;
        let mut config = ServerConfig { data_dir: data_dir.path().to_owned(), ..ServerConfig::default() };
        config.quic.set_port(0);
        config.runtime.announce = false;
        let server = runtime.block_on(Server::start(config))?;
        let identity = Identity::load(server.identity_path())?;
        let config = ClientConfig::new([server.quic_addr().to_string()], identity);
        let client = runtime.block_on(Client::connect(config))?;
        Ok(Loopback { runtime, client, _server: server, _data_dir: data_dir })
    }

    fn topic(&self, name: &str) -> Result<TopicPartition> {
        let topic: TopicName = name.parse()?;
        let create = CreateTopic { name: topic.clone(), partitions: 1, config: TopicConfig::default() };
        self.runtime.block_on(self.client.admin().create_topic(create))?;
        Ok(TopicPartition { topic, partition: 0 })
    }
}

fn batch(producer: &Producer) -> BatchBuilder {
    let value = [b'x'; RECORD_BYTES];
    let mut batch = producer.batch();
    for index in 0..BATCH_RECORDS {
        let appended = batch.append_parts(index, 1_700_000_000_000, None, Some(&value), std::iter::empty());
        appended.expect("a thousand small records fit");
    }
    batch
}

async fn produce_batches(producer: &Producer, to: &TopicPartition) -> Result<()> {
    let mut answers = Vec::new();
    for _ in 0..BATCHES {
        answers.push(producer.send_batch(to, batch(producer)).await?);
    }
    for answer in answers {
        answer.await?;
    }
    Ok(())
}

async fn produce_records(producer: &Producer, to: &TopicPartition) -> Result<()> {
    let value = Bytes::from_static(&[b'x'; RECORD_BYTES]);
    for _ in 0..RECORDS {
        drop(producer.send_to(to, Record::unkeyed(value.clone(), NOW)).await?);
    }
    Ok(producer.flush().await?)
}

fn produce(criterion: &mut Criterion) {
    let loopback = Loopback::start().expect("a broker starts");
    let to = loopback.topic("produce").expect("a topic is made");
    let mut group = criterion.benchmark_group("quic/produce");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10).measurement_time(Duration::from_secs(10));
    let start = |config: ProducerConfig| {
        let _guard = loopback.runtime.enter();
        loopback.client.producer(config)
    };
    let batches = start(ProducerConfig { batch_bytes: 128 << 10, ..ProducerConfig::default() });
    group.bench_function("batches", |bencher| {
        bencher.iter(|| loopback.runtime.block_on(produce_batches(&batches, &to)).expect("all is answered"));
    });
    for compression in [Compression::None, Compression::Lz4] {
        let records = start(ProducerConfig { compression, batch_records: BATCH_RECORDS, ..ProducerConfig::default() });
        group.bench_function(BenchmarkId::new("records", compression), |bencher| {
            bencher.iter(|| loopback.runtime.block_on(produce_records(&records, &to)).expect("all is answered"));
        });
    }
    group.finish();
}

async fn consume_batches(mut consumer: Consumer) -> Result<u64> {
    let mut records = 0;
    while let Some(batch) = consumer.next_batch().await {
        records += batch?.records().count() as u64;
    }
    Ok(records)
}

async fn consume_records(mut consumer: Consumer) -> Result<u64> {
    let mut records = 0;
    while let Some(record) = consumer.next().await {
        record?;
        records += 1;
    }
    Ok(records)
}

fn consume(criterion: &mut Criterion) {
    let loopback = Loopback::start().expect("a broker starts");
    let from = loopback.topic("consume").expect("a topic is made");
    loopback.runtime.block_on(async {
        let config = ProducerConfig { batch_bytes: 128 << 10, ..ProducerConfig::default() };
        let producer = loopback.client.producer(config);
        produce_batches(&producer, &from).await.expect("all is answered");
    });
    let start = || {
        let _guard = loopback.runtime.enter();
        let assignment = Assignment { topic: from.topic.clone(), partition: 0, from: OffsetSpec::Beginning };
        loopback.client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([assignment]) })
    };
    let mut group = criterion.benchmark_group("quic/consume");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("batches", |bencher| {
        bencher.iter(|| {
            let read = loopback.runtime.block_on(consume_batches(start())).expect("all is there");
            assert_eq!(read, RECORDS);
        });
    });
    group.bench_function("records", |bencher| {
        bencher.iter(|| {
            let read = loopback.runtime.block_on(consume_records(start())).expect("all is there");
            assert_eq!(read, RECORDS);
        });
    });
    group.finish();
}

criterion_group!(benches, produce, consume);
criterion_main!(benches);
