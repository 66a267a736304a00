//! Files that somebody else wrote into: redb looks at them in a process of its own, so that the broker tells what is wrong
//! and lives on, whatever redb makes of them.

mod common;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{Place, arg};

/// A broker's data directory as a power cut leaves it: the segment was not closed, so redb has to say how far it reaches.
fn killed(place: &Place) -> PathBuf {
    let broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    for round in 0..5 {
        place.run_with(&["produce", "t"], format!("record {round}\n").repeat(200));
    }
    broker.kill();
    place.data_dir()
}

fn last_segment(data_dir: &Path) -> PathBuf {
    let files = fs::read_dir(data_dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "redb")).max().unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_dir(&path, &to),
            false => {
                fs::copy(&path, &to).unwrap();
            }
        }
    }
}

/// Starts a broker on a directory; whether it served. It may refuse, with the file's name, but not be ended by anything.
fn serves(place: &Place, data_dir: &Path, file: &str) -> bool {
    let args = ["serve", "--quic", "127.0.0.1:0", "--json", "--data-dir", arg(data_dir)];
    let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    if child.stdout.take().unwrap().read(&mut first).unwrap() > 0 {
        child.kill().unwrap();
        child.wait().unwrap();
        return true;
    }
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(7), "{} {said}", ended.status);
    assert!(said.contains(file) && said.contains("damaged"), "{said}");
    false
}

/// Blocks of 512 bytes in which something is written.
fn written_blocks(bytes: &[u8]) -> Vec<usize> {
    let written = bytes.chunks(512).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    written.map(|(at, _)| at * 512).collect()
}

#[test]
fn redb_may_die_of_a_file_and_the_broker_does_not() {
    let place = Place::new();
    let data_dir = killed(&place);
    for name in ["segment", "state.redb"] {
        let file = if name == "segment" { last_segment(&data_dir) } else { data_dir.join(name) };
        let relative = file.strip_prefix(&data_dir).unwrap();
        let name = relative.file_name().unwrap().to_str().unwrap();
        let clean = fs::read(&file).unwrap();
        let blocks = written_blocks(&clean);
        assert!(blocks.len() > 20);
        // One flip at a time would take minutes; so at first all of them, then each a part of them, then few.
        for (round, take) in [1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47].into_iter().enumerate() {
            let mut flipped = clean.clone();
            for at in blocks.iter().skip(round).step_by(take) {
                flipped[at + (round * 37) % 64] ^= 1 << (round % 8);
            }
            let copy = place.path(&format!("copy-{round}-{name}"));
            copy_dir(&data_dir, &copy);
            fs::write(copy.join(relative), &flipped).unwrap();
            serves(&place, &copy, name);
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    assert!(serves(&place, &data_dir, ""), "the untouched one");
}

#[test]
fn a_probe_answers_in_one_line_and_changes_nothing() {
    let place = Place::new();
    let data_dir = killed(&place);
    for (kind, file) in [
        ("segment", last_segment(&data_dir)),
        ("segment-pages", last_segment(&data_dir)),
        ("state", data_dir.join("state.redb")),
    ] {
        let before = fs::read(&file).unwrap();
        let answer = place.ok(&["internal", "probe", kind, arg(&file)]).summary();
        assert!(answer["last_sequence"].is_u64(), "{answer}");
        assert!(fs::read(&file).unwrap() == before);
        fs::write(&file, &before[..before.len() / 2]).unwrap();
        let answer = place.ok(&["internal", "probe", kind, arg(&file)]).summary();
        assert!(answer["damaged"]["what"].is_string(), "{answer}");
        fs::write(&file, &before).unwrap();
    }
    assert!(!place.ok(&["--help"]).stdout.contains("internal"), "it is for the binary alone");
}

#[test]
fn verify_says_what_is_damaged_and_where() {
    let place = Place::new();
    place.run(&["verify"]).refused(6, &["weir-data"]);
    let broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.run_with(&["produce", "t", "--partition", "1"], "some record\n".repeat(2_000));
    place.run(&["verify"]).refused(6, &["in use"]);
    assert_eq!(broker.terminate(), 0);
    let data_dir = place.data_dir();
    assert!(place.ok(&["verify"]).stdout.contains("nothing is damaged"));
    let summary = place.ok(&["verify", arg(&data_dir), "--json"]).summary();
    assert!(summary["damages"] == 0 && summary["record_batches"].as_u64() > Some(0), "{summary}");

    let file = last_segment(&data_dir);
    let mut bytes = fs::read(&file).unwrap();
    let text = b"some record";
    let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
    bytes[at] = b'S';
    fs::write(&file, bytes).unwrap();
    let ran = place.run(&["verify", arg(&data_dir), "--json"]);
    assert_eq!(ran.exit, 9, "{ran:?}");
    let named = ran.json().into_iter().find(|line| line["topic"] == "t").unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!((&named["partition"], &named["file"]), (&1.into(), &file.display().to_string().into()));
    assert!(named["next_offset"].as_u64() <= Some(2_000), "{named}");
    let ran = place.run(&["verify"]);
    assert!(ran.exit == 9 && ran.stdout.contains("`t/1`, offsets"), "{ran:?}");
}

#[test]
fn salvage_saves_what_is_sound_and_a_broker_serves_it() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "t", "--partitions", "2"]);
    place.ok(&["plugin", "upload", "mask", "builtin:mask"]);
    for (partition, round) in [("0", 0), ("1", 1), ("1", 2), ("1", 3)] {
        let lines = (0..3_000).map(|line| format!("record {line} of round {round}\n")).collect::<String>();
        let ran = place.run_with(&["produce", "t", "--partition", partition], lines);
        assert_eq!(ran.exit, 0, "{ran:?}");
    }
    let all =
        |partition| place.ok(&["consume", "t", "--partition", partition, "--until-end", "--format", "json"]).stdout;
    let (first, second) = (all("0"), all("1"));
    assert_eq!(broker.terminate(), 0);
    let data_dir = place.data_dir();

    // A record in the middle, all that redb knows of the file, its index, and the state.
    let file = last_segment(&data_dir);
    let mut bytes = fs::read(&file).unwrap();
    let text = b"record 1500 of round 2";
    let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
    bytes[at] = b'R';
    bytes[..4096].fill(0);
    fs::write(&file, bytes).unwrap();
    fs::remove_file(file.with_extension("index")).unwrap();
    place.run(&["serve", "--quic", "127.0.0.1:0"]).refused(7, &["damaged", "weir salvage"]);
    fs::write(data_dir.join("state.redb"), "nothing").unwrap();

    place.run(&["salvage", arg(&data_dir), "--to", arg(&data_dir.join("new"))]).refused(6, &["lies in"]);
    let new = place.path("saved");
    let ran = place.run(&["salvage", arg(&data_dir), "--to", arg(&new), "--json"]);
    assert_eq!(ran.exit, 9, "{ran:?}");
    let lost: Vec<_> = ran.json().into_iter().filter(|line| !line["lost"].is_null()).collect();
    let [lost] = &lost[..] else { panic!("{ran:?}") };
    assert_eq!((&lost["topic"], &lost["partition"]), (&"t".into(), &1.into()));
    let range = lost["first_offset"].as_u64().unwrap()..lost["next_offset"].as_u64().unwrap();
    assert!(range.contains(&4_500) && range.end - range.start < 9_000, "{range:?}");
    assert_eq!(ran.summary()["state"], "log");

    let _broker = place.serve_with(&["--quic", "127.0.0.1:0", "--data-dir", arg(&new)]);
    let saved = |partition| {
        let args =
            ["consume", "t", "--partition", partition, "--until-end", "--format", "json", "--data-dir", arg(&new)];
        place.ok(&args).stdout
    };
    assert_eq!(saved("0"), first);
    let offset = |line: &&str| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_u64().unwrap();
    let kept: Vec<&str> = second.lines().filter(|line| !range.contains(&offset(line))).collect();
    assert_eq!(saved("1").lines().collect::<Vec<_>>(), kept);
    assert!(place.ok(&["plugin", "list", "--data-dir", arg(&new)]).stdout.contains("mask"));
}

#[test]
fn a_running_broker_finds_what_was_damaged_since_and_serves_the_rest() {
    let place = Place::new();
    let broker = place.serve();
    place.ok(&["topic", "create", "t"]);
    place.run_with(&["produce", "t"], "some record\n".repeat(20_000));
    place.run_with(&["produce", "t"], "other record\n".repeat(20_000));
    assert_eq!(broker.terminate(), 0);
    let file = last_segment(&place.data_dir());
    let mut bytes = fs::read(&file).unwrap();
    let text = b"other record";
    let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
    bytes[at] = b'O';
    fs::write(&file, bytes).unwrap();
    let config = place.file("weir.toml", "[storage]\nscrub_rate = '1GiB'\n");
    let _broker = place.serve_with(&["--quic", "127.0.0.1:0", "--config", &config]);
    let status = loop {
        let status = place.ok(&["status", "--json"]).summary();
        if status["damages"] != 0 {
            break status;
        }
    };
    assert!(status["damages"] == 1 && status["scrubbed_bytes"].as_u64() > Some(0), "{status}");
    assert!(place.ok(&["status"]).stdout.contains("1 damaged place: stop the broker and see `weir verify`"));
    assert_eq!(place.ok(&["consume", "t", "--count", "20000"]).lines()[19_999], "some record");
}
