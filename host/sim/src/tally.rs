//! How often what should happen now and then happened: a simulation that never gets into a corner proves nothing of it.
//!
//! Start at [`Tally::note`].

use std::collections::BTreeMap;

use crate::rng::Rng;

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
    "an i/o error",
    "a full disk",
    "a failed sync",
    "a fault kept it from opening",
];

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Power cuts, each followed by an opening and a comparison of everything.
    pub cuts: u64,
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

    /// Adds another's.
    pub fn add(&mut self, other: &Tally) {
        self.cuts += other.cuts;
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
