//! Damaged files: every bit of a small store, pages and whole files of larger ones, each damage examined in full.
//!
//! Owns the list of cases and their count ([`Table`]). What is damaged is detected, contained and never silent; nothing
//! ends the process. redb's own panics over bytes that nobody vouches for stay within the prober, as in a broker, which
//! looks at such files in another process.
//!
//! ```text
//! patient (a store, what it has, where that lies) + harm (bits, pages, files)
//!       -> verify -> salvage, compare -> open -> compare every place -> scrub -> commit, read -> outcome
//! ```
//!
//! Start at [`flips`] and [`by_chance`].

mod content;
mod examine;
mod harm;
mod patient;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use content::{Content, Differences};
pub use examine::{Finding, Outcome, examine, examine_sound};
pub use harm::{Harm, Kind};
pub use patient::{Harmed, Patient, Touched};

use crate::{invariants::Violation, rng::Rng, threads};

/// Which bytes of a store are damaged.
#[derive(Debug, Clone, Copy)]
pub struct Flips {
    /// The first, counted through all files.
    pub first: usize,
    /// How far apart they are.
    pub stride: usize,
    /// Chooses the bit of each byte; `None`: all of them, one after the other.
    pub seed: Option<u64>,
}

/// A promise that was not kept.
#[derive(Debug)]
pub struct Failure {
    /// What was done to the store.
    pub harm: String,
    /// Which promise, and how.
    pub violation: Violation,
}

/// What came of all cases.
#[derive(Debug, Default)]
pub struct Table {
    /// How often each kind of damage to each file came to which outcome.
    pub cases: BTreeMap<(Kind, &'static str), BTreeMap<Outcome, u64>>,
    /// Cases in which the scrub found something.
    pub scrubbed: u64,
    /// Cases in which records were lost for good.
    pub with_loss: u64,
    /// Broken promises, the first few.
    pub failures: Vec<Failure>,
    /// All of them.
    pub failed: u64,
}

/// Failures that are kept one by one.
const FAILURES_MAX: usize = 20;

impl Table {
    /// Examines one case and counts it.
    pub fn case(&mut self, patient: &Arc<Patient>, harm: Harm) {
        let (kind, part, what) = (harm.kind, harm.part_of_store(), harm.what.clone());
        match examine(patient, harm) {
            Ok(finding) => {
                let row = self.cases.entry((kind, part)).or_default();
                *row.entry(finding.outcome).or_default() += 1;
                self.scrubbed += u64::from(finding.scrubbed);
                self.with_loss += u64::from(finding.batches_lost > 0);
            }
            Err(violation) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(Failure { harm: format!("{kind}: {what}"), violation });
                }
            }
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: Table) {
        for (kind, row) in other.cases {
            for (outcome, count) in row {
                *self.cases.entry(kind).or_default().entry(outcome).or_default() += count;
            }
        }
        self.scrubbed += other.scrubbed;
        self.with_loss += other.with_loss;
        self.failed += other.failed;
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }

    /// How many cases there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.failed + self.cases.values().flat_map(BTreeMap::values).sum::<u64>()
    }

    /// How many came to an outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.cases.values().filter_map(|row| row.get(&outcome)).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<10} {:>9}", "damage", "of", "cases")?;
        Outcome::EVERY.iter().try_for_each(|outcome| write!(f, " {:>13}", outcome.name()))?;
        for ((kind, part), row) in &self.cases {
            write!(f, "\n{kind:<24} {part:<10} {:>9}", row.values().sum::<u64>())?;
            let count = |outcome| row.get(outcome).copied().unwrap_or(0);
            Outcome::EVERY.iter().try_for_each(|outcome| write!(f, " {:>13}", count(outcome)))?;
        }
        let Table { scrubbed, with_loss, failed, .. } = self;
        write!(f, "\n{} cases, {failed} broken promises; the scrub found {scrubbed}, ", self.total())?;
        write!(f, "records were lost in {with_loss}")
    }
}

/// Flips bits of a small store, every `jobs`-th case from the `job`-th on. `go_on` is asked before each.
///
/// # Errors
/// When the store cannot be made.
pub fn flips(flips: Flips, job: usize, jobs: usize, go_on: &mut dyn FnMut(&Table) -> bool) -> Result<Table, Violation> {
    threads::listen();
    let patient = Arc::new(Patient::small(1)?);
    examine_sound(&patient)?;
    let mut table = Table::default();
    let places = patient.files.iter().flat_map(|(file, bytes)| (0..bytes.len()).map(move |at| (file, at)));
    let chosen = places.enumerate().skip(flips.first).step_by(flips.stride);
    for (number, (file, at)) in chosen.skip(job).step_by(jobs) {
        let bits = match flips.seed {
            Some(seed) => {
                let bit = Rng::new(seed ^ number as u64).below(8) as u32;
                bit..bit + 1
            }
            None => 0..8,
        };
        for bit in bits {
            if !go_on(&table) {
                return Ok(table);
            }
            table.case(&patient, Harm::flip(&patient, file, at, bit));
        }
    }
    Ok(table)
}

/// Damage of every kind, several times, to the small store and to one that the seed makes.
///
/// # Errors
/// When the stores cannot be made.
pub fn by_chance(seed: u64, small: &Arc<Patient>, stranger: &Patient) -> Result<Table, Violation> {
    threads::listen();
    let mut rng = Rng::new(seed);
    let lived = Arc::new(Patient::lived(seed)?);
    examine_sound(&lived)?;
    let mut table = Table::default();
    for kind in Kind::EVERY {
        for patient in [small, &lived, &lived] {
            if let Some(harm) = Harm::by_chance(kind, patient, stranger, &mut rng) {
                table.case(patient, harm);
            }
        }
    }
    Ok(table)
}
