//! A store and a backup as the first format wrote them, kept in `fixtures/format-1`: every later version reads them.
//!
//! The files are never made anew for a version that cannot read them: that version is wrong. Made by
//! `cargo test -p weir-storage --test format -- --ignored make_fixture`, once per format, from [`write_store`].

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use common::{appends, change, create, gap, set, small};
use protocol::{
    BatchBuilder, CleanupPolicy, Compression, Header, Offset, PartitionId, Record, RecordBatch, Retention,
    limits::DECOMPRESSED_BYTES_MAX, records,
};
use storage::{
    Append, Clock, Commit, PartitionChange, RestorePoint, StateChange, StateTable, Store, StoreOptions, restore, verify,
};

const STORE_ID: &str = "f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0";
const TIME_MS: i64 = 1_700_000_000_000;

/// Has records in every codec, gaps, and a log start.
const MIXED: PartitionId = PartitionId(0);
/// Was compacted.
const COMPACTED: PartitionId = PartitionId(1);
/// Was deleted.
const DELETED: PartitionId = PartitionId(2);
/// Was made last, and has nothing in it.
const EMPTY: PartitionId = PartitionId(3);

const COMPACTING: Retention = Retention { policy: CleanupPolicy::Compact, ..Retention::FOREVER };
const BOUNDED: Retention =
    Retention { age_ms: Some(86_400_000), bytes: Some(1 << 30), policy: CleanupPolicy::Delete, delete_retention_ms: 7 };

/// Commits of the store at the first backup, at the second one, and at the end.
const FIRST_BACKUP: u64 = 10;
const SECOND_BACKUP: u64 = 12;
const END: u64 = 15;

/// What is in [`MIXED`]: offset, key and value.
const MIXED_RECORDS: [(u64, Option<&str>, Option<&str>); 9] = [
    (0, None, Some("none 0")),
    (1, Some("key"), Some("none 1")),
    (2, Some("gzip"), Some("gzip 2")),
    (3, Some("snappy"), Some("snappy 3")),
    (4, Some("lz4"), Some("lz4 4")),
    // 5 to 9 were dropped.
    (10, Some("zstd"), Some("zstd 10")),
    (11, Some("null"), None),
    (12, Some("sealed"), Some("sealed 12")),
    (13, Some("unsealed"), Some("unsealed 13")),
];

/// What is left of [`COMPACTED`] at the end.
const COMPACTED_RECORDS: [(u64, Option<&str>, Option<&str>); 3] =
    [(3, Some("b"), Some("b 3")), (4, Some("a"), Some("a 4")), (5, Some("c"), Some("c 5"))];

/// The rows of state at the end.
const STATE: [(StateTable, &str, &str); 6] = [
    (StateTable::Catalog, "topic", "changed"),
    (StateTable::Producers, "producer", "1"),
    (StateTable::GroupOffsets, "group", "2"),
    (StateTable::Positions, "position", "3"),
    (StateTable::PluginState, "plugin", "4"),
    (StateTable::PluginState, "unsealed", "5"),
];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_dir(&path, &to) } else { fs::write(to, fs::read(&path).unwrap()).unwrap() }
    }
}

/// Offset, key and value of everything readable.
fn read(store: &Store, id: PartitionId) -> Vec<(u64, Option<String>, Option<String>)> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let mut found = Vec::new();
    let place = store.partition(id).unwrap();
    for batch in common::read_all(store, id, place.log_start_offset.0, 1 << 20) {
        let (base, section) = (batch.header().base_offset, batch.records_section(DECOMPRESSED_BYTES_MAX).unwrap());
        for record in records(&section) {
            let record = record.unwrap();
            let offset = base.plus(u64::from(record.offset_delta)).0;
            if offset >= place.log_start_offset.0 {
                found.push((offset, text(record.key), text(record.value)));
            }
        }
    }
    found
}

fn plain(records: &[(u64, Option<&str>, Option<&str>)]) -> Vec<(u64, Option<String>, Option<String>)> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    records.iter().map(|(offset, key, value)| (*offset, owned(*key), owned(*value))).collect()
}

/// Compares a store with what it was at its end.
fn check(store: &Store) {
    assert_eq!(store.store_id().to_string(), STORE_ID);
    assert_eq!(store.stats().commit_sequence, END);
    assert_eq!(store.partition_id_next(), PartitionId(4));
    assert_eq!(store.partitions().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [MIXED, COMPACTED, EMPTY]);
    let mixed = store.partition(MIXED).unwrap();
    assert_eq!((mixed.log_start_offset, mixed.high_watermark), (Offset(1), Offset(14)));
    assert_eq!(mixed.retention, BOUNDED);
    assert_eq!(read(store, MIXED), plain(&MIXED_RECORDS[1..]));
    let compacted = store.partition(COMPACTED).unwrap();
    assert_eq!((compacted.log_start_offset, compacted.high_watermark), (Offset(0), Offset(6)));
    assert_eq!(compacted.retention, COMPACTING);
    assert_eq!(read(store, COMPACTED), plain(&COMPACTED_RECORDS));
    assert_eq!(store.partition(EMPTY).unwrap().high_watermark, Offset(0));
    assert_eq!(store.offset_for_timestamp(MIXED, TIME_MS + 10).unwrap(), Some(Offset(10)));
    let rows = StateTable::ALL.into_iter().flat_map(|table| {
        let rows = store.state_scan(table, b"").unwrap();
        rows.into_iter().map(move |(key, value)| (table, key, value))
    });
    let expected = STATE.map(|(table, key, value)| (table, Bytes::from(key), Bytes::from(value)));
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    headers_are_there(store);
}

fn headers_are_there(store: &Store) {
    let found = store.read(MIXED, Offset(2), 1).unwrap();
    let batch = RecordBatch::decode(found.batches[0].clone()).unwrap();
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).unwrap();
    let record = records(&section).next().unwrap().unwrap();
    let headers: Vec<_> = record.headers.collect();
    assert_eq!(headers, [(&b"kind"[..], Some(&b"fixture"[..])), (&b"empty"[..], None)]);
}

#[test]
fn a_store_of_the_first_format_is_read() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&fixture().join("data"), dir.path());
    assert_eq!(verify(dir.path(), &small(), &mut |_| {}).unwrap().damages, []);
    let store = Store::open(dir.path(), small()).unwrap();
    check(&store);
    // It goes on, and what it wrote then is read as well.
    store.commit(appends(vec![batch(MIXED, 14, Compression::None, &[(None, Some("later 14"))])])).unwrap();
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(read(&store, MIXED).len(), MIXED_RECORDS.len());
}

#[test]
fn everything_but_its_segments_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&fixture().join("data"), dir.path());
    for entry in fs::read_dir(dir.path().join("segments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "index") {
            fs::remove_file(path).unwrap();
        }
    }
    check(&Store::open(dir.path(), small()).unwrap());
}

#[test]
fn a_backup_of_the_first_format_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("backup");
    copy_dir(&fixture().join("backup"), &from);
    for commit in FIRST_BACKUP..=SECOND_BACKUP {
        let to = dir.path().join(format!("at-{commit}"));
        let restored = restore(&from, &to, RestorePoint::Commit(commit), small(), &mut |_| true).unwrap();
        assert_eq!(restored.finish().unwrap().store.to_string(), STORE_ID);
        let store = Store::open(&to, small()).unwrap();
        // Offset 12 came with the commit behind the first backup.
        let end = if commit == FIRST_BACKUP { 12 } else { 13 };
        let records = MIXED_RECORDS[1..].iter().filter(|(offset, ..)| *offset < end);
        assert_eq!(read(&store, MIXED), plain(&records.copied().collect::<Vec<_>>()), "commit {commit}");
        // The first backup is of before the compaction.
        let compacted = read(&store, COMPACTED);
        assert_eq!(
            compacted.len(),
            if commit < SECOND_BACKUP { 6 } else { COMPACTED_RECORDS.len() },
            "commit {commit}"
        );
        assert_eq!(store.partition(EMPTY).is_some(), commit == SECOND_BACKUP);
        let topic = store.state_get(StateTable::Catalog, b"topic").unwrap().unwrap();
        assert_eq!(topic, "changed");
    }
}

/// Not a test: writes the fixture, with the newest format. See the head of this file before running it.
#[test]
#[ignore = "makes the fixture anew"]
fn make_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let store = write_store(&data, &backup);
    let kept = fixture();
    let _ = fs::remove_dir_all(&kept);
    // While the store is open, as a power cut would leave it.
    copy_dir(&data.join("segments"), &kept.join("data/segments"));
    fs::copy(data.join("state.redb"), kept.join("data/state.redb")).unwrap();
    copy_dir(&backup, &kept.join("backup"));
    drop(store);
}

/// A clock that moves by a second with every look at it, and a chance that always gives the same.
#[derive(Debug)]
struct Fixed(AtomicI64);

impl Clock for Fixed {
    fn now_ms(&self) -> i64 {
        TIME_MS + self.0.fetch_add(1_000, Ordering::Relaxed)
    }

    fn random_id(&self) -> [u8; 16] {
        [0xf0; 16]
    }
}

/// An append of one batch.
fn batch(id: PartitionId, base: u64, codec: Compression, records: &[(Option<&str>, Option<&str>)]) -> Append {
    let bytes = |text: Option<&str>| text.map(|text| Bytes::from(text.to_owned()));
    let mut builder = BatchBuilder::new(codec);
    let headers = vec![
        Header { name: "kind".into(), value: Some("fixture".into()) },
        Header { name: "empty".into(), value: None },
    ];
    for (at, (key, value)) in (0..).zip(records) {
        let timestamp = TIME_MS + base as i64 + at;
        let (key, value, headers) = (bytes(*key), bytes(*value), headers.clone());
        builder.append(&Record { key, value, headers, timestamp }).unwrap();
    }
    let cover_end = Offset(base + records.len() as u64);
    Append {
        partition: id,
        cover_start: Offset(base),
        cover_end,
        batches: Some(builder.finish(Offset(base)).unwrap().into_bytes()),
        max_timestamp_ms: TIME_MS + cover_end.0 as i64 - 1,
    }
}

/// The records of [`MIXED`] from one on, in one batch.
fn mixed(from: usize, count: usize, codec: Compression) -> Append {
    let records = &MIXED_RECORDS[from..from + count];
    let values: Vec<_> = records.iter().map(|(_, key, value)| (*key, *value)).collect();
    batch(MIXED, records[0].0, codec, &values)
}

/// Two segments that the cleaner wrote, one that was sealed, one that is still written; two backups, the first one of
/// before the cleaning.
fn write_store(data: &Path, backup: &Path) -> Store {
    let options =
        StoreOptions { clock: Arc::new(Fixed(AtomicI64::new(0))), preallocate_bytes: 0, reserve_bytes: 0, ..small() };
    let store = Store::open(data, options).unwrap();
    let commit = |commit| assert!(store.commit(commit).is_ok());
    let back_up = || drop(store.backup(backup, None, &mut |_| Ok(()), &mut |_| true).unwrap());
    commit(create(MIXED, Retention::FOREVER));
    let created = [COMPACTED, DELETED].map(|id| PartitionChange::Create { id, retention: COMPACTING });
    commit(Commit { partitions: created.to_vec(), ..Commit::default() });
    commit(appends(vec![
        mixed(0, 2, Compression::None),
        mixed(2, 1, Compression::Gzip),
        mixed(3, 1, Compression::Snappy),
        batch(COMPACTED, 0, Compression::None, &[(Some("a"), Some("a 0")), (Some("b"), Some("b 1"))]),
        batch(DELETED, 0, Compression::None, &[(Some("gone"), Some("gone"))]),
    ]));
    let rows = STATE[..5].iter().map(|(table, key, value)| set(*table, key, value));
    let removed = set(StateTable::Catalog, "removed", "soon");
    commit(Commit {
        state: rows.chain([set(StateTable::Catalog, "topic", "first"), removed]).collect(),
        ..Commit::default()
    });
    store.roll().unwrap();
    commit(appends(vec![
        mixed(4, 1, Compression::Lz4),
        gap(MIXED, 5, 10),
        mixed(5, 2, Compression::Zstd),
        batch(COMPACTED, 2, Compression::None, &[(Some("a"), Some("a 2")), (Some("b"), Some("b 3"))]),
    ]));
    commit(change(PartitionChange::Delete { id: DELETED }));
    commit(change(PartitionChange::SetRetention { id: MIXED, retention: BOUNDED }));
    commit(change(PartitionChange::SetLogStart { id: MIXED, offset: Offset(1) }));
    let removal = StateChange { table: StateTable::Catalog, key: "removed".into(), value: None };
    commit(Commit { state: vec![removal, set(StateTable::Catalog, "topic", "changed")], ..Commit::default() });
    commit(appends(vec![batch(
        COMPACTED,
        4,
        Compression::None,
        &[(Some("a"), Some("a 4")), (Some("c"), Some("c 5"))],
    )]));
    assert_eq!(store.stats().commit_sequence, FIRST_BACKUP);
    back_up();
    let cleaned = store.clean(TIME_MS, &mut |_| true).unwrap();
    assert!(cleaned.records_compacted == 3 && cleaned.segments_rewritten >= 2, "{cleaned:?}");
    commit(appends(vec![mixed(7, 1, Compression::Gzip)]));
    commit(create(EMPTY, Retention::FOREVER));
    assert_eq!(store.stats().commit_sequence, SECOND_BACKUP);
    back_up();
    commit(appends(vec![mixed(8, 1, Compression::Lz4)]));
    commit(Commit { state: vec![set(StateTable::PluginState, "unsealed", "5")], ..Commit::default() });
    commit(change(PartitionChange::SetRetention { id: EMPTY, retention: BOUNDED }));
    assert_eq!(store.stats().commit_sequence, END);
    store
}
