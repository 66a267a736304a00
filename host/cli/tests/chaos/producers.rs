//! Producers: they send, write down what they are told, and now and then vanish without a word.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{
    BatchDelivery, BatchHandle, Compression, DeliveryHandle, NOW, ProduceError, Producer, ProducerConfig, Record,
};
use sim::{
    checker::history::{Fate, RecordId, What},
    rng::Rng,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use crate::{clock, world::World};

/// How long closing a connection may take while the broker does not answer.
const CLOSE_DURATION_MAX: Duration = Duration::from_secs(10);

/// How long a patient producer waits for an answer: longer than any outage.
const PATIENT_MS: u64 = 120_000;

/// Sends, as one producer after another, until the world stops.
pub(crate) async fn run(world: Arc<World>, mut rng: Rng) {
    while !world.is_stopped() {
        one_life(&world, &mut rng).await;
    }
}

async fn one_life(world: &Arc<World>, rng: &mut Rng) {
    let Some(client) = world.connect().await else { return };
    // The short one gives up during most outages: nobody knows what became of those records.
    let patience_ms = rng.pick(&[300, 3_000, PATIENT_MS]);
    let producer = client.producer(ProducerConfig {
        compression: rng.pick(&[Compression::None, Compression::Lz4, Compression::Zstd]),
        linger: Duration::from_millis(rng.within(0..=10)),
        delivery_timeout: Duration::from_millis(patience_ms),
        ..ProducerConfig::default()
    });
    let number = world.next_client();
    let is_patient = patience_ms == PATIENT_MS;
    let mut life = Life { world, number, is_patient, producer, lanes: BTreeMap::new(), tasks: JoinSet::new() };
    for _ in 0..rng.within(50..=1_500) {
        if world.is_stopped() {
            break;
        }
        life.send(rng).await;
        tokio::time::sleep(Duration::from_millis(rng.within(2..=20))).await;
    }
    let Life { number, producer, lanes, mut tasks, .. } = life;
    drop(lanes);
    if rng.percent(30) && !world.is_stopped() {
        // What is on its way has no answer then.
        let _ = tokio::time::timeout(CLOSE_DURATION_MAX, client.close()).await;
    } else {
        // Each record's own answer says more.
        let _ = producer.flush().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a task that collects answers does not panic");
    }
    world.note(number, What::Total { books: producer.books() });
}

struct Life<'a> {
    world: &'a Arc<World>,
    number: u32,
    /// Whether it waits through every outage.
    is_patient: bool,
    producer: Producer,
    lanes: BTreeMap<u32, Lane>,
    tasks: JoinSet<()>,
}

/// One partition: what was sent there, in order, is answered in order.
struct Lane {
    next: u64,
    handed_over: UnboundedSender<HandedOver>,
}

enum HandedOver {
    Batch {
        first: u64,
        count: u64,
        handle: BatchHandle,
    },
    Record {
        number: u64,
        handle: DeliveryHandle,
    },
    /// It was not taken over at all.
    Not {
        first: u64,
        count: u64,
    },
}

impl Life<'_> {
    async fn send(&mut self, rng: &mut Rng) {
        let partition = self.world.any_target(rng);
        let count = rng.within(1..=8);
        let fates: Vec<Fate> = (0..count).map(|_| self.world.any_fate(partition, rng)).collect();
        let padding = rng.within(0..=300) as usize;
        let collector =
            Collector { world: Arc::clone(self.world), client: self.number, partition, is_patient: self.is_patient };
        let tasks = &mut self.tasks;
        let lane = self.lanes.entry(partition).or_insert_with(|| {
            let (handed_over, queue) = unbounded_channel();
            tasks.spawn(collector.run(queue));
            Lane { next: 0, handed_over }
        });
        let first = lane.next;
        lane.next += count;
        let handed_over = lane.handed_over.clone();
        let hand_over = |what| handed_over.send(what).expect("the collector lives as long as its lane");
        if rng.percent(70) {
            hand_over(self.send_batch(partition, first, fates, padding).await);
        } else {
            for (index, fate) in fates.into_iter().enumerate() {
                hand_over(self.send_record(partition, first + index as u64, fate, padding).await);
            }
        }
    }

    async fn send_batch(&self, partition: u32, first: u64, fates: Vec<Fate>, padding: usize) -> HandedOver {
        let count = fates.len() as u64;
        let mut batch = self.producer.batch();
        let now = clock::unix_ms();
        for (index, fate) in fates.iter().enumerate() {
            let text = crate::payload::encode(self.record(partition, first + index as u64), *fate, padding);
            batch
                .append_parts(index as u32, now, None, Some(text.as_bytes()), std::iter::empty())
                .expect("a small record fits");
        }
        self.world.note(self.number, What::Send { partition, first, fates });
        match self.producer.send_batch(self.world.partition(partition), batch).await {
            Ok(handle) => HandedOver::Batch { first, count, handle },
            Err(_) => HandedOver::Not { first, count },
        }
    }

    async fn send_record(&self, partition: u32, number: u64, fate: Fate, padding: usize) -> HandedOver {
        let text = crate::payload::encode(self.record(partition, number), fate, padding);
        self.world.note(self.number, What::Send { partition, first: number, fates: vec![fate] });
        match self.producer.send_to(self.world.partition(partition), Record::unkeyed(text, NOW)).await {
            Ok(handle) => HandedOver::Record { number, handle },
            Err(_) => HandedOver::Not { first: number, count: 1 },
        }
    }

    fn record(&self, partition: u32, number: u64) -> RecordId {
        RecordId { producer: self.number, partition, number }
    }
}

/// Writes down the answers of one partition.
struct Collector {
    world: Arc<World>,
    client: u32,
    partition: u32,
    is_patient: bool,
}

impl Collector {
    async fn run(self, mut queue: UnboundedReceiver<HandedOver>) {
        // Records that travelled together have one answer: how many of it are here.
        let mut together = 0;
        while let Some(handed_over) = queue.recv().await {
            let what = match handed_over {
                HandedOver::Not { first, count } => What::Refused { partition: self.partition, first, count },
                HandedOver::Batch { first, count, handle } => match handle.await {
                    Ok(batch) => self.acked(first, count, &batch),
                    Err(error) => self.failed(first, count, &error),
                },
                HandedOver::Record { number, handle } => match handle.await {
                    Ok(delivery) => {
                        let batch = delivery.batch();
                        if delivery.index() != together {
                            let text = format!("record {number} of {} came as {}th", self.client, delivery.index());
                            self.world.trouble(text);
                        }
                        together += 1;
                        if u64::from(together) < batch.books.records_in {
                            continue;
                        }
                        let count = u64::from(std::mem::take(&mut together));
                        self.acked(number + 1 - count, count, batch)
                    }
                    Err(error) => self.failed(number, 1, &error),
                },
            };
            self.world.note(self.client, what);
        }
    }

    fn acked(&self, first: u64, count: u64, batch: &BatchDelivery) -> What {
        let (base_offset, next_offset) = (batch.base_offset.0, batch.next_offset.0);
        What::Ack { partition: self.partition, first, count, base_offset, next_offset, books: batch.books }
    }

    /// What an error says: it is certainly not stored, or nobody knows.
    fn failed(&self, first: u64, count: u64, error: &ProduceError) -> What {
        let partition = self.partition;
        match error {
            ProduceError::TimedOut { sent: false, .. } => What::Refused { partition, first, count },
            ProduceError::TimedOut { sent: true, .. } | ProduceError::Closed => {
                What::Unknown { partition, first, count }
            }
            // Behind a batch that was given up, and is not stored, its successors have no place.
            ProduceError::OutcomeUnknown { .. } if !self.is_patient => What::Unknown { partition, first, count },
            // A broker that keeps its data forgets no producer, and nobody else has this one's id.
            other => {
                self.world.trouble(format!("producing to `{}`: {other}", self.world.partition(partition)));
                What::Unknown { partition, first, count }
            }
        }
    }
}
