//! Pipelines through the public face: books, policies, placement, replacement, what a restart keeps.

mod common;

use broker::{DeployError, PluginError, ProduceError, TopicError};
use bytes::Bytes;
use common::{
    KEEP, VERDICTS, batch, compacted, create, deploy, header, open, partition, pipeline, plugin_name, produced, read,
    text, topic, topic_name, transform_name, upload, values,
};
use protocol::{
    BatchBuilder, Books, Compression, ErrorCode, Offset, OnError, Record, TopicConfig, WireError,
    control::{AlterTopic, CreateTopic, DeployTransform, Placement},
    limits::DEAD_LETTER_HEADER_BYTES_MAX,
    partition_for_key,
};

#[tokio::test]
async fn books_balance_and_dropped_records_leave_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    let answer = clicks.produce(batch(&["k0", "d1", "f2", "m3", "d4", "k5"])).await.unwrap();
    let books = Books { records_in: 6, kept: 3, stored: 4, dropped: 2, dead_lettered: 1, rejected: 0 };
    assert_eq!(answer.books, books);
    assert_eq!(answer.next_offset, Offset(6), "a batch covers its inputs");
    assert_eq!(values(&clicks).await, ["k0", "m3", "m3", "k5"]);
    let gone = clicks.produce(batch(&["d", "d", "d"])).await.unwrap();
    assert_eq!((gone.base_offset, gone.next_offset, gone.books.dropped), (Offset(6), Offset(9), 3));
    let more = clicks.produce(batch(&["m", "m"])).await.unwrap();
    assert_eq!(more.next_offset, Offset(13), "a flat-map covers its outputs");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_dead_letter_is_the_original_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 3).await.remove(2);
    upload(&broker, "verdicts", VERDICTS).await;
    let spec = broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap().spec;
    let letters = broker.describe_topics(&[topic_name("clicks.dlq")]).unwrap().remove(0);
    assert_eq!(letters.partitions.len(), 3);
    let room = TopicConfig::default().max_record_bytes + DEAD_LETTER_HEADER_BYTES_MAX as u32;
    assert_eq!(letters.config.max_record_bytes, room);

    let mut builder = BatchBuilder::new(Compression::Zstd);
    let mut keyed = Record::new("some key", "failing", 1_234);
    keyed.headers.push(protocol::Header::new("own", "header"));
    builder.append(&Record::unkeyed("kept", 1_000)).unwrap();
    builder.append(&keyed).unwrap();
    builder.append(&Record::unkeyed("fails as well", 2_000)).unwrap();
    let answer = clicks.produce(builder.finish(Offset::ZERO).unwrap()).await.unwrap();
    assert_eq!(answer.books, Books { records_in: 3, kept: 1, stored: 1, dead_lettered: 2, ..Books::default() });

    let of_key = read(&partition(&broker, "clicks.dlq", partition_for_key(b"some key", 3))).await;
    let letter = &of_key.iter().find(|(_, record)| record.key.is_some()).unwrap().1;
    assert_eq!((&letter.key, &letter.value, letter.timestamp), (&keyed.key, &keyed.value, 1_234));
    assert_eq!(header(letter, "own").unwrap(), "header");
    let expected = [
        ("transform", "verdicts".to_owned()),
        ("plugin", spec.plugin_hash.to_string()),
        ("topic", "clicks".to_owned()),
        ("partition", "2".to_owned()),
        ("offset", "1".to_owned()),
        ("code", "7".to_owned()),
        ("text", "no good".to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(header(letter, &format!("weir.dlq.{name}")), Some(value), "{name}");
    }
    let unkeyed = values(&partition(&broker, "clicks.dlq", 2)).await;
    assert!(unkeyed.contains(&"fails as well".to_owned()), "an unkeyed record keeps its partition's number");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_trap_is_a_dead_letter_of_its_record_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    let answer = clicks.produce(batch(&["k0", "k1", "trap", "k3"])).await.unwrap();
    assert_eq!((answer.books.kept, answer.books.dead_lettered), (3, 1));
    assert_eq!(values(&clicks).await, ["k0", "k1", "k3"]);
    let letters = read(&partition(&broker, "clicks.dlq", 0)).await;
    assert_eq!(header(&letters[0].1, "weir.dlq.offset").unwrap(), "2");
    assert!(header(&letters[0].1, "weir.dlq.backtrace").is_some());
    broker.shutdown().await;
}

#[tokio::test]
async fn rejected_records_are_told_to_the_producer_and_again_to_its_retry() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    broker
        .deploy_transform(DeployTransform { on_error: OnError::Reject, ..deploy("clicks", "verdicts") })
        .await
        .unwrap();
    let sent = || produced(&["k0", "f1", "k2", "f3"], 5, 0, 0);
    let first = clicks.produce(sent()).await.unwrap();
    assert_eq!((first.books.kept, first.books.rejected), (2, 2));
    let rejects: Vec<_> = first.rejects.iter().map(|reject| (reject.index, reject.code, &reject.text[..])).collect();
    assert_eq!(rejects, [(1, 7, "no good"), (3, 7, "no good")]);
    assert!(broker.describe_topics(&[topic_name("clicks.dlq")]).is_err(), "nobody needs it");
    broker.shutdown().await;
    drop((broker, clicks));
    let broker = open(dir.path());
    let again = partition(&broker, "clicks", 0).produce(sent()).await.unwrap();
    assert_eq!(again, first);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_leaves_the_pipeline_without_a_key_is_rejected_where_the_topic_compacts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let prices = compacted(&broker, "prices").await;
    upload(&broker, "verdicts", VERDICTS).await;
    broker.deploy_transform(deploy("prices", "verdicts")).await.unwrap();
    let send = |changing: &'static str| {
        let mut mixed = BatchBuilder::new(Compression::Lz4);
        mixed.append(&Record::new("a", "k0", 1)).unwrap();
        mixed.append(&Record::unkeyed("k1", 1)).unwrap();
        mixed.append(&Record::new("b", changing, 1)).unwrap();
        mixed.append(&Record::unkeyed("f3", 1)).unwrap();
        prices.produce(mixed.finish(Offset::ZERO).unwrap())
    };
    // Whether a transform changed the batch or left it as it was makes no difference.
    for (changing, dropped) in [("k2", 0), ("d2", 1)] {
        let answer = send(changing).await.unwrap();
        let books =
            Books { records_in: 4, kept: 2 - dropped, stored: 2 - dropped, dropped, dead_lettered: 1, rejected: 1 };
        assert_eq!((answer.books, answer.next_offset.0 - answer.base_offset.0), (books, 4));
        let [reject] = &answer.rejects[..] else { panic!("one record is rejected: {:?}", answer.rejects) };
        assert_eq!((reject.index, reject.text.starts_with("record has no key")), (1, true), "{reject:?}");
    }
    let all_unkeyed = prices.produce(batch(&["k0", "k1"])).await.unwrap();
    assert_eq!((all_unkeyed.books.rejected, all_unkeyed.books.stored), (2, 0));
    assert_eq!(values(&prices).await, ["k0", "k2", "k0"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_record_routed_without_a_key_to_a_topic_that_compacts_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    let prices = compacted(&broker, "prices").await;
    upload(&broker, "verdicts", VERDICTS).await;
    let routing = DeployTransform { targets: vec![topic_name("prices")], ..deploy("clicks", "verdicts") };
    broker.deploy_transform(routing).await.unwrap();
    let mut mixed = BatchBuilder::new(Compression::None);
    mixed.append(&Record::new("a", "r0", 1)).unwrap();
    mixed.append(&Record::unkeyed("r1", 1)).unwrap();
    mixed.append(&Record::unkeyed("k2", 1)).unwrap();
    let answer = clicks.produce(mixed.finish(Offset::ZERO).unwrap()).await.unwrap();
    assert_eq!(answer.books, Books { records_in: 3, kept: 2, stored: 2, dead_lettered: 1, ..Books::default() });
    assert_eq!((values(&prices).await, values(&clicks).await), (vec!["r0".to_owned()], vec!["k2".to_owned()]));
    let letters = read(&partition(&broker, "clicks.dlq", 0)).await;
    assert_eq!(text(letters[0].1.value.clone()), "r1");
    assert!(header(&letters[0].1, "weir.dlq.text").unwrap().contains("has no key"));
    broker.shutdown().await;
}

#[tokio::test]
async fn the_drop_policy_counts_failures_as_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    broker.deploy_transform(DeployTransform { on_error: OnError::Drop, ..deploy("clicks", "verdicts") }).await.unwrap();
    let answer = clicks.produce(batch(&["k0", "f1", "trap"])).await.unwrap();
    assert_eq!(answer.books, Books { records_in: 3, kept: 1, stored: 1, dropped: 2, ..Books::default() });
    broker.shutdown().await;
}

#[tokio::test]
async fn a_paused_partition_goes_on_when_its_transform_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    let pausing = DeployTransform { on_error: OnError::Pause, ..deploy("clicks", "verdicts") };
    broker.deploy_transform(pausing.clone()).await.unwrap();
    let tickets = [
        clicks.produce(produced(&["k0"], 1, 0, 0)),
        clicks.produce(produced(&["f1"], 1, 0, 1)),
        clicks.produce(produced(&["k2"], 1, 0, 2)),
    ];
    let [first, failed, behind] = tickets;
    first.await.unwrap();
    let error = failed.await.unwrap_err();
    assert_eq!(WireError::from(&error).code, ErrorCode::TransformPaused);
    // Whether the one before had failed already when it came is a matter of time; it is not stored in either case.
    let behind = behind.await.unwrap_err();
    let out_of_order = matches!(behind, ProduceError::OutOfOrderSequence { .. });
    assert!(behind.is_retriable() || out_of_order, "{behind}");
    let still = clicks.produce(produced(&["f1"], 1, 0, 1)).await.unwrap_err();
    assert!(matches!(still, ProduceError::Paused { .. }));
    let stored = clicks.produce(produced(&["k0"], 1, 0, 0)).await.unwrap();
    assert_eq!(stored.base_offset, Offset(0), "what is stored is still answered");

    broker.deploy_transform(DeployTransform { on_error: OnError::Drop, ..pausing }).await.unwrap();
    clicks.produce(produced(&["f1"], 1, 0, 1)).await.unwrap();
    clicks.produce(produced(&["k2"], 1, 0, 2)).await.unwrap();
    assert_eq!(values(&clicks).await, ["k0", "k2"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn routed_records_go_by_key_or_by_the_sources_number_and_skip_the_targets_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 4).await.remove(3);
    topic(&broker, "errors", 2).await;
    upload(&broker, "verdicts", VERDICTS).await;
    let targets = vec![topic_name("errors")];
    broker.deploy_transform(DeployTransform { targets, ..deploy("clicks", "verdicts") }).await.unwrap();
    let elsewhere = vec![topic_name("clicks")];
    broker.deploy_transform(DeployTransform { targets: elsewhere, ..deploy("errors", "verdicts") }).await.unwrap();

    let mut builder = BatchBuilder::new(Compression::Lz4);
    for key in [Some("a"), Some("b"), None] {
        let record = Record { key: key.map(Bytes::from), ..Record::unkeyed("r", 9) };
        builder.append(&record).unwrap();
    }
    let answer = clicks.produce(builder.finish(Offset::ZERO).unwrap()).await.unwrap();
    assert_eq!(answer.books, Books { records_in: 3, kept: 3, stored: 3, ..Books::default() });
    assert!(values(&clicks).await.is_empty());
    let mut expected = [Vec::new(), Vec::new()];
    for key in ["a", "b"] {
        expected[partition_for_key(key.as_bytes(), 2) as usize].push(Some(Bytes::from(key)));
    }
    expected[1].push(None);
    for (number, expected) in expected.into_iter().enumerate() {
        let stored = read(&partition(&broker, "errors", number as u32)).await;
        assert_eq!(stored.into_iter().map(|(_, record)| record.key).collect::<Vec<_>>(), expected);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn transforms_take_their_place_and_keep_it_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "clicks", 1).await;
    upload(&broker, "keep", KEEP).await;
    let at = |name: &str, placement| DeployTransform {
        name: Some(transform_name(name)),
        placement,
        ..deploy("clicks", "keep")
    };
    broker.deploy_transform(at("b", Placement::Last)).await.unwrap();
    broker.deploy_transform(at("d", Placement::Last)).await.unwrap();
    broker.deploy_transform(at("a", Placement::Before(transform_name("b")))).await.unwrap();
    let c = broker.deploy_transform(at("c", Placement::After(transform_name("b")))).await.unwrap();
    assert_eq!(c.stage, 2);
    broker.deploy_transform(at("b", Placement::Last)).await.unwrap();
    let names = |broker: &broker::Broker| -> Vec<String> {
        pipeline(broker, "clicks").into_iter().map(|spec| spec.name.to_string()).collect()
    };
    assert_eq!(names(&broker), ["a", "b", "c", "d"], "a replaced one stays where it was");
    broker.deploy_transform(at("a", Placement::After(transform_name("d")))).await.unwrap();
    broker.remove_transform(topic_name("clicks"), transform_name("c")).await.unwrap();
    assert_eq!(names(&broker), ["b", "d", "a"]);
    let before = pipeline(&broker, "clicks");
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(pipeline(&broker, "clicks"), before);
    partition(&broker, "clicks", 0).produce(batch(&["x"])).await.unwrap();
    assert_eq!(broker.list_transforms(None).unwrap()[0].stats.records_in, 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_clearly_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "clicks", 1).await;
    upload(&broker, "keep", KEEP).await;
    let code = |error: &DeployError| WireError::from(error).code;
    let refused = async |deploy| broker.deploy_transform(deploy).await.unwrap_err();

    let error = refused(deploy("nobody", "keep")).await;
    assert_eq!(code(&error), ErrorCode::UnknownTopic);
    let error = refused(deploy("clicks", "nothing")).await;
    assert_eq!(code(&error), ErrorCode::UnknownPlugin);
    let error = refused(DeployTransform { config: r#"{"a":1}"#.to_owned(), ..deploy("clicks", "keep") }).await;
    assert_eq!(code(&error), ErrorCode::InvalidTransform);
    let error = refused(DeployTransform { config: "{".to_owned(), ..deploy("clicks", "keep") }).await;
    assert!(WireError::from(&error).text.contains("JSON"), "{error:?}");
    let error = refused(DeployTransform { targets: vec![topic_name("nowhere")], ..deploy("clicks", "keep") }).await;
    assert!(matches!(&error, DeployError::UnknownTarget(target) if target.as_str() == "nowhere"));
    let error = refused(DeployTransform { targets: vec![topic_name("clicks")], ..deploy("clicks", "keep") }).await;
    assert!(matches!(error, DeployError::TargetTwice(_)));
    let beside = Placement::Before(transform_name("nobody"));
    let error = refused(DeployTransform { placement: beside, ..deploy("clicks", "keep") }).await;
    assert_eq!(code(&error), ErrorCode::UnknownTransform);
    let small =
        CreateTopic { config: TopicConfig { max_record_bytes: 10, ..TopicConfig::default() }, ..create("small", 1) };
    broker.create_topic(small).await.unwrap();
    let error = refused(DeployTransform { targets: vec![topic_name("small")], ..deploy("clicks", "keep") }).await;
    assert!(matches!(error, DeployError::TargetTooSmall { target_bytes: 10, .. }));
    let error = broker.remove_transform(topic_name("clicks"), transform_name("keep")).await.unwrap_err();
    assert_eq!(code(&error), ErrorCode::UnknownTransform);

    assert!(pipeline(&broker, "clicks").is_empty());
    assert_eq!(broker.describe_topics(&[]).unwrap().len(), 2, "no dead letter topic was left behind");
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "clicks", 1).await;
    topic(&broker, "errors", 1).await;
    upload(&broker, "keep", KEEP).await;
    let targets = vec![topic_name("errors")];
    broker.deploy_transform(DeployTransform { targets, ..deploy("clicks", "keep") }).await.unwrap();
    let in_use = broker.delete_plugin(plugin_name("keep")).await.unwrap_err();
    assert!(matches!(&in_use, PluginError::InUse { transform, .. } if transform.as_str() == "keep"));
    for target in ["errors", "clicks.dlq"] {
        let written = broker.delete_topic(topic_name(target)).await.unwrap_err();
        assert!(matches!(written, TopicError::Target { .. }), "{target}");
    }
    let lowered =
        AlterTopic { name: topic_name("errors"), retention: None, max_record_bytes: Some(5), partitions: None };
    assert!(matches!(broker.alter_topic(lowered).await, Err(TopicError::RecordBytesOfTarget { .. })));
    let raised =
        AlterTopic { name: topic_name("clicks"), retention: None, max_record_bytes: Some(2 << 20), partitions: None };
    assert!(matches!(broker.alter_topic(raised.clone()).await, Err(TopicError::RecordBytesOfTarget { .. })));

    broker.deploy_transform(deploy("clicks", "keep")).await.unwrap();
    broker.alter_topic(raised).await.unwrap();
    let letters = broker.describe_topics(&[topic_name("clicks.dlq")]).unwrap().remove(0);
    assert_eq!(letters.config.max_record_bytes, (2 << 20) + DEAD_LETTER_HEADER_BYTES_MAX as u32, "it grew along");
    broker.delete_topic(topic_name("errors")).await.unwrap();
    broker.delete_topic(topic_name("clicks")).await.unwrap();
    broker.delete_plugin(plugin_name("keep")).await.unwrap();
    assert!(broker.list_plugins().is_empty());
    assert!(matches!(broker.delete_plugin(plugin_name("keep")).await, Err(PluginError::Unknown(_))));
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_and_a_new_upload_leaves_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "clicks", 1).await;
    let text = broker.upload_plugin(plugin_name("bad"), Bytes::from_static(b"not wasm")).await.unwrap_err();
    assert_eq!(WireError::from(text).code, ErrorCode::InvalidPlugin);
    let bare = Bytes::from(wat::parse_str("(module)").unwrap());
    let bare = broker.upload_plugin(plugin_name("bad"), bare).await.unwrap_err();
    assert_eq!(WireError::from(bare).code, ErrorCode::InvalidPlugin);

    upload(&broker, "p", VERDICTS).await;
    broker.deploy_transform(deploy("clicks", "p")).await.unwrap();
    let old = pipeline(&broker, "clicks")[0].plugin_hash;
    upload(&broker, "p", KEEP).await;
    assert_ne!(broker.list_plugins()[0].hash, old);
    assert_eq!(pipeline(&broker, "clicks")[0].plugin_hash, old);
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let clicks = partition(&broker, "clicks", 0);
    clicks.produce(batch(&["d"])).await.unwrap();
    assert!(values(&clicks).await.is_empty(), "the old module still runs after a restart");
    broker.deploy_transform(deploy("clicks", "p")).await.unwrap();
    clicks.produce(batch(&["d"])).await.unwrap();
    assert_eq!(values(&clicks).await, ["d"]);
    let files = std::fs::read_dir(dir.path().join("plugins")).unwrap();
    let modules = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "wasm"));
    assert_eq!(modules.count(), 1, "the file of the old module is gone");
    broker.shutdown().await;
}

#[tokio::test]
async fn an_oversized_record_is_refused_before_a_guest_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let small =
        CreateTopic { config: TopicConfig { max_record_bytes: 10, ..TopicConfig::default() }, ..create("small", 1) };
    broker.create_topic(small).await.unwrap();
    upload(&broker, "keep", KEEP).await;
    broker.deploy_transform(deploy("small", "keep")).await.unwrap();
    let small = partition(&broker, "small", 0);
    let tickets = [
        small.produce(produced(&["k"], 1, 0, 0)),
        small.produce(produced(&["this is too long"], 1, 0, 1)),
        small.produce(produced(&["k"], 1, 0, 2)),
    ];
    let [first, large, behind] = tickets;
    first.await.unwrap();
    assert_eq!(WireError::from(large.await.unwrap_err()).code, ErrorCode::RecordTooLarge);
    assert!(matches!(behind.await.unwrap_err(), ProduceError::OutOfOrderSequence { .. }));
    small.produce(produced(&["k"], 1, 0, 1)).await.unwrap();
    assert_eq!(text(read(&small).await.pop().unwrap().1.value), "k");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_large_batch_that_fails_as_a_whole_becomes_dead_letters_as_a_whole() {
    const RECORDS: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let clicks = topic(&broker, "clicks", 1).await.remove(0);
    upload(&broker, "verdicts", VERDICTS).await;
    broker.deploy_transform(deploy("clicks", "verdicts")).await.unwrap();
    let sent: Vec<String> = (0..RECORDS).map(|number| format!("f{number}")).collect();
    let answer = clicks.produce(batch(&sent)).await.unwrap();
    assert_eq!(answer.books.dead_lettered, RECORDS as u64);
    let letters = partition(&broker, "clicks.dlq", 0);
    assert_eq!(values(&letters).await, sent, "in order, over several batches of one commit");
    let one = letters.fetch(Offset(0), 1).await.unwrap();
    assert!(one.next_offset < letters.place().unwrap().high_watermark);
    broker.shutdown().await;
}
