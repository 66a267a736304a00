//! Admin streams, and the requests that both they and the control stream take.

use protocol::{
    ErrorCode, Health, LimitChanges, OnError, PluginHash, PluginName, TopicName, WireError,
    control::{self, DeployTransform, Request, Response, UploadPlugin},
    frame::FrameKind,
    limits::PLUGIN_BYTES_MAX,
};
use sha2::{Digest, Sha256};

use crate::raw::{Peer, Stream, join, start};

const CONTAINS: &[u8] = include_bytes!("../../../../plugins/contains/contains.wasm");

fn announce(name: &str, wasm: &[u8]) -> UploadPlugin {
    let hash = PluginHash(Sha256::digest(wasm).into());
    UploadPlugin { name: PluginName::new(name).unwrap(), wasm_bytes: wasm.len() as u64, hash }
}

/// Sends an upload on a stream of its own, in parts, and reads the answer.
async fn upload(peer: &Peer, upload: &UploadPlugin, wasm: &[u8]) -> Result<Response, WireError> {
    let mut stream = peer.open().await;
    let request = control::encode(&Request::UploadPlugin(upload.clone()));
    stream.write(FrameKind::Request, 3, 0, &[], &request).await;
    for part in wasm.chunks(10_000) {
        stream.write(FrameKind::Upload, 0, 0, &[], part).await;
    }
    let answer = stream.read().await.unwrap();
    assert!(stream.read().await.is_none(), "an admin stream has one answer");
    assert_eq!(answer.prefix.sequence, 3);
    match answer.prefix.kind {
        FrameKind::Error => Err(answer.error()),
        _ => Ok(control::decode(&answer.body).unwrap()),
    }
}

/// Deploys a plugin on a topic under its own name.
pub(crate) async fn deploy(
    peer: &Peer,
    control: &mut Stream,
    topic: &TopicName,
    (name, wasm): (&str, &[u8]),
    config: String,
    limits: LimitChanges,
) {
    upload(peer, &announce(name, wasm), wasm).await.unwrap();
    let deploy = DeployTransform {
        config,
        on_error: OnError::Drop,
        limits,
        ..DeployTransform::new(topic.clone(), PluginName::new(name).unwrap())
    };
    control.ask(&Request::DeployTransform(deploy)).await.unwrap();
}

/// Deploys a transform that keeps what contains a text.
pub(crate) async fn deploy_contains(peer: &Peer, control: &mut Stream, topic: &TopicName, text: &str) {
    let config = format!("{{\"contains\":\"{text}\"}}");
    deploy(peer, control, topic, ("contains", CONTAINS), config, LimitChanges::default()).await;
}

#[tokio::test]
async fn topics_are_made_described_and_deleted() {
    let (server, _dir) = start().await;
    let (_peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await.topic;
    // Creating what exists alike is success.
    control.create_topic("clicks").await;
    let Response::Topics(topics) = control.ask(&Request::DescribeTopics(Vec::new())).await.unwrap() else { panic!() };
    assert_eq!(topics.iter().map(|it| (&it.name, it.partitions.len())).collect::<Vec<_>>(), [(&topic, 1)]);
    assert_eq!(control.ask(&Request::DeleteTopic(topic.clone())).await.unwrap(), Response::Done);
    let error = control.ask(&Request::DescribeTopics(vec![topic])).await.unwrap_err();
    assert_eq!((error.code, error.text.contains("clicks")), (ErrorCode::UnknownTopic, true));
}

#[tokio::test]
async fn the_status_counts_connections() {
    let (server, _dir) = start().await;
    let (_one, mut control) = join(&server).await;
    let (_two, _) = join(&server).await;
    let Response::Status(status) = control.ask(&Request::Status).await.unwrap() else { panic!() };
    assert_eq!((status.connections, status.health), (2, Health::Healthy));
}

#[tokio::test]
async fn a_plugin_is_uploaded_in_parts_and_deployed() {
    let (server, _dir) = start().await;
    let (peer, mut control) = join(&server).await;
    let topic = control.create_topic("clicks").await.topic;
    deploy_contains(&peer, &mut control, &topic, "x").await;
    let Response::Transforms(transforms) = control.ask(&Request::ListTransforms(None)).await.unwrap() else { panic!() };
    assert_eq!(transforms[0].spec.plugin_hash, announce("contains", CONTAINS).hash);
}

#[tokio::test]
async fn an_upload_that_is_not_what_was_announced_is_refused() {
    let (server, _dir) = start().await;
    let (peer, _control) = join(&server).await;
    let mut damaged = CONTAINS.to_vec();
    damaged[100] ^= 1;
    let error = upload(&peer, &announce("contains", CONTAINS), &damaged).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    assert!(server.broker().list_plugins().is_empty());
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_before_it_is_sent() {
    let (server, _dir) = start().await;
    let (peer, _control) = join(&server).await;
    let large = UploadPlugin { wasm_bytes: PLUGIN_BYTES_MAX as u64 + 1, ..announce("large", b"") };
    let error = upload(&peer, &large, b"").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    assert!(error.text.contains("`plugin_bytes_max` (4194304)"), "{error}");
}

#[tokio::test]
async fn an_upload_longer_than_announced_closes_the_connection() {
    let (server, _dir) = start().await;
    let (peer, _control) = join(&server).await;
    let mut stream = peer.open().await;
    let request = control::encode(&Request::UploadPlugin(announce("short", b"abc")));
    stream.write(FrameKind::Request, 3, 0, &[], &request).await;
    stream.write(FrameKind::Upload, 0, 0, &[], b"abcd").await;
    assert_eq!(peer.closed().await.0, ErrorCode::ProtocolViolation as u64);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused() {
    let (server, _dir) = start().await;
    let (peer, _control) = join(&server).await;
    for wasm in [&b"not wasm"[..], b"", b"\0asm\x01\0\0\0"] {
        let error = upload(&peer, &announce("bad", wasm), wasm).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidPlugin, "{error}");
    }
}

#[tokio::test]
async fn an_upload_has_no_place_on_the_control_stream() {
    let (server, _dir) = start().await;
    let (_peer, mut control) = join(&server).await;
    let error = control.ask(&Request::UploadPlugin(announce("contains", CONTAINS))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    // The stream goes on.
    control.ask(&Request::ListPlugins).await.unwrap();
}
