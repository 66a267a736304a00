//! Readers that pull.

use protocol::{
    ErrorCode, TopicName, TopicPartition,
    control::{self, OffsetSpec, Request, Response},
    frame::{Fetch, FrameKind, Place},
};

use crate::raw::{Received, Stream, join, start, store, values};

async fn fetch(control: &mut Stream, place: &TopicPartition, offset: u64, wait_ms: u32) -> Received {
    ask(control, place, offset, wait_ms).await;
    control.read().await.unwrap()
}

async fn ask(control: &mut Stream, place: &TopicPartition, offset: u64, wait_ms: u32) {
    let fetch = Fetch { offset, max_bytes: 1 << 20, min_bytes: 1, wait_ms };
    control.write(FrameKind::Fetch, 9, 0, &fetch.encode(), &control::encode(place)).await;
}

fn place(frame: &Received) -> Place {
    assert_eq!((frame.prefix.kind, frame.prefix.sequence), (FrameKind::Fetched, 9));
    Place::decode(&frame.header)
}

#[tokio::test]
async fn what_is_there_is_fetched_from_any_offset() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a", "b", "c"]).await;
    let all = fetch(&mut control, &topic, 0, 0).await;
    assert_eq!(place(&all), Place { next_offset: 3, high_watermark: 3 });
    assert_eq!(values(all.body), [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    assert_eq!(values(fetch(&mut control, &topic, 2, 0).await.body), [(2, "c".into())]);
}

#[tokio::test]
async fn a_fetch_that_waits_holds_back_no_other_answer_and_wakes_with_the_data() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    ask(&mut control, &topic, 0, 30_000).await;
    // It asks for a producer id behind the fetch on the same stream, and is answered before it.
    store(&peer, &mut control, &topic, &["late"]).await;
    let fetched = control.read().await.unwrap();
    assert_eq!(place(&fetched).next_offset, 1);
    assert_eq!(values(fetched.body), [(0, "late".into())]);
}

#[tokio::test]
async fn a_wait_that_runs_out_is_answered_with_nothing() {
    let (server, _dir) = start().await;
    let (_peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let fetched = fetch(&mut control, &topic, 0, 1).await;
    assert_eq!((place(&fetched), fetched.body), (Place { next_offset: 0, high_watermark: 0 }, Vec::new()));
}

#[tokio::test]
async fn what_cannot_be_fetched_is_said() {
    let (server, _dir) = start().await;
    let (_peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let unknown = TopicPartition { topic: TopicName::new("nothing").unwrap(), partition: 0 };
    let no_partition = TopicPartition { partition: 5, ..topic.clone() };
    for (place, offset, code) in [
        (&unknown, 0, ErrorCode::UnknownTopic),
        (&no_partition, 0, ErrorCode::UnknownPartition),
        (&topic, 17, ErrorCode::OffsetOutOfRange),
        (&topic, u64::MAX, ErrorCode::OffsetOutOfRange),
    ] {
        let answer = fetch(&mut control, place, offset, 30_000).await;
        assert_eq!((answer.prefix.kind, answer.error().code), (FrameKind::Error, code), "{}", answer.error());
    }
}

#[tokio::test]
async fn a_place_becomes_an_offset() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a", "b"]).await;
    for (spec, offset) in [
        (OffsetSpec::Beginning, 0),
        (OffsetSpec::End, 2),
        (OffsetSpec::Timestamp(0), 0),
        (OffsetSpec::Timestamp(i64::MAX), 2),
    ] {
        let found = control.ask(&Request::FindOffset(topic.clone(), spec)).await.unwrap();
        assert_eq!(found, Response::Offset(protocol::Offset(offset)));
    }
}
