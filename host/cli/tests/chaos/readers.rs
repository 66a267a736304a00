//! Readers: from the start, from the end, from anywhere, to the end or for a while; and some who only ask where a
//! partition begins and ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{
    Assignment, Client, ConsumeError, ConsumedBatch, Consumer, ConsumerConfig, DeliveryMode, ErrorCode, Offset,
    OffsetSpec, Until,
};
use sim::{
    checker::history::{Seen, What},
    rng::Rng,
};

use crate::{clock, payload, world::World};

/// Longest time that one reads before it begins elsewhere.
const SESSION_MS_MAX: u64 = 5_000;

/// Reads, here and there, until the world stops.
pub(crate) async fn read(world: Arc<World>, mut rng: Rng) {
    let mut reached = BTreeMap::new();
    let Some(mut client) = world.connect().await else { return };
    while !world.is_stopped() {
        Session::begin(&world, &client, &mut rng, &mut reached).run(&mut rng).await;
        if rng.percent(10) {
            let Some(other) = world.connect().await else { return };
            client = other;
        }
    }
}

/// Asks where partitions begin and end until the world stops.
pub(crate) async fn ask(world: Arc<World>, mut rng: Rng) {
    let Some(client) = world.connect().await else { return };
    let (admin, number) = (client.admin(), world.next_client());
    while !world.is_stopped() {
        let partition = rng.below(world.partitions().len()) as u32;
        let is_end = rng.percent(70);
        let place = if is_end { OffsetSpec::End } else { OffsetSpec::Beginning };
        world.note(number, What::Ask { partition });
        if let Ok(Offset(offset)) = admin.find_offset(world.partition(partition), place).await {
            let what =
                if is_end { What::Watermark { partition, offset } } else { What::LogStart { partition, offset } };
            world.note(number, what);
        }
        tokio::time::sleep(Duration::from_millis(rng.within(1..=40))).await;
    }
}

/// One consumer, as a reader of its own.
struct Session<'a> {
    world: &'a World,
    number: u32,
    consumer: Consumer,
    until: Until,
    /// Where it is, by partition; unknown until the first record where it did not say where to begin.
    places: BTreeMap<u32, Option<u64>>,
    /// How far any session of this reader came.
    reached: &'a mut BTreeMap<u32, u64>,
}

impl<'a> Session<'a> {
    fn begin(world: &'a World, client: &Client, rng: &mut Rng, reached: &'a mut BTreeMap<u32, u64>) -> Session<'a> {
        let number = world.next_client();
        let mut places = BTreeMap::new();
        let mut assignments = Vec::new();
        let until = if rng.percent(50) { Until::End } else { Until::Forever };
        for _ in 0..rng.within(1..=3) {
            let partition = rng.below(world.partitions().len()) as u32;
            if places.contains_key(&partition) {
                continue;
            }
            let known = reached.get(&partition).copied().unwrap_or(0);
            let from = match rng.below(3) {
                0 => OffsetSpec::Beginning,
                1 => OffsetSpec::End,
                _ => OffsetSpec::At(Offset(rng.within(0..=known))),
            };
            let to = if let OffsetSpec::At(Offset(offset)) = from { Some(offset) } else { None };
            world.note(number, What::Seek { partition, to });
            world.note(number, What::Ask { partition });
            places.insert(partition, to);
            let of = world.partition(partition);
            assignments.push(Assignment { topic: of.topic.clone(), partition: of.partition, from });
        }
        let delivery = if rng.percent(50) { DeliveryMode::Push } else { DeliveryMode::Pull };
        let consumer = client.consumer(ConsumerConfig { until, delivery, ..ConsumerConfig::new(assignments) });
        Session { world, number, consumer, until, places, reached }
    }

    async fn run(mut self, rng: &mut Rng) {
        let over = clock::now() + Duration::from_millis(rng.within(50..=SESSION_MS_MAX));
        let is_slow = rng.percent(20);
        let mut failed = false;
        while !self.world.is_stopped() {
            let rest = over.saturating_duration_since(clock::now());
            match tokio::time::timeout(rest, self.consumer.next_batch()).await {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(Ok(batch))) => self.note(&batch),
                Ok(Some(Err(error))) => {
                    failed = true;
                    self.judge(&error);
                }
            }
            if is_slow {
                tokio::time::sleep(Duration::from_millis(rng.within(1..=50))).await;
            }
            if rng.percent(3) {
                self.seek(rng);
            }
        }
        if self.until == Until::End && !failed && !self.world.is_stopped() {
            self.note_ends();
        }
    }

    fn note(&mut self, batch: &ConsumedBatch) {
        let partition = self.world.index_of(batch.partition());
        let seen = |record: client::RecordRef<'_>| Seen {
            offset: record.offset.0,
            record: record.value.and_then(payload::decode),
        };
        let records: Vec<Seen> = batch.records().map(seen).collect();
        let next_offset = batch.next_offset().0;
        let place = self.places.get_mut(&partition).expect("it was assigned");
        let from = place.unwrap_or_else(|| records.first().map_or(next_offset, |first| first.offset));
        *place = Some(next_offset);
        let reached = self.reached.entry(partition).or_default();
        *reached = next_offset.max(*reached);
        self.world.note(self.number, What::Read { partition, from, next_offset, records });
    }

    fn seek(&mut self, rng: &mut Rng) {
        let Some((partition, Some(place))) = self.places.iter().next().map(|(of, place)| (*of, *place)) else { return };
        let to = rng.within(0..=place);
        self.world.note(self.number, What::Seek { partition, to: Some(to) });
        self.places.insert(partition, Some(to));
        self.consumer.seek(self.world.partition(partition), OffsetSpec::At(Offset(to))).expect("it was assigned");
    }

    /// Reading to the end is asking where it is: everything acknowledged before it began was to be read.
    fn note_ends(&self) {
        for partition in self.places.keys().copied() {
            if let Some(Offset(offset)) = self.consumer.position(self.world.partition(partition)) {
                self.world.note(self.number, What::Watermark { partition, offset });
            }
        }
    }

    /// Retention may have taken the place where it began; anything else is not to be.
    fn judge(&self, error: &ConsumeError) {
        if error.code() != Some(ErrorCode::OffsetOutOfRange) {
            self.world.trouble(format!("reading: {error}"));
        }
    }
}
