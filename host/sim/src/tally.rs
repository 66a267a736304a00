//! How often what should happen now and then happened: a simulation that never gets into a corner proves nothing of it.
//!
//! Start at [`Tally::note`].

use std::collections::BTreeMap;

use crate::{disk::CutModel, rng::Rng};

/// What has to happen in a long run.
pub const SOMETIMES: &[&str] = &[
    "a commit in flight survived",
    "a commit in flight was lost",
    "a failed commit survived",
    "a failed commit was dropped",
    "a commit failed",
    "a commit was refused",
    "commits shared a transaction",
    "a segment was left for another",
    "a segment was unlinked",
    "a segment was rewritten",
    "the cleaner was stopped",
    "killed",
    "cut while cleaning",
    "cut while retaining",
    "cut while closing or opening",
    "cut with nothing at stake",
    "writes were lost",
    "names were lost",
    "an index file was missing",
    "the state was behind",
    "a partition had been deleted",
    "a log start had moved",
    "a second cut while opening",
    "a second cut after opening",
    "a third cut",
    "a backup was made",
    "a backup was restored after a cut",
    "cut while making a backup",
    "cut while rolling",
    "a file grew",
    "the state's file was lost or damaged",
    "a reader had been given batches",
    "records were compacted",
    "all records of a batch were dropped",
    "a record was multiplied",
    "a topic was made anew",
    "a version was deployed",
    "an unknown batch was sent again",
    "an acknowledged batch was sent again",
    "appends had no room",
    "appends were taken again",
    "an i/o error",
    "a full disk",
    "a failed sync",
    "a fault kept it from opening",
];

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Power cuts by each model, each followed by an opening and a comparison of everything.
    pub cuts_by: BTreeMap<CutModel, u64>,
    /// What all of it came to, as one number: the same for the same seed.
    pub digest: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Something happened.
    ///
    /// # Panics
    /// When it is none of [`SOMETIMES`].
    pub fn note(&mut self, what: &'static str) {
        assert!(SOMETIMES.contains(&what), "`{what}` is not listed");
        *self.counts.entry(what).or_default() += 1;
    }

    /// [`Tally::note`], if it did.
    pub fn note_if(&mut self, what: &'static str, happened: bool) {
        if happened {
            self.note(what);
        }
    }

    /// Something that is the same whenever the seed is.
    pub fn digest(&mut self, number: usize) {
        self.digest = Rng::new(self.digest ^ number as u64).number();
    }

    /// The power was cut.
    pub fn cut(&mut self, model: CutModel) {
        *self.cuts_by.entry(model).or_default() += 1;
    }

    /// How often it was, by whatever model.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts_by.values().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Tally) {
        for (model, count) in &other.cuts_by {
            *self.cuts_by.entry(*model).or_default() += count;
        }
        self.digest ^= other.digest;
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Each of [`SOMETIMES`], and how often it happened.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SOMETIMES.iter().map(|what| (*what, self.counts.get(what).copied().unwrap_or(0)))
    }

    /// What never happened.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        self.counts().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
    }
}
