//! A broker whose disk budget is used up: producers wait, everybody else goes on, and space that returns is used.

use std::time::Duration;

use client::{Client, ErrorCode, NOW, ProduceError, ProducerConfig, Record, TopicName};
use protocol::{Health, control::Status};

use crate::common::{TestBroker, create, drain, whole, within};

const MIB: usize = 1 << 20;

/// A broker with the smallest budget there is, which looks often for what can be deleted.
async fn small_broker() -> TestBroker {
    TestBroker::start_with(|config| {
        config.storage.budget = "64MiB".parse().unwrap();
        config.storage.retention_interval_ms = 20;
    })
    .await
}

async fn status(client: &Client) -> Status {
    within(client.admin().status()).await.unwrap()
}

/// Too large for what is left of the blocks that are taken already.
fn record(byte: u8) -> Record {
    Record::unkeyed(vec![byte; MIB / 2], NOW)
}

/// Produces until the broker says that it is full; nobody waits for the last records.
async fn fill(client: &Client, topic: &TopicName) -> Status {
    let producer = client.producer(ProducerConfig::default());
    for _ in 0..200 {
        let sent = within(producer.send(topic, record(0))).await.unwrap();
        // Refused, it would be tried again for two minutes.
        let _ = tokio::time::timeout(Duration::from_millis(300), sent).await;
        let status = status(client).await;
        if matches!(status.health, Health::Full { .. }) {
            return status;
        }
    }
    panic!("100 MiB fit into 64 MiB")
}

#[tokio::test]
async fn producers_wait_for_space_and_everybody_else_goes_on() {
    let broker = small_broker().await;
    let client = broker.client().await;
    let (large, small) = (create(&client, "large", 1).await, create(&client, "small", 1).await);
    let producer = client.producer(ProducerConfig::default());
    within(within(producer.send(&small, record(1))).await.unwrap()).await.unwrap();

    let full = fill(&client, &large).await;
    let why = full.health.why().unwrap();
    assert!(why.contains("`storage.budget` of 64 MiB"), "{why}");
    assert!(full.disk_bytes <= full.budget_bytes, "{full:?}");

    let hasty = client.producer(ProducerConfig { delivery_timeout: Duration::from_millis(500), ..<_>::default() });
    let sent = within(hasty.send(&small, record(2))).await.unwrap();
    let error = within(sent).await.unwrap_err();
    assert!(matches!(error, ProduceError::TimedOut { .. }) && error.code() == Some(ErrorCode::DiskFull), "{error}");
    assert!(error.to_string().contains("`storage.budget`"), "{error}");

    let patient = within(producer.send(&small, record(3))).await.unwrap();
    assert_eq!(drain(client.consumer(whole(&small, 1))).await.len(), 1, "reads go on");
    create(&client, "another", 1).await;

    within(client.admin().delete_topic(&large)).await.unwrap();
    within(patient).await.unwrap();
    let records = drain(client.consumer(whole(&small, 1))).await;
    let first_bytes: Vec<u8> = records.iter().map(|record| record.value.as_ref().unwrap()[0]).collect();
    assert_eq!(first_bytes, [1, 3], "what was given up was not stored");
    assert!(status(&client).await.health.takes_appends());
}
