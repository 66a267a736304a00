//! What a store is busy with when a call to the disk fails.
//!
//! Owns the steps of each scenario, small and always the same, so that the k-th call is a place in them. What must hold
//! whichever call fails is `faults`' own.
//!
//! Start at [`Scenario`].

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{CleanupPolicy, Offset, PartitionId, Retention};
use storage::{
    Append, Commit, PartitionChange, RestorePoint, SalvageOptions, StateChange, StateTable, StoreOptions, restore,
    salvage, verify,
};

use super::{DIR, told};
use crate::{
    batches::{VERSION, append},
    disk::{FaultKind, SimDisk},
    history::{self, Era},
    invariants::{self, Violation},
    model::{Batch, Model, Written},
    observed::Observed,
    rng::Rng,
    rows::TopicRow,
    schedule,
    session::{Session, on_disk},
    tally::Tally,
};

/// Where backups go, and what is made of a store.
const BACKUP: &str = "/disk/backup";
const MADE: &str = "/disk/made";
const MADE_AGAIN: &str = "/disk/made-again";

/// What a store does when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Commits to several partitions, several on their way at once.
    Produce,
    /// Segments are left and sealed.
    Seal,
    /// Records expire, and segments with them.
    Retention,
    /// A segment that is mostly dead is written anew.
    Clean,
    /// A partition is compacted by key.
    Compact,
    /// A partition goes, and with it whole segments.
    Delete,
    /// State is applied.
    Apply,
    /// The store is closed and opened again.
    Reopen,
    /// Sealed segments are checked in the background.
    Scrub,
    /// A backup is made.
    Backup,
    /// A backup is restored.
    Restore,
    /// A closed store is salvaged.
    Salvage,
    /// A closed store is verified.
    Verify,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

impl Scenario {
    /// Every scenario.
    pub const EVERY: [Scenario; 13] = [
        Scenario::Produce,
        Scenario::Seal,
        Scenario::Retention,
        Scenario::Clean,
        Scenario::Compact,
        Scenario::Delete,
        Scenario::Apply,
        Scenario::Reopen,
        Scenario::Scrub,
        Scenario::Backup,
        Scenario::Restore,
        Scenario::Salvage,
        Scenario::Verify,
    ];

    /// Whether it is about a store that nobody has open.
    #[must_use]
    pub fn is_offline(self) -> bool {
        matches!(self, Scenario::Restore | Scenario::Salvage | Scenario::Verify)
    }

    /// Whether segments are written anew in it.
    #[must_use]
    pub fn cleans(self) -> bool {
        matches!(self, Scenario::Clean | Scenario::Compact | Scenario::Delete)
    }

    /// Whether calls that can fail so are made in it.
    #[must_use]
    pub fn has_calls(self, kind: FaultKind) -> bool {
        use FaultKind::{Create, DirSync, FileSync, Full, Io, List, Open, Remove, Rename, ShortRead, ShortWrite, Sync};
        match self {
            Scenario::Produce | Scenario::Apply => matches!(kind, Io | Full | Sync | FileSync | ShortWrite),
            Scenario::Scrub => matches!(kind, Io | ShortRead | Open),
            Scenario::Verify => matches!(kind, Io | ShortRead | Open | List),
            Scenario::Seal => !matches!(kind, List | ShortRead),
            Scenario::Retention => !matches!(kind, List | Open),
            _ => {
                matches!(kind, Io | Full | Sync | FileSync | DirSync | ShortRead | ShortWrite | Open | Create | Rename)
                    || (kind == List
                        && matches!(self, Scenario::Reopen | Scenario::Backup | Scenario::Restore | Scenario::Salvage))
                    || (kind == Remove && !matches!(self, Scenario::Restore | Scenario::Salvage))
            }
        }
    }

    /// Brings a new store to where the scenario begins.
    pub(super) fn prepare(self, session: &mut Session) -> Result<(), Violation> {
        let retention = match self {
            Scenario::Compact => Retention { policy: CleanupPolicy::Compact, ..Retention::FOREVER },
            Scenario::Retention => Retention { age_ms: Some(5), ..Retention::FOREVER },
            _ => Retention::FOREVER,
        };
        let create = |id| PartitionChange::Create { id: PartitionId(id), retention };
        let topic = |id| TopicRow { version: VERSION, partitions: vec![(PartitionId(id), 0)] };
        let state = (0..3).map(|id| TopicRow::change(id as u8, Some(&topic(id)))).collect();
        let partitions = (0..3).map(create).collect();
        session.submit(Commit { partitions, state, ..Commit::default() }, Vec::new());
        session.wait(0)?;
        if matches!(self, Scenario::Produce | Scenario::Seal | Scenario::Apply) {
            return Ok(());
        }
        produce(session, &[(0, 300), (2, 20_000)])?;
        produce(session, &[(2, 200), (0, 50)])?;
        let _ = session.store().roll();
        produce(session, &[(1, 17_000), (0, 120)])?;
        if self == Scenario::Clean {
            delete(session, 2)?;
        }
        let _ = session.store().roll();
        produce(session, &[(0, 70), (1, 90)])?;
        schedule::sleep(SETTLE);
        if self == Scenario::Restore {
            let store = session.store();
            let made = store.backup(Path::new(BACKUP), None, &mut |_| Ok(()), &mut |_| true);
            made.map_err(|error| Violation::new("faults", format!("before any fault: {}", told(&error))))?;
        }
        Ok(())
    }

    /// Does it, whatever fails; what was refused.
    pub(super) fn work(self, session: &mut Session, rng: &mut Rng) -> Result<Vec<String>, Violation> {
        let mut refusals = Vec::new();
        match self {
            Scenario::Produce => {
                for sizes in [[(0, 60), (1, 900)], [(1, 50), (2, 18_000)], [(0, 10), (2, 10)], [(2, 400), (0, 700)]] {
                    if !session.stumbled {
                        submit(session, &sizes);
                        session.wait(2)?;
                    }
                }
            }
            Scenario::Seal => {
                for _ in 0..2 {
                    produce(session, &[(0, 100), (1, 17_000)])?;
                    refusals.extend(refusal(session.store().roll()));
                }
                schedule::sleep(SETTLE);
            }
            Scenario::Retention => {
                let begun_at = session.disk.position();
                let done = session.store().run_retention(1_000);
                let places = session.store().partitions().into_iter();
                let log_starts = places.map(|(id, place)| (id, place.log_start_offset.0)).collect();
                session.era.rounds.push(history::Round { begun_at, log_starts: done.is_ok().then_some(log_starts) });
                refusals.extend(refusal(done));
            }
            Scenario::Clean | Scenario::Compact => refusals.extend(refusal(session.store().clean(0, &mut |_| true))),
            Scenario::Delete => {
                delete(session, 2)?;
                refusals.extend(refusal(session.store().roll()));
                refusals.extend(refusal(session.store().clean(0, &mut |_| true)));
            }
            Scenario::Apply => {
                for number in 0..6 {
                    state(session, number)?;
                    schedule::sleep(SETTLE / 4);
                }
            }
            Scenario::Reopen => {
                produce(session, &[(0, 100)])?;
                session.reopen(rng, &mut Tally::default())?;
            }
            Scenario::Scrub => while !session.store().scrub_step(1 << 16).wrapped {},
            Scenario::Backup => {
                let made = session.store().backup(Path::new(BACKUP), None, &mut |_| Ok(()), &mut |_| true);
                refusals.extend(refusal(made));
            }
            Scenario::Restore | Scenario::Salvage | Scenario::Verify => unreachable!("nobody has the store open"),
        }
        Ok(refusals)
    }

    /// What has to go well once the disk is well again.
    pub(super) fn work_healed(self, session: &mut Session) -> Result<(), Violation> {
        let store = session.store();
        let failed = |what: &str, error: &dyn Error| {
            Violation::new("serves", format!("{what} after the fault: {}", told(error)))
        };
        store.roll().map_err(|error| failed("rolling", &error))?;
        store.clean(0, &mut |_| true).map_err(|error| failed("cleaning", &error))?;
        if store.stats().unsealed > 0 {
            return Err(Violation::new("serves", "a segment is not sealed after a round of the cleaner"));
        }
        // What it did not get to see is forgotten when it sees it.
        for _ in 0..2 {
            while !store.scrub_step(1 << 20).wrapped {}
        }
        if store.stats().damages > 0 {
            return Err(Violation::new("serves", "the scrub finds damage that is none"));
        }
        if self == Scenario::Backup {
            let made = store.backup(Path::new(BACKUP), None, &mut |_| Ok(()), &mut |_| true);
            made.map_err(|error| failed("a backup", &error))?;
        }
        Ok(())
    }

    /// Does it to a store that nobody has open.
    pub(super) fn work_offline(self, disk: &SimDisk, options: &StoreOptions) -> Vec<String> {
        self.offline(disk, options, Path::new(MADE)).err().into_iter().collect()
    }

    /// The same once the disk is well again: it goes well, and what comes of it is the store.
    pub(super) fn work_offline_healed(
        self,
        disk: &SimDisk,
        options: &StoreOptions,
        was: &Model,
    ) -> Result<(), Violation> {
        let made = self.offline(disk, options, Path::new(MADE_AGAIN));
        let made = made.map_err(|text| Violation::new("serves", format!("{self} after the fault: {text}")))?;
        let Some(dir) = made else { return Ok(()) };
        let store = invariants::opens(&dir, on_disk(disk, options))?;
        let observed = Observed::of(&store, &mut Rng::new(0))?;
        let expected = Era::new(0, was.clone()).expected_at(usize::MAX);
        invariants::check(&expected, &observed)?;
        invariants::closes(store)
    }

    fn offline(self, disk: &SimDisk, options: &StoreOptions, to: &Path) -> Result<Option<PathBuf>, String> {
        let (dir, options) = (Path::new(DIR), on_disk(disk, options));
        match self {
            Scenario::Verify => {
                let report = verify(dir, &options, &mut |_| {}).map_err(|error| told(&error))?;
                report.damages.first().map_or(Ok(None), |damage| Err(damage.to_string()))
            }
            Scenario::Salvage => {
                let options = SalvageOptions { store: options, partitions_of: |_, _| Vec::new() };
                let report = salvage(dir, to, &options, &mut |_| {}).map_err(|error| told(&error))?;
                match report.lost.first() {
                    Some(lost) => Err(format!("{} of `{}`: {}", lost.partition, lost.file, lost.cause)),
                    None => Ok(Some(to.to_path_buf())),
                }
            }
            _ => {
                let made = restore(Path::new(BACKUP), to, RestorePoint::Latest, options, &mut |_| true);
                made.map(|restored| Some(restored.dir().to_path_buf())).map_err(|error| told(&error))
            }
        }
    }
}

/// How long the store's own threads have for what they do behind the commits.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

fn refusal<R, E: Error>(result: Result<R, E>) -> Option<String> {
    result.err().map(|error| told(&error))
}

/// A commit with batches of about these sizes, for the partitions that there are.
pub(super) fn submit(session: &mut Session, sizes: &[(u32, usize)]) {
    let number = session.next_number as i64;
    let (mut commit, mut written) = (Commit::default(), Vec::new());
    for (id, bytes) in sizes {
        let id = PartitionId(*id);
        let Some(log) = session.projected.partitions.get(&id) else { continue };
        let start = log.next_offset;
        let append: Append = append(id, start, *bytes, number, &mut Rng::new(session.next_number));
        let bytes = append.batches.clone().expect("it has a batch");
        written.push(Written { partition: id, batch: Batch { start, end: start + 2, producer: None, bytes } });
        commit.appends.push(Append { cover_start: Offset(start), ..append });
    }
    commit.state.push(row(number as u64, 100));
    session.submit(commit, written);
}

pub(super) fn produce(session: &mut Session, sizes: &[(u32, usize)]) -> Result<(), Violation> {
    submit(session, sizes);
    session.wait(0)
}

/// A topic and its partition go.
fn delete(session: &mut Session, id: u32) -> Result<(), Violation> {
    let partitions = vec![PartitionChange::Delete { id: PartitionId(id) }];
    let state = vec![TopicRow::change(id as u8, None)];
    session.submit(Commit { partitions, state, ..Commit::default() }, Vec::new());
    session.wait(0)
}

/// A commit of state alone.
fn state(session: &mut Session, number: u64) -> Result<(), Violation> {
    let state = (0..4).map(|at| row(number * 3 + at, 300)).collect();
    session.submit(Commit { state, ..Commit::default() }, Vec::new());
    session.wait(0)
}

fn row(number: u64, bytes: usize) -> StateChange {
    let table = StateTable::ALL[number as usize % StateTable::ALL.len()];
    let value = Rng::new(number).bytes(bytes);
    StateChange { table, key: Bytes::from(format!("key {}", number % 7)), value: Some(value.into()) }
}
