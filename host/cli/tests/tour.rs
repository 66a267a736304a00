//! The tour by hand, as a user types it: serve, create, upload, deploy, produce, consume, and what lies beside the way.

mod common;

use common::Place;
use serde_json::{Value, json};

const LOG: &str = "\
203.0.113.9 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 12 \"-\" \"curl/8.5.0\"\n\
203.0.113.9 - - [17/May/2015:10:05:04 +0000] \"GET /b HTTP/1.1\" 404 0 \"-\" \"curl/8.5.0\"\r\n\
203.0.113.9 - - [17/May/2015:10:05:05 +0000] \"GET /c HTTP/1.1\" 500 7 \"-\" \"curl/8.5.0\n\
203.0.113.9 - - [17/May/2015:10:05:06 +0000] \"POST /d HTTP/1.1\" 503 7 \"-\" \"curl/8.5.0\"";

#[test]
fn a_log_goes_in_and_its_errors_come_out() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "web"]);
    place.ok(&["plugin", "upload", "access-log-json", "builtin:access-log-json"]);
    place.ok(&["plugin", "upload", "json-filter", "builtin:json-filter"]);
    place.ok(&["transform", "deploy", "--topic", "web", "--plugin", "access-log-json"]);
    let config = r#"{"pointer":"/status","op":">=","value":400}"#;
    place.ok(&["transform", "deploy", "--topic", "web", "--plugin", "json-filter", "--config", config]);

    let produced = place.run_with(&["produce", "web", "--json"], LOG);
    assert_eq!(produced.exit, 0, "{produced:?}");
    let summary = produced.summary();
    for (key, count) in [
        ("records_in", 4),
        ("kept", 2),
        ("stored", 2),
        ("dropped", 1),
        ("dead_lettered", 1),
        ("rejected", 0),
        ("acked", 4),
        ("failed", 0),
    ] {
        assert_eq!(summary[key], count, "{key} in {summary}");
    }

    let consumed = place.ok(&["consume", "web", "--until-end"]);
    let values: Vec<Value> = consumed.json();
    let paths: Vec<&Value> = values.iter().map(|value| &value["path"]).collect();
    assert_eq!(paths, ["/b", "/d"]);
    assert_eq!(values[0]["user_agent"], "curl/8.5.0");

    let dead = place.ok(&["consume", "web.dlq", "--until-end", "--format", "json"]).json();
    assert_eq!(dead.len(), 1);
    assert!(dead[0]["value"].as_str().unwrap().contains("GET /c"), "{dead:?}");
    let header = |name: &str| {
        let headers = dead[0]["headers"].as_array().unwrap();
        headers.iter().find(|header| header["name"] == name).map(|header| header["value"].clone())
    };
    assert_eq!(header("weir.dlq.transform"), Some(json!("access-log-json")));
    assert_eq!(header("weir.dlq.offset"), Some(json!("2")));

    let transforms = place.ok(&["transform", "list", "--topic", "web", "--json"]).json();
    let names: Vec<&Value> = transforms.iter().map(|transform| &transform["transform"]).collect();
    assert_eq!(names, ["access-log-json", "json-filter"]);
    assert_eq!((&transforms[0]["records_in"], &transforms[1]["dropped"]), (&json!(4), &json!(1)));
    assert_eq!(broker.terminate(), 0);
}

#[test]
fn records_keep_key_headers_bytes_and_place() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "3"]);
    let args = ["produce", "t", "--key", "k", "--header", "source=shell", "--header", "a=b=c", "--compression", "zstd"];
    let produced = place.run_with(&args, b"one\n\ntwo\r\n\xff\xfe\n");
    assert_eq!(produced.exit, 0, "{produced:?}");
    let records = place.ok(&["consume", "t", "--until-end", "--format", "json"]).json();
    let offsets: Vec<&Value> = records.iter().map(|record| &record["offset"]).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert!(records.iter().all(|record| record["partition"] == records[0]["partition"]), "one key, one partition");
    let values: Vec<&Value> = records.iter().map(|record| &record["value"]).collect();
    assert_eq!(values, [&json!("one"), &json!(""), &json!("two"), &Value::Null]);
    assert_eq!(records[3]["value_hex"], "fffe");
    assert_eq!(records[0]["key"], "k");
    let headers = json!([{"name": "source", "value": "shell"}, {"name": "a", "value": "b=c"}]);
    assert_eq!(records[0]["headers"], headers);
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.run_with(&["produce", "t"], "a\nb\nc\nd\n");
    let read = |args: &[&str]| place.ok(&[&["consume", "t"], args].concat()).stdout.replace('\n', "");
    assert_eq!(read(&["--until-end"]), "abcd");
    assert_eq!(read(&["--count", "2"]), "ab");
    assert_eq!(read(&["--from", "2", "--until-end"]), "cd");
    assert_eq!(read(&["--from", "end", "--until-end"]), "");
    assert_eq!(read(&["--from", "-1h", "--until-end"]), "abcd");
    assert_eq!(read(&["--from", "2100-01-01T00:00:00Z", "--until-end"]), "");
    assert_eq!(read(&["--count", "0"]), "");
    assert_eq!(read(&["--partition", "0", "--from", "3", "--count", "1"]), "d");
}

#[test]
fn a_follower_sees_what_comes_and_leaves_when_its_reader_does() {
    use std::io::BufRead;
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    let mut follower = common::Running::start(&place, &["consume", "t"]);
    let mut stdout = follower.stdout();
    for value in ["first", "second"] {
        place.run_with(&["produce", "t"], value);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), value);
    }
    // Nothing more is written: it has to notice by itself that nobody reads.
    drop(stdout);
    let ran = follower.finish();
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{ran:?}");
}

#[test]
fn topics_are_altered_described_and_deleted() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t", "--retention-age", "1h", "--retention-bytes", "1GiB"]);
    place.ok(&["topic", "create", "t", "--retention-age", "1h", "--retention-bytes", "1GiB"]);
    let altered =
        place.ok(&["topic", "alter", "t", "--retention-age", "forever", "--partitions", "2", "--json"]).summary();
    assert_eq!((&altered["retention_age_ms"], &altered["retention_bytes"]), (&Value::Null, &json!(1_u64 << 30)));
    assert_eq!(altered["partitions"].as_array().unwrap().len(), 2);
    let policy = |topic: &Value| (topic["cleanup_policy"].clone(), topic["delete_retention_ms"].clone());
    assert_eq!(policy(&altered), (json!("delete"), json!(86_400_000)));
    let compacted = ["topic", "alter", "t", "--cleanup-policy", "compact,delete", "--delete-retention", "1h", "--json"];
    let compacted = place.ok(&compacted).summary();
    assert_eq!(policy(&compacted), (json!("compact,delete"), json!(3_600_000)));
    assert_eq!(compacted["retention_bytes"], json!(1_u64 << 30), "what is not named stays");
    assert!(place.ok(&["topic", "describe", "t"]).stdout.contains("compact,delete; tombstones stay 1h"));
    let refused = place.run(&["topic", "alter", "t", "--cleanup-policy", "shrink"]);
    assert!(refused.stderr.contains("is not one of `delete`, `compact`, `compact,delete`"), "{refused:?}");
    assert!(place.ok(&["topic", "describe", "t"]).stdout.contains("high watermark".to_uppercase().as_str()));
    assert_eq!(place.ok(&["topic", "list", "--json"]).summary()["topic"], "t");
    place.ok(&["topic", "delete", "t"]);
    assert_eq!(place.ok(&["topic", "list"]).stdout, "");
}

#[test]
fn transforms_are_placed_replaced_and_removed() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.ok(&["plugin", "upload", "contains", "builtin:contains"]);
    let deploy = |name: &str, text: &str, more: &[&str]| {
        let config = json!({ "contains": text }).to_string();
        let args = ["transform", "deploy", "--topic", "t", "--plugin", "contains", "--name", name, "--config", &config];
        place.ok(&[&args, more].concat());
    };
    deploy("b", "b", &[]);
    deploy("a", "a", &["--before", "b"]);
    deploy("c", "c", &["--after", "b", "--on-error", "reject", "--deadline", "100ms", "--memory", "16MiB"]);
    deploy("b", "B", &[]);
    let listed = place.ok(&["transform", "list", "--json"]).json();
    let order: Vec<&Value> = listed.iter().map(|transform| &transform["transform"]).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(listed[1]["config"], json!({ "contains": "B" }));
    assert_eq!((&listed[2]["deadline_ms"], &listed[2]["memory_bytes"]), (&json!(100), &json!(16 << 20)));
    assert_eq!(listed[2]["on_error"], "reject");
    place.run_with(&["produce", "t"], "aBc\nabc\nBc\n");
    assert_eq!(place.ok(&["consume", "t", "--until-end"]).stdout, "aBc\n");
    place.ok(&["transform", "remove", "--topic", "t", "b"]);
    assert!(place.ok(&["transform", "describe", "--topic", "t", "a"]).stdout.contains("contains"));
    assert_eq!(place.ok(&["plugin", "list", "--json"]).summary()["plugin"], "contains");
}

#[test]
fn rejected_records_are_listed_and_told_by_the_exit_code() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.ok(&["plugin", "upload", "json-filter", "builtin:json-filter"]);
    let config = r#"{"pointer":"/ok","op":"eq","value":true}"#;
    let args = ["transform", "deploy", "--topic", "t", "--plugin", "json-filter", "--config", config];
    place.ok(&[&args[..], &["--on-error", "reject"]].concat());
    let ran = place.run_with(&["produce", "t", "--json"], "{\"ok\":true}\nnot json\n{\"ok\":false}\n");
    assert_eq!(ran.exit, 8, "{ran:?}");
    let lines = ran.json();
    assert_eq!((&lines[0]["rejected_line"], lines.len()), (&json!(2), 2));
    let summary = &lines[1];
    assert_eq!((&summary["kept"], &summary["dropped"], &summary["rejected"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(summary["acked"], 2);
    let ran = place.run_with(&["produce", "t"], "not json\n");
    assert!(ran.stderr.contains("line 1 was rejected"), "{ran:?}");
}

#[test]
fn a_plugin_is_tried_without_a_broker() {
    let place = Place::new();
    let file = place.file("in.jsonl", "{\"status\":404}\n{\"status\":200}\nbroken\n");
    let config = r#"{"pointer":"/status","op":">=","value":400}"#;
    let args = ["plugin", "test", "builtin:json-filter", "--config", config, "--file", &file];
    let lines = place.ok(&[&args[..], &["--json"]].concat()).json();
    let verdicts: Vec<&Value> = lines.iter().take(3).map(|line| &line["verdict"]).collect();
    assert_eq!(verdicts, ["keep", "drop", "fail"]);
    assert!(lines[2]["text"].as_str().unwrap().contains("JSON"), "{lines:?}");
    assert_eq!((&lines[3]["records_in"], &lines[3]["failed"]), (&json!(3), &json!(1)));
    let text = place.ok(&args).stdout;
    assert!(text.contains("3 records in 1 batch: 1 kept, 1 dropped, 1 failed"), "{text}");
    let log = place.file("access.log", LOG);
    let lines =
        place.ok(&["plugin", "test", "builtin:access-log-json", "--file", &log, "--json", "--batch", "1"]).json();
    assert_eq!((&lines[1]["line"], &lines[1]["verdict"]), (&json!(2), &json!("replace")));
}

#[test]
fn status_completion_help_and_config_answer() {
    let place = Place::new();
    let broker = place.serve();
    let status = place.ok(&["status", "--json"]).summary();
    assert_eq!((&status["topics"], &status["health"], &status["why"]), (&json!(0), &json!("healthy"), &Value::Null));
    assert!(status["budget_bytes"].as_u64() > status["disk_bytes"].as_u64(), "{status}");
    let text = place.ok(&["status"]).stdout;
    assert!(text.contains("healthy") && text.contains("available"), "{text}");
    drop(broker);
    assert!(place.ok(&["completion", "bash"]).stdout.contains("_weir"));
    let help = place.ok(&["--help"]).stdout;
    assert!(help.contains("Exit codes:") && help.contains("demo"), "{help}");
    let shown = place.ok(&["config", "show"]).stdout;
    let file = place.file("weir.toml", &shown);
    place.ok(&["config", "check", "--config", &file]);
    assert_eq!(place.ok(&["config", "show", "--config", &file]).stdout, shown);
    let flags = ["--storage-budget", "2GiB", "--storage-reserve", "8MiB", "--storage-commit-interval", "100ms"];
    let shown = place.ok(&[&["config", "show", "--config", &file][..], &flags].concat()).stdout;
    for line in ["budget = \"2GiB\"", "reserve = \"8MiB\"", "commit_interval = \"100ms\""] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn every_command_shows_an_example() {
    let place = Place::new();
    let commands: [&[&str]; 23] = [
        &["demo"],
        &["serve"],
        &["produce"],
        &["consume"],
        &["export"],
        &["import"],
        &["status"],
        &["completion"],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "alter"],
        &["topic", "delete"],
        &["plugin", "upload"],
        &["plugin", "list"],
        &["plugin", "describe"],
        &["plugin", "delete"],
        &["plugin", "test"],
        &["transform", "deploy"],
        &["transform", "list"],
        &["transform", "describe"],
        &["transform", "remove"],
        &["config", "show"],
    ];
    for command in commands {
        let help = place.ok(&[command, &["--help"]].concat()).stdout;
        let example = format!("\n  weir {}", command.join(" "));
        assert!(help.contains(&example) || help.contains("| weir "), "{help}");
    }
}
