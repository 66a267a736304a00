//! What all clients share: where the broker is, its topics, and the history they write.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use client::{
    AlterTopic, Client, ClientConfig, ConnectError, CreateTopic, DeployTransform, Identity, OnError, Retention,
    TopicConfig, TopicPartition,
};
use sim::{
    checker::history::{Event, Fate, History, Partition, What},
    rng::Rng,
};

use crate::clock;

/// Topics with their partitions; what becomes of their records is written behind them.
const TOPICS: [(&str, u32); 5] = [
    ("plain", 2),
    // A plugin drops some; those it fails on go to dead letters.
    ("filtered", 2),
    ("filtered.dlq", 2),
    // The same, and those it fails on are rejected.
    ("strict", 1),
    // Retention takes old ones.
    ("short", 1),
];

/// Bytes that retention leaves in topic `short`.
const SHORT_BYTES: u64 = 256 << 10;

/// See the module.
pub(crate) struct World {
    address: SocketAddr,
    identity: Identity,
    begun: Instant,
    partitions: Vec<TopicPartition>,
    events: Mutex<Vec<Event>>,
    next_client: AtomicU32,
    stopped: AtomicBool,
    /// Records acknowledged so far, for progress.
    acked: AtomicU64,
    /// What should not have happened, and is no part of a history.
    troubles: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(address: SocketAddr, identity: Identity) -> World {
        let partitions = TOPICS.iter().flat_map(|(topic, count)| {
            let topic = topic.parse().expect("a good name");
            (0..*count).map(move |partition| TopicPartition { topic: Clone::clone(&topic), partition })
        });
        World {
            address,
            identity,
            begun: clock::now(),
            partitions: partitions.collect(),
            events: Mutex::default(),
            next_client: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            troubles: Mutex::default(),
        }
    }

    /// Creates the topics and deploys their transforms.
    pub(crate) async fn set_up(&self) -> anyhow::Result<()> {
        let admin = self.connect_patiently().await?.admin();
        let forever = TopicConfig { retention: Retention::FOREVER, ..TopicConfig::default() };
        for (name, partitions) in TOPICS.iter().filter(|(name, _)| !name.ends_with(".dlq")) {
            let mut config = forever.clone();
            if *name == "short" {
                config.retention.bytes = Some(SHORT_BYTES);
            }
            admin.create_topic(CreateTopic { name: name.parse()?, partitions: *partitions, config }).await?;
        }
        let wasm = include_bytes!("../../../../plugins/json-filter/json-filter.wasm").as_slice();
        admin.upload_plugin("json-filter".parse()?, wasm).await?;
        for (topic, on_error) in [("filtered", OnError::DeadLetter), ("strict", OnError::Reject)] {
            let transform = DeployTransform {
                config: r#"{"pointer":"/keep","op":"eq","value":true}"#.to_owned(),
                on_error,
                ..DeployTransform::new(topic.parse()?, "json-filter".parse()?)
            };
            admin.deploy_transform(transform).await?;
        }
        // Dead letters have the retention of their topic; make sure of it, so that all of them can be counted.
        let (name, retention) = ("filtered.dlq".parse()?, Some(Retention::FOREVER));
        admin.alter_topic(AlterTopic { name, retention, partitions: None, max_record_bytes: None }).await?;
        Ok(())
    }

    fn client_config(&self) -> ClientConfig {
        ClientConfig {
            connect_timeout: Duration::from_secs(1),
            retry_wait_max: Duration::from_millis(300),
            ..ClientConfig::new([self.address.to_string()], self.identity.clone())
        }
    }

    /// A connection to a broker that is there, however busy it is.
    pub(crate) async fn connect_patiently(&self) -> Result<Client, ConnectError> {
        let patient = ClientConfig {
            connect_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(120),
            ..self.client_config()
        };
        Client::connect(patient).await
    }

    /// A connection of its own, as soon as there is a broker; `None` when everybody is to stop before that.
    pub(crate) async fn connect(&self) -> Option<Client> {
        while !self.is_stopped() {
            match Client::connect(self.client_config()).await {
                Ok(client) => return Some(client),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        None
    }

    /// A number that no client had before.
    pub(crate) fn next_client(&self) -> u32 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    pub(crate) fn partition(&self, index: u32) -> &TopicPartition {
        &self.partitions[index as usize]
    }

    pub(crate) fn index_of(&self, partition: &TopicPartition) -> u32 {
        self.partitions.iter().position(|known| known == partition).expect("it is one of ours") as u32
    }

    /// A partition that records are sent to.
    pub(crate) fn any_target(&self, rng: &mut Rng) -> u32 {
        loop {
            let index = rng.below(self.partitions.len());
            if !self.partitions[index].topic.as_str().ends_with(".dlq") {
                return index as u32;
            }
        }
    }

    /// What is to become of a record.
    pub(crate) fn any_fate(&self, partition: u32, rng: &mut Rng) -> Fate {
        match (self.partition(partition).topic.as_str(), rng.below(20)) {
            ("filtered" | "strict", 0..=5) => Fate::Dropped,
            ("filtered", 6) => Fate::DeadLettered,
            ("strict", 6) => Fate::Rejected,
            _ => Fate::Kept,
        }
    }

    /// Writes down what a client did or saw. The place in the list is the order; the stamp is for people.
    pub(crate) fn note(&self, client: u32, what: What) {
        if let What::Ack { count, .. } = &what {
            self.acked.fetch_add(*count, Ordering::Relaxed);
        }
        let mut events = self.events.lock().expect("nobody panics while holding it");
        let at_us = self.begun.elapsed().as_micros() as u64;
        events.push(Event { at_us, client, what });
    }

    /// Writes down what is no part of a history and should not be.
    pub(crate) fn trouble(&self, text: String) {
        self.troubles.lock().expect("nobody panics while holding it").push(text);
    }

    pub(crate) fn take_troubles(&self) -> Vec<String> {
        std::mem::take(&mut *self.troubles.lock().expect("nobody panics while holding it"))
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Everything that was noted, once everybody has stopped.
    pub(crate) fn history(self: &Arc<World>) -> History {
        let letters = |of: &TopicPartition| {
            let topic = format!("{}.dlq", of.topic);
            let is_it = |other: &TopicPartition| other.topic.as_str() == topic && other.partition == of.partition;
            self.partitions.iter().position(is_it).map(|index| index as u32)
        };
        let partitions =
            self.partitions.iter().map(|of| Partition { name: of.to_string(), dead_letters: letters(of) }).collect();
        let events = std::mem::take(&mut *self.events.lock().expect("nobody panics while holding it"));
        History { partitions, events }
    }
}
