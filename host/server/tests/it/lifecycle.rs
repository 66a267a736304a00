//! Start, stop, and starts that cannot be.

use std::{net::UdpSocket, time::Duration};

use protocol::{
    ErrorCode, control,
    control::{Request, Response},
    frame::{Fetch, FrameKind, Place},
};
use server::{Server, StartError, running_brokers};

use crate::raw::{batch, config, join, start, start_with};

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.quic = taken.local_addr().unwrap();
    let error = Server::start(config.clone()).await.err().unwrap();
    assert!(matches!(error, StartError::AddressInUse { address } if address == config.quic), "{error}");
    assert!(!config.data_dir.exists(), "the data directory was touched");
}

#[tokio::test]
async fn a_second_broker_on_the_same_directory_is_refused() {
    let (server, dir) = start().await;
    let error = Server::start(config(dir.path())).await.err().unwrap();
    let StartError::Open { source, .. } = &error else { panic!("{error}") };
    let cause = std::error::Error::source(source).expect("the store says why").to_string();
    assert!(cause.contains("in use by another broker"), "{cause}");
    // The first one did not notice.
    join(&server).await.1.ask(&Request::Status).await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.ingest.bytes_max = 10;
    let error = Server::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::Config(_)), "{error}");
}

#[tokio::test]
async fn a_running_broker_is_found_until_it_stops() {
    let run = tempfile::tempdir().unwrap();
    let dir = run.path().join("weir");
    let (server, _data) = start_with(|config| {
        config.runtime.announce = true;
        config.runtime.dir = dir.clone();
    })
    .await;
    let found = running_brokers(&dir).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].address, &found[0].identity), (server.quic_addr(), &server.identity_path()));
    server.shutdown().await;
    assert_eq!(running_brokers(&dir).unwrap(), []);
}

#[tokio::test]
async fn a_stop_answers_what_is_in_flight_and_tells_everybody() {
    let (server, dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await;
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, &topic).await;
    let mut reader = peer.subscribe(&topic, 0, 0, 0).await;
    reader.expect(FrameKind::Subscribed).await;
    let fetch = Fetch { offset: 0, max_bytes: 1 << 20, min_bytes: u32::MAX, wait_ms: 30_000 };
    control.write(FrameKind::Fetch, 5, 0, &fetch.encode(), &control::encode(&topic)).await;
    for i in 0..100 {
        stream.produce(0, i, &batch(producer, i as u32, &["a"])).await;
    }
    stream.ack().await;
    let stop = tokio::spawn(server.shutdown());

    // The control stream: GOAWAY and the fetch that waited, in either order, then its end.
    let mut kinds = Vec::new();
    while let Some(frame) = control.read().await {
        if frame.prefix.kind == FrameKind::Fetched {
            assert!(Place::decode(&frame.header).next_offset > 0, "what is there goes out with the answer");
        }
        kinds.push(frame.prefix.kind);
    }
    kinds.sort_by_key(|kind| *kind as u8);
    assert_eq!(kinds, [FrameKind::Goaway, FrameKind::Fetched]);
    assert_eq!(reader.expect(FrameKind::Error).await.error().code, ErrorCode::ShuttingDown);
    // Whatever was taken is answered, in order, and the stream is finished, not cut.
    let mut acked = 1;
    while let Some(frame) = stream.read().await {
        assert_eq!((frame.prefix.kind, frame.prefix.sequence), (FrameKind::Ack, acked));
        acked += 1;
    }
    assert_eq!(peer.closed().await.0, ErrorCode::ShuttingDown as u64);
    stop.await.unwrap();

    // What was answered is there, and the same identity opens the door again.
    let again = Server::start(config(dir.path())).await.unwrap();
    let (_peer, mut control) = join(&again).await;
    let Response::Topics(topics) = control.ask(&Request::DescribeTopics(Vec::new())).await.unwrap() else { panic!() };
    assert_eq!(topics[0].partitions[0].high_watermark.0, acked);
    again.shutdown().await;
}

#[tokio::test]
async fn a_stop_with_nobody_there_is_a_stop() {
    let (server, _dir) = start().await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_connection_that_only_waits_is_kept_however_short_the_patience_is() {
    let (server, _dir) = start_with(|config| config.transport.idle_ms_max = 1_000).await;
    let (peer, mut control) = join(&server).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(peer.connection.close_reason().is_none(), "{:?}", peer.connection.close_reason());
    control.ask(&Request::Status).await.unwrap();
}

#[tokio::test]
async fn over_the_limit_of_connections_a_newcomer_is_refused() {
    let (server, _dir) = start_with(|config| config.transport.connections_max = 1).await;
    let (_peer, _control) = join(&server).await;
    let credentials = crate::raw::credentials(&server.identity_path());
    let error = crate::raw::dial(&server, credentials, protocol::frame::ALPN).await.err().unwrap();
    let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
    assert_eq!(close.error_code, quinn_refused(), "{close}");
    assert_eq!(server.connection_count(), 1);
}

/// QUIC's CONNECTION_REFUSED.
fn quinn_refused() -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::CONNECTION_REFUSED
}
