//! Topics move through files: what is exported, imported and consumed is what was produced.

mod common;

use std::{fs, path::Path};

use bytes::Bytes;
use common::{Place, Ran, Running, arg};
use kafka_protocol::{
    protocol::StrBytes,
    records::{Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use serde_json::{Value, json};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const FIRST: &str = "00000000000000000000.log";

/// A topic's records as they are read, partition by partition, without topic and offset.
fn contents(place: &Place, topic: &str) -> Vec<Value> {
    let mut records = place.ok(&["consume", topic, "--until-end", "--format", "json"]).json();
    // Partitions take turns, as they like; within one the order counts.
    records.sort_by_key(|record| record["partition"].as_u64());
    for record in &mut records {
        let record = record.as_object_mut().unwrap();
        record.remove("topic");
        record.remove("offset");
    }
    records
}

/// Three partitions with keys, headers, every codec, and gaps that a filter made.
fn produce_all_kinds(place: &Place) {
    place.ok(&["topic", "create", "all", "--partitions", "3"]);
    place.ok(&["plugin", "upload", "contains", "builtin:contains"]);
    let config = r#"{"contains":"keep"}"#;
    place.ok(&["transform", "deploy", "--topic", "all", "--plugin", "contains", "--config", config]);
    for partition in ["0", "1", "2"] {
        for codec in CODECS {
            let header = format!("codec={codec}");
            let args = ["produce", "all", "--partition", partition, "--compression", codec, "--header", &header];
            let key: &[&str] = if codec == "gzip" { &[] } else { &["--key", codec] };
            let lines = (0..20).map(|line| {
                let fate = if line % 3 == 1 { "drop" } else { "keep" };
                format!("{fate} {partition} {codec} {line}\n")
            });
            let ran = place.run_with(&[&args, key].concat(), lines.collect::<String>());
            assert_eq!(ran.exit, 0, "{ran:?}");
        }
    }
}

fn numbers(place: &Place, topic: &str, numbers: impl Iterator<Item = u32>) {
    let lines: String = numbers.map(|number| format!("{number}\n")).collect();
    let ran = place.run_with(&["produce", topic], lines);
    assert_eq!(ran.exit, 0, "{ran:?}");
}

fn values(place: &Place, topic: &str) -> Vec<u32> {
    place.ok(&["consume", topic, "--until-end"]).stdout.lines().map(|line| line.parse().unwrap()).collect()
}

/// A file of batches as an independent codec reads it.
fn decoded(file: &Path) -> Vec<Record> {
    let mut bytes = Bytes::from(fs::read(file).unwrap());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.extend(RecordBatchDecoder::decode(&mut bytes).unwrap().records);
    }
    records
}

#[test]
fn what_is_exported_and_imported_is_what_was_produced() {
    let place = Place::new();
    let _broker = place.serve();
    produce_all_kinds(&place);
    let exported = place.ok(&["export", "all", "--to", "backup", "--json"]).summary();
    assert_eq!((&exported["records"], &exported["batches"]), (&json!(3 * 5 * 13), &json!(3 * 5)), "{exported}");
    let summary = &exported["partitions"][1];
    assert_eq!((&summary["first_offset"], &summary["next_offset"]), (&json!(0), &json!(100)));
    let size = fs::metadata(place.path("backup/all-1").join(FIRST)).unwrap().len();
    assert_eq!(summary["bytes"], size);

    let imported = place.ok(&["import", "copy", "backup", "--create", "--json"]).summary();
    for (key, count) in
        [("records_in", 195), ("stored", 195), ("acked", 195), ("failed", 0), ("batches", 15), ("files", 3)]
    {
        assert_eq!(imported[key], count, "{key} in {imported}");
    }
    let original = contents(&place, "all");
    assert_eq!(original.len(), 195);
    assert_eq!(contents(&place, "copy"), original);
    // The gaps are gone, and the codecs are not.
    let again = place.ok(&["export", "copy", "--to", "backup", "--json"]).summary();
    assert_eq!((&again["records"], &again["partitions"][1]["next_offset"]), (&json!(195), &json!(65)));
    for partition in 0..3 {
        let bytes = Bytes::from(fs::read(place.path(&format!("backup/copy-{partition}")).join(FIRST)).unwrap());
        assert_eq!(codecs(bytes), CODECS);
    }
}

fn codecs(mut bytes: Bytes) -> Vec<&'static str> {
    let name = |codec| match codec {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    let mut codecs = Vec::new();
    while !bytes.is_empty() {
        codecs.push(name(RecordBatchDecoder::decode(&mut bytes).unwrap().compression));
    }
    codecs
}

#[test]
fn an_exported_file_is_read_by_another_codec() {
    let place = Place::new();
    let _broker = place.serve();
    produce_all_kinds(&place);
    place.ok(&["export", "all", "--to", "backup", "--partition", "2"]);
    assert!(!place.path("backup/all-0").exists());
    let file = place.path("backup/all-2").join(FIRST);
    let consumed = place.ok(&["consume", "all", "--partition", "2", "--until-end", "--format", "json"]).json();
    let read = decoded(&file);
    assert_eq!(read.len(), consumed.len());
    for (read, consumed) in read.iter().zip(&consumed) {
        assert_eq!((read.offset, read.timestamp), (number(consumed, "offset"), number(consumed, "timestamp_ms")));
        let text = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| str::from_utf8(bytes).unwrap().to_owned());
        assert_eq!(json!([text(&read.key), text(&read.value)]), json!([consumed["key"], consumed["value"]]));
        let codec = text(&read.headers[&StrBytes::from_static_str("codec")]);
        assert_eq!(json!([{ "name": "codec", "value": codec }]), consumed["headers"]);
    }
    // A pipe carries the same bytes.
    let piped = place.command(&["export", "all", "--to", "-", "--partition", "2", "--json"]).output().unwrap();
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(&file).unwrap());
    let summary: Value = serde_json::from_slice(&piped.stderr).unwrap();
    assert_eq!(summary["records"], consumed.len());
}

fn number(record: &Value, field: &str) -> i64 {
    record[field].as_i64().unwrap()
}

#[test]
fn a_range_is_cut_at_the_record_and_ranges_can_be_joined() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    numbers(&place, "t", 0..30);
    numbers(&place, "t", 30..60);
    place.ok(&["export", "t", "--to", "joined", "--until", "45"]);
    place.ok(&["export", "t", "--to", "rest", "--from", "45"]);
    let rest = place.path("rest/t-0/00000000000000000045.log");
    assert_eq!(decoded(&rest).iter().map(|record| record.offset).collect::<Vec<_>>(), (45..60).collect::<Vec<_>>());
    fs::copy(&rest, place.path("joined/t-0/00000000000000000045.log")).unwrap();
    place.ok(&["import", "joined", "joined", "--create"]);
    assert_eq!(values(&place, "joined"), (0..60).collect::<Vec<_>>());

    let middle = place.ok(&["export", "t", "--to", "middle", "--from", "10", "--until", "40", "--json"]).summary();
    assert_eq!((&middle["records"], &middle["batches"]), (&json!(30), &json!(2)));
    place.ok(&["import", "middle", "middle", "--create"]);
    assert_eq!(values(&place, "middle"), (10..40).collect::<Vec<_>>());
    // By time: all of it is of the last hour, and nothing is of the time before.
    let recent = place.ok(&["export", "t", "--to", "recent", "--from", "-1h", "--json"]).summary();
    assert_eq!(recent["records"], 60);
    let older = place.ok(&["export", "t", "--to", "older", "--until", "-1h", "--json"]).summary();
    assert_eq!(older["records"], 0);
}

#[test]
fn an_empty_topic_moves_as_one() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "empty", "--partitions", "2"]);
    let exported = place.ok(&["export", "empty", "--to", "backup", "--json"]).summary();
    assert_eq!((&exported["records"], &exported["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(fs::read(place.path("backup/empty-1").join(FIRST)).unwrap(), b"");
    let imported = place.ok(&["import", "copy", "backup", "--create", "--json"]).summary();
    assert_eq!((&imported["records_in"], &imported["files"]), (&json!(0), &json!(2)));
    let copy = place.ok(&["topic", "describe", "copy", "--json"]).summary();
    assert_eq!(copy["partitions"].as_array().unwrap().len(), 2);
}

#[test]
fn an_export_of_a_topic_that_grows_is_a_prefix_of_it() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    numbers(&place, "t", 0..1_000);
    let mut producer = Running::start(&place, &["produce", "t"]);
    for number in 1_000..2_000 {
        producer = producer.write(&number.to_string());
    }
    let exported = place.ok(&["export", "t", "--to", "backup", "--json"]).summary();
    for number in 2_000..3_000 {
        producer = producer.write(&number.to_string());
    }
    assert_eq!(producer.finish().exit, 0);
    let count = exported["records"].as_u64().unwrap() as u32;
    assert!((1_000..=2_000).contains(&count), "{exported}");
    assert_eq!(exported["partitions"][0]["next_offset"], count);
    place.ok(&["import", "copy", "backup", "--create"]);
    assert_eq!(values(&place, "copy"), (0..count).collect::<Vec<_>>());
    assert_eq!(values(&place, "t"), (0..3_000).collect::<Vec<_>>());
}

#[test]
fn a_damaged_file_is_refused_at_its_byte_and_nothing_behind_it_is_sent() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    let mut ends = Vec::new();
    for batch in 0..3 {
        numbers(&place, "t", batch * 10..batch * 10 + 10);
        let summary = place.ok(&["export", "t", "--to", "backup", "--force", "--json"]).summary();
        ends.push(summary["bytes"].as_u64().unwrap() as usize);
    }
    let file = place.path("backup/t-0").join(FIRST);
    let sound = fs::read(&file).unwrap();
    let refused = |topic: &str, bytes: &[u8], position: usize, reason: &str| {
        fs::write(&file, bytes).unwrap();
        let ran = place.run(&["import", topic, "backup", "--create", "--json"]);
        assert_eq!(ran.exit, 6, "{ran:?}");
        let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
        let text = error["error"].as_str().unwrap();
        assert!(text.contains(&format!("byte {position} of `backup/t-0/{FIRST}`")) && text.contains(reason), "{text}");
        assert_eq!(ran.summary()["acked"], values(&place, topic).len());
    };
    let mut flipped = sound.clone();
    flipped[ends[0] + 80] ^= 1;
    refused("flipped", &flipped, ends[0], "checksum");
    assert_eq!(values(&place, "flipped"), (0..10).collect::<Vec<_>>());
    refused("cut", &sound[..sound.len() - 1], ends[1], "cut off");
    assert_eq!(values(&place, "cut"), (0..20).collect::<Vec<_>>());
    refused("head", &sound[..ends[1] + 5], ends[1], "cut off");
    let twice = [&sound[..], &sound[..]].concat();
    refused("twice", &twice, sound.len(), "begins at offset 0");
    let mut old = sound.clone();
    old[16] = 1;
    refused("old", &old, 0, "magic 1");
    refused("text", b"this is a file of lines and not one of batches, long enough for a header of one\n", 0, "magic");

    // What the advice says: the rest, from that byte on.
    let whole = place.run_with(&["import", "cut", "-"], &sound[ends[1]..]);
    assert_eq!(whole.exit, 0, "{whole:?}");
    assert_eq!(values(&place, "cut"), (0..30).collect::<Vec<_>>());
}

#[test]
fn files_that_are_there_are_replaced_by_force_alone() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.ok(&["export", "t", "--to", "backup"]);
    place.run(&["export", "t", "--to", "backup"]).refused(6, &["`backup`", "`t`", "--force"]);
    place.ok(&["export", "t", "--to", "backup", "--force"]);
    let partial = place.path("backup/t-1").join(format!("{FIRST}.partial"));
    fs::write(&partial, "").unwrap();
    place.run(&["import", "copy", "backup", "--create"]).refused(6, &["t-1", "interrupted"]);
    place.run(&["export", "t", "--to", "backup"]).refused(6, &["`backup`"]);
    place.ok(&["export", "t", "--to", "backup", "--force"]);
    assert!(!partial.exists());
    let segments = place.path("backup/t-0");
    fs::write(segments.join("00000000000000000000.timeindex"), "").unwrap();
    place.run(&["export", "t", "--to", "backup", "--force"]).refused(6, &["timeindex", "another directory"]);
}

#[test]
fn what_cannot_be_moved_is_said() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.run(&["export", "nope", "--to", "backup"]).refused(5, &["`nope`"]);
    place.run(&["export", "t", "--to", "backup", "--partition", "2"]).refused(5, &["no partition 2"]);
    place.run(&["export", "t", "--to", "-"]).refused(2, &["--partition N"]);
    place.run(&["export", "t", "--to", "backup", "--from", "5", "--until", "4"]).refused(2, &["--until 4"]);
    assert!(!place.path("backup").exists(), "nothing is made before it is known to be wanted");
    place.ok(&["export", "t", "--to", "backup"]);
    place.run(&["import", "copy", "backup"]).refused(5, &["`copy`", "--create", "2 partitions"]);
    place.ok(&["topic", "create", "narrow"]);
    place.run(&["import", "narrow", "backup"]).refused(5, &["partition 1", "--partitions 2", "--partition-map key"]);
    place.ok(&["import", "narrow", "backup", "--partition-map", "key"]);
    place.run(&["import", "t", "nowhere"]).refused(6, &["`nowhere`"]);
    place.run(&["import", "t", "backup", "--partition", "1"]).refused(2, &["--partition"]);
    place.run(&["import", "t", "backup", "--source-topic", "x"]).refused(5, &["`x`", "`t`"]);
}

#[test]
fn imported_records_pass_the_transforms_and_may_be_rejected() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "raw"]);
    place.run_with(&["produce", "raw"], "{\"ok\":true}\nnot json\n{\"ok\":false}\n");
    let file = arg(&place.path("backup/raw-0").join(FIRST)).to_owned();
    place.ok(&["export", "raw", "--to", "backup"]);
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.ok(&["plugin", "upload", "json-filter", "builtin:json-filter"]);
    let config = r#"{"pointer":"/ok","op":"eq","value":true}"#;
    let args = ["transform", "deploy", "--topic", "t", "--plugin", "json-filter", "--config", config];
    place.ok(&[&args[..], &["--on-error", "reject"]].concat());
    let ran = place.run(&["import", "t", &file, "--partition", "1", "--json"]);
    assert_eq!(ran.exit, 8, "{ran:?}");
    let lines = ran.json();
    assert_eq!(
        (&lines[0]["rejected_file"], &lines[0]["byte"], &lines[0]["index"]),
        (&json!(file), &json!(0), &json!(1))
    );
    for key in ["kept", "dropped", "rejected"] {
        assert_eq!(lines[1][key], 1, "{key} in {}", lines[1]);
    }
    assert_eq!(place.ok(&["consume", "t", "--partition", "1", "--until-end"]).stdout, "{\"ok\":true}\n");

    place.ok(&["topic", "create", "small", "--max-record-bytes", "8"]);
    place.run(&["import", "small", &file]).refused(6, &["byte 0 of", "max_record_bytes"]);
}

#[test]
fn keys_choose_the_partition_a_producer_would() {
    let place = Place::new();
    let _broker = place.serve();
    for topic in ["one", "spread", "produced"] {
        let partitions = if topic == "one" { "1" } else { "4" };
        place.ok(&["topic", "create", topic, "--partitions", partitions]);
    }
    for key in ["a", "b", "c", "d", "e", "f"] {
        for topic in ["one", "produced"] {
            place.run_with(&["produce", topic, "--key", key, "--compression", "lz4"], format!("{key}1\n{key}2\n"));
        }
    }
    place.ok(&["export", "one", "--to", "backup"]);
    place.ok(&["import", "spread", "backup", "--partition-map", "key"]);
    let placed = |topic: &str| {
        let records = contents(&place, topic).into_iter();
        records.map(|record| json!([record["partition"], record["key"], record["value"]])).collect::<Vec<_>>()
    };
    assert_eq!(placed("spread"), placed("produced"));
}

/// A segment as a broker of Kafka may have it.
fn kafka_segment(batches: &[&[Record]]) -> Vec<u8> {
    let mut segment = bytes::BytesMut::new();
    for batch in batches {
        let options = RecordEncodeOptions { version: 2, compression: Compression::Lz4 };
        RecordBatchEncoder::encode(&mut segment, *batch, &options).unwrap();
    }
    segment.to_vec()
}

fn kafka_record(offset: i64, value: &'static str) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 4,
        producer_id: 7,
        producer_epoch: 1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_500_000_000_000 + offset,
        key: Some("k".into()),
        value: Some(value.into()),
        headers: Default::default(),
    }
}

#[test]
fn segments_of_kafka_are_imported_without_what_is_not_data() {
    let place = Place::new();
    let _broker = place.serve();
    let marker = Record { transactional: true, control: true, ..kafka_record(2, "marker") };
    let dir = place.path("data/clicks-1");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(place.path("data/other-0")).unwrap();
    fs::create_dir_all(place.path("data/clicks-0")).unwrap();
    let first = kafka_segment(&[&[kafka_record(0, "a"), kafka_record(1, "b")], &[marker]]);
    fs::write(dir.join(FIRST), first).unwrap();
    fs::write(dir.join("00000000000000000100.log"), kafka_segment(&[&[kafka_record(100, "c")]])).unwrap();
    fs::write(dir.join("00000000000000000100.index"), "no batches").unwrap();

    let imported = place.ok(&["import", "clicks", "data", "--create", "--json"]).summary();
    assert_eq!((&imported["stored"], &imported["control_batches_skipped"]), (&json!(3), &json!(1)), "{imported}");
    let records = contents(&place, "clicks");
    let seen: Vec<Value> = records
        .iter()
        .map(|record| json!([record["partition"], record["key"], record["value"], record["timestamp_ms"]]))
        .collect();
    let at = |offset: i64| 1_500_000_000_000 + offset;
    assert_eq!(seen, [json!([1, "k", "a", at(0)]), json!([1, "k", "b", at(1)]), json!([1, "k", "c", at(100)])]);
    // They are years old: a topic with the usual retention would delete them at once.
    let made = place.ok(&["topic", "describe", "clicks", "--json"]).summary();
    assert_eq!(made["retention_age_ms"], Value::Null);
    place.ok(&["topic", "create", "week", "--partitions", "2"]);
    let warned = place.ok(&["import", "week", "data", "--source-topic", "clicks", "--json"]);
    assert!(warned.stderr.contains("--retention-age forever"), "{warned:?}");
    assert_eq!(warned.summary()["beyond_retention"], 3);
}

#[test]
fn transactions_are_taken_only_when_they_are_asked_for() {
    let place = Place::new();
    let _broker = place.serve();
    let record = Record { transactional: true, ..kafka_record(0, "perhaps aborted") };
    let file = place.file("segment.log", kafka_segment(&[&[record]]));
    let import = |more: &[&str]| -> Ran { place.run(&[&["import", "t", &file, "--create"], more].concat()) };
    import(&[]).refused(6, &["byte 0 of", "transaction", "--with-transactions"]);
    assert_eq!(import(&["--with-transactions"]).exit, 0);
    assert_eq!(place.ok(&["consume", "t", "--until-end"]).stdout, "perhaps aborted\n");
}
