//! Opening: what is refused and left untouched, and what is rebuilt.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::*;
use protocol::Offset;
use redb::{ReadableTable, TableDefinition};
use storage::{Commit, OpenError, StateTable, Store};

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
    let store = Store::open(dir, small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for at in 0..30 {
        let state = [StateTable::Catalog, StateTable::GroupOffsets, StateTable::PluginState]
            .into_iter()
            .flat_map(|table| [set(table, "same", &at.to_string()), set(table, &format!("only {at}"), "x")]);
        let commit =
            Commit { appends: vec![append(P, at, 1, 200_000, 0)], state: state.collect(), ..Commit::default() };
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

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    for file in ["segments/0000000001.redb", "segments/0000000003.redb", "state.redb"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        set_format(&dir.path().join(file), 2);
        let before = files(dir.path());
        let refused = Store::open(dir.path(), small());
        assert!(matches!(refused, Err(OpenError::NewerFormat { found: 2, supported: 1, .. })), "{refused:?}");
        assert_eq!(files(dir.path()), before);
        set_format(&dir.path().join(file), 1);
        Store::open(dir.path(), small()).unwrap();
    }
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
fn a_file_of_another_store_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(ours.path());
    filled(theirs.path());
    let segment = "segments/0000000002.redb";
    fs::copy(theirs.path().join(segment), ours.path().join(segment)).unwrap();
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
    assert!((1..28).contains(&lost), "{answers:?}");
}

#[test]
fn a_file_that_was_never_finished_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let unfinished = dir.path().join("segments/0000000099.redb.new");
    fs::write(&unfinished, b"half").unwrap();
    Store::open(dir.path(), small()).unwrap();
    assert!(!unfinished.exists());
}
