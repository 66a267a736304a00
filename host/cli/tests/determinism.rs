//! `weir plugin test --check-determinism`: plugins that answer alike pass, and those that do not are told with the record
//! and the cause; and what a trial says is what a broker stores.

mod common;

use common::{Place, Ran};
use serde_json::{Value, json};

/// A guest whose answer for every record is eight bytes: `$a` after `body`, which runs once for each record and has its
/// index in `$index`, and the input at `$ptr`.
fn guest(more: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 64)
            {more}
            (func (export "weir_abi_version") (result i32) (i32.const 1))
            (func (export "weir_alloc") (param i32) (result i32) (i32.const 0x100000))
            (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
                (local $index i32) (local $a i64) (local $count i32) (local $patches i32)
                (local.set $count (i32.load offset=4 (local.get $ptr)))
                (local.set $patches (i32.add (i32.const 8)
                    (i32.shl (i32.div_u (i32.add (local.get $count) (i32.const 31)) (i32.const 32)) (i32.const 2))))
                (i32.store (i32.const 0) (i32.const 3))
                (i32.store (i32.const 4) (local.get $count))
                (memory.fill (i32.const 8) (i32.const 255) (i32.sub (local.get $patches) (i32.const 8)))
                (loop $record
                    {body}
                    (i64.store (i32.add (i32.const 0x80000) (i32.shl (local.get $index) (i32.const 3))) (local.get $a))
                    (i32.store (i32.add (local.get $patches) (i32.shl (local.get $index) (i32.const 3)))
                        (i32.add (i32.const 0x80000) (i32.shl (local.get $index) (i32.const 3))))
                    (i32.store offset=4 (i32.add (local.get $patches) (i32.shl (local.get $index) (i32.const 3)))
                        (i32.const 8))
                    (local.set $index (i32.add (local.get $index) (i32.const 1)))
                    (br_if $record (i32.lt_u (local.get $index) (local.get $count))))
                (i64.extend_i32_u
                    (i32.add (local.get $patches) (i32.shl (local.get $count) (i32.const 3))))))"#
    );
    wat::parse_str(text).unwrap()
}

fn check(name: &str, wasm: &[u8], more: &[&str]) -> Ran {
    let place = Place::new();
    let module = place.file(&format!("{name}.wasm"), wasm);
    let lines: String = (0..250).map(|line| format!("line {line}\n")).collect();
    let input = place.file("input", lines);
    place.run(&[&["plugin", "test", &module, "--file", &input, "--check-determinism", "--json"], more].concat())
}

fn assert_passes(name: &str, wasm: &[u8]) {
    let ran = check(name, wasm, &[]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let found = ran.summary();
    assert_eq!((&found["deterministic"], &found["records_in"]), (&json!(true), &json!(250)), "{found}");
}

fn assert_found(name: &str, wasm: &[u8], more: &[&str], cause: &str, line: u64) {
    let ran = check(name, wasm, more);
    assert_eq!(ran.exit, 10, "{ran:?}");
    let found = ran.summary();
    assert_eq!(
        (&found["deterministic"], &found["cause"], &found["line"]),
        (&json!(false), &json!(cause), &json!(line)),
        "{found}"
    );
    let answers = (&found["first"]["answer"], &found["second"]["answer"]);
    assert!(answers.0["verdict"] == "replace" && answers.0 != answers.1, "{found}");
    assert!(found["first"]["batch"].is_u64() && found["second"]["instances"].is_string(), "{found}");
}

#[test]
fn a_plugin_that_answers_by_the_record_alone_passes() {
    assert_passes("constant", &guest("", "(local.set $a (i64.const 7))"));
    assert_passes("stamp", include_bytes!("../../../examples/guests/c/stamp.wasm"));
}

#[test]
fn failing_is_an_answer_however_many_records_it_is_given_to() {
    // In one batch more traps than are followed by default; one by one, more in a row than a breaker bears.
    let by_the_last = "(if (i32.eq (i32.load8_u (i32.sub (i32.add (local.get $ptr) (local.get $len)) (i32.const 2))) (i32.const 0x39))
            (then unreachable))
        (local.set $a (i64.const 7))";
    let place = Place::new();
    let module = place.file("traps.wasm", guest("", "unreachable"));
    let input = place.file("input", "a line\n".repeat(200));
    let ran = place.run(&["plugin", "test", &module, "--file", &input, "--check-determinism"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    // Whether one fails goes by the last record of its batch.
    let ran = check("neighbours", &guest("", by_the_last), &[]);
    assert_eq!(ran.exit, 10, "{ran:?}");
}

#[test]
fn a_plugin_that_counts_in_memory_is_found() {
    let counts = guest(
        "(global $seen (mut i64) (i64.const 0))",
        "(global.set $seen (i64.add (global.get $seen) (i64.const 1))) (local.set $a (global.get $seen))",
    );
    // With several batches the second one tells; with one it takes other splits.
    assert_found("counts", &counts, &["--batch", "100"], "memory", 101);
    assert_found("counts", &counts, &[], "batch", 2);
}

#[test]
fn a_plugin_that_takes_the_time_of_its_batch_is_found() {
    assert_found("time", &guest("", "(local.set $a (i64.load offset=8 (local.get $ptr)))"), &[], "batch", 2);
}

#[test]
fn a_plugin_that_reads_what_the_batch_before_left_is_found() {
    // What lies behind a shorter input is the end of a longer one.
    let stale =
        guest("", "(local.set $a (i64.load (i32.add (i32.add (local.get $ptr) (local.get $len)) (i32.const 8))))");
    let ran = check("stale", &stale, &[]);
    assert_eq!(ran.exit, 10, "{ran:?}");
    assert_eq!(ran.summary()["cause"], "memory", "{ran:?}");
}

#[test]
fn people_are_told_which_line_and_why() {
    let place = Place::new();
    let module = place.file("time.wasm", guest("", "(local.set $a (i64.load offset=8 (local.get $ptr)))"));
    let input = place.file("input", "a\nb\n");
    let ran = place.run(&["plugin", "test", &module, "--file", &input, "--check-determinism"]);
    assert_eq!(ran.exit, 10, "{ran:?}");
    for part in
        ["line 2 has two answers", "in batches of 1000 records", "each on a fresh instance", "depends on the batch"]
    {
        assert!(ran.stdout.contains(part), "`{part}` is not in {ran:?}");
    }
}

#[test]
fn a_trial_says_what_a_broker_stores() {
    let place = Place::new();
    let _broker = place.serve();
    let lines: String = (0..300)
        .map(|line| match line % 3 {
            0 => format!("{{\"status\":{},\"line\":{line}}}\n", 100 + line),
            1 => format!("not JSON {line}\n"),
            _ => format!("{{\"line\":{line},\"status\":\"{line}\"}}\n"),
        })
        .collect();
    let input = place.file("input", &lines);
    let config = r#"{"pointer":"/status","op":">=","value":200}"#;
    let trial = place.ok(&["plugin", "test", "builtin:json-filter", "--config", config, "--file", &input, "--json"]);
    place.ok(&["topic", "create", "t"]);
    place.ok(&["plugin", "upload", "json-filter", "builtin:json-filter"]);
    place.ok(&["transform", "deploy", "--topic", "t", "--plugin", "json-filter", "--config", config]);
    assert_eq!(place.run_with(&["produce", "t"], &lines).exit, 0);

    let verdicts = trial.json();
    let of = |verdict: &str| -> Vec<&Value> { verdicts.iter().filter(|line| line["verdict"] == verdict).collect() };
    let source: Vec<&str> = lines.lines().collect();
    let kept: Vec<&str> = of("keep").iter().map(|line| source[line["line"].as_u64().unwrap() as usize - 1]).collect();
    assert!(!kept.is_empty() && !of("fail").is_empty() && !of("drop").is_empty());
    assert_eq!(place.ok(&["consume", "t", "--until-end"]).lines(), kept);
    let dead = place.ok(&["consume", "t.dlq", "--until-end", "--format", "json"]).json();
    let header = |letter: &Value, name: &str| {
        let headers = letter["headers"].as_array().unwrap();
        headers.iter().find(|header| header["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    let letters: Vec<_> = dead
        .iter()
        .map(|letter| {
            (header(letter, "weir.dlq.offset"), header(letter, "weir.dlq.code"), header(letter, "weir.dlq.text"))
        })
        .collect();
    let failed: Vec<_> = of("fail")
        .iter()
        .map(|line| {
            (
                (line["line"].as_u64().unwrap() - 1).to_string(),
                line["code"].to_string(),
                line["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(letters, failed);
}
