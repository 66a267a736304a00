//! When batches are closed, who waits for memory, what a flush waits for.

use super::*;

/// No batch closes by itself within a test.
const LINGER: Duration = Duration::from_secs(3_600);

fn shared(config: ProducerConfig) -> Shared {
    let shared = Shared::new(ProducerConfig { linger: LINGER, ..config });
    let topic = Topic { partitions: 3, max_record_bytes: 1 << 20, sticky: 0 };
    shared.set_topic("t".parse().unwrap(), topic);
    shared
}

async fn append(shared: &Shared, record: Record) -> DeliveryHandle {
    let reserved = shared.reserve(record_bytes(&record)).await.unwrap();
    shared.append(&"t".parse().unwrap(), None, &record, reserved).unwrap()
}

/// Parts and record counts of the batches closed by now.
fn closed(shared: &Shared, now: Instant) -> Vec<(u32, u32)> {
    let closed = shared.take_closed(now);
    closed.iter().map(|(part, batch)| (shared.partition(*part).partition, batch.content.record_count())).collect()
}

#[tokio::test]
async fn a_batch_is_closed_by_count_by_size_and_by_age() {
    let config = ProducerConfig { batch_records: 3, batch_bytes: 1_000, ..ProducerConfig::default() };
    let shared = shared(config);
    for _ in 0..4 {
        drop(append(&shared, Record::new("k", "small", 0)).await);
    }
    let part = partition_for_key(b"k", 3);
    assert_eq!(closed(&shared, clock::now()), [(part, 3)]);
    drop(append(&shared, Record::new("k", vec![0; 990], 0)).await);
    assert_eq!(closed(&shared, clock::now()), [(part, 1)]);
    assert_eq!(closed(&shared, clock::now() + LINGER), [(part, 1)]);
    assert_eq!(shared.next_linger(), None);
}

#[tokio::test]
async fn unkeyed_records_move_on_with_each_batch() {
    let shared = shared(ProducerConfig { batch_records: 2, ..ProducerConfig::default() });
    for _ in 0..8 {
        drop(append(&shared, Record::unkeyed("v", 0)).await);
    }
    assert_eq!(closed(&shared, clock::now()), [(0, 2), (1, 2), (2, 2), (0, 2)]);
}

#[tokio::test]
async fn a_full_buffer_waits_until_a_batch_is_answered() {
    let shared = Arc::new(shared(ProducerConfig { buffer_bytes: 100, ..ProducerConfig::default() }));
    drop(append(&shared, Record::unkeyed(vec![0; 90], 0)).await);
    let waiting = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { drop(append(&shared, Record::unkeyed(vec![0; 90], 0)).await) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    // The batch that holds the memory does not linger.
    let (_, batch) = shared.take_closed(clock::now()).pop_front().unwrap();
    shared.answer(&batch.ticket, Err(ProduceError::Fenced));
    waiting.await.unwrap();
    assert_eq!(shared.totals().failed, 1);
}

#[tokio::test]
async fn a_flush_waits_for_what_came_before_it_and_tells_of_failures_once() {
    let shared = Arc::new(shared(ProducerConfig::default()));
    drop(append(&shared, Record::unkeyed("v", 0)).await);
    let flushing = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { shared.flush().await }
    });
    tokio::task::yield_now().await;
    drop(append(&shared, Record::unkeyed("later", 0)).await);
    let mut closed = shared.take_closed(clock::now());
    assert_eq!(closed.len(), 1);
    shared.answer(&closed.pop_front().unwrap().1.ticket, Err(ProduceError::Fenced));
    assert!(matches!(flushing.await.unwrap(), Err(ProduceError::Fenced)));
    assert!(shared.has_work());
}
