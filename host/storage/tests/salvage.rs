//! `salvage`: whatever is done to the files of a store, what is left of its records comes out byte for byte, what is not
//! is listed, and the new store is whole.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use common::*;
use protocol::{Offset, PartitionId, RecordBatch};
use storage::{
    CommitError, OpenError, PartitionPlace, SalvageError, SalvageOptions, SalvageReport, StateSource, StateTable,
    Store, StoreOptions, salvage, verify,
};

const PAGE: usize = 4096;

/// Bytes by which a batch is found again.
const STRETCH: usize = 48;

/// A stretch of the batch of a partition that begins at an offset: where it is in a file.
type Stretch = ((PartitionId, u64), Vec<usize>);

/// The batches with a stretch of which every copy touches a range of the file.
fn touched(stretches: &[Stretch], gone: &std::ops::Range<usize>) -> BTreeSet<(PartitionId, u64)> {
    let touches = |at: &usize| *at < gone.end && at + STRETCH > gone.start;
    stretches.iter().filter(|(_, places)| places.iter().all(touches)).map(|(key, _)| *key).collect()
}

/// Segments of a few batches each.
fn tiny() -> StoreOptions {
    StoreOptions { segment_bytes_max: 600 << 10, preallocate_bytes: 0, tail_bytes_max: 0, ..small() }
}

fn options() -> SalvageOptions {
    SalvageOptions { store: tiny(), partitions_of: |_, _| Vec::new() }
}

/// Everything that can be read from a store.
#[derive(Debug, PartialEq)]
struct Content {
    places: BTreeMap<PartitionId, (u64, u64, protocol::Retention)>,
    batches: BTreeMap<(PartitionId, u64), Bytes>,
    state: BTreeMap<(StateTable, Bytes), Bytes>,
    partition_id_next: PartitionId,
}

fn content(dir: &Path) -> Content {
    let store = Store::open(dir, tiny()).unwrap();
    let place = |(id, place): (PartitionId, PartitionPlace)| {
        (id, (place.log_start_offset.0, place.high_watermark.0, place.retention))
    };
    let places: BTreeMap<_, _> = store.partitions().into_iter().map(place).collect();
    let mut batches = BTreeMap::new();
    for (id, (log_start, ..)) in &places {
        for batch in read_all(&store, *id, *log_start, 1 << 20) {
            batches.insert((*id, batch.header().base_offset.0), batch.bytes().clone());
        }
    }
    let rows = |table| store.state_scan(table, b"").unwrap().into_iter().map(move |(key, value)| ((table, key), value));
    let state = StateTable::ALL.into_iter().flat_map(rows).collect();
    Content { places, batches, state, partition_id_next: store.partition_id_next() }
}

/// A store, what is in it, and a place for what is saved.
struct Patient {
    dir: tempfile::TempDir,
    was: Content,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Patient {
    fn new() -> Patient {
        let dir = tempfile::tempdir().unwrap();
        lived_with(dir.path(), tiny(), [40, 900, 9_000, 50_000]);
        let was = content(dir.path());
        let files = files(dir.path());
        Patient { dir, was, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts every file back as it was.
    fn heal(&self) {
        for path in files(self.dir.path()).into_keys() {
            fs::remove_file(path).unwrap();
        }
        self.files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }

    fn spoil(&self, name: &str, spoil: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.files[&self.file(name)].clone();
        spoil(&mut bytes);
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Saves what is there, and checks everything that holds whatever was damaged; then heals.
    fn saved(&self) -> (SalvageReport, Content) {
        let before = files(self.dir.path());
        let to = tempfile::tempdir().unwrap();
        let to = to.path().join("new");
        let report = salvage(self.dir.path(), &to, &options(), &mut |_| {}).unwrap();
        assert!(files(self.dir.path()) == before, "the damaged directory stays as it is");
        assert_eq!(verify(&to, &tiny(), &mut |_| {}).unwrap().damages, []);
        let saved = content(&to);
        for ((id, base), bytes) in &saved.batches {
            assert!(self.was.batches.get(&(*id, *base)) == Some(bytes), "a batch at {base} of {id} that was not there");
        }
        let missing: BTreeSet<_> = self.was.batches.keys().filter(|key| !saved.batches.contains_key(key)).collect();
        for (id, (log_start, end, retention)) in &self.was.places {
            let Some(place) = saved.places.get(id) else { continue };
            assert_eq!((place.0, place.2), (*log_start, *retention), "{id}");
            assert!(place.1 <= *end);
        }
        let listed =
            |id, offset| report.lost.iter().any(|lost| lost.partition == id && lost.offsets.contains(&Offset(offset)));
        for (id, base) in &missing {
            let beyond = saved.places.get(id).is_none_or(|place| *base >= place.1);
            assert!(listed(*id, *base) || beyond, "the loss of {base} of {id} is not listed: {:?}", report.lost);
        }
        for (id, base) in saved.batches.keys() {
            assert!(!listed(*id, *base), "{base} of {id} is listed as lost and was saved");
        }
        self.heal();
        (report, saved)
    }

    /// Where the batches are in a file, a stretch at a time: large ones are cut, and of small ones there are old copies.
    fn stretches(&self, name: &str) -> Vec<Stretch> {
        let bytes = &self.files[&self.file(name)];
        let mut found: BTreeMap<&[u8], Stretch> = BTreeMap::new();
        for (key, batch) in &self.was.batches {
            let starts = (0..batch.len() - STRETCH).step_by(STRETCH).chain([batch.len() - STRETCH]);
            found.extend(starts.map(|start| (&batch[start..start + STRETCH], (*key, Vec::new()))));
        }
        for (at, window) in bytes.windows(STRETCH).enumerate() {
            if let Some((_, places)) = found.get_mut(window) {
                places.push(at);
            }
        }
        found.into_values().filter(|(_, places)| !places.is_empty()).collect()
    }

    fn missing(&self, saved: &Content) -> BTreeSet<(PartitionId, u64)> {
        self.was.batches.keys().filter(|key| !saved.batches.contains_key(key)).copied().collect()
    }
}

#[test]
fn a_sound_store_comes_out_as_it_is() {
    let patient = Patient::new();
    let (report, saved) = patient.saved();
    assert!(saved == patient.was);
    assert_eq!((report.lost, report.commits_lost, report.state), (vec![], 0, StateSource::File));
    assert_eq!(report.catalog.len(), 7);
}

#[test]
fn everything_is_saved_without_indices_or_state_or_redbs_own_pages() {
    let patient = Patient::new();
    let names: Vec<String> = patient.files.keys().map(|path| path.display().to_string()).collect();
    for name in names.iter().filter(|name| name.ends_with(".index")) {
        fs::remove_file(name).unwrap();
    }
    // The file header of redb, without which it refuses a file.
    for name in names.iter().filter(|name| name.ends_with(".redb") && name.contains("segments")) {
        patient.spoil(name, |bytes| bytes[..PAGE].fill(0));
    }
    fs::write(patient.file("state.redb"), b"nothing").unwrap();
    let (report, saved) = patient.saved();
    assert_eq!((&report.lost, report.state), (&vec![], StateSource::Log));
    assert!(saved == patient.was);
}

#[test]
fn a_page_that_is_gone_takes_what_was_on_it_and_nothing_else() {
    let patient = Patient::new();
    let name = "segments/0000000002.redb";
    let pages = patient.files[&patient.file(name)].len() / PAGE;
    let stretches = patient.stretches(name);
    let mut losses = 0;
    for page in (0..pages).filter(|page| page % 13 == 5 || *page < 2) {
        let gone = page * PAGE..(page + 1) * PAGE;
        patient.spoil(name, |bytes| bytes[gone.clone()].fill(0));
        let (report, saved) = patient.saved();
        let missing = patient.missing(&saved);
        assert_eq!(
            missing,
            touched(&stretches, &gone),
            "page {page} {:?} {:?}",
            report.lost,
            missing
                .iter()
                .map(|k| (
                    patient.was.batches[k].len(),
                    stretches
                        .iter()
                        .filter(|s| s.0 == *k)
                        .flat_map(|s| s.1.clone())
                        .map(|at| at as f64 / 4096.0)
                        .collect::<Vec<_>>()
                ))
                .collect::<Vec<_>>()
        );
        assert!(saved.places == patient.was.places && saved.state == patient.was.state);
        losses += usize::from(!missing.is_empty());
    }
    assert!(losses > 2, "{losses}");
}

#[test]
fn files_that_are_flipped_cut_off_swapped_or_gone_lose_what_cannot_be_had() {
    let patient = Patient::new();
    let name = |path: &Path| path.strip_prefix(patient.dir.path()).unwrap().display().to_string();
    let segments: Vec<String> =
        patient.files.keys().map(|path| name(path)).filter(|name| name.starts_with("segments")).collect();
    for (round, name) in segments.iter().enumerate() {
        let len = patient.files[&patient.file(name)].len();
        let at = (round * 7_919 * PAGE) % len;
        match round % 5 {
            0 => patient.spoil(name, |bytes| bytes.truncate(len / 2)),
            1 => patient.spoil(name, |bytes| (at..len).step_by(997 * 13).for_each(|at| bytes[at] ^= 1)),
            2 => patient.spoil(name, |bytes| bytes.truncate(0)),
            3 => patient.spoil(name, |bytes| bytes.rotate_left(PAGE.min(len / 2))),
            _ => fs::remove_file(patient.file(name)).unwrap(),
        }
        // Of an index nothing is lost with it.
        let (report, saved) = patient.saved();
        if name.ends_with(".index") {
            assert!(saved == patient.was && report.lost.is_empty(), "{name}");
        } else {
            assert!(patient.missing(&saved).len() < patient.was.batches.len(), "{name}");
        }
    }
}

#[test]
fn a_segment_that_lost_its_header_index_and_some_records_gives_the_rest() {
    let patient = Patient::new();
    let name = "segments/0000000002.redb";
    fs::remove_file(patient.file("segments/0000000002.index")).unwrap();
    let bytes = &patient.files[&patient.file(name)];
    let parts: Vec<usize> = (0..bytes.len() - 8).filter(|at| &bytes[*at..*at + 4] == b"wprt").collect();
    let of_header = |at: &&usize| bytes[**at + 8..**at + 16] == [0; 8];
    patient.spoil(name, |bytes| parts.iter().filter(of_header).for_each(|at| bytes[at + 8] ^= 1));
    let (report, saved) = patient.saved();
    assert!(saved == patient.was && report.lost.is_empty(), "{:?}", report.lost);

    fs::remove_file(patient.file("segments/0000000002.index")).unwrap();
    patient.spoil(name, |bytes| parts.iter().step_by(3).for_each(|at| bytes[at + 60] ^= 1));
    let (report, saved) = patient.saved();
    let missing = patient.missing(&saved);
    assert!(report.commits_lost > 0 && !missing.is_empty() && missing.len() < 100, "{report:?}");
    assert_eq!(saved.state, patient.was.state);
}

#[test]
fn what_the_catalog_relies_on_is_there() {
    let patient = Patient::new();
    let to = tempfile::tempdir().unwrap();
    let options = SalvageOptions { store: tiny(), partitions_of: |_, _| vec![PartitionId(2), PartitionId(9)] };
    salvage(patient.dir.path(), to.path(), &options, &mut |_| {}).unwrap();
    let store = Store::open(to.path(), tiny()).unwrap();
    assert!(store.partition(PartitionId(9)).is_some());
    let used = store.commit(create(PartitionId(3), FOREVER));
    assert!(matches!(used, Err(CommitError::PartitionIdUsed { .. })), "{used:?}");
}

#[test]
fn a_directory_that_is_filled_or_in_use_is_refused() {
    let patient = Patient::new();
    let filled = salvage(patient.dir.path(), patient.dir.path(), &options(), &mut |_| {});
    assert!(filled.is_err());
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes"), "mine").unwrap();
    let filled = salvage(patient.dir.path(), other.path(), &options(), &mut |_| {});
    assert!(matches!(filled, Err(SalvageError::NotEmpty { .. })), "{filled:?}");
    let _store = Store::open(patient.dir.path(), tiny()).unwrap();
    let used = salvage(patient.dir.path(), &other.path().join("new"), &options(), &mut |_| {});
    assert!(matches!(used, Err(SalvageError::Open(OpenError::InUse { .. }))), "{used:?}");
    assert!(!other.path().join("new").exists());
}

/// The batches of which a copy touches a range of the file.
fn touching(stretches: &[Stretch], gone: &std::ops::Range<usize>) -> BTreeSet<(PartitionId, u64)> {
    let touches = |at: &usize| *at < gone.end && at + STRETCH > gone.start;
    stretches.iter().filter(|(_, places)| places.iter().any(touches)).map(|(key, _)| *key).collect()
}

/// Reads a run batch by batch.
fn bases(run: &Bytes) -> Vec<u64> {
    let mut run = run.clone();
    let mut found = Vec::new();
    while let Some(batch) = RecordBatch::split_first(&mut run).unwrap() {
        found.push(batch.header().base_offset.0);
    }
    found
}

#[test]
fn a_damaged_page_of_a_running_store_keeps_its_own_records_from_readers_and_no_others() {
    let patient = Patient::new();
    let segments = patient.files.keys().filter(|path| path.extension().is_some_and(|extension| extension == "redb"));
    let segments: Vec<PathBuf> =
        segments.filter(|path| path.parent().unwrap().ends_with("segments")).cloned().collect();
    let store = Store::open(patient.dir.path(), tiny()).unwrap();
    let (mut refused_ever, mut stretches) = (0, BTreeMap::new());
    for (round, path) in segments.iter().cycle().take(40).enumerate() {
        let clean = &patient.files[path];
        let page = (round * 7_919) % (clean.len() / PAGE);
        let gone = page * PAGE..(page + 1) * PAGE;
        let mut bytes = clean.clone();
        bytes[gone.clone()].iter_mut().for_each(|byte| *byte ^= 0xa5);
        fs::write(path, bytes).unwrap();
        let name = path.strip_prefix(patient.dir.path()).unwrap().display().to_string();
        let stretches = stretches.entry(name.clone()).or_insert_with(|| patient.stretches(&name));
        let on_page = touching(stretches, &gone);
        for ((id, base), batch) in &patient.was.batches {
            match store.read(*id, Offset(*base), 1) {
                Ok(outcome) => {
                    assert_eq!(bases(&outcome.batches[0]), [*base]);
                    assert!(outcome.batches[0] == *batch, "{base} of {id}");
                }
                Err(storage::ReadError::Damaged { file, .. }) => {
                    refused_ever += 1;
                    assert!(file.ends_with(&name), "{file}");
                    assert!(on_page.contains(&(*id, *base)), "{base} of {id} is not on page {page}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        fs::write(path, clean).unwrap();
    }
    assert!(refused_ever > 3, "{refused_ever}");
}
