//! Who comes in, and what ends a connection.

use protocol::{
    ErrorCode,
    control::{self, Hello, Request, Response},
    frame::{ALPN, FrameKind, PREFIX_BYTES, Prefix},
    limits::{FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX},
};

use crate::raw::{Credentials, Stream, connect, credentials, dial, join, start, start_with};

const VIOLATION: u64 = ErrorCode::ProtocolViolation as u64;

#[tokio::test]
async fn hello_is_answered_with_who_is_who() {
    let (server, _dir) = start().await;
    let peer = connect(&server).await;
    let welcome = peer.open().await.hello().await;
    assert_eq!(welcome.principal, server::ADMIN_PRINCIPAL);
    assert_eq!(welcome.store_id, server.broker().status().store_id);
    assert_eq!(welcome.frame_bytes_max as usize, FRAME_BYTES_MAX);
}

#[tokio::test]
async fn other_streams_wait_for_hello_and_are_served_then() {
    let (server, _dir) = start().await;
    let peer = connect(&server).await;
    let (mut control, mut admin) = (peer.open().await, peer.open().await);
    admin.write(FrameKind::Request, 1, 0, &[], &control::encode(&Request::ListPlugins)).await;
    control.hello().await;
    let answer = admin.expect(FrameKind::Response).await;
    assert_eq!(control::decode::<Response>(&answer.body).unwrap(), Response::Plugins(Vec::new()));
}

#[tokio::test]
async fn a_connection_that_begins_otherwise_is_closed() {
    let (server, _dir) = start().await;
    let peer = connect(&server).await;
    peer.open().await.write(FrameKind::Request, 1, 0, &[], &control::encode(&Request::Status)).await;
    let (code, text) = peer.closed().await;
    assert_eq!((code, text.as_str()), (VIOLATION, "frame Request is out of place"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let (server, _dir) = start_with(|config| config.transport.hello_ms_max = 10).await;
    let (code, text) = connect(&server).await.closed().await;
    assert_eq!((code, text.as_str()), (VIOLATION, "no HELLO came in time"));
}

#[tokio::test]
async fn a_feature_that_is_required_and_unknown_is_refused_by_name() {
    let (server, _dir) = start().await;
    let peer = connect(&server).await;
    let mut control = peer.open().await;
    let hello = Hello { client: "new".to_owned(), features: 0, features_required: 1 << 40 };
    control.write(FrameKind::Hello, 0, 0, &[], &control::encode(&hello)).await;
    let error = control.expect(FrameKind::Error).await.error();
    assert_eq!(error.code, ErrorCode::UnsupportedVersion);
    assert!(error.text.contains("0x10000000000"), "{error}");
    assert_eq!(peer.closed().await.0, ErrorCode::UnsupportedVersion as u64);
}

#[tokio::test]
async fn before_hello_only_short_frames_are_read() {
    let (server, _dir) = start().await;
    let peer = connect(&server).await;
    let long = vec![0; FRAME_BYTES_UNAUTHENTICATED_MAX + 1];
    let prefix = Prefix::new(FrameKind::Hello, &[], &long);
    // The prefix alone: the body is not waited for.
    peer.open().await.write_raw(&prefix.encode()).await;
    let (code, text) = peer.closed().await;
    assert_eq!(code, VIOLATION);
    assert!(text.contains("larger than the limit of 65536"), "{text}");
}

/// Sends bytes on the control stream of a session that is open, and tells how the broker takes it.
async fn closed_by(bytes: &[u8]) -> String {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    control.write_raw(bytes).await;
    let (code, text) = peer.closed().await;
    assert_eq!(code, VIOLATION);
    text
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_by_its_prefix() {
    let prefix = Prefix { body_bytes: u32::MAX, ..Prefix::new(FrameKind::Request, &[], &[]) };
    let text = closed_by(&prefix.encode()).await;
    assert!(text.contains(&format!("4294967295 bytes is larger than the limit of {FRAME_BYTES_MAX}")), "{text}");
}

#[tokio::test]
async fn only_batches_may_be_longer_than_a_control_body() {
    let prefix = Prefix { body_bytes: FRAME_BYTES_MAX as u32, ..Prefix::new(FrameKind::Request, &[], &[]) };
    let text = closed_by(&prefix.encode()).await;
    assert!(text.contains("larger than the limit of 104"), "{text}");
}

#[tokio::test]
async fn a_damaged_prefix_closes_the_connection() {
    let mut prefix: [u8; PREFIX_BYTES] = Prefix::new(FrameKind::Ping, &[], &[]).encode();
    prefix[9] ^= 1;
    assert!(closed_by(&prefix).await.starts_with("frame prefix has checksum"));
}

#[tokio::test]
async fn a_damaged_body_closes_the_connection() {
    let body = control::encode(&Request::Status);
    let prefix = Prefix::new(FrameKind::Request, &[], &body);
    let mut frame = [&prefix.encode()[..], &body].concat();
    *frame.last_mut().unwrap() ^= 1;
    assert!(closed_by(&frame).await.starts_with("frame body has checksum"));
}

#[tokio::test]
async fn a_body_that_is_no_request_closes_the_connection() {
    let body = [0xff; 3];
    let frame = [&Prefix::new(FrameKind::Request, &[], &body).encode()[..], &body].concat();
    assert!(closed_by(&frame).await.starts_with("control body is not valid"));
}

#[tokio::test]
async fn a_frame_of_another_stream_closes_the_connection() {
    assert_eq!(closed_by(&Prefix::new(FrameKind::Cancel, &[], &[]).encode()).await, "frame Cancel is out of place");
}

#[tokio::test]
async fn a_stranger_is_turned_away_by_the_alert_that_says_why() {
    let (server, _dir) = start().await;
    let (other, _other_dir) = start().await;
    let ca = credentials(&server.identity_path()).ca;
    for (own, alert) in [(credentials(&other.identity_path()).own, 48), (None, 116)] {
        // In TLS 1.3 the client is done before the broker has looked at its certificate.
        let error = match dial(&server, Credentials { ca: ca.clone(), own }, ALPN).await {
            Ok(peer) => peer.connection.closed().await,
            Err(error) => error,
        };
        let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
        // A TLS alert: 48 is an unknown CA, 116 a certificate that is missing.
        assert_eq!(u64::from(close.error_code), 0x100 + alert, "{close}");
    }
}

#[tokio::test]
async fn a_broker_of_another_ca_is_not_believed() {
    let (server, _dir) = start().await;
    let (other, _other_dir) = start().await;
    let error = dial(&server, credentials(&other.identity_path()), ALPN).await.err().unwrap();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn another_protocol_is_not_spoken() {
    let (server, _dir) = start().await;
    let error = dial(&server, credentials(&server.identity_path()), b"weir/2").await.err().unwrap();
    let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
    // The TLS alert `no_application_protocol`.
    assert_eq!(u64::from(close.error_code), 0x100 + 120, "{close}");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_sequence() {
    let (server, _dir) = start().await;
    let (_peer, mut control): (_, Stream) = join(&server).await;
    control.write(FrameKind::Ping, 41, 0, &[], &[]).await;
    assert_eq!(control.expect(FrameKind::Pong).await.prefix.sequence, 41);
}
