//! Producer streams.

use protocol::{
    Epoch, ErrorCode, LimitChanges, ProducerId, TopicName, TopicPartition,
    control::{self, OffsetSpec, Request, Response},
    frame::{Bound, FrameKind, Prefix, ProducerOpen},
    limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, HANDLES_PER_PRODUCER_MAX, PRODUCER_STREAMS_PER_CONNECTION_MAX},
};

use crate::{
    admin::deploy,
    raw::{Stream, batch, join, start, start_with, store},
};

/// A guest that never comes back.
const LOOP: &str = r#"(module
    (memory (export "memory") 2)
    (func (export "weir_abi_version") (result i32) i32.const 1)
    (func (export "weir_alloc") (param i32) (result i32) i32.const 1024)
    (func (export "weir_process") (param i32 i32) (result i64) (loop (br 0)) unreachable))"#;

async fn high_watermark(control: &mut Stream, place: &TopicPartition) -> u64 {
    match control.ask(&Request::FindOffset(place.clone(), OffsetSpec::End)).await.unwrap() {
        Response::Offset(offset) => offset.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn batches_are_acknowledged_in_order_with_place_and_books() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    let bound = Bound::decode(&stream.bind(3, &topic).await.header);
    assert_eq!((bound.next_sequence, bound.high_watermark), (-1, 0));
    for i in 0..20 {
        stream.produce(3, i, &batch(producer, 2 * i as u32, &["a", "b"])).await;
    }
    for i in 0..20 {
        let (handle, sequence, ack) = stream.ack().await;
        assert_eq!((handle, sequence, ack.base_offset, ack.next_offset), (3, i, 2 * i, 2 * i + 2));
        assert_eq!((ack.records_in, ack.kept, ack.stored), (2, 2, 2));
        assert!(ack.books().balance());
    }
    assert_eq!(high_watermark(&mut control, &topic).await, 40);
    let bound = Bound::decode(&stream.bind(3, &topic).await.header);
    assert_eq!((bound.next_sequence, bound.high_watermark), (40, 40));
}

#[tokio::test]
async fn a_batch_sent_again_is_stored_once_and_answered_alike() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let sent = batch(producer, 0, &["a"]);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut stream = peer.producer(producer.0, producer.1).await;
        stream.bind(0, &topic).await;
        stream.produce(0, 0, &sent).await;
        answers.push(stream.ack().await);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(high_watermark(&mut control, &topic).await, 1);
}

#[tokio::test]
async fn a_damaged_batch_is_refused_and_the_stream_goes_on() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &topic).await;
    let good = batch(producer, 0, &["a"]);
    let mut damaged = good.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for (sequence, body) in [&damaged[..], b"no batch", b""].into_iter().enumerate() {
        stream.write(FrameKind::Produce, sequence as u64, 0, &[], body).await;
        let refused = stream.expect(FrameKind::Error).await;
        assert_eq!((refused.prefix.handle, refused.prefix.sequence), (0, sequence as u64));
        assert_eq!(refused.error().code, ErrorCode::CorruptBatch);
    }
    stream.produce(0, 3, &good).await;
    assert_eq!(stream.ack().await.2.base_offset, 0);
}

#[tokio::test]
async fn what_cannot_be_produced_is_said_in_its_turn() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    let unknown = TopicPartition { topic: TopicName::new("nothing").unwrap(), partition: 0 };
    stream.write(FrameKind::Bind, 0, 0, &[], &control::encode(&unknown)).await;
    stream.produce(0, 1, &batch(producer, 0, &["a"])).await;
    let far = HANDLES_PER_PRODUCER_MAX as u32;
    stream.write(FrameKind::Bind, 2, far, &[], &control::encode(&topic)).await;
    stream.write(FrameKind::Bind, 3, far - 1, &[], &control::encode(&topic)).await;
    let stranger = (ProducerId(producer.0.0 + 1), producer.1);
    stream.produce(far - 1, 4, &batch(stranger, 0, &["a"])).await;
    stream.produce(far - 1, 5, &batch(producer, 7, &["a"])).await;
    stream.produce(far - 1, 6, &batch(producer, 0, &["a"])).await;
    for (sequence, code) in [
        (0, Some(ErrorCode::UnknownTopic)),
        (1, Some(ErrorCode::InvalidRequest)),
        (2, Some(ErrorCode::LimitExceeded)),
        (3, None),
        (4, Some(ErrorCode::InvalidRequest)),
        (5, Some(ErrorCode::OutOfOrderSequence)),
        (6, None),
    ] {
        let answer = stream.read().await.unwrap();
        let found = (answer.prefix.kind == FrameKind::Error).then(|| answer.error().code);
        assert_eq!((answer.prefix.sequence, found), (sequence, code));
    }
}

#[tokio::test]
async fn a_record_over_the_limit_of_its_topic_is_named() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &topic).await;
    stream.produce(0, 0, &batch(producer, 0, &["a", &"x".repeat(2 << 20)])).await;
    let error = stream.expect(FrameKind::Error).await.error();
    assert_eq!(error.code, ErrorCode::RecordTooLarge);
    assert!(error.text.contains("`max_record_bytes` (1048576) of topic `clicks`"), "{error}");
    stream.produce(0, 1, &batch(producer, 0, &["a"])).await;
    stream.ack().await;
}

#[tokio::test]
async fn a_slow_partition_holds_back_only_itself() {
    let (server, _dir) = start_with(|config| config.ingest.in_flight_bytes_per_handle = 1).await;
    let (peer, mut control) = join(&server).await;
    let (slow, quick) = (control.create_topic("slow").await, control.create_topic("quick").await);
    // CPU time, so that a busy machine does not decide the race.
    let limits = LimitChanges { deadline_ms: Some(3_000), ..LimitChanges::default() };
    let wasm = wat::parse_str(LOOP).unwrap();
    deploy(&peer, &mut control, &slow.topic, ("loop", &wasm), "{}".to_owned(), limits).await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &slow).await;
    stream.bind(1, &quick).await;
    stream.produce(0, 0, &batch(producer, 0, &["a"])).await;
    // Over what the handle may have in flight, known at once, and yet answered in its turn.
    stream.produce(0, 1, &batch(producer, 1, &["b"])).await;
    stream.produce(1, 0, &batch(producer, 0, &["c"])).await;
    assert_eq!(stream.ack().await.0, 1);
    let (handle, sequence, ack) = stream.ack().await;
    assert_eq!((handle, sequence, ack.dropped), (0, 0, 1));
    let refused = stream.expect(FrameKind::Error).await;
    assert_eq!((refused.prefix.handle, refused.prefix.sequence), (0, 1));
    assert_eq!(refused.error().code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn the_ingest_budget_comes_back_with_the_answers() {
    let (server, _dir) = start_with(|config| {
        config.ingest.bytes_max = 8 << 20;
        config.ingest.in_flight_bytes_per_handle = u32::MAX;
    })
    .await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &topic).await;
    let value = "x".repeat((1 << 20) - 100);
    let Stream { mut send, recv } = stream;
    // Five times the budget, sent without waiting for an answer; written beside the reading, or both sides would wait.
    let writer = tokio::spawn(async move {
        for i in 0..20u32 {
            let batch = batch(producer, 2 * i, &[&value, &value]);
            assert!(batch.bytes().len() <= BATCH_BYTES_MAX);
            let prefix = Prefix { sequence: i.into(), ..Prefix::new(FrameKind::Produce, &[], batch.bytes()) };
            send.write_all(&prefix.encode()).await.unwrap();
            send.write_all(batch.bytes()).await.unwrap();
        }
        send
    });
    let mut stream = Stream { send: peer.open().await.send, recv };
    for i in 0..20 {
        assert_eq!(stream.ack().await.1, i);
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_frame_left_half_sent_gives_its_budget_back_in_time() {
    let (server, _dir) = start_with(|config| {
        config.ingest.bytes_max = FRAME_BYTES_MAX;
        config.transport.stall_ms_max = 200;
    })
    .await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let mut stalled = peer.producer(ProducerId(1_000), Epoch(0)).await;
    stalled.bind(0, &topic).await;
    // The whole budget, and then nothing.
    let prefix = Prefix { body_bytes: FRAME_BYTES_MAX as u32, ..Prefix::new(FrameKind::Produce, &[], &[]) };
    stalled.write_raw(&prefix.encode()).await;
    store(&peer, &mut control, &topic, &["a"]).await;
    match stalled.recv.read_chunk(1, true).await {
        Err(quinn::ReadError::Reset(code)) => assert_eq!(u64::from(code), ErrorCode::Cancelled as u64),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_newer_stream_fences_the_older() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let (other_peer, _other_control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut older = peer.producer(producer.0, producer.1).await;
    older.bind(0, &topic).await;
    older.produce(0, 0, &batch(producer, 0, &["a"])).await;
    older.ack().await;
    // On any connection: the registry is the broker's.
    let mut newer = other_peer.producer(producer.0, producer.1).await;
    match older.recv.read_chunk(1, true).await {
        Err(quinn::ReadError::Reset(code)) => assert_eq!(u64::from(code), ErrorCode::ProducerFenced as u64),
        other => panic!("{other:?}"),
    }
    let bound = Bound::decode(&newer.bind(0, &topic).await.header);
    assert_eq!(bound.next_sequence, 1);
    newer.produce(0, 0, &batch(producer, 1, &["b"])).await;
    newer.ack().await;
    // The one that was fenced took nothing with it: its connection goes on.
    assert_eq!(high_watermark(&mut control, &topic).await, 2);
}

#[tokio::test]
async fn an_older_epoch_does_not_get_a_stream() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let producer = control.init_producer().await;
    let _newer = peer.producer(producer.0, Epoch(producer.1.0 + 1)).await;
    let mut older = peer.open().await;
    let open = ProducerOpen { producer_id: producer.0.0, epoch: producer.1.0 };
    older.write(FrameKind::ProducerOpen, 0, 0, &open.encode(), &[]).await;
    assert_eq!(older.expect(FrameKind::Error).await.error().code, ErrorCode::ProducerFenced);
    assert!(older.read().await.is_none());
}

#[tokio::test]
async fn a_connection_has_a_few_producer_streams_and_one_that_ends_makes_room() {
    let (server, _dir) = start().await;
    let (peer, _control) = join(&server).await;
    let mut streams = Vec::new();
    for i in 0..PRODUCER_STREAMS_PER_CONNECTION_MAX {
        streams.push(peer.producer(ProducerId(1_000 + i as u64), Epoch(0)).await);
    }
    let mut fifth = peer.open().await;
    let open = ProducerOpen { producer_id: 2_000, epoch: 0 }.encode();
    fifth.write(FrameKind::ProducerOpen, 0, 0, &open, &[]).await;
    assert_eq!(fifth.expect(FrameKind::Error).await.error().code, ErrorCode::LimitExceeded);
    let mut ended = streams.pop().unwrap();
    ended.send.finish().unwrap();
    assert!(ended.read().await.is_none());
    // The end of the stream travels before its place is given back, so the next one may still find it taken.
    loop {
        let mut next = peer.open().await;
        next.write(FrameKind::ProducerOpen, 0, 0, &open, &[]).await;
        if next.read().await.unwrap().prefix.kind == FrameKind::ProducerOpened {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_its_stream_still_gets_every_answer() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &topic).await;
    for i in 0..50 {
        stream.produce(0, i, &batch(producer, i as u32, &["a"])).await;
    }
    stream.send.finish().unwrap();
    for i in 0..50 {
        assert_eq!(stream.ack().await.1, i);
    }
    assert!(stream.read().await.is_none());
}
