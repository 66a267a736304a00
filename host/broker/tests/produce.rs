//! Producing through the public face: duplicates, gaps, fencing, order, limits, restarts.

mod common;

use broker::ProduceError;
use bytes::Bytes;
use common::{batch, open, partition, produced, read, topic, values};
use protocol::{Books, ErrorCode, Offset, ProduceAnswer, RecordBatch, Sequence, WireError, control::AlterTopic};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_batch_is_stored_and_its_books_balance() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partitions = topic(&broker, "orders", 1).await;
    let answer = partitions[0].produce(batch(&["a", "b"])).await.unwrap();
    let books = Books { records_in: 2, kept: 2, stored: 2, ..Books::default() };
    assert_eq!(answer, ProduceAnswer { base_offset: Offset(0), next_offset: Offset(2), books, rejects: Vec::new() });
    assert!(answer.books.balance());
    let again = partitions[0].produce(batch(&["a", "b"])).await.unwrap();
    assert_eq!(again.base_offset, Offset(2), "without a producer id there are no duplicates");
    assert_eq!(values(&partitions[0]).await, ["a", "b", "a", "b"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_retry_gets_the_whole_answer_in_flight_stored_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = {
        let broker = open(dir.path());
        let partitions = topic(&broker, "orders", 1).await;
        let retries: Vec<_> = (0..3).map(|_| partitions[0].produce(produced(&["a", "b"], 7, 0, 0))).collect();
        let next = partitions[0].produce(produced(&["c"], 7, 0, 2));
        let mut answers = Vec::new();
        for retry in retries {
            answers.push(retry.await.unwrap());
        }
        next.await.unwrap();
        answers.push(partitions[0].produce(produced(&["a", "b"], 7, 0, 0)).await.unwrap());
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        broker.shutdown().await;
        answers.pop().unwrap()
    };
    let broker = open(dir.path());
    let partition = partition(&broker, "orders", 0);
    assert_eq!(partition.produce(produced(&["a", "b"], 7, 0, 0)).await.unwrap(), first);
    let place = partition.producer_place(protocol::ProducerId(7)).unwrap();
    assert_eq!(place.next_sequence, Sequence(3));
    partition.produce(produced(&["d"], 7, 0, 3)).await.unwrap();
    assert_eq!(values(&partition).await, ["a", "b", "c", "d"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn gaps_and_old_epochs_are_refused_and_a_new_epoch_begins_at_zero() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partitions = topic(&broker, "orders", 2).await;
    let partition = &partitions[0];
    partition.produce(produced(&["a"], 1, 3, 0)).await.unwrap();
    let gap = partition.produce(produced(&["c"], 1, 3, 2)).await.unwrap_err();
    assert!(matches!(gap, ProduceError::OutOfOrderSequence { expected: Sequence(1), found: Sequence(2) }));
    let old = partition.produce(produced(&["a"], 1, 2, 1)).await.unwrap_err();
    assert!(matches!(old, ProduceError::ProducerFenced { .. }));
    let late = partition.produce(produced(&["b"], 1, 4, 1)).await.unwrap_err();
    assert!(matches!(late, ProduceError::OutOfOrderSequence { .. }));
    partition.produce(produced(&["b"], 1, 4, 0)).await.unwrap();
    let fenced = partition.produce(produced(&["x"], 1, 3, 1)).await.unwrap_err();
    assert_eq!(WireError::from(fenced).code, ErrorCode::ProducerFenced);
    partitions[1].produce(produced(&["a"], 1, 3, 0)).await.unwrap();
    assert_eq!(values(partition).await, ["a", "b"]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_producers_order_is_the_logs_order_and_nothing_is_lost() {
    const PRODUCERS: u64 = 4;
    const BATCHES: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "orders", 2).await;
    let mut tasks = JoinSet::new();
    for producer in 0..PRODUCERS {
        let partition = partition(&broker, "orders", (producer % 2) as u32);
        tasks.spawn(async move {
            let send = |sequence: u32| {
                let values = [format!("{producer}/{sequence}"), format!("{producer}/{}", sequence + 1)];
                partition.produce(produced(&values, producer, 0, sequence))
            };
            let tickets: Vec<_> = (0..BATCHES).map(|number| send(number * 2)).collect();
            for ticket in tickets {
                ticket.await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    for number in 0..2 {
        let stored = read(&partition(&broker, "orders", number)).await;
        let offsets = stored.iter().map(|(offset, _)| offset.0);
        assert!(offsets.eq(0..u64::from(BATCHES) * 2 * PRODUCERS / 2), "offsets are dense");
        for producer in (0..PRODUCERS).filter(|producer| producer % 2 == u64::from(number)) {
            let prefix = format!("{producer}/");
            let values = stored.iter().map(|(_, record)| common::text(record.value.clone()));
            let own: Vec<u32> = values.filter_map(|value| value.strip_prefix(&prefix)?.parse().ok()).collect();
            assert!(own.into_iter().eq(0..BATCHES * 2), "producer {producer} is in order");
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_record_over_the_topics_limit_is_refused_by_name_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let mut create = common::create("small", 1);
    create.config.max_record_bytes = 10;
    broker.create_topic(create).await.unwrap();
    let partition = partition(&broker, "small", 0);
    let refused = partition.produce(batch(&["fits", "this one does not"])).await.unwrap_err();
    let wire = WireError::from(&refused);
    assert_eq!(wire.code, ErrorCode::RecordTooLarge);
    assert!(wire.text.contains("`max_record_bytes` (10) of topic `small`"), "{}", wire.text);
    assert!(values(&partition).await.is_empty(), "nothing of the batch is stored");
    partition.produce(batch(&["fits"])).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test]
async fn a_retry_is_answered_alike_also_when_the_topic_takes_such_records_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partition = topic(&broker, "orders", 1).await.remove(0);
    let (sent, next) = (|| produced(&["a record"], 5, 0, 0), || produced(&["another one"], 5, 0, 1));
    let first = partition.produce(sent()).await.unwrap();
    let alter =
        AlterTopic { name: common::topic_name("orders"), retention: None, max_record_bytes: Some(5), partitions: None };
    broker.alter_topic(alter).await.unwrap();
    assert_eq!(partition.produce(sent()).await.unwrap(), first);
    // To refuse a stored batch would let its producer give the sequence to the next one, which then counts as stored.
    let refused = partition.produce(next()).await.unwrap_err();
    assert_eq!(WireError::from(&refused).code, ErrorCode::RecordTooLarge);
    assert_eq!(values(&partition).await, ["a record"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn records_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partitions = topic(&broker, "orders", 1).await;
    // A sound header and CRC over records that claim to be longer than they are.
    let header = *batch(&["abc"]).header();
    let section = Bytes::from_static(&[0x7e, 0, 0, 0, 1, 2, b'a', 0]);
    let bad = protocol::encode_section(&header, &section, protocol::Compression::None).unwrap();
    let bad = RecordBatch::decode(bad.into_bytes()).unwrap();
    let refused = partitions[0].produce(bad).await.unwrap_err();
    assert_eq!(WireError::from(refused).code, ErrorCode::CorruptBatch);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partitions = topic(&broker, "orders", 1).await;
    let tickets: Vec<_> = (0..50).map(|number| partitions[0].produce(batch(&[number.to_string()]))).collect();
    broker.shutdown().await;
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let refused = partitions[0].produce(batch(&["late"])).await.unwrap_err();
    assert!(matches!(refused, ProduceError::ShuttingDown));
    broker.shutdown().await;
    drop((broker, partitions));
    let broker = open(dir.path());
    assert_eq!(values(&partition(&broker, "orders", 0)).await.len(), 50);
    broker.shutdown().await;
}

#[tokio::test]
async fn producer_ids_are_never_given_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let broker = open(dir.path());
        for _ in 0..300 {
            let (id, _) = broker.init_producer().await.unwrap();
            assert!(seen.insert(id), "{id:?} was given out twice");
        }
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_broker_that_vanishes_answers_everybody_and_a_retry_stores_each_batch_once() {
    const BATCHES: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let partitions = topic(&broker, "orders", 1).await;
    let send = |partition: &broker::Partition, sequence: u32| {
        partition.produce(produced(&[sequence.to_string()], 1, 0, sequence))
    };
    let tickets: Vec<_> = (0..BATCHES).map(|sequence| send(&partitions[0], sequence)).collect();
    drop((broker, partitions));
    let mut answers = Vec::new();
    for ticket in tickets {
        let answer = ticket.await;
        assert!(matches!(answer, Ok(_) | Err(ProduceError::ShuttingDown)), "{answer:?}");
        answers.push(answer.ok());
    }
    let broker = open(dir.path());
    let partition = partition(&broker, "orders", 0);
    for sequence in 0..BATCHES {
        let answer = send(&partition, sequence).await.unwrap();
        if let Some(before) = &answers[sequence as usize] {
            assert_eq!(&answer, before);
        }
    }
    let expected: Vec<String> = (0..BATCHES).map(|sequence| sequence.to_string()).collect();
    assert_eq!(values(&partition).await, expected);
    broker.shutdown().await;
}
