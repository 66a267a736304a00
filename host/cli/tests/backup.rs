//! A backup of a running broker, and brokers that run on what was restored from it.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use common::Place;

/// The values of all records of topic `t`, in the order in which they come.
fn values(place: &Place, data_dir: &str) -> Vec<String> {
    let ran = place.ok(&["consume", "t", "--until-end", "--json", "--data-dir", data_dir]);
    let records = ran.json().into_iter().filter(|line| line["value"].is_string());
    records.map(|line| line["value"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_acknowledged_before_a_backup_is_there_after_the_broker_and_its_data_are_gone() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.ok(&["plugin", "upload", "only", "builtin:contains"]);
    let to = place.path("backup");
    let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut before = 0;
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Acquire) {
                let lines: String = (0..50).map(|line| format!("record {}\n", round * 50 + line)).collect();
                assert_eq!(place.run_with(&["produce", "t"], lines).exit, 0);
                round += 1;
                acked.store(round * 50, Ordering::Release);
            }
        });
        while acked.load(Ordering::Acquire) < 100 {
            std::thread::yield_now();
        }
        for _ in 0..2 {
            before = acked.load(Ordering::Acquire);
            let report = place.ok(&["backup", "--to", "backup", "--json"]).summary();
            assert_eq!(report["to"], to.display().to_string());
        }
        stop.store(true, Ordering::Release);
        producer.join().unwrap();
    });
    broker.kill();
    fs::remove_dir_all(place.data_dir()).unwrap();

    let restored = place.ok(&["restore", "backup", "--to", "again", "--json"]).summary();
    assert_eq!(restored["with_identity"], false);
    place.ok(&["verify", "again"]);
    let broker = place.serve_with(&["--quic", "127.0.0.1:0", "--data-dir", "again"]);
    let found = values(&place, "again");
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "a record is there twice");
    for number in 0..before {
        assert!(unique.contains(&format!("record {number}")), "record {number} of {before} is lost");
    }
    assert!(place.ok(&["plugin", "list", "--data-dir", "again"]).stdout.contains("only"));
    let deploy = ["transform", "deploy", "--topic", "t", "--plugin", "only", "--data-dir", "again"];
    place.ok(&[&deploy[..], &["--config", r#"{"contains":"kept"}"#]].concat());
    place.run_with(&["produce", "t", "--data-dir", "again"], "kept\ndropped\n");
    assert_eq!(values(&place, "again").len(), found.len() + 1);
    assert_eq!(broker.terminate(), 0);
}

#[test]
fn a_restore_goes_to_any_commit_or_time() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.run_with(&["produce", "t"], "first\n");
    let first = place.ok(&["backup", "--to", "backup", "--json"]).summary();
    place.run_with(&["produce", "t"], "second\n");
    let second = place.ok(&["backup", "--to", "backup", "--json"]).summary();
    assert_eq!(
        (&second["segments_kept"], &second["restorable"][0]["commit_min"]),
        (&first["segments_added"], &first["snapshot_sequence"],)
    );
    place.run_with(&["produce", "t"], "third\n");
    place.ok(&["backup", "--to", "backup"]);

    let commit = first["last_sequence"].to_string();
    let time = client_time(second["restorable"][0]["time_max_ms"].as_i64().unwrap());
    for (name, args, expected) in [
        ("by-commit", vec!["--commit", commit.as_str()], vec!["first"]),
        ("by-time", vec!["--time", time.as_str()], vec!["first", "second"]),
        ("latest", vec![], vec!["first", "second", "third"]),
    ] {
        let text = place.ok(&[&["restore", "backup", "--to", name], &args[..]].concat()).stdout;
        assert!(text.contains(name), "{text}");
        let broker = place.serve_with(&["--quic", "127.0.0.1:0", "--data-dir", name]);
        assert_eq!(values(&place, name), expected);
        drop(broker);
    }
    place.run(&["restore", "backup", "--to", "no", "--commit", "999999"]).refused(6, &["commit 999999", "commits "]);
    place.run(&["restore", "backup", "--to", "latest"]).refused(6, &["latest"]);
    place.run(&["restore", "weir-data", "--to", "no"]).refused(6, &["no backup"]);
    assert!(!place.path("no").exists());
}

/// A time as the command line takes it.
fn client_time(ms: i64) -> String {
    protocol::units::time(ms)
}

#[test]
fn an_identity_goes_with_a_backup_only_when_asked_for() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.ok(&["backup", "--to", "plain"]);
    place.ok(&["backup", "--to", "whole", "--with-identity"]);
    assert!(!place.path("plain").join("identity").exists());
    drop(broker);
    let restored = place.ok(&["restore", "whole", "--to", "again", "--json"]).summary();
    assert_eq!(restored["with_identity"], true);
    let admin = fs::read(place.data_dir().join("identity/admin.pem")).unwrap();
    assert_eq!(fs::read(place.path("again").join("identity/admin.pem")).unwrap(), admin);
}

#[test]
fn a_backup_that_cannot_be_made_says_why() {
    let place = Place::new();
    place.run(&["backup", "--to", "backup"]).refused(3, &[]);
    let _broker = place.serve();
    place.run(&["backup", "--to", "weir-data"]).refused(6, &["in use"]);
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine").join("letter.txt"), "dear").unwrap();
    place.run(&["backup", "--to", "mine"]).refused(6, &["letter.txt"]);
    // It is no directory.
    let file = place.file("file", "text");
    place.run(&["backup", "--to", &file]).refused(6, &["file"]);
}

#[test]
fn a_damaged_backup_is_named() {
    let place = Place::new();
    let _broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.run_with(&["produce", "t"], "some record\n".repeat(100));
    place.ok(&["backup", "--to", "backup"]);
    let segments = fs::read_dir(place.path("backup").join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.filter(|path| path.extension().is_some_and(|extension| extension == "redb")).max().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[at] ^= 1;
    // Another file: the broker has a link to this one.
    fs::remove_file(&segment).unwrap();
    fs::File::create_new(&segment).unwrap().write_all(&bytes).unwrap();
    let ran = place.run(&["restore", "backup", "--to", "again"]);
    ran.refused(9, &[segment.file_name().unwrap().to_str().unwrap()]);
    assert!(!place.path("again").exists());
}
