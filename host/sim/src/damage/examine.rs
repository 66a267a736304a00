//! One damaged store, looked at in every way there is: `verify`, `salvage`, opening, reading, the scrub, going on.
//!
//! Owns what must hold whatever was damaged ([`examine`]). Two files of a store with the same damage are examined alike,
//! so a case is told by its patient and its harm.
//!
//! Start at [`examine`].

use std::{
    collections::BTreeSet,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{Offset, PartitionId, RecordBatch};
use storage::{Commit, OpenError, SalvageOptions, Store, StoreOptions, salvage, verify};

use super::{
    content::{Content, Differences},
    harm::Harm,
    patient::{DIR, Harmed, Patient, options_on},
};
use crate::{batches::append, disk::SimDisk, invariants::Violation, rng::Rng, schedule, threads};

/// Where what is saved goes.
const SAVED: &str = "/disk/saved";

/// The order of threads matters to no file that is only read.
const SCHEDULE: u64 = 1;

/// What one step of the scrub reads.
const SCRUB_BYTES: usize = 1 << 20;

/// What came of a damage, the worst of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nobody noticed, and all is as it was: nobody needs these bytes.
    Dead,
    /// `verify` names it; readers and the opening do without these bytes.
    Named,
    /// It opened and made a file anew, of which all is as it was but for what plugins keep.
    Rebuilt,
    /// Some reads are refused.
    ReadsRefused,
    /// It is not opened.
    OpenRefused,
    /// It is refused as a newer version's.
    Newer,
    /// The log ends earlier than it did: what is there is whole, and nothing says that there was more.
    Receded,
}

impl Outcome {
    /// Every one, as the table has them.
    pub const EVERY: [Outcome; 7] = [
        Outcome::Dead,
        Outcome::Named,
        Outcome::Rebuilt,
        Outcome::ReadsRefused,
        Outcome::OpenRefused,
        Outcome::Newer,
        Outcome::Receded,
    ];

    /// The head of its column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Dead => "dead bytes",
            Outcome::Named => "named only",
            Outcome::Rebuilt => "rebuilt",
            Outcome::ReadsRefused => "reads refused",
            Outcome::OpenRefused => "not opened",
            Outcome::Newer => "newer format",
            Outcome::Receded => "log shorter",
        }
    }
}

/// What was found out about a damage.
#[derive(Debug, Clone, Copy)]
pub struct Finding {
    /// The worst of it.
    pub outcome: Outcome,
    /// Whether the scrub found it.
    pub scrubbed: bool,
    /// Batches that `salvage` could not save.
    pub batches_lost: usize,
}

/// Looks at a damaged store, as one simulation.
///
/// # Errors
/// The first promise that was not kept.
pub fn examine(patient: &Arc<Patient>, harm: Harm) -> Result<Finding, Violation> {
    let patient = patient.clone();
    let looked = schedule::run(SCHEDULE, move || {
        let looked = catch_unwind(AssertUnwindSafe(|| Case::new(&patient, &harm).run()));
        let result = looked.unwrap_or_else(|_| Err(Violation::new("no panic", "the caller's thread panicked")));
        threads::take_panic().map_or(result, |panic| Err(Violation::new("no panic", panic)))
    });
    looked.unwrap_or_else(|stuck| Err(Violation::new("serves", stuck.to_string())))
}

struct Case<'c> {
    patient: &'c Patient,
    harm: &'c Harm,
    disk: SimDisk,
    options: StoreOptions,
    harmed: Harmed,
    /// Files that are not as they were.
    files: BTreeSet<String>,
}

impl<'c> Case<'c> {
    fn new(patient: &'c Patient, harm: &'c Harm) -> Case<'c> {
        let disk = SimDisk::new(harm.done_to(patient), 0);
        let options = options_on(&disk, &patient.options, 0);
        let touched = harm.touched(patient);
        let files = touched.iter().map(|touched| touched.file.display().to_string()).collect();
        Case { patient, harm, disk, options, harmed: patient.harmed_by(&touched), files }
    }

    fn run(&self) -> Result<Finding, Violation> {
        let verified = self.verify()?;
        // What harms nobody is salvaged like a sound store, which takes as long as all the rest together.
        let salvaged = verified != Verified::Clean || self.is_sampled();
        let batches_lost = if salvaged { self.salvage()? } else { 0 };
        let (outcome, scrubbed) = self.open(verified)?;
        if outcome == Outcome::Dead && verified != Verified::Clean {
            return Ok(Finding { outcome: Outcome::Named, scrubbed, batches_lost });
        }
        if verified == Verified::Clean && outcome != Outcome::Dead && outcome != Outcome::Receded {
            return Err(Violation::new("verify", format!("it found nothing, and the store: {outcome:?}")));
        }
        Ok(Finding { outcome, scrubbed, batches_lost })
    }

    /// Whether the log may end earlier than it did, with nothing to show for it.
    fn may_recede(&self) -> bool {
        self.harm.kind.is_sound_elsewhere() || self.harmed.last_commit
    }

    fn is_sampled(&self) -> bool {
        self.harm.what.bytes().map(u64::from).sum::<u64>().is_multiple_of(8)
    }

    fn verify(&self) -> Result<Verified, Violation> {
        let before = self.disk.position();
        let report = match verify(Path::new(DIR), &self.options, &mut |_| {}) {
            Ok(report) => report,
            Err(OpenError::NewerFormat { .. }) => return Ok(Verified::Newer),
            Err(error) => return Err(Violation::new("verify", format!("it gives up: {}", told(&error)))),
        };
        if self.disk.position() != before {
            return Err(Violation::new("verify", "it wrote something"));
        }
        if report.damages.is_empty() {
            return Ok(Verified::Clean);
        }
        let names = |file: &String| report.damages.iter().any(|damage| damage.file == *file);
        // One of several is enough where the others are what nobody needs; a directory stands for files that are gone.
        if !self.files.iter().any(names) && !report.damages.iter().any(|damage| damage.file.ends_with("segments")) {
            let named: Vec<String> = report.damages.iter().map(ToString::to_string).take(3).collect();
            return Err(Violation::new("verify", format!("it names {named:?}, and not {:?}", self.files)));
        }
        Ok(Verified::Named)
    }

    /// Saves what can be, and compares it.
    fn salvage(&self) -> Result<usize, Violation> {
        let saved = Path::new(SAVED);
        let options = SalvageOptions { store: self.options.clone(), partitions_of: |_, _| Vec::new() };
        let report = match salvage(Path::new(DIR), saved, &options, &mut |_| {}) {
            Ok(report) => report,
            Err(storage::SalvageError::Open(OpenError::NewerFormat { .. })) => return Ok(0),
            Err(error) => return Err(Violation::new("salvage", told(&error))),
        };
        let store = Store::open(saved, self.options.clone());
        let store = store.map_err(|error| Violation::new("salvage", format!("not opened: {}", told(&error))))?;
        let mut lost = 0;
        for (id, start, end, batch) in self.patient.content.batches() {
            match batch_at(&store, id, start) {
                Some(found) if found == *batch => {}
                Some(_) if !self.harm.kind.is_sound_elsewhere() => {
                    return Err(Violation::new("salvage", format!("partition {id} has other bytes at {start}")));
                }
                _ if !self.harmed.unsaved.contains_key(&(id, start)) => {
                    let listed = report.lost.iter().find(|lost| lost.partition == id);
                    let what =
                        format!("partition {id} lacks {start}..{end}, whose bytes are there; listed: {listed:?}");
                    return Err(Violation::new("salvage", what));
                }
                _ => lost += 1,
            }
        }
        store.close().map_err(|error| Violation::new("salvage", error.to_string()))?;
        Ok(lost)
    }

    fn open(&self, verified: Verified) -> Result<(Outcome, bool), Violation> {
        let store = match Store::open(Path::new(DIR), self.options.clone()) {
            Ok(store) => store,
            Err(OpenError::NewerFormat { .. }) if verified == Verified::Newer => return Ok((Outcome::Newer, false)),
            Err(error @ OpenError::Damaged { .. }) => {
                return self.refused(&error).map(|()| (Outcome::OpenRefused, false));
            }
            Err(error) => return Err(Violation::new("named", format!("it is not opened: {}", told(&error)))),
        };
        let differences = self.patient.content.compare(&store, self.may_recede())?;
        self.contained(&differences)?;
        let scrubbed = scrub(&store);
        self.goes_on(&store)?;
        store.close().map_err(|error| Violation::new("serves", format!("it does not close: {error}")))?;
        let outcome = match differences {
            differences if differences.is_none() => Outcome::Dead,
            Differences { receded: 1.., .. } => Outcome::Receded,
            Differences { refused, scans_refused, .. } if !refused.is_empty() || scans_refused > 0 => {
                Outcome::ReadsRefused
            }
            _ => Outcome::Rebuilt,
        };
        Ok((outcome, scrubbed))
    }

    /// A refusal names one of the files that are not as they were, or one that contradicts them.
    fn refused(&self, error: &OpenError) -> Result<(), Violation> {
        let text = told(error);
        if self.patient.files.keys().any(|file| text.contains(&file.display().to_string())) {
            return Ok(());
        }
        Err(Violation::new("named", format!("it is not opened, and the error names no file of it: {text}")))
    }

    /// Only what lay where the damage is may be refused.
    fn contained(&self, differences: &Differences) -> Result<(), Violation> {
        // Where a gap is written down is not known here.
        let within = |(id, from): &(PartitionId, u64)| {
            let mut batches = self.patient.content.batches();
            let asked = batches.find(|(of, start, end, _)| of == id && (*start..*end).contains(from));
            asked.is_none_or(|(of, start, ..)| self.harmed.unread.contains_key(&(of, start)))
        };
        match differences.refused.iter().find(|refused| !within(refused)) {
            None => Ok(()),
            Some((id, from)) => {
                let what =
                    format!("partition {id} cannot be read at {from}, which is not damaged: {:?}", differences.says);
                Err(Violation::new("contained", what))
            }
        }
    }

    /// A store that opens takes commits.
    fn goes_on(&self, store: &Store) -> Result<(), Violation> {
        let Some((id, place)) = store.partitions().into_iter().next() else { return Ok(()) };
        let append = append(id, place.high_watermark.0, 100, 1, &mut Rng::new(1));
        let (start, batch) = (append.cover_start, append.batches.clone());
        let committed = store.commit(Commit { appends: vec![append], ..Commit::default() });
        committed.map_err(|error| Violation::new("serves", format!("it takes no commit: {error}")))?;
        let read = store.read(id, start, 1);
        if read.as_ref().ok().map(|outcome| outcome.batches.first()) == Some(batch.as_ref()) {
            return Ok(());
        }
        Err(Violation::new("serves", format!("what it took is read as {read:?}")))
    }
}

/// What `verify` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verified {
    Clean,
    Named,
    Newer,
}

/// Reads all sealed segments; whether something was found.
fn scrub(store: &Store) -> bool {
    let mut found = false;
    loop {
        let progress = store.scrub_step(SCRUB_BYTES);
        found |= progress.damages > 0;
        if progress.wrapped {
            return found;
        }
    }
}

/// The batch of a partition that begins at an offset, which may lie before its log start.
fn batch_at(store: &Store, id: PartitionId, start: u64) -> Option<Bytes> {
    let from = store.partition(id)?.log_start_offset.max(Offset(start));
    let mut run = store.read(id, from, 1).ok()?.batches.into_iter().next()?;
    let batch = RecordBatch::split_first(&mut run).ok()??;
    (batch.header().base_offset.0 == start).then(|| batch.into_bytes())
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Whether a store that nothing was done to passes as one: the examination must not find what is not there.
///
/// # Errors
/// What it finds.
pub fn examine_sound(patient: &Arc<Patient>) -> Result<(), Violation> {
    let patient = patient.clone();
    schedule::run(SCHEDULE, move || check_sound(&patient))
        .unwrap_or_else(|stuck| Err(Violation::new("serves", stuck.to_string())))
}

fn check_sound(patient: &Patient) -> Result<(), Violation> {
    let disk = SimDisk::new(patient.tree.clone(), 0);
    let options = options_on(&disk, &patient.options, 0);
    let report = verify(Path::new(DIR), &options, &mut |_| {});
    let damages = report.map_err(|error| Violation::new("verify", told(&error)))?.damages;
    if let Some(damage) = damages.first() {
        return Err(Violation::new("verify", format!("in a store that nothing was done to: {damage}")));
    }
    let store = Store::open(Path::new(DIR), options).map_err(|error| Violation::new("serves", told(&error)))?;
    if Content::of(&store)? != patient.content {
        return Err(Violation::new("silent", "a store that nothing was done to is another one at the next start"));
    }
    Ok(())
}
