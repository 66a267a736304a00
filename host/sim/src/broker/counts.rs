//! How often what should happen now and then happened: a simulation that never gets into a corner proves nothing of it.
//!
//! Start at [`Counts::note`].

use std::collections::BTreeMap;

/// What has to happen in a long run.
pub const SOMETIMES: &[&str] = &[
    "a batch was acknowledged",
    "a batch was refused for good",
    "a batch was left without an answer",
    "a batch was sent again",
    "a retry was answered alike",
    "a request was lost",
    "an answer was lost",
    "a request was doubled",
    "a request came late",
    "a connection broke",
    "a connection stalled",
    "a batch was refused and tried again",
    "batches were numbered anew",
    "a producer was forgotten",
    "a producer was fenced",
    "a gap in the sequences was refused",
    "a record over the limit was refused",
    "a batch that cannot be read was refused",
    "a batch without a producer was stored",
    "a record was routed",
    "a record became a dead letter",
    "a record was rejected",
    "a record was dropped",
    "a guest trapped",
    "a partition paused",
    "a batch may have gone through two pipelines",
    "a reader waited",
    "a reader vanished",
    "a reader was slow",
    "a reader was behind the log start",
    "a read failed for a fault of the disk",
    "a timestamp was found",
    "retention moved a log start",
    "a topic was created again",
    "a topic was deleted",
    "a topic was altered",
    "a topic got more partitions",
    "an operation was refused",
    "an operation had no answer",
    "a plugin was uploaded",
    "a plugin was deleted",
    "a transform was deployed",
    "a transform was replaced",
    "a transform was removed",
    "a transform was restored",
    "killed",
    "the power was cut",
    "the power was cut twice",
    "restarted",
    "writes were lost",
    "an i/o error",
    "a full disk",
    "a failed sync",
    "a fault kept it from opening",
    "it healed",
];

/// Counts by name, and the sizes of what was run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seeds.
    pub seeds: u64,
    /// Lines of their traces.
    pub lines: u64,
    /// Requests of clients and operators.
    pub requests: u64,
    /// Kills, power cuts and restarts.
    pub crashes: u64,
    /// Calls to the disk that failed.
    pub faults: u64,
    /// Time that passed in the simulations, in milliseconds.
    pub simulated_ms: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Something happened.
    ///
    /// # Panics
    /// When it is none of [`SOMETIMES`].
    pub fn note(&mut self, what: &'static str) {
        self.note_times(what, 1);
    }

    /// [`Counts::note`], so often.
    pub fn note_times(&mut self, what: &'static str, times: u64) {
        assert!(SOMETIMES.contains(&what), "`{what}` is not listed");
        *self.counts.entry(what).or_default() += times;
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.lines += other.lines;
        self.requests += other.requests;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.simulated_ms += other.simulated_ms;
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Each of [`SOMETIMES`], and how often it happened.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SOMETIMES.iter().map(|what| (*what, self.counts.get(what).copied().unwrap_or(0)))
    }

    /// What never happened.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        self.each().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
    }
}
