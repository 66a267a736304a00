//! What a backup holds, and how far a restore can go with it.
//!
//! Owns `backup.manifest`: written last, under another name first, so a backup is there whole or as it was before. What it
//! does not name is not part of the backup.
//!
//! ```text
//! 0 magic "wbak" | 4 format version u32 | 8 body bytes u32 | 12 crc32c(body) u32 | 16 body: CBOR with integer keys
//! ```
//! A restore begins at a snapshot of the state, and goes on commit by commit through segments that follow on each other.
//! A segment that the cleaner rewrote holds records and not their commits: it can lie before a snapshot, not behind it.
//!
//! Start at [`Manifest`].

use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use crate::{
    FileSystem, OpenMode,
    backup::Restorable,
    fault::{Fault, file_name},
    format::FORMAT_VERSION,
    record,
    segment::NEW_SUFFIX,
};

const MANIFEST_FILE: &str = "backup.manifest";

const MAGIC: [u8; 4] = *b"wbak";

const PREAMBLE_BYTES: usize = 16;

/// Sequences, segments and epochs stay below this, so that one more is a number, too.
const NUMBERS_END: u64 = 1 << 63;

/// Everything in a backup.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Manifest {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) store: [u8; 16],
    /// By id and epoch.
    #[n(1)]
    pub(crate) segments: Vec<SegmentEntry>,
    /// By sequence.
    #[n(2)]
    pub(crate) snapshots: Vec<SnapshotEntry>,
}

/// A segment of a store, also after the cleaner gave its id to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SegmentKey {
    #[n(0)]
    pub(crate) segment: u64,
    #[n(1)]
    pub(crate) epoch: u64,
}

impl SegmentKey {
    pub(crate) fn data_path(self, backup: &Path) -> PathBuf {
        self.path(backup, "redb")
    }

    pub(crate) fn index_path(self, backup: &Path) -> PathBuf {
        self.path(backup, "index")
    }

    fn path(self, backup: &Path, suffix: &str) -> PathBuf {
        segments_dir(backup).join(format!("{:010}-{:010}.{suffix}", self.segment, self.epoch))
    }

    /// Whose file this is, by its name.
    pub(crate) fn of_name(name: &str) -> Option<SegmentKey> {
        let stem = name.strip_suffix(".redb").or_else(|| name.strip_suffix(".index"))?;
        let (segment, epoch) = stem.split_once('-')?;
        Some(SegmentKey { segment: number(segment)?, epoch: number(epoch)? })
    }
}

/// A number in the name of a file of ours.
fn number(digits: &str) -> Option<u64> {
    (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Where the segments of a backup are.
pub(crate) fn segments_dir(backup: &Path) -> PathBuf {
    backup.join("segments")
}

/// Where its snapshots of the state are.
pub(crate) fn snapshots_dir(backup: &Path) -> PathBuf {
    backup.join("snapshots")
}

/// The snapshot of the state at a sequence.
pub(crate) fn snapshot_path(backup: &Path, sequence: u64) -> PathBuf {
    snapshots_dir(backup).join(format!("{sequence:010}.redb"))
}

/// The sequence in the name of a snapshot.
pub(crate) fn snapshot_of_name(name: &str) -> Option<u64> {
    number(name.strip_suffix(".redb")?)
}

/// Length and CRC-32C of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct FileSum {
    #[n(0)]
    pub(crate) bytes: u64,
    #[n(1)]
    pub(crate) crc: u32,
}

/// When the first and the last of some commits were made, by the host's clock then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CommitTimes {
    #[n(0)]
    pub(crate) min_ms: i64,
    #[n(1)]
    pub(crate) max_ms: i64,
}

/// A sealed segment.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SegmentEntry {
    #[n(0)]
    pub(crate) key: SegmentKey,
    #[n(1)]
    pub(crate) first_sequence: u64,
    #[n(2)]
    pub(crate) last_sequence: u64,
    /// Whether every commit's record is in it, so that a restore can go through it and end in it.
    #[n(3)]
    pub(crate) replayable: bool,
    /// Of a replayable one that has commits.
    #[n(4)]
    pub(crate) times: Option<CommitTimes>,
    #[n(5)]
    pub(crate) data: FileSum,
    #[n(6)]
    pub(crate) index: FileSum,
}

/// A moment from which a restore can begin.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SnapshotEntry {
    /// The state is as of this commit.
    #[n(0)]
    pub(crate) sequence: u64,
    /// The last commit in the segments that were sealed with it.
    #[n(1)]
    pub(crate) last_sequence: u64,
    /// When that was: no later commit is older.
    #[n(2)]
    pub(crate) taken_at_ms: i64,
    #[n(3)]
    pub(crate) file: FileSum,
    /// The store's segments at that moment, by id.
    #[n(4)]
    pub(crate) segments: Vec<SegmentKey>,
}

/// What a restore to one commit needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan<'m> {
    pub(crate) snapshot: &'m SnapshotEntry,
    pub(crate) whole: Vec<&'m SegmentEntry>,
    /// The segment that ends early.
    pub(crate) cut: Option<&'m SegmentEntry>,
}

/// A manifest that cannot be used.
#[derive(Debug)]
pub(crate) enum ManifestFault {
    Newer { file: String, found: u32 },
    Fault(Fault),
}

impl From<Fault> for ManifestFault {
    fn from(fault: Fault) -> Self {
        ManifestFault::Fault(fault)
    }
}

impl Manifest {
    /// Reads the manifest of a backup; `None` when there is none.
    pub(crate) fn read(file_system: &dyn FileSystem, backup: &Path) -> Result<Option<Manifest>, ManifestFault> {
        let path = backup.join(MANIFEST_FILE);
        let file = match file_system.open(&path, OpenMode::ReadOnly) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::io(&path, "open", error).into()),
        };
        let len = file.len().map_err(|error| Fault::io(&path, "read", error))?;
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes).map_err(|error| Fault::io(&path, "read", error))?;
        decode(&path, &bytes).map(Some)
    }

    /// Makes this the backup's manifest, durably and at once.
    pub(crate) fn write(&self, file_system: &dyn FileSystem, backup: &Path) -> Result<(), Fault> {
        let path = backup.join(MANIFEST_FILE);
        let new_path = backup.join(format!("{MANIFEST_FILE}{NEW_SUFFIX}"));
        let io = |action| move |error| Fault::io(&backup.join(MANIFEST_FILE), action, error);
        match file_system.remove(&new_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("write")(error)),
            _ => {}
        }
        let file = file_system.open(&new_path, OpenMode::New).map_err(io("write"))?;
        file.write_at(0, &self.encode()).map_err(io("write"))?;
        file.sync_data().map_err(io("sync"))?;
        file_system.rename(&new_path, &path).map_err(io("name"))?;
        file_system.sync_dir(backup).map_err(|error| Fault::io(backup, "sync", error))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = record::to_vec(self);
        let mut file = Vec::with_capacity(PREAMBLE_BYTES + body.len());
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        file.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        file.extend_from_slice(&body);
        file
    }

    /// Whether it is in order, and its numbers are ones that a store can count to.
    fn makes_sense(&self) -> bool {
        let of_segments =
            self.segments.iter().flat_map(|entry| [entry.last_sequence, entry.key.segment, entry.key.epoch]);
        let of_snapshots = self.snapshots.iter().flat_map(|snapshot| [snapshot.sequence, snapshot.last_sequence]);
        self.segments.is_sorted_by(|a, b| a.key < b.key)
            && self.snapshots.is_sorted_by(|a, b| a.sequence < b.sequence)
            && of_segments.chain(of_snapshots).all(|number| number < NUMBERS_END)
            && self.segments.iter().all(|entry| entry.first_sequence <= entry.last_sequence + 1)
    }

    /// Whether a file in the backup's own directory is one that a backup makes there.
    pub(crate) fn owns_name(name: &str) -> bool {
        name.strip_suffix(NEW_SUFFIX).unwrap_or(name) == MANIFEST_FILE
    }

    pub(crate) fn segment(&self, key: SegmentKey) -> Option<&SegmentEntry> {
        self.segments.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn snapshot(&self, sequence: u64) -> Option<&SnapshotEntry> {
        self.snapshots.iter().find(|entry| entry.sequence == sequence)
    }

    /// The segments through which a restore from a snapshot can go, commit by commit.
    fn chain<'m>(&'m self, snapshot: &SnapshotEntry) -> Vec<&'m SegmentEntry> {
        let begins = |entry: &&SegmentEntry| {
            entry.replayable
                && entry.first_sequence <= snapshot.sequence + 1
                && entry.last_sequence >= snapshot.sequence
        };
        let mut next = snapshot.segments.iter().filter_map(|key| self.segment(*key)).find(begins);
        let mut chain = Vec::new();
        while let Some(entry) = next {
            chain.push(entry);
            let follows = |after: &&SegmentEntry| {
                after.replayable
                    && after.key.segment > entry.key.segment
                    && after.first_sequence == entry.last_sequence + 1
            };
            next = self.segments.iter().find(follows);
        }
        chain
    }

    /// How to get to a commit, from the newest snapshot from which there is a way; `None` when there is none.
    pub(crate) fn plan(&self, commit: u64) -> Option<Plan<'_>> {
        let mut before = self.snapshots.iter().rev().filter(|snapshot| snapshot.sequence <= commit);
        before.find_map(|snapshot| self.plan_from(snapshot, commit))
    }

    fn plan_from<'m>(&'m self, snapshot: &'m SnapshotEntry, commit: u64) -> Option<Plan<'m>> {
        let chain = self.chain(snapshot);
        let end = chain.iter().position(|entry| entry.last_sequence >= commit)?;
        let first = chain[0].key.segment;
        let before = snapshot.segments.iter().filter(|key| key.segment < first);
        let mut whole = before.map(|key| self.segment(*key)).collect::<Option<Vec<_>>>()?;
        whole.extend(&chain[..end]);
        let last = chain[end];
        let cut = (last.last_sequence > commit).then_some(last);
        if cut.is_none() {
            whole.push(last);
        }
        Some(Plan { snapshot, whole, cut })
    }

    /// Every commit to which a restore can go, in runs.
    pub(crate) fn restorable(&self) -> Vec<Restorable> {
        let mut runs: Vec<Restorable> = Vec::new();
        for snapshot in &self.snapshots {
            let Some(last) = self.chain(snapshot).last().copied() else { continue };
            if self.plan_from(snapshot, last.last_sequence).is_none() {
                continue;
            }
            if runs.last().is_some_and(|run| run.commit_max == last.last_sequence) {
                continue;
            }
            let taken = self.snapshots.iter().filter(|taken| taken.last_sequence == last.last_sequence);
            let taken = taken.map(|taken| taken.taken_at_ms).max();
            let end = taken.or_else(|| last.times.map(|times| times.max_ms)).unwrap_or(snapshot.taken_at_ms);
            runs.push(Restorable {
                commit_min: snapshot.sequence,
                commit_max: last.last_sequence,
                time_min_ms: snapshot.taken_at_ms.min(end),
                time_max_ms: end,
            });
        }
        runs
    }

    /// Forgets all but the newest snapshots, and the segments that none of those needs; what was forgotten.
    pub(crate) fn prune(&mut self, keep: usize) -> Manifest {
        let before = self.clone();
        let oldest = self.snapshots.len().saturating_sub(keep);
        self.snapshots.drain(..oldest);
        let from = self.snapshots.first().map_or(0, |snapshot| snapshot.sequence);
        let named = |entry: &SegmentEntry| self.snapshots.iter().any(|s| s.segments.contains(&entry.key));
        self.segments.retain(|entry| (entry.replayable && entry.last_sequence > from) || named(entry));
        let (segments, snapshots) = (before.segments.into_iter(), before.snapshots.into_iter());
        Manifest {
            store: self.store,
            segments: segments.filter(|entry| self.segment(entry.key).is_none()).collect(),
            snapshots: snapshots.filter(|entry| self.snapshot(entry.sequence).is_none()).collect(),
        }
    }
}

pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Manifest, ManifestFault> {
    let damaged = |what: &str| Fault::damaged(path, what);
    let (preamble, body) = bytes.split_first_chunk::<PREAMBLE_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
    let field = |at: usize| u32::from_le_bytes([preamble[at], preamble[at + 1], preamble[at + 2], preamble[at + 3]]);
    if preamble[..4] != MAGIC || field(4) == 0 {
        return Err(damaged("it does not begin like a backup's manifest").into());
    }
    if field(4) > FORMAT_VERSION {
        return Err(ManifestFault::Newer { file: file_name(path), found: field(4) });
    }
    if field(8) as usize != body.len() || field(12) != crc32c::crc32c(body) {
        return Err(damaged("it has a wrong length or checksum").into());
    }
    let manifest = record::from_slice(body).filter(Manifest::makes_sense);
    manifest.ok_or_else(|| damaged("it makes no sense").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FILE: FileSum = FileSum { bytes: 0, crc: 0 };

    fn segment(segment: u64, epoch: u64, commits: std::ops::RangeInclusive<u64>) -> SegmentEntry {
        let (first_sequence, last_sequence) = (*commits.start(), *commits.end());
        let times = CommitTimes { min_ms: first_sequence as i64 * 10, max_ms: last_sequence as i64 * 10 };
        SegmentEntry {
            key: SegmentKey { segment, epoch },
            first_sequence,
            last_sequence,
            replayable: true,
            times: Some(times),
            data: NO_FILE,
            index: NO_FILE,
        }
    }

    fn cleaned(id: u64, epoch: u64, commits: std::ops::RangeInclusive<u64>) -> SegmentEntry {
        SegmentEntry { replayable: false, times: None, ..segment(id, epoch, commits) }
    }

    fn snapshot(sequence: u64, last_sequence: u64, segments: &[(u64, u64)]) -> SnapshotEntry {
        let segments = segments.iter().map(|(segment, epoch)| SegmentKey { segment: *segment, epoch: *epoch });
        SnapshotEntry {
            sequence,
            last_sequence,
            taken_at_ms: last_sequence as i64 * 10 + 1,
            file: NO_FILE,
            segments: segments.collect(),
        }
    }

    /// Sequence of the snapshot, whole segments with their epochs, and the one that is cut.
    type PlainPlan = (u64, Vec<(u64, u64)>, Option<u64>);

    fn plan(manifest: &Manifest, commit: u64) -> Option<PlainPlan> {
        let key = |entry: &&SegmentEntry| (entry.key.segment, entry.key.epoch);
        let Plan { snapshot, whole, cut } = manifest.plan(commit)?;
        Some((snapshot.sequence, whole.iter().map(key).collect(), cut.map(|cut| cut.key.segment)))
    }

    /// Commits 1 to 30 in three segments and a snapshot at 15, then the first two cleaned and a snapshot at 42.
    fn two_backups() -> Manifest {
        Manifest {
            store: [7; 16],
            segments: vec![
                segment(1, 1, 1..=10),
                cleaned(1, 9, 1..=20),
                segment(2, 2, 11..=20),
                segment(3, 3, 21..=30),
                segment(4, 4, 31..=40),
                segment(5, 5, 41..=50),
            ],
            snapshots: vec![snapshot(15, 20, &[(1, 1), (2, 2)]), snapshot(42, 50, &[(1, 9), (3, 3), (4, 4), (5, 5)])],
        }
    }

    #[test]
    fn a_manifest_survives_its_encoding_and_nothing_else_passes_for_one() {
        let manifest = two_backups();
        let path = Path::new("backup.manifest");
        let bytes = manifest.encode();
        assert_eq!(decode(path, &bytes).unwrap(), manifest);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode(path, &flipped).is_err(), "byte {at}");
        }
        assert!(decode(path, &bytes[..20]).is_err());
    }

    #[test]
    fn a_manifest_out_of_order_or_of_impossible_numbers_is_damaged() {
        let path = Path::new("backup.manifest");
        let change = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = two_backups();
            change(&mut manifest);
            decode(path, &manifest.encode()).is_err()
        };
        assert!(change(&|manifest| manifest.segments.swap(1, 2)));
        assert!(change(&|manifest| manifest.snapshots.swap(0, 1)));
        assert!(change(&|manifest| manifest.segments[5].last_sequence = u64::MAX));
        assert!(change(&|manifest| manifest.snapshots[1].sequence = u64::MAX));
        assert!(change(&|manifest| manifest.segments[0].first_sequence = 12));
        assert!(!change(&|_| {}));
    }

    #[test]
    fn a_snapshot_from_which_there_is_no_way_is_passed_over() {
        let mut manifest = two_backups();
        manifest.segments.retain(|entry| entry.key != SegmentKey { segment: 1, epoch: 9 });
        assert_eq!(plan(&manifest, 45), Some((15, vec![(1, 1), (2, 2), (3, 3), (4, 4)], Some(5))));
        let runs: Vec<_> = manifest.restorable().iter().map(|run| (run.commit_min, run.commit_max)).collect();
        assert_eq!(runs, [(15, 50)]);
        manifest.segments.retain(|entry| entry.key.segment != 3);
        assert_eq!(plan(&manifest, 45), None);
        assert_eq!(manifest.restorable().len(), 1);
    }

    #[test]
    fn a_restore_goes_from_the_newest_snapshot_through_what_follows() {
        let manifest = two_backups();
        assert_eq!(plan(&manifest, 14), None);
        assert_eq!(plan(&manifest, 15), Some((15, vec![(1, 1)], Some(2))));
        assert_eq!(plan(&manifest, 20), Some((15, vec![(1, 1), (2, 2)], None)));
        assert_eq!(plan(&manifest, 35), Some((15, vec![(1, 1), (2, 2), (3, 3)], Some(4))));
        assert_eq!(plan(&manifest, 42), Some((42, vec![(1, 9), (3, 3), (4, 4)], Some(5))));
        assert_eq!(plan(&manifest, 50), Some((42, vec![(1, 9), (3, 3), (4, 4), (5, 5)], None)));
        assert_eq!(plan(&manifest, 51), None);
        let all = Restorable { commit_min: 15, commit_max: 50, time_min_ms: 201, time_max_ms: 501 };
        assert_eq!(manifest.restorable(), [all]);
    }

    #[test]
    fn commits_that_were_cleaned_between_two_backups_are_out_of_reach() {
        let mut manifest = two_backups();
        manifest.segments.retain(|entry| entry.key.segment != 4);
        assert_eq!(plan(&manifest, 30), Some((15, vec![(1, 1), (2, 2), (3, 3)], None)));
        assert_eq!(plan(&manifest, 31), None);
        manifest.segments.push(cleaned(4, 8, 31..=40));
        manifest.snapshots[1] = snapshot(42, 50, &[(1, 9), (3, 3), (4, 8), (5, 5)]);
        assert_eq!(plan(&manifest, 31), None);
        let runs: Vec<_> = manifest.restorable().iter().map(|run| (run.commit_min, run.commit_max)).collect();
        assert_eq!(runs, [(15, 30), (42, 50)]);
    }

    #[test]
    fn a_snapshot_at_the_end_of_what_was_cleaned_begins_the_next_segment_empty() {
        let mut manifest = two_backups();
        manifest.snapshots[1] = snapshot(20, 30, &[(1, 9), (3, 3)]);
        assert_eq!(plan(&manifest, 20), Some((20, vec![(1, 9)], Some(3))));
    }

    #[test]
    fn what_no_kept_snapshot_needs_is_forgotten() {
        let mut manifest = two_backups();
        let gone = manifest.prune(1);
        let keys = |manifest: &Manifest| -> Vec<_> {
            manifest.segments.iter().map(|entry| (entry.key.segment, entry.key.epoch)).collect()
        };
        assert_eq!(keys(&gone), [(1, 1), (2, 2)]);
        assert_eq!(gone.snapshots.iter().map(|snapshot| snapshot.sequence).collect::<Vec<_>>(), [15]);
        assert_eq!(keys(&manifest), [(1, 9), (3, 3), (4, 4), (5, 5)]);
        assert_eq!(manifest.prune(1).segments, []);
    }
}
