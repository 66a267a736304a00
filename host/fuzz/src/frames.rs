//! Frames of the native protocol, and the control bodies in them.

use std::fmt::Debug;

use minicbor::{Decode, Encode};
use protocol::{
    Epoch, ErrorCode, Offset, PluginHash, PluginName, ProduceAnswer, ProducerId, RecordError, TopicConfig, TopicName,
    TopicPartition, WireError,
    control::{
        self, CreateTopic, DeployTransform, Hello, OffsetSpec, Request, Response, StartBackup, UploadPlugin, Welcome,
    },
    frame::{Ack, Bound, Credit, Fetch, FrameKind, PREFIX_BYTES, Place, Prefix, ProducerOpen, Subscribe},
    limits::{FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX},
};

use crate::{Seeds, allocations::bounded};

/// Any bytes as a frame from a peer, known and unknown; and as the frame they would be if its checksums were right.
pub fn frame(data: &[u8]) {
    bounded((64 << 10) + 512 * data.len(), || {
        for bytes in [data.to_vec(), resealed(data)] {
            for authenticated in [false, true] {
                check_frame(&bytes, authenticated);
            }
        }
    });
}

/// The same with length and checksums set right.
fn resealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let Some((prefix, rest)) = bytes.split_first_chunk_mut::<PREFIX_BYTES>() else { return bytes };
    prefix[0..4].copy_from_slice(&(rest.len() as u32).to_le_bytes());
    let header_bytes = usize::from(u16::from_le_bytes([prefix[6], prefix[7]])).min(rest.len());
    let carries_batches = FrameKind::from_number(prefix[4]).is_some_and(FrameKind::carries_batches);
    let checked = if carries_batches { &rest[..header_bytes] } else { &rest[..] };
    prefix[24..28].copy_from_slice(&crc32c::crc32c(checked).to_le_bytes());
    let crc = crc32c::crc32c(&prefix[..28]);
    prefix[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn check_frame(bytes: &[u8], authenticated: bool) {
    let Some((first, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return };
    let prefix = match Prefix::decode(first, authenticated) {
        Ok(prefix) => prefix,
        Err(error) => return assert!(error.to_string().starts_with("frame "), "an error says nothing: {error}"),
    };
    assert_eq!(&prefix.encode(), first, "a prefix is its bytes");
    let limit = if authenticated { FRAME_BYTES_MAX } else { FRAME_BYTES_UNAUTHENTICATED_MAX };
    assert!(prefix.body_bytes as usize <= limit);
    assert!(u32::from(prefix.header_bytes) <= prefix.body_bytes);
    // A reader has read what the prefix announces before it looks at it.
    let Some(rest) = rest.get(..prefix.body_bytes as usize) else { return };
    let Ok((header, body)) = prefix.split(rest) else { return };
    assert_eq!((header.len() + body.len(), header.len()), (rest.len(), usize::from(prefix.header_bytes)));
    check_header(prefix.kind, header);
    check_body(prefix.kind, body);
}

/// What is read of a fixed header is what its first bytes say, whatever a newer version put behind.
fn check_header(kind: FrameKind, header: &[u8]) {
    let known = &header[..kind.header_bytes_min()];
    match kind {
        FrameKind::ProducerOpen => assert_eq!(ProducerOpen::decode(header).encode(), known),
        FrameKind::Bound => assert_eq!(Bound::decode(header).encode(), known),
        FrameKind::Ack => {
            let ack = Ack::decode(header);
            assert_eq!(ack.encode(), known);
            assert_eq!(ack.books().stored, u64::from(ack.stored));
        }
        FrameKind::Subscribe => assert_eq!(Subscribe::decode(header).encode(), known),
        FrameKind::Subscribed | FrameKind::Batch | FrameKind::Gap | FrameKind::Fetched => {
            assert_eq!(Place::decode(header).encode(), known);
        }
        FrameKind::Credit => assert_eq!(Credit::decode(header).encode(), known),
        FrameKind::Fetch => assert_eq!(Fetch::decode(header).encode(), known),
        _ => assert!(known.is_empty()),
    }
}

fn check_body(kind: FrameKind, body: &[u8]) {
    match kind {
        FrameKind::Hello => round_trip::<Hello>(body),
        FrameKind::Welcome => round_trip::<Welcome>(body),
        FrameKind::Request => round_trip::<Request>(body),
        FrameKind::Response => round_trip::<Response>(body),
        FrameKind::Error => round_trip::<WireError>(body),
        FrameKind::Bind | FrameKind::Subscribe | FrameKind::Fetch => round_trip::<TopicPartition>(body),
        FrameKind::Ack => round_trip::<Vec<RecordError>>(body),
        _ => {}
    }
}

/// Any bytes as every kind of control body.
pub fn control_body(data: &[u8]) {
    bounded((64 << 10) + 512 * data.len(), || {
        round_trip::<Hello>(data);
        round_trip::<Welcome>(data);
        round_trip::<Request>(data);
        round_trip::<Response>(data);
        round_trip::<WireError>(data);
        round_trip::<TopicPartition>(data);
        round_trip::<Vec<RecordError>>(data);
        round_trip::<ProduceAnswer>(data);
    });
}

/// What decodes is encoded to a body that decodes to the same.
fn round_trip<T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug>(body: &[u8]) {
    match control::decode::<T>(body) {
        Ok(value) => {
            let again = control::encode(&value);
            assert_eq!(
                control::decode::<T>(&again).ok().as_ref(),
                Some(&value),
                "its own encoding means something else"
            );
        }
        Err(error) => assert!(error.to_string().starts_with("control body "), "an error says nothing: {error}"),
    }
}

/// A frame of every layout.
pub(crate) fn frame_seeds() -> Seeds {
    let frame = |kind, header: &[u8], body: &[u8]| {
        let prefix = Prefix { sequence: 3, handle: 1, ..Prefix::new(kind, header, body) };
        [&prefix.encode()[..], header, body].concat()
    };
    let place = Place { next_offset: 5, high_watermark: 9 }.encode();
    let topic = control::encode(&topic_partition());
    let fetch = Fetch { offset: 5, max_bytes: 1 << 20, min_bytes: 1, wait_ms: 100 }.encode();
    let (_, batch) = crate::batches::seeds().swap_remove(0);
    let hello = Hello { client: "fuzz".to_owned(), features: 3, features_required: 1 };
    vec![
        ("hello", frame(FrameKind::Hello, &[], &control::encode(&hello))),
        ("bind", frame(FrameKind::Bind, &[], &topic)),
        ("produce", frame(FrameKind::Produce, &[], &batch)),
        ("ack", frame(FrameKind::Ack, &[1; Ack::BYTES], &[])),
        ("fetch", frame(FrameKind::Fetch, &fetch, &topic)),
        ("subscribe", frame(FrameKind::Subscribe, &[0; Subscribe::BYTES], &topic)),
        ("credit", frame(FrameKind::Credit, &Credit { bytes: 7 }.encode(), &[])),
        ("batch", frame(FrameKind::Batch, &place, &batch)),
        ("open", frame(FrameKind::ProducerOpen, &[2; ProducerOpen::BYTES], &[])),
        ("bound", frame(FrameKind::Bound, &[3; Bound::BYTES], &[])),
        ("error", frame(FrameKind::Error, &[], &control::encode(&wire_error()))),
    ]
}

/// Bodies of many kinds.
pub(crate) fn control_seeds() -> Seeds {
    let create = CreateTopic { name: topic(), partitions: 3, config: TopicConfig::default() };
    let plugin = PluginName::new("mask").expect("a valid name");
    let deploy = DeployTransform {
        limits: protocol::LimitChanges { memory_bytes: Some(1 << 20), ..protocol::LimitChanges::default() },
        targets: vec![topic()],
        ..DeployTransform::new(topic(), plugin.clone())
    };
    let upload = UploadPlugin { name: plugin, wasm_bytes: 9, hash: PluginHash([7; 32]) };
    let backup = StartBackup { to: "/backup".to_owned(), keep: Some(3), with_identity: false };
    vec![
        ("create", control::encode(&Request::CreateTopic(create))),
        ("deploy", control::encode(&Request::DeployTransform(deploy))),
        ("upload", control::encode(&Request::UploadPlugin(upload))),
        ("find", control::encode(&Request::FindOffset(topic_partition(), OffsetSpec::Timestamp(5)))),
        ("backup", control::encode(&Request::StartBackup(backup))),
        ("producer", control::encode(&Response::Producer(ProducerId(7), Epoch(1)))),
        ("offset", control::encode(&Response::Offset(Offset(9)))),
        ("error", control::encode(&wire_error())),
        ("rejects", control::encode(&vec![RecordError { index: 1, code: 7, text: "no".to_owned() }])),
    ]
}

fn topic() -> TopicName {
    TopicName::new("clicks").expect("a valid name")
}

fn topic_partition() -> TopicPartition {
    TopicPartition { topic: topic(), partition: 2 }
}

fn wire_error() -> WireError {
    WireError::new(ErrorCode::UnknownPartition, "topic `clicks` has no partition 9")
}
