//! Checked rows of the state, the row that says which file it is, and names of files.

use std::path::Path;

use crate::{
    OpenError, StoreId,
    backup::manifest::{SegmentKey, snapshot_of_name},
    format::{FileKind, FormatRow, RowPlace},
    segment::SegmentDir,
    state_file::open_applied,
};

const STORE: StoreId = StoreId([7; 16]);

/// Any bytes as a stored row, as the key of one, and as a file's name.
pub fn state_row(data: &[u8]) {
    let place = RowPlace { store: STORE, file: 0, table: "catalog", key: b"topic/clicks" };
    check_row(place, data);
    check_row(RowPlace { key: data, ..place }, b"body");
    for kind in [FileKind::Segment, FileKind::State] {
        match (FormatRow { kind }).check_bytes(Path::new("state.redb"), data) {
            Ok(()) => assert_eq!(&data[..12], (FormatRow { kind }).encode()),
            Err(OpenError::NewerFormat { found, supported, .. }) => assert!(found > supported),
            Err(error) => assert!(error.to_string().contains("state.redb")),
        }
    }
    if let Some((store, applied)) = open_applied(STORE, data) {
        let body = [&store[..], &applied.to_le_bytes()].concat();
        assert_eq!(RowPlace { store: STORE, file: 0, table: "applied", key: &[] }.seal(&body), data);
    }
    if let Ok(name) = str::from_utf8(data) {
        check_name(name);
    }
}

fn check_row(place: RowPlace<'_>, bytes: &[u8]) {
    if let Some(body) = place.open(bytes) {
        assert_eq!(place.seal(body), bytes);
    }
    let sealed = place.seal(bytes);
    assert_eq!(place.open(&sealed), Some(bytes), "a row does not open where it was sealed");
    assert_eq!(RowPlace { file: 1, ..place }.open(&sealed), None);
    assert_eq!(RowPlace { table: "catalo", ..place }.open(&sealed), None);
    assert_eq!(RowPlace { store: StoreId([8; 16]), ..place }.open(&sealed), None);
}

/// The names that we take for ours are those that we give.
fn check_name(name: &str) {
    if let Some(id) = SegmentDir::parse_name(name, ".redb") {
        let given = format!("{id:010}.redb");
        assert!(name == given || name.starts_with('0'), "`{name}` passes for `{given}`");
    }
    if let Some(key) = SegmentKey::of_name(name) {
        assert!(name.contains(&key.epoch.to_string()));
    }
    if let Some(sequence) = snapshot_of_name(name) {
        assert!(name.contains(&sequence.to_string()));
    }
}
