//! Opening: what is refused and left untouched, and what is rebuilt.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::*;
use protocol::Offset;
use redb::{ReadableTable, TableDefinition};
use storage::{Commit, OpenError, ReadError, StateTable, Store, StoreOptions};

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn filled(dir: &Path) {
    filled_with(dir, 200_000);
}

fn filled_with(dir: &Path, bytes: usize) {
    let store = Store::open(dir, small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for at in 0..30 {
        let state = [StateTable::Catalog, StateTable::GroupOffsets, StateTable::PluginState]
            .into_iter()
            .flat_map(|table| [set(table, "same", &at.to_string()), set(table, &format!("only {at}"), "x")]);
        let commit = Commit { appends: vec![append(P, at, 1, bytes, 0)], state: state.collect(), ..Commit::default() };
        store.commit(commit).unwrap();
    }
    assert!(store.stats().segments > 2);
}

fn set_format(file: &Path, version: u8) {
    let db = redb::Database::open(file).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut table = transaction.open_table(TableDefinition::<u32, &[u8]>::new("format")).unwrap();
        let mut row = table.get(0).unwrap().unwrap().value().to_vec();
        row[8] = version;
        table.insert(0, row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Opens with `spoil` having made one file newer; then with it made as it was.
fn is_refused_as_newer(spoil: impl Fn(&Path, u8)) {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    spoil(dir.path(), 2);
    let before = files(dir.path());
    let refused = Store::open(dir.path(), small());
    assert!(matches!(refused, Err(OpenError::NewerFormat { found: 2, supported: 1, .. })), "{refused:?}");
    assert_eq!(files(dir.path()), before);
    spoil(dir.path(), 1);
    Store::open(dir.path(), small()).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    is_refused_as_newer(|dir, version| set_format(&dir.join("state.redb"), version));
    for index in ["segments/0000000001.index", "segments/0000000003.index"] {
        is_refused_as_newer(|dir, version| {
            let mut bytes = fs::read(dir.join(index)).unwrap();
            bytes[4] = version;
            fs::write(dir.join(index), bytes).unwrap();
        });
    }
    // A segment that a newer weir did not come to close.
    is_refused_as_newer(|dir, version| {
        let last = files(&dir.join("segments")).into_keys().rfind(|file| file.ends_with(".redb")).unwrap();
        set_format(Path::new(&last), version);
        let _ = fs::remove_file(Path::new(&last).with_extension("index"));
    });
}

#[test]
fn an_index_that_is_damaged_or_gone_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let store = Store::open(dir.path(), small()).unwrap();
    let expected = read_all(&store, P, 0, 1);
    drop(store);
    let index = dir.path().join("segments/0000000002.index");
    let clean = fs::read(&index).unwrap();
    for at in (0..clean.len()).step_by(97) {
        let mut damaged = clean.clone();
        damaged[at] ^= 4;
        fs::write(&index, &damaged).unwrap();
        match Store::open(dir.path(), small()) {
            Ok(store) => drop(store),
            // The version itself.
            Err(OpenError::NewerFormat { .. }) if (4..8).contains(&at) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    fs::remove_file(&index).unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(read_all(&store, P, 0, 1), expected);
}

#[test]
fn a_second_broker_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let refused = Store::open(dir.path(), small());
    assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
    let clone = store.clone();
    drop(store);
    assert!(Store::open(dir.path(), small()).is_err());
    drop(clone);
    Store::open(dir.path(), small()).unwrap();
}

#[test]
fn the_state_is_rebuilt_when_its_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_file(dir.path().join("state.redb")).unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    for table in [StateTable::Catalog, StateTable::GroupOffsets, StateTable::PluginState] {
        assert_eq!(store.state_get(table, b"same").unwrap(), Some("29".into()));
        assert_eq!(store.state_scan(table, b"only").unwrap().len(), 30);
    }
    assert_eq!(read_all(&store, P, 0, 1 << 20).len(), 30);
}

#[test]
fn a_store_keeps_its_identity() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ids = dirs.each_ref().map(|dir| Store::open(dir.path(), small()).unwrap().store_id());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(Store::open(dirs[0].path(), small()).unwrap().store_id(), ids[0]);
}

#[test]
fn a_file_of_another_store_is_refused_or_its_records_are() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(ours.path());
    filled_with(theirs.path(), 210_000);
    let copy = |file: &str| fs::copy(theirs.path().join(file), ours.path().join(file)).unwrap();
    copy("segments/0000000002.redb");
    let store = Store::open(ours.path(), StoreOptions { tail_bytes_max: 0, ..small() }).unwrap();
    let answers: Vec<_> = (0..30).map(|offset| store.read(P, Offset(offset), 1)).collect();
    assert!(answers[0].is_ok() && answers[29].is_ok());
    let refused = answers.iter().filter(|answer| matches!(answer, Err(ReadError::Damaged { .. }))).count();
    assert!((1..28).contains(&refused), "{refused}");
    drop(store);
    copy("segments/0000000002.index");
    let refused = Store::open(ours.path(), small());
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_segment_that_is_gone_harms_its_own_range_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_file(dir.path().join("segments/0000000002.redb")).unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let answers: Vec<bool> = (0..30).map(|offset| store.read(P, Offset(offset), 1).is_ok()).collect();
    assert!(answers[0] && answers[29]);
    let lost = answers.iter().filter(|answered| !**answered).count();
    assert!((1..28).contains(&lost), "{lost}");
}

#[test]
fn a_file_that_was_never_finished_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    for name in ["0000000099.redb.new", "0000000002.index.new", "0000000099.index"] {
        let unfinished = dir.path().join("segments").join(name);
        fs::write(&unfinished, b"half").unwrap();
        Store::open(dir.path(), small()).unwrap();
        assert!(!unfinished.exists(), "{name}");
    }
}

#[test]
fn a_sealed_segment_that_is_cut_off_is_damaged_and_not_a_failure_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let files = common::files(dir.path());
    let mut refused = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "redb")) {
        fs::write(path, &bytes[..bytes.len().min(8 << 10)]).unwrap();
        match Store::open(dir.path(), small()) {
            Ok(_) => {}
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("{}: {error}", path.display()),
        }
        for (path, bytes) in &files {
            fs::write(path, bytes).unwrap();
        }
        for path in common::files(dir.path()).into_keys().filter(|path| !files.contains_key(path)) {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(refused > 0);
}
