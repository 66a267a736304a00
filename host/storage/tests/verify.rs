//! `verify`: what is as it was written passes, whatever happened to the store; what is not is named.

mod common;

use std::{fs, path::Path};

use common::*;
use protocol::{Offset, PartitionId};
use storage::{Commit, Damage, OpenError, PartitionChange, StateTable, Store, StoreOptions, VerifyReport, verify};

fn check(dir: &Path) -> VerifyReport {
    verify(dir, &small(), &mut |_| {}).unwrap()
}

fn assert_clean(dir: &Path) {
    let report = check(dir);
    assert_eq!(report.damages, []);
}

/// The files of the segments that end so, oldest first.
fn segments(dir: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    files(&dir.join("segments")).into_keys().filter(|path| path.to_str().unwrap().ends_with(suffix)).collect()
}

/// Where parts begin in a file.
fn parts(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|at| &bytes[*at..*at + 4] == b"wprt").collect()
}

/// What is found with some bytes of a file changed.
fn spoilt(dir: &Path, file: &Path, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<Damage> {
    let clean = fs::read(file).unwrap();
    let mut bytes = clean.clone();
    spoil(&mut bytes);
    fs::write(file, &bytes).unwrap();
    let report = verify(dir, &small(), &mut |_| {});
    fs::write(file, &clean).unwrap();
    match report {
        Ok(report) => report.damages,
        // Bytes that say which format a file has.
        Err(OpenError::NewerFormat { file, .. }) => {
            vec![Damage { file, what: "newer".into(), partition: None, offsets: None }]
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_store_is_clean_whatever_happened_to_it_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let before = files(dir.path());
    let mut last = None;
    let report = verify(dir.path(), &small(), &mut |progress| last = Some(progress)).unwrap();
    assert_eq!(report.damages, []);
    assert!(report.segments > 3 && report.commits >= 46 && report.record_batches > 150, "{report:?}");
    let last = last.unwrap();
    assert_eq!((last.bytes_done, last.damages), (last.bytes_total, 0));
    assert_eq!(report.catalog.len(), 7);
    assert!(files(dir.path()) == before, "it writes nothing");

    // Opened again and again, cleaned, cut off by a power cut.
    for _ in 0..9 {
        Store::open(dir.path(), small()).unwrap();
    }
    assert_clean(dir.path());
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(change(PartitionChange::SetLogStart { id: P, offset: Offset(180) })).unwrap();
    store.commit(change(PartitionChange::Delete { id: PartitionId(1) })).unwrap();
    store.roll().unwrap();
    assert!(store.clean(0, &mut |_| true).unwrap().segments_rewritten > 1);
    drop(store);
    assert_clean(dir.path());
    let store = Store::open(dir.path(), small()).unwrap();
    let commit = Commit { state: vec![set(StateTable::Catalog, "0", "late")], ..Commit::default() };
    store.commit(Commit { appends: vec![append(P, 200, 5, 1_000, 0)], ..commit }).unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("segments")).unwrap();
    for (path, bytes) in files(dir.path()) {
        fs::write(copy.path().join(path.strip_prefix(dir.path()).unwrap()), bytes).unwrap();
    }
    assert_clean(copy.path());
}

#[test]
fn a_flipped_bit_of_a_part_is_found() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let (mut found, mut tried) = (0, 0);
    for file in segments(dir.path(), ".redb") {
        let bytes = fs::read(&file).unwrap();
        for (round, part) in parts(&bytes).into_iter().enumerate().step_by(23) {
            let body = u32::from_le_bytes(bytes[part + 48..part + 52].try_into().unwrap()) as usize;
            let at = part + [0, 5, 9, 50, 64, 66, 70, 90, 64 + body / 2, 63 + body][round % 10];
            let damages = spoilt(dir.path(), &file, |bytes| bytes[at] ^= 1);
            assert!(damages.iter().all(|damage| damage.file == file.display().to_string()), "{damages:?}");
            // Of small parts redb leaves copies behind that nobody reads. Those may be anything.
            assert!(!damages.is_empty() || body < 4 << 10, "byte {at} of {}", file.display());
            found += usize::from(!damages.is_empty());
            tried += 1;
        }
    }
    assert!(found * 2 > tried, "{found} of {tried}");
}

#[test]
fn only_the_range_that_is_harmed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for at in 0..10 {
        store.commit(appends(vec![append(P, at * 3, 3, 50_000, 0)])).unwrap();
    }
    drop(store);
    let [file] = &segments(dir.path(), ".redb")[..] else { panic!("one segment") };
    let bytes = fs::read(file).unwrap();
    for at in 0..10 {
        let text = format!("{}+1 ", at * 3);
        let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let damages = spoilt(dir.path(), file, |bytes| bytes[place + 9] ^= 0x40);
        let ours: Vec<_> = damages.iter().filter(|damage| !damage.what.starts_with("redb")).collect();
        let [damage] = &ours[..] else { panic!("{damages:?}") };
        assert_eq!(damage.partition, Some(P), "{damage}");
        assert_eq!(damage.offsets, Some(Offset(at * 3)..Offset(at * 3 + 3)), "{damage}");
    }
}

#[test]
fn every_byte_of_an_index_counts() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let file = &segments(dir.path(), ".index")[1];
    for at in (0..fs::read(file).unwrap().len()).step_by(61) {
        let damages = spoilt(dir.path(), file, |bytes| bytes[at] ^= 8);
        assert!(damages.iter().any(|damage| damage.file == file.display().to_string()), "byte {at}: {damages:?}");
    }
    // One that is gone is made anew at the next start: no harm is done.
    let bytes = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    assert_clean(dir.path());
    fs::write(file, bytes).unwrap();
    // One that belongs to other commits contradicts them.
    let (first, second) = (&segments(dir.path(), ".index")[1], &segments(dir.path(), ".index")[2]);
    let other = fs::read(second).unwrap();
    assert!(!spoilt(dir.path(), first, |bytes| *bytes = other).is_empty());
}

#[test]
fn the_state_counts_and_so_do_redbs_own_pages() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let state = dir.path().join("state.redb");
    let text = b"value 39";
    let bytes = fs::read(&state).unwrap();
    let rows = bytes.windows(text.len()).enumerate().filter(|(_, window)| window == text).map(|(at, _)| at);
    let found = rows.filter(|at| !spoilt(dir.path(), &state, |bytes| bytes[*at] ^= 1).is_empty()).count();
    assert!(found >= 3, "one row in each of three tables");
    let cut = spoilt(dir.path(), &state, |bytes| bytes.truncate(bytes.len() / 2));
    assert!(cut.iter().any(|damage| damage.file == state.display().to_string()), "{cut:?}");
    let file = &segments(dir.path(), ".redb")[1];
    for at in [9, 64, 200] {
        let damages = spoilt(dir.path(), file, |bytes| bytes[at] ^= 0xff);
        assert!(damages.iter().all(|damage| damage.file == file.display().to_string()), "{damages:?}");
    }
}

#[test]
fn files_that_are_gone_or_of_another_store_are_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    lived(dir.path());
    lived(other.path());
    let file = &segments(dir.path(), ".redb")[1];
    let bytes = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    let holes = check(dir.path()).damages;
    assert!(!holes.is_empty() && holes.iter().all(|damage| damage.what == "no segment holds them"), "{holes:?}");
    fs::write(file, bytes).unwrap();
    assert_clean(dir.path());
    for suffix in [".redb", ".index"] {
        let theirs = fs::read(&segments(other.path(), suffix)[1]).unwrap();
        let ours = &segments(dir.path(), suffix)[1];
        assert!(!spoilt(dir.path(), ours, |bytes| *bytes = theirs).is_empty(), "{suffix}");
    }
    let state = dir.path().join("state.redb");
    let theirs = fs::read(other.path().join("state.redb")).unwrap();
    assert!(!spoilt(dir.path(), &state, |bytes| *bytes = theirs).is_empty());
    fs::remove_file(&state).unwrap();
    assert_eq!(check(dir.path()).damages.len(), 1);
}

#[test]
fn a_directory_in_use_or_without_a_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = verify(dir.path(), &small(), &mut |_| {});
    assert!(matches!(nothing, Err(OpenError::Io { .. })), "{nothing:?}");
    assert_eq!(files(dir.path()).len(), 0);
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let refused = verify(dir.path(), &small(), &mut |_| {});
    assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
    drop(store);
    assert_clean(dir.path());
}
