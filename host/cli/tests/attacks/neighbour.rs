//! Somebody else's topic on the same broker, with a transform that does its work: produced to and read all the time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use client::{Assignment, Client, ConsumedRecord, ConsumerConfig, NOW, OffsetSpec, ProducerConfig, Record, TopicName};
use tokio::task::JoinHandle;

use crate::{clock, create_topic, deploy, read};

/// How long it waits between two batches.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a reader may be behind when the last record was acknowledged.
const LAG_SECONDS_MAX: u32 = 30;

/// Records of a batch; the last one sets off the transform, and is dead.
const BATCH: usize = 5;

/// See the module.
pub(crate) struct Neighbour {
    client: Client,
    topic: TopicName,
    stopped: Arc<AtomicBool>,
    producing: JoinHandle<Vec<Duration>>,
    /// What a reader that follows the topic has seen.
    seen: Arc<Mutex<Vec<String>>>,
    following: JoinHandle<()>,
}

impl Neighbour {
    /// Sets its topic up and starts producing.
    pub(crate) async fn start(client: Client) -> Neighbour {
        let admin = client.admin();
        let moody = include_str!("../../../transform/tests/guests/moody.wat");
        let wasm = wat::parse_str(moody.replace("$CURSOR", "(export \"weir_cursor\")")).unwrap();
        admin.upload_plugin("moody".parse().unwrap(), wasm).await.unwrap();
        let topic = create_topic(&admin, "neighbour").await;
        deploy(&admin, &topic, "moody", None).await.unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let producing = tokio::spawn(produce(client.clone(), topic.clone(), Arc::clone(&stopped)));
        let seen = Arc::default();
        let following = tokio::spawn(follow(client.clone(), topic.clone(), Arc::clone(&seen)));
        Neighbour { client, topic, stopped, producing, seen, following }
    }

    /// Stops, and finds every record where it belongs; says what it came to.
    pub(crate) async fn finish(self) -> String {
        self.stopped.store(true, Relaxed);
        let mut waits = self.producing.await.unwrap();
        let values = |records: Vec<ConsumedRecord>| -> Vec<String> { records.into_iter().map(text).collect() };
        let batches = 0..waits.len();
        let kept = values(read(&self.client, &self.topic).await);
        let expected: Vec<_> =
            batches.clone().flat_map(|batch| (0..BATCH - 1).map(move |of| value(batch, of))).collect();
        assert!(kept == expected, "{} records are kept, {} should be", kept.len(), expected.len());
        for _ in 0..LAG_SECONDS_MAX {
            if self.seen.lock().unwrap().len() >= expected.len() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.following.abort();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(seen == expected, "a reader that followed saw {} records of {}", seen.len(), expected.len());
        let dead = values(read(&self.client, &"neighbour.dlq".parse().unwrap()).await);
        let expected: Vec<_> = batches.map(|batch| value(batch, BATCH - 1)).collect();
        assert!(dead == expected, "{} records are dead, {} should be", dead.len(), expected.len());
        waits.sort_unstable();
        let (middle, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        format!("{} batches, half of them answered within {middle:.1?}, all within {most:.1?}", waits.len())
    }
}

fn text(record: ConsumedRecord) -> String {
    String::from_utf8(record.value.unwrap().to_vec()).unwrap()
}

/// Reads what comes, as it comes.
async fn follow(client: Client, topic: TopicName, seen: Arc<Mutex<Vec<String>>>) {
    let from = Assignment { topic, partition: 0, from: OffsetSpec::Beginning };
    let mut consumer = client.consumer(ConsumerConfig::new([from]));
    while let Some(record) = consumer.next().await {
        seen.lock().unwrap().push(text(record.unwrap()));
    }
}

fn value(batch: usize, of: usize) -> String {
    if of == BATCH - 1 { format!("X {batch}") } else { format!("quiet {batch} {of}") }
}

/// Produces until it is stopped; how long each batch took to be answered.
async fn produce(client: Client, topic: TopicName, stopped: Arc<AtomicBool>) -> Vec<Duration> {
    let config =
        ProducerConfig { batch_records: BATCH as u32, linger: Duration::from_secs(5), ..ProducerConfig::default() };
    let producer = client.producer(config);
    let mut waits = Vec::new();
    while !stopped.load(Relaxed) {
        let watch = clock::now();
        let mut deliveries = Vec::new();
        for of in 0..BATCH {
            let record = Record::unkeyed(value(waits.len(), of), NOW);
            deliveries.push(producer.send(&topic, record).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        waits.push(watch.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    waits
}
