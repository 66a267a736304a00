//! Control bodies: what is encoded is decoded, whatever it is, and arbitrary bytes are an error at worst.

use std::collections::HashSet;

use proptest::{collection::vec, option, prelude::*, sample::Index};
use protocol::{
    Books, BreakerOpen, BreakerPolicy, CleanupPolicy, Epoch, ErrorCode, Health, Isolation, LimitChanges, Offset,
    OnError, PartitionDescription, PartitionId, PluginDescription, PluginHash, PluginName, ProduceAnswer, ProducerId,
    RecordError, Retention, TopicConfig, TopicDescription, TopicName, TopicPartition, TransformDescription,
    TransformLimits, TransformName, TransformSpec, TransformStats, TransformUsage, WireError,
    control::{
        AlterTopic, AlterTransform, BackupDone, BackupStatus, ControlError, CreateTopic, DeployTransform, Hello,
        OffsetSpec, Placement, Request, Response, RestorableRun, StartBackup, Status, UploadPlugin, Welcome, decode,
        encode,
    },
    limits::CONTROL_BODY_BYTES_MAX,
};

use crate::common::cases;

fn topic() -> impl Strategy<Value = TopicName> {
    "[a-z0-9_-]{1,20}".prop_map(|name| name.parse().unwrap())
}

fn plugin() -> impl Strategy<Value = PluginName> {
    "[a-z0-9_-]{1,20}".prop_map(|name| name.parse().unwrap())
}

fn transform() -> impl Strategy<Value = TransformName> {
    "[a-z0-9_-]{1,20}".prop_map(|name| name.parse().unwrap())
}

fn partition() -> impl Strategy<Value = TopicPartition> {
    (topic(), any::<u32>()).prop_map(|(topic, partition)| TopicPartition { topic, partition })
}

fn offset() -> impl Strategy<Value = Offset> {
    any::<u64>().prop_map(Offset)
}

fn offset_spec() -> impl Strategy<Value = OffsetSpec> {
    prop_oneof![
        Just(OffsetSpec::Beginning),
        Just(OffsetSpec::End),
        offset().prop_map(OffsetSpec::At),
        any::<i64>().prop_map(OffsetSpec::Timestamp),
    ]
}

fn retention() -> impl Strategy<Value = Retention> {
    let policy = [CleanupPolicy::Delete, CleanupPolicy::Compact, CleanupPolicy::CompactAndDelete];
    (any::<(Option<u64>, Option<u64>, u64)>(), proptest::sample::select(policy.to_vec())).prop_map(
        |((age_ms, bytes, delete_retention_ms), policy)| Retention { age_ms, bytes, policy, delete_retention_ms },
    )
}

fn config() -> impl Strategy<Value = TopicConfig> {
    (retention(), any::<u32>()).prop_map(|(retention, max_record_bytes)| TopicConfig { retention, max_record_bytes })
}

fn on_error() -> impl Strategy<Value = OnError> {
    proptest::sample::select(vec![OnError::DeadLetter, OnError::Drop, OnError::Reject, OnError::Pause])
}

fn limit_changes() -> impl Strategy<Value = LimitChanges> {
    let first = any::<(Option<u64>, Option<u32>, Option<u64>, Option<u32>, Option<u32>, Option<u32>)>();
    let rest = any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>)>();
    (first, rest).prop_map(|(first, rest)| {
        let (memory_bytes, deadline_ms, output_bytes, record_deadline_ms, stack_bytes, output_records) = first;
        let (failures, failure_ms, log_lines_per_s, cpu_share, cpu_percent, breaker_batches) = rest;
        LimitChanges {
            memory_bytes,
            deadline_ms,
            output_bytes,
            record_deadline_ms,
            stack_bytes,
            output_records,
            failures,
            failure_ms,
            log_lines_per_s,
            cpu_share,
            cpu_percent,
            breaker_batches,
        }
    })
}

fn limits() -> impl Strategy<Value = TransformLimits> {
    limit_changes().prop_map(|changes| changes.apply(TransformLimits::default()))
}

fn isolation() -> impl Strategy<Value = Isolation> {
    proptest::sample::select(vec![Isolation::Reused, Isolation::Fresh])
}

fn breaker() -> impl Strategy<Value = BreakerPolicy> {
    proptest::sample::select(vec![BreakerPolicy::DeadLetter, BreakerPolicy::Pause, BreakerPolicy::PassThrough])
}

fn placement() -> impl Strategy<Value = Placement> {
    prop_oneof![Just(Placement::Last), transform().prop_map(Placement::Before), transform().prop_map(Placement::After)]
}

fn create_topic() -> impl Strategy<Value = CreateTopic> {
    (topic(), any::<u32>(), config()).prop_map(|(name, partitions, config)| CreateTopic { name, partitions, config })
}

fn alter_topic() -> impl Strategy<Value = AlterTopic> {
    (topic(), option::of(retention()), any::<(Option<u32>, Option<u32>)>()).prop_map(
        |(name, retention, (max_record_bytes, partitions))| AlterTopic {
            name,
            retention,
            max_record_bytes,
            partitions,
        },
    )
}

fn deploy() -> impl Strategy<Value = DeployTransform> {
    let who = (topic(), option::of(transform()), plugin(), ".{0,40}", vec(topic(), 0..3), placement());
    let how = (on_error(), limit_changes(), isolation(), option::of(breaker()));
    (who, how).prop_map(
        |((topic, name, plugin, config, targets, placement), (on_error, limits, isolation, breaker))| DeployTransform {
            topic,
            name,
            plugin,
            config,
            on_error,
            limits,
            targets,
            placement,
            isolation,
            breaker,
        },
    )
}

fn alter_transform() -> impl Strategy<Value = AlterTransform> {
    let how = (option::of(on_error()), option::of(isolation()), option::of(breaker()));
    (topic(), transform(), limit_changes(), how).prop_map(|(topic, name, limits, (on_error, isolation, breaker))| {
        AlterTransform { topic, name, limits, on_error, isolation, breaker }
    })
}

fn upload() -> impl Strategy<Value = UploadPlugin> {
    (plugin(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(name, wasm_bytes, hash)| UploadPlugin {
        name,
        wasm_bytes,
        hash: PluginHash(hash),
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        vec(topic(), 0..4).prop_map(Request::DescribeTopics),
        create_topic().prop_map(Request::CreateTopic),
        topic().prop_map(Request::DeleteTopic),
        alter_topic().prop_map(Request::AlterTopic),
        (partition(), offset_spec()).prop_map(|(partition, spec)| Request::FindOffset(partition, spec)),
        Just(Request::InitProducer),
        Just(Request::ListPlugins),
        plugin().prop_map(Request::DeletePlugin),
        deploy().prop_map(Request::DeployTransform),
        (topic(), transform()).prop_map(|(topic, name)| Request::RemoveTransform(topic, name)),
        (topic(), transform()).prop_map(|(topic, name)| Request::ResumeTransform(topic, name)),
        alter_transform().prop_map(Request::AlterTransform),
        option::of(topic()).prop_map(Request::ListTransforms),
        upload().prop_map(Request::UploadPlugin),
        Just(Request::Status),
        (".{0,40}", option::of(any::<u32>()), any::<bool>())
            .prop_map(|(to, keep, with_identity)| Request::StartBackup(StartBackup { to, keep, with_identity })),
        Just(Request::BackupStatus),
    ]
}

fn topic_description() -> impl Strategy<Value = TopicDescription> {
    let partition = any::<(u32, u64, u64, u64)>().prop_map(|(id, start, end, bytes)| PartitionDescription {
        id: PartitionId(id),
        log_start_offset: Offset(start),
        high_watermark: Offset(end),
        bytes,
    });
    (topic(), config(), vec(partition, 0..4)).prop_map(|(name, config, partitions)| TopicDescription {
        name,
        config,
        partitions,
    })
}

fn plugin_description() -> impl Strategy<Value = PluginDescription> {
    (upload(), ".{0,40}", any::<u64>()).prop_map(|(upload, describe, uploaded_at_ms)| PluginDescription {
        name: upload.name,
        hash: upload.hash,
        wasm_bytes: upload.wasm_bytes,
        describe,
        uploaded_at_ms,
    })
}

fn transform_stats() -> impl Strategy<Value = TransformStats> {
    any::<[u64; 16]>().prop_map(|numbers| {
        let [batches, records_in, kept, records_out, dropped, failed, traps, ns, rest @ ..] = numbers;
        let [deadline_hits, bytes_in, bytes_out, cpu_ns, log_lines, log_lines_cut, trips, bypassed] = rest;
        TransformStats {
            batches,
            records_in,
            kept,
            records_out,
            dropped,
            failed,
            traps,
            ns,
            deadline_hits,
            bytes_in,
            bytes_out,
            cpu_ns,
            log_lines,
            log_lines_cut,
            trips,
            bypassed,
        }
    })
}

fn transform_usage() -> impl Strategy<Value = TransformUsage> {
    let open = (".{0,20}", any::<u64>()).prop_map(|(cause, retry_in_ms)| BreakerOpen { cause, retry_in_ms });
    (any::<(u32, u64, u32)>(), option::of(open)).prop_map(|((instances, memory_bytes, running), breaker)| {
        TransformUsage { instances, memory_bytes, running, breaker }
    })
}

fn transform_description() -> impl Strategy<Value = TransformDescription> {
    (deploy(), transform(), any::<[u8; 32]>(), limits(), any::<u32>(), transform_stats(), transform_usage()).prop_map(
        |(deploy, name, hash, limits, stage, stats, usage)| {
            let DeployTransform { topic, plugin, config, on_error, targets, isolation, breaker, .. } = deploy;
            let breaker = breaker.unwrap_or_else(|| BreakerPolicy::beside(on_error));
            let plugin_hash = PluginHash(hash);
            let spec =
                TransformSpec { name, plugin, plugin_hash, config, on_error, limits, targets, isolation, breaker };
            TransformDescription { topic, stage, spec, stats, usage }
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        Just(Health::Healthy),
        ".{0,20}".prop_map(|why| Health::Slowed { why }),
        ".{0,20}".prop_map(|why| Health::Full { why }),
        ".{0,20}".prop_map(|why| Health::ReadOnly { why }),
    ]
}

fn status() -> impl Strategy<Value = Status> {
    (".{0,20}", ".{0,20}", any::<[u64; 11]>(), health()).prop_map(
        |(
            broker,
            store_id,
            [
                uptime_ms,
                disk_bytes,
                segments,
                commit_sequence,
                topics,
                partitions,
                connections,
                budget_bytes,
                available_bytes,
                scrubbed_bytes,
                damages,
            ],
            health,
        )| {
            Status {
                broker,
                store_id,
                uptime_ms,
                disk_bytes,
                segments,
                commit_sequence,
                topics,
                partitions,
                connections,
                health,
                budget_bytes,
                available_bytes,
                scrubbed_bytes,
                damages,
            }
        },
    )
}

fn backup_status() -> impl Strategy<Value = BackupStatus> {
    let run = any::<(u64, u64, i64, i64)>().prop_map(|(commit_min, commit_max, time_min_ms, time_max_ms)| {
        RestorableRun { commit_min, commit_max, time_min_ms, time_max_ms }
    });
    let done = (any::<([u64; 6], bool)>(), vec(run, 0..3)).prop_map(|((numbers, linked), restorable)| {
        let [snapshot_sequence, last_sequence, segments_added, segments_kept, bytes_added, files_removed] = numbers;
        BackupDone {
            snapshot_sequence,
            last_sequence,
            segments_added,
            segments_kept,
            bytes_added,
            linked,
            files_removed,
            restorable,
        }
    });
    (".{0,40}", any::<[u64; 5]>(), option::of(done), option::of(wire_error())).prop_map(
        |(to, [number, files_done, files_total, bytes_done, bytes_total], done, error)| BackupStatus {
            number,
            to,
            files_done,
            files_total,
            bytes_done,
            bytes_total,
            done,
            error,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        Just(Response::Done),
        vec(topic_description(), 0..3).prop_map(Response::Topics),
        offset().prop_map(Response::Offset),
        any::<(u64, u16)>().prop_map(|(id, epoch)| Response::Producer(ProducerId(id), Epoch(epoch))),
        vec(plugin_description(), 0..3).prop_map(Response::Plugins),
        vec(transform_description(), 0..3).prop_map(Response::Transforms),
        status().prop_map(Response::Status),
        option::of(backup_status()).prop_map(Response::Backup),
    ]
}

fn produce_answer() -> impl Strategy<Value = ProduceAnswer> {
    let reject = (any::<(u32, u16)>(), ".{0,20}").prop_map(|((index, code), text)| RecordError { index, code, text });
    (any::<[u64; 8]>(), vec(reject, 0..4)).prop_map(
        |([base, next, records_in, kept, stored, dropped, dead, no], rejects)| {
            let books = Books { records_in, kept, stored, dropped, dead_lettered: dead, rejected: no };
            ProduceAnswer { base_offset: Offset(base), next_offset: Offset(next), books, rejects }
        },
    )
}

fn wire_error() -> impl Strategy<Value = WireError> {
    (proptest::sample::select(ErrorCode::ALL), ".{0,40}", any::<u32>())
        .prop_map(|(code, text, retry_after_ms)| WireError { code, text, retry_after_ms })
}

/// Decodes bytes as everything that a peer may send.
fn decode_as_all(bytes: &[u8]) {
    let _ = (decode::<Request>(bytes), decode::<Response>(bytes), decode::<Hello>(bytes), decode::<Welcome>(bytes));
    let _ = (decode::<WireError>(bytes), decode::<TopicPartition>(bytes), decode::<ProduceAnswer>(bytes));
    let _ = decode::<Vec<RecordError>>(bytes);
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_request_survives_the_wire(request in request()) {
        prop_assert_eq!(decode::<Request>(&encode(&request)).unwrap(), request);
    }

    #[test]
    fn a_response_survives_the_wire(response in response()) {
        prop_assert_eq!(decode::<Response>(&encode(&response)).unwrap(), response);
    }

    #[test]
    fn an_answer_or_error_survives_the_wire(answer in produce_answer(), error in wire_error()) {
        prop_assert_eq!(decode::<ProduceAnswer>(&encode(&answer)).unwrap(), answer);
        prop_assert_eq!(decode::<WireError>(&encode(&error)).unwrap(), error);
    }

    #[test]
    fn the_greeting_survives_the_wire(words in any::<[u64; 2]>(), numbers in any::<[u32; 3]>(), text in ".{0,20}") {
        let hello = Hello { client: text.clone(), features: words[0], features_required: words[1] };
        prop_assert_eq!(decode::<Hello>(&encode(&hello)).unwrap(), hello);
        let welcome = Welcome {
            broker: text.clone(),
            features: words[0],
            store_id: text.clone(),
            principal: text,
            frame_bytes_max: numbers[0],
            batch_bytes_max: numbers[1],
            in_flight_bytes_per_handle: numbers[2],
        };
        prop_assert_eq!(decode::<Welcome>(&encode(&welcome)).unwrap(), welcome);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        decode_as_all(&bytes);
    }

    #[test]
    fn damaged_bodies_never_panic(response in response(), request in request(), place: Index, byte: u8, cut: Index) {
        for mut bytes in [encode(&request), encode(&response)] {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            decode_as_all(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            decode_as_all(&bytes);
        }
    }

    #[test]
    fn a_body_is_one_value_and_nothing_behind(request in request(), more in vec(any::<u8>(), 1..9)) {
        let bytes = [encode(&request), more.clone()].concat();
        let refused = matches!(decode::<Request>(&bytes), Err(ControlError::Trailing { bytes }) if bytes == more.len());
        prop_assert!(refused);
    }
}

#[test]
fn a_body_over_the_limit_is_refused_unread() {
    let body = encode(&".".repeat(CONTROL_BODY_BYTES_MAX));
    assert!(matches!(decode::<String>(&body), Err(ControlError::TooLarge { .. })));
}

#[test]
fn a_claimed_length_allocates_nothing() {
    // DescribeTopics with an array, and a string, of 2^64 - 1 elements that are not there.
    let array = [0x82, 0x00, 0x81, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let string = [0x82, 0x02, 0x81, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(decode::<Request>(&array), Err(ControlError::Invalid(_))));
    assert!(matches!(decode::<Request>(&string), Err(ControlError::Invalid(_))));
}

#[test]
fn error_codes_are_unique_and_come_back() {
    let numbers: HashSet<u16> = ErrorCode::ALL.iter().map(|code| *code as u16).collect();
    let words: HashSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!((numbers.len(), words.len()), (ErrorCode::ALL.len(), ErrorCode::ALL.len()));
    for &code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code as u16), code);
        assert_eq!(decode::<ErrorCode>(&encode(&code)).unwrap(), code);
        assert!(!code.advice().is_empty());
    }
    assert_eq!(ErrorCode::from_number(u16::MAX), ErrorCode::Internal);
}

#[test]
fn limits_that_a_stored_row_does_not_name_are_the_defaults() {
    // As they were written when there were three of them: {0: 1 MiB, 1: 50, 2: 7}.
    let row = [0xa3, 0x00, 0x1a, 0x00, 0x10, 0x00, 0x00, 0x01, 0x18, 0x32, 0x02, 0x07];
    let expected =
        TransformLimits { memory_bytes: 1 << 20, deadline_ms: 50, output_bytes: 7, ..TransformLimits::default() };
    assert_eq!(decode::<TransformLimits>(&row).unwrap(), expected);
}

#[test]
fn words_of_policies_come_back() {
    for policy in [OnError::DeadLetter, OnError::Drop, OnError::Reject, OnError::Pause] {
        assert_eq!(policy.as_str().parse(), Ok(policy));
    }
    for policy in [BreakerPolicy::DeadLetter, BreakerPolicy::Pause, BreakerPolicy::PassThrough] {
        assert_eq!(policy.as_str().parse(), Ok(policy));
    }
    for isolation in [Isolation::Reused, Isolation::Fresh] {
        assert_eq!(isolation.as_str().parse(), Ok(isolation));
    }
    let unknown = "stop".parse::<BreakerPolicy>().unwrap_err().to_string();
    assert_eq!(unknown, "`stop` is not one of `dead-letter`, `pause`, `pass-through`");
}
