//! Connections break, brokers restart, networks go silent: nothing is lost, nothing is doubled, the order is kept.

use std::time::Duration;

use client::{Client, ClientConfig, NOW, OffsetSpec, ProduceError, Producer, ProducerConfig, Record, TopicName};

use crate::{
    common::{TestBroker, create, drain, follow, numbers, place, whole, within},
    network::Network,
};

const PARTITIONS: u32 = 3;

/// Sends the numbers, each to its partition by number, and waits for their answers.
async fn send(producer: &Producer, topic: &TopicName, numbers: std::ops::Range<u64>) {
    let mut handles = Vec::new();
    for number in numbers {
        let partition = place(topic, (number % u64::from(PARTITIONS)) as u32);
        handles.push(producer.send_to(&partition, Record::unkeyed(number.to_string(), NOW)).await.unwrap());
    }
    for handle in handles {
        within(handle).await.unwrap();
    }
}

/// Every number once, and in order within each partition.
async fn check(client: &Client, topic: &TopicName, count: u64) {
    for partition in 0..PARTITIONS {
        let mut config = whole(topic, PARTITIONS);
        config.assignments.retain(|assignment| assignment.partition == partition);
        let expected: Vec<u64> =
            (0..count).filter(|number| number % u64::from(PARTITIONS) == u64::from(partition)).collect();
        assert_eq!(numbers(&drain(client.consumer(config)).await), expected, "partition {partition}");
    }
}

fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_records: 5, linger: Duration::from_millis(1), ..ProducerConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_is_not_noticed() {
    let mut broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", PARTITIONS).await;
    let producer = client.producer(small_batches());
    let consumer = client.consumer(follow(&name, PARTITIONS));
    let reading = tokio::spawn(read(consumer, 4_000));
    let sending = tokio::spawn({
        let (producer, name) = (producer.clone(), name.clone());
        async move { send(&producer, &name, 0..4_000).await }
    });
    for _ in 0..3 {
        // Somewhere in the middle.
        wait_until(|| producer.books().records_in > 0).await;
        broker.stop().await;
        broker.start_again().await;
    }
    sending.await.unwrap();
    assert_eq!(producer.books().records_in, 4_000);
    let mut seen = reading.await.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..4_000).collect::<Vec<_>>());
    check(&client, &name, 4_000).await;
}

async fn read(mut consumer: client::Consumer, count: usize) -> Vec<u64> {
    let mut records = Vec::new();
    while records.len() < count {
        records.push(within(consumer.next()).await.unwrap().unwrap());
    }
    numbers(&records)
}

async fn wait_until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_silent_while_batches_are_in_flight_loses_nothing() {
    let broker = TestBroker::start().await;
    let network = Network::towards(broker.address()).await;
    let client = Client::connect(broker.config_at(network.address())).await.unwrap();
    let name = create(&client, "t", PARTITIONS).await;
    let producer = client.producer(small_batches());
    let reading = tokio::spawn(read(client.consumer(follow(&name, PARTITIONS)), 3_000));
    for round in 0..3 {
        let sending = tokio::spawn({
            let (producer, name) = (producer.clone(), name.clone());
            async move { send(&producer, &name, round * 1_000..(round + 1) * 1_000).await }
        });
        wait_until(|| producer.books().records_in > round * 1_000).await;
        network.cut();
        // Longer than the client's patience, so that it dials anew into the silence.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        network.heal();
        sending.await.unwrap();
    }
    let mut seen = reading.await.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..3_000).collect::<Vec<_>>());
    check(&client, &name, 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_vanishes_without_a_word_is_found_again() {
    let mut broker = TestBroker::start().await;
    let network = Network::towards(broker.address()).await;
    let client = Client::connect(broker.config_at(network.address())).await.unwrap();
    let name = create(&client, "t", PARTITIONS).await;
    let producer = client.producer(small_batches());
    send(&producer, &name, 0..100).await;
    // No goodbye reaches the client: for it the broker is as good as killed.
    network.cut();
    broker.stop().await;
    broker.start_again().await;
    network.heal();
    send(&producer, &name, 100..200).await;
    check(&client, &name, 200).await;
}

#[tokio::test]
async fn a_broker_that_lost_its_data_is_written_to_under_a_new_identity() {
    let mut broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", PARTITIONS).await;
    let producer = client.producer(small_batches());
    send(&producer, &name, 0..100).await;
    broker.stop().await;
    broker.lose_data();
    broker.start_again().await;
    create(&client, "t", PARTITIONS).await;
    // Their sequences follow those of batches the broker knows nothing of.
    send(&producer, &name, 0..100).await;
    check(&client, &name, 100).await;
}

#[tokio::test]
async fn what_cannot_be_delivered_in_time_is_told() {
    let mut broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(3), ..ProducerConfig::default() };
    let producer = client.producer(config);
    within(producer.send(&name, Record::unkeyed("0", NOW)).await.unwrap()).await.unwrap();
    broker.stop().await;
    let handle = producer.send(&name, Record::unkeyed("1", NOW)).await.unwrap();
    assert!(matches!(within(handle).await, Err(ProduceError::TimedOut { .. })));
    assert!(matches!(within(producer.flush()).await, Err(ProduceError::TimedOut { .. })));
    // It works again afterwards, and the record that was given up is not there.
    broker.start_again().await;
    within(producer.send(&name, Record::unkeyed("2", NOW)).await.unwrap()).await.unwrap();
    assert_eq!(numbers(&drain(client.consumer(whole(&name, 1))).await), [0, 2]);
}

#[tokio::test]
async fn requests_wait_for_a_broker_that_is_away_and_give_up_in_time() {
    let mut broker = TestBroker::start().await;
    let config = ClientConfig { request_timeout: Duration::from_secs(2), ..broker.config_at(broker.address()) };
    let impatient = Client::connect(config).await.unwrap();
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    broker.stop().await;
    assert!(matches!(impatient.admin().topics().await, Err(client::AdminError::TimedOut { .. })));
    let asking = tokio::spawn(async move { client.admin().find_offset(&place(&name, 0), OffsetSpec::End).await });
    broker.start_again().await;
    assert_eq!(within(asking).await.unwrap().unwrap().0, 0);
}

#[tokio::test]
async fn a_closed_client_says_so() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig::default());
    within(producer.send(&name, Record::unkeyed("0", NOW)).await.unwrap()).await.unwrap();
    let mut consumer = client.consumer(follow(&name, 1));
    within(consumer.next()).await.unwrap().unwrap();
    let admin = client.admin();
    within(client.close()).await;
    assert!(matches!(within(admin.topics()).await, Err(client::AdminError::Closed)));
    assert!(matches!(within(consumer.next()).await, Some(Err(client::ConsumeError::Closed))));
    assert!(within(consumer.next()).await.is_none());
    let sent = match within(producer.send(&name, Record::unkeyed("1", NOW))).await {
        Ok(handle) => within(handle).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(sent, Err(ProduceError::Closed)));
}
