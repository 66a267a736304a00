//! Readers that are pushed to.

use protocol::{
    ErrorCode, TopicName, TopicPartition,
    control::Request,
    frame::{Credit, FrameKind, Place},
    limits::CREDIT_BYTES_MAX,
};

use crate::{
    admin::deploy_contains,
    raw::{Peer, Stream, join, start, store, values},
};

const BEGINNING: u32 = 0;
const END: u32 = 1;
const AT: u32 = 2;

async fn next_batch(stream: &mut Stream) -> (Place, Vec<(u64, String)>) {
    let frame = stream.expect(FrameKind::Batch).await;
    (Place::decode(&frame.header), values(frame.body))
}

/// Subscribes and reads SUBSCRIBED.
async fn subscribed(peer: &Peer, place: &TopicPartition, from: u32, offset: u64, credit: u64) -> (Stream, Place) {
    let mut stream = peer.subscribe(place, from, offset, credit).await;
    let subscribed = Place::decode(&stream.expect(FrameKind::Subscribed).await.header);
    (stream, subscribed)
}

async fn cancel(stream: &mut Stream) {
    stream.write(FrameKind::Cancel, 0, 0, &[], &[]).await;
    stream.expect(FrameKind::End).await;
    assert!(stream.read().await.is_none());
}

#[tokio::test]
async fn a_subscription_gets_what_is_there_and_what_comes() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a"]).await;
    let (mut stream, place) = subscribed(&peer, &topic, BEGINNING, 0, 1 << 20).await;
    assert_eq!(place, Place { next_offset: 0, high_watermark: 1 });
    assert_eq!(next_batch(&mut stream).await, (Place { next_offset: 1, high_watermark: 1 }, vec![(0, "a".into())]));
    store(&peer, &mut control, &topic, &["b"]).await;
    assert_eq!(next_batch(&mut stream).await, (Place { next_offset: 2, high_watermark: 2 }, vec![(1, "b".into())]));
    cancel(&mut stream).await;
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_told() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a", "b"]).await;
    let (mut at, place) = subscribed(&peer, &topic, AT, 1, 1 << 20).await;
    assert_eq!(place.next_offset, 1);
    assert_eq!(next_batch(&mut at).await.1, [(1, "b".into())]);
    let (mut end, place) = subscribed(&peer, &topic, END, 0, 1 << 20).await;
    assert_eq!(place.next_offset, 2);
    store(&peer, &mut control, &topic, &["c"]).await;
    assert_eq!(next_batch(&mut end).await.1, [(2, "c".into())]);
}

#[tokio::test]
async fn nothing_is_pushed_beyond_the_credit() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a", "b", "c"]).await;
    // One byte of credit is worth one batch: it may overrun, else a large batch could never come.
    let (mut stream, _) = subscribed(&peer, &topic, BEGINNING, 0, 1).await;
    let first = stream.expect(FrameKind::Batch).await;
    let bytes = first.body.len() as u64;
    assert_eq!(values(first.body), [(0, "a".into())]);
    // What it took too much is a debt: only what pays for all of it brings the next one.
    stream.write(FrameKind::Credit, 0, 0, &Credit { bytes: bytes - 1 }.encode(), &[]).await;
    stream.write(FrameKind::Credit, 0, 0, &Credit { bytes: 1 }.encode(), &[]).await;
    assert_eq!(next_batch(&mut stream).await.1, [(1, "b".into())]);
    stream.write(FrameKind::Credit, 0, 0, &Credit { bytes: bytes - 1 }.encode(), &[]).await;
    // Had the third one been pushed without credit, it would stand before END.
    cancel(&mut stream).await;
}

#[tokio::test]
async fn without_credit_there_is_a_cursor_and_no_more() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    store(&peer, &mut control, &topic, &["a"]).await;
    let (mut stream, _) = subscribed(&peer, &topic, BEGINNING, 0, 0).await;
    cancel(&mut stream).await;
}

#[tokio::test]
async fn too_much_credit_ends_the_subscription() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let (mut stream, _) = subscribed(&peer, &topic, BEGINNING, 0, CREDIT_BYTES_MAX).await;
    stream.write(FrameKind::Credit, 0, 0, &Credit { bytes: u64::MAX }.encode(), &[]).await;
    assert_eq!(stream.expect(FrameKind::Error).await.error().code, ErrorCode::LimitExceeded);
    let mut greedy = peer.subscribe(&topic, BEGINNING, 0, CREDIT_BYTES_MAX + 1).await;
    assert_eq!(greedy.expect(FrameKind::Error).await.error().code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn where_nothing_passes_a_gap_says_how_far_the_reader_is() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    deploy_contains(&peer, &mut control, &topic.topic, "keep").await;
    let (mut stream, _) = subscribed(&peer, &topic, BEGINNING, 0, 1 << 20).await;
    store(&peer, &mut control, &topic, &["no"]).await;
    let gap = stream.expect(FrameKind::Gap).await;
    assert_eq!(Place::decode(&gap.header), Place { next_offset: 1, high_watermark: 1 });
    store(&peer, &mut control, &topic, &["keep me"]).await;
    assert_eq!(next_batch(&mut stream).await.1, [(1, "keep me".into())]);
}

#[tokio::test]
async fn the_end_of_a_topic_ends_its_subscriptions() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let (mut waiting, _) = subscribed(&peer, &topic, BEGINNING, 0, 1 << 20).await;
    let (mut without_credit, _) = subscribed(&peer, &topic, BEGINNING, 0, 0).await;
    control.ask(&Request::DeleteTopic(topic.topic.clone())).await.unwrap();
    for stream in [&mut waiting, &mut without_credit] {
        assert_eq!(stream.expect(FrameKind::Error).await.error().code, ErrorCode::UnknownTopic);
        assert!(stream.read().await.is_none());
    }
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_said() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let unknown = TopicPartition { topic: TopicName::new("nothing").unwrap(), partition: 0 };
    for (place, from, code) in
        [(&unknown, BEGINNING, ErrorCode::UnknownTopic), (&topic, AT, ErrorCode::OffsetOutOfRange)]
    {
        let mut stream = peer.subscribe(place, from, 5, 1).await;
        assert_eq!(stream.expect(FrameKind::Error).await.error().code, code);
    }
}
