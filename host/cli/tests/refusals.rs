//! Bad input: a clear error, its exit code, advice, and nothing lost.

mod common;

use std::{
    net::UdpSocket,
    path::{Path, PathBuf},
};

use common::{Place, arg};
use serde_json::json;

/// A module without anything in it: the magic number and the version.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    let _broker = place.serve();
    place.run_with(&["produce", "nope"], "x\n").refused(5, &["`nope`", "weir topic create"]);
    place.run(&["consume", "nope"]).refused(5, &["`nope`"]);
    place.run(&["topic", "describe", "nope"]).refused(5, &["`nope`"]);
    place.run(&["topic", "delete", "nope"]).refused(5, &["`nope`"]);
    place.ok(&["topic", "create", "t"]);
    place.run(&["transform", "deploy", "--topic", "t", "--plugin", "nope"]).refused(5, &["`nope`", "plugin upload"]);
    place.run(&["transform", "remove", "--topic", "t", "nope"]).refused(5, &["`nope`"]);
    place.run(&["transform", "describe", "--topic", "t", "nope"]).refused(5, &["`nope`"]);
    place.run(&["plugin", "describe", "nope"]).refused(5, &["`nope`"]);
    place.run(&["plugin", "upload", "x", "builtin:nope"]).refused(5, &["`nope`", "json-filter"]);
    place.run_with(&["produce", "t", "--partition", "1"], "x\n").refused(5, &["partition 1"]);
    place.run(&["consume", "t", "--partition", "7"]).refused(5, &["partition 7"]);
}

#[test]
fn an_oversized_record_is_refused_and_those_before_it_are_kept() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--max-record-bytes", "1KiB"]);
    let big = "x".repeat(2_000);
    let ran = place.run_with(&["produce", "t", "--json"], format!("small\n{big}\nafter\n"));
    assert_eq!(ran.exit, 6, "{ran:?}");
    assert!(ran.stderr.contains("line 2") && ran.stderr.contains("max_record_bytes") && ran.stderr.contains("1024"));
    assert_eq!(ran.summary()["acked"], 1);
    assert_eq!(place.ok(&["consume", "t", "--until-end"]).stdout, "small\n");
}

#[test]
fn a_plugin_that_is_none_is_refused_with_the_rule_it_breaks() {
    let place = Place::new();
    let _broker = place.serve();
    let text = place.file("text.wasm", "this is not a module");
    let empty = place.file("empty.wasm", EMPTY_MODULE);
    let input = place.file("in.txt", "a\n");
    place.run(&["plugin", "upload", "x", &text]).refused(6, &["not a WebAssembly module"]);
    place.run(&["plugin", "upload", "x", &empty]).refused(6, &["exports no `memory`"]);
    place.run(&["plugin", "test", &text, "--file", &input]).refused(6, &["not a WebAssembly module"]);
    place.run(&["plugin", "test", &empty, "--file", &input]).refused(6, &["exports no `memory`"]);
    place.run(&["plugin", "upload", "x", "nowhere.wasm"]).refused(6, &["`nowhere.wasm`"]);
    let huge = place.file("huge.wasm", vec![0; (4 << 20) + 1]);
    place.run(&["plugin", "upload", "x", &huge]).refused(6, &["plugin_bytes_max"]);
    assert_eq!(place.ok(&["plugin", "list"]).stdout, "");
}

#[test]
fn a_transform_with_a_wrong_configuration_is_refused_and_the_old_one_stays() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.ok(&["plugin", "upload", "contains", "builtin:contains"]);
    let deploy =
        |config: &str| place.run(&["transform", "deploy", "--topic", "t", "--plugin", "contains", "--config", config]);
    assert_eq!(deploy(r#"{"contains":"a"}"#).exit, 0);
    deploy(r#"{"contians":"b"}"#).refused(6, &["contians"]);
    deploy("{}").refused(6, &["contains"]);
    deploy("{").refused(6, &["JSON"]);
    let listed = place.ok(&["transform", "list", "--json"]).summary();
    assert_eq!(listed["config"], json!({ "contains": "a" }));
    place.run(&["plugin", "delete", "contains"]).refused(6, &["contains"]);
}

#[test]
fn a_topic_that_exists_otherwise_is_left_alone() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.run(&["topic", "create", "t", "--partitions", "3"]).refused(6, &["`t`"]);
    place.run(&["topic", "alter", "t", "--partitions", "1"]).refused(6, &["partition"]);
    place.run(&["topic", "alter", "t"]).refused(2, &["nothing to alter"]);
    let described = place.ok(&["topic", "describe", "t", "--json"]).summary();
    assert_eq!(described["partitions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let place = Place::new();
    let broker = place.serve();
    place.run(&["serve", "--quic", "127.0.0.1:0"]).refused(7, &["weir-data"]);
    place.run(&["demo", "--records", "10", "--data-dir", "weir-data"]).refused(7, &["weir-data"]);
    place.ok(&["topic", "create", "t"]);
    assert_eq!(broker.terminate(), 0);
}

/// A file of a segment as a newer weir would have written it.
fn of_format_9(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    // The format row of a segment ("weir", the kind of file, the version), or the beginning of its index.
    let marks: [(&[u8], usize); 2] = [(b"weir\x01\0\0\0\x01\0\0\0", 8), (b"wirx\x01\0\0\0", 4)];
    let mut found = false;
    for (mark, version_at) in marks {
        for at in 0..bytes.len() - mark.len() {
            if bytes[at..].starts_with(mark) {
                bytes[at + version_at] = 9;
                found = true;
            }
        }
    }
    assert!(found, "no format version in `{}`", path.display());
    bytes
}

#[test]
fn a_directory_of_a_newer_format_is_refused_untouched() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    assert_eq!(broker.terminate(), 0);
    let files = std::fs::read_dir(place.data_dir().join("segments")).unwrap().map(|file| file.unwrap().path());
    let newer: Vec<(PathBuf, Vec<u8>)> = files.map(|path| (path.clone(), of_format_9(&path))).collect();
    assert!(newer.iter().all(|(path, bytes)| std::fs::write(path, bytes).is_ok()));
    place.run(&["serve", "--quic", "127.0.0.1:0"]).refused(7, &["format version 9", "newer weir"]);
    for (path, bytes) in newer {
        assert!(std::fs::read(&path).unwrap() == bytes, "`{}` was touched", path.display());
    }
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.run(&["serve", "--quic", &address]).refused(7, &[&address]);
}

#[test]
fn an_identity_of_another_broker_is_refused() {
    let (ours, other) = (Place::new(), Place::new());
    let (broker, _other) = (ours.serve(), other.serve());
    let identity = other.data_dir().join("identity/admin.pem");
    let address = broker.quic.to_string();
    let ran = ours.run(&["topic", "list", "--broker", &address, "--identity", arg(&identity)]);
    ran.refused(4, &[&address, "identity"]);
    ours.run(&["topic", "list", "--identity", "nowhere.pem"]).refused(4, &["`nowhere.pem`"]);
    let junk = ours.file("junk.pem", "not PEM");
    ours.run(&["topic", "list", "--identity", &junk]).refused(4, &["identity"]);
}

#[test]
fn where_no_broker_is_it_is_said() {
    let place = Place::new();
    place.run(&["status"]).refused(3, &["weir serve"]);
    let broker = place.serve();
    let address = broker.quic.to_string();
    broker.kill();
    place.run(&["status", "--broker", &address]).refused(3, &[&address]);
    place.run(&["status", "--broker", "no port"]).refused(3, &["`no port`"]);
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused_with_the_nearest_one() {
    let place = Place::new();
    let file = place.file("weir.toml", "data_dri = 'x'\n");
    for command in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        place.run(&[command, &["--config", &file]].concat()).refused(6, &["`data_dri`", "`data_dir`"]);
    }
    place.run(&["serve", "--config", "nowhere.toml"]).refused(6, &["`nowhere.toml`"]);
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    let place = Place::new();
    for args in [
        &["topic", "create"][..],
        &["topic", "create", "a/b"],
        &["consume", "t", "--from", "yesterday"],
        &["produce", "t", "--header", "novalue"],
        &["produce", "t", "--compression", "rar"],
        &["transform", "deploy", "--topic", "t", "--plugin", "p", "--on-error", "shrug"],
        &["transform", "deploy", "--topic", "t", "--plugin", "p", "--before", "a", "--after", "b"],
        &["frobnicate"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.exit, 2, "{ran:?}");
        assert!(ran.stderr.contains("--help"), "{ran:?}");
    }
}

#[test]
fn errors_are_one_json_object_where_that_is_asked_for() {
    let place = Place::new();
    let _broker = place.serve();
    let ran = place.run(&["topic", "describe", "nope", "--json"]);
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!((&error["code"], &error["exit"], ran.exit), (&json!("unknown_topic"), &json!(5), 5));
    assert!(error["advice"].as_str().unwrap().contains("topic create"));
}
