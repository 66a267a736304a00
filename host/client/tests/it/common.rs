//! A real broker for tests, and a network in front of it that can be cut.

use std::{net::SocketAddr, path::Path, time::Duration};

use client::{
    Assignment, Client, ClientConfig, ConsumedRecord, Consumer, ConsumerConfig, CreateTopic, Identity, OffsetSpec,
    TopicConfig, TopicName, TopicPartition, Until,
};
use server::{Server, ServerConfig, StartError};
use tempfile::TempDir;

/// A broker on a data directory of its own, which survives restarts.
pub(crate) struct TestBroker {
    dir: TempDir,
    server: Option<Server>,
    address: SocketAddr,
}

impl TestBroker {
    pub(crate) async fn start() -> TestBroker {
        TestBroker::start_with(|_| {}).await
    }

    /// With another configuration, until it is stopped.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> TestBroker {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), "127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let server = start(config).await;
        let address = server.quic_addr();
        TestBroker { dir, server: Some(server), address }
    }

    /// Stops as on SIGTERM.
    pub(crate) async fn stop(&mut self) {
        self.server.take().expect("it runs").shutdown().await;
    }

    /// Forgets everything but who it is.
    pub(crate) fn lose_data(&self) {
        assert!(self.server.is_none(), "it is stopped");
        for entry in self.dir.path().read_dir().unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() == "identity" => {}
                true => std::fs::remove_dir_all(entry.path()).unwrap(),
                false => std::fs::remove_file(entry.path()).unwrap(),
            }
        }
    }

    /// Starts again, on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        self.server = Some(start(config(self.dir.path(), self.address)).await);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::load(self.dir.path().join("identity/admin.pem")).unwrap()
    }

    /// A client that dials `address`, which leads here.
    pub(crate) fn config_at(&self, address: SocketAddr) -> ClientConfig {
        ClientConfig::new([address.to_string()], self.identity())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config_at(self.address)).await.unwrap()
    }
}

fn config(dir: &Path, address: SocketAddr) -> ServerConfig {
    let mut config = ServerConfig { data_dir: dir.to_owned(), quic: address, ..ServerConfig::default() };
    config.runtime.announce = false;
    config
}

async fn start(config: ServerConfig) -> Server {
    within(async {
        loop {
            match Server::start(config.clone()).await {
                // The system takes a moment to let go of the port that the broker before had.
                Err(StartError::AddressInUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                started => return started.unwrap(),
            }
        }
    })
    .await
}

pub(crate) fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

pub(crate) fn place(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition }
}

pub(crate) async fn create(client: &Client, name: &str, partitions: u32) -> TopicName {
    let name = topic(name);
    let request = CreateTopic { name: name.clone(), partitions, config: TopicConfig::default() };
    client.admin().create_topic(request).await.unwrap();
    name
}

/// Reads all partitions of a topic from the beginning to the end they have now.
pub(crate) fn whole(topic: &TopicName, partitions: u32) -> ConsumerConfig {
    ConsumerConfig { until: Until::End, ..follow(topic, partitions) }
}

/// Reads all partitions of a topic from the beginning, for ever.
pub(crate) fn follow(topic: &TopicName, partitions: u32) -> ConsumerConfig {
    ConsumerConfig::new((0..partitions).map(|partition| Assignment {
        topic: topic.clone(),
        partition,
        from: OffsetSpec::Beginning,
    }))
}

/// All records a consumer has to give.
pub(crate) async fn drain(mut consumer: Consumer) -> Vec<ConsumedRecord> {
    let mut records = Vec::new();
    while let Some(record) = within(consumer.next()).await {
        records.push(record.unwrap());
    }
    records
}

/// The values as numbers, as the tests write them.
pub(crate) fn numbers(records: &[ConsumedRecord]) -> Vec<u64> {
    let number = |record: &ConsumedRecord| str::from_utf8(record.value.as_ref()?).ok()?.parse().ok();
    records.iter().map(|record| number(record).expect("the test wrote a number")).collect()
}

/// Ends a test that hangs; far above what anything here takes.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes far less")
}
