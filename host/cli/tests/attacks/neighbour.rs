//! Somebody else's topic on the same broker, with a transform that does its work: produced to all the time, and read
//! at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use client::{Client, NOW, ProducerConfig, Record, TopicName};
use tokio::task::JoinHandle;

use crate::{clock, create_topic, deploy, read};

/// How long it waits between two batches.
const PAUSE: Duration = Duration::from_millis(10);

/// Records of a batch; the last one sets off the transform, and is dead.
const BATCH: usize = 5;

/// See the module.
pub(crate) struct Neighbour {
    client: Client,
    topic: TopicName,
    stopped: Arc<AtomicBool>,
    producing: JoinHandle<Vec<Duration>>,
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
        Neighbour { client, topic, stopped, producing }
    }

    /// Stops, and finds every record where it belongs; says what it came to.
    pub(crate) async fn finish(self) -> String {
        self.stopped.store(true, Relaxed);
        let mut waits = self.producing.await.unwrap();
        let values = |records: Vec<client::ConsumedRecord>| -> Vec<String> {
            let text = |record: client::ConsumedRecord| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            records.into_iter().map(text).collect()
        };
        let batches = 0..waits.len();
        let kept = values(read(&self.client, &self.topic).await);
        let expected: Vec<_> =
            batches.clone().flat_map(|batch| (0..BATCH - 1).map(move |of| value(batch, of))).collect();
        assert!(kept == expected, "{} records are kept, {} should be", kept.len(), expected.len());
        let dead = values(read(&self.client, &"neighbour.dlq".parse().unwrap()).await);
        let expected: Vec<_> = batches.map(|batch| value(batch, BATCH - 1)).collect();
        assert!(dead == expected, "{} records are dead, {} should be", dead.len(), expected.len());
        waits.sort_unstable();
        let (middle, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        format!("{} batches, half of them answered within {middle:.1?}, all within {most:.1?}", waits.len())
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
