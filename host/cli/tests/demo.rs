//! The demo, on logs and seeds whose books are known.

mod common;

use std::fmt::Write;

use common::Place;
use serde_json::{Value, json};

/// A log with this many answers of each status, and broken lines among them.
fn log(statuses: &[(u16, usize)], broken: usize) -> String {
    let mut lines = Vec::new();
    for (status, count) in statuses {
        for number in 0..*count {
            lines.push(format!(
                "203.0.113.{} - - [17/May/2015:10:05:03 +0000] \"GET /{number} HTTP/1.1\" {status} 12 \"-\" \"curl/8\"",
                number % 250
            ));
        }
    }
    for number in 0..broken {
        lines.insert(number * 3, format!("203.0.113.1 - - [17/May/2015:10:05:03 +0000] \"GET /broken-{number}"));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}

#[test]
fn the_books_of_a_log_are_right() {
    let place = Place::new();
    let file = place.file("access.log", log(&[(200, 300), (404, 20), (304, 5), (503, 2)], 3));
    let ran = place.ok(&["demo", "--file", &file, "--json"]);
    let summary = ran.summary();
    for (key, count) in [
        ("records_in", 330),
        ("kept", 22),
        ("stored", 22),
        ("dropped", 305),
        ("dead_lettered", 3),
        ("rejected", 0),
        ("read_back", 22),
        ("dead_letters_read_back", 3),
    ] {
        assert_eq!(summary[key], count, "{key} in {summary}");
    }
    assert_eq!(summary["balanced"], true);
    assert_eq!(summary["stored_by_status"], json!({ "404": 20, "503": 2 }));
    let letters: Vec<Value> = ran.json().into_iter().filter(|line| line["step"] == "dead_letter").collect();
    let offsets: Vec<&Value> = letters.iter().map(|letter| &letter["offset"]).collect();
    assert_eq!(offsets, [0, 3, 6]);
    assert!(letters.iter().all(|letter| !letter["reason"].as_str().unwrap().is_empty()));
}

#[test]
fn what_is_shown_fits_the_screen_and_says_it_all() {
    let place = Place::new();
    let file = place.file("access.log", log(&[(200, 50), (404, 7)], 1));
    let shown = place.ok(&["demo", "--file", &file]).stdout;
    for part in ["access-log-json", "json-filter", "dead letter", "read back", "7 of 404", "They balance.", "weir-data"]
    {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    // What is to be typed is never cut, however long the program's path; the rest keeps to 80 columns.
    let typed = |line: &str| line.contains("weir demo --") || line.contains(env!("CARGO_BIN_EXE_weir"));
    let wide = shown.lines().filter(|line| line.chars().count() > 80 && !typed(line));
    assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(!shown.contains('\x1b'), "escape codes without a terminal:\n{shown}");
}

#[test]
fn the_same_seed_gives_the_same_books() {
    let place = Place::new();
    // One directory for all, so that the plugins are compiled once; each run tells its own books.
    let run =
        |seed: &str| place.ok(&["demo", "--records", "3000", "--seed", seed, "--data-dir", "kept", "--json"]).summary();
    let (one, again, other) = (run("7"), run("7"), run("8"));
    for key in ["records_in", "kept", "dropped", "dead_lettered", "stored_by_kind"] {
        assert_eq!(one[key], again[key]);
    }
    assert_eq!((&one["records_in"], &one["balanced"]), (&json!(3000), &json!(true)));
    assert_ne!(one["stored_by_kind"], other["stored_by_kind"]);
    assert!(one["dropped"].as_u64().unwrap() > 0 && one["dead_lettered"].as_u64().unwrap() > 0);
}

#[test]
fn a_kept_directory_serves_on_and_takes_the_demo_again() {
    let place = Place::new();
    let file = place.file("access.log", log(&[(200, 9), (404, 4)], 1));
    place.ok(&["demo", "--file", &file, "--data-dir", "kept"]);
    let summary = place.ok(&["demo", "--file", &file, "--data-dir", "kept", "--json"]).summary();
    assert_eq!((&summary["stored"], &summary["read_back"], &summary["balanced"]), (&json!(4), &json!(4), &json!(true)));
    let _broker = place.serve_with(&["--quic", "127.0.0.1:0", "--data-dir", "kept"]);
    let stored = place.ok(&["consume", "requests", "--until-end", "--data-dir", "kept"]);
    assert_eq!(stored.lines().len(), 8);
}

#[test]
fn what_the_mask_hides_is_not_stored() {
    let place = Place::new();
    place.ok(&["demo", "--records", "2000", "--data-dir", "kept"]);
    let _broker = place.serve_with(&["--quic", "127.0.0.1:0", "--data-dir", "kept"]);
    let stored = place.ok(&["consume", "events", "--until-end", "--data-dir", "kept"]);
    assert!(stored.lines().len() > 100);
    for value in stored.json() {
        assert_eq!(value["crawler"], false);
        assert!(value["ip"].as_str().unwrap().ends_with(".0"), "{value}");
        assert!(!value.to_string().contains("example.org"), "{value}");
        assert!(value.get("trace").is_none() && value["user"]["id"].is_u64(), "{value}");
    }
}

#[test]
fn a_log_that_is_not_there_is_said_before_anything_starts() {
    let place = Place::new();
    place.run(&["demo", "--file", "nowhere.log"]).refused(6, &["`nowhere.log`"]);
}
