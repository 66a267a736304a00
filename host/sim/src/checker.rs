//! Judges what clients of a broker saw: whether there is one log per partition that explains all of it.
//!
//! Owns the promises as clients can see them, and the history they are judged by ([`history`]). Does no I/O, reads no
//! clock, and knows no broker: anything that writes down what it did and saw can be judged.
//!
//! ```text
//!  history: events in one order, each a question or an answer
//!     |
//!  known:   what became of each record, and what lies where at the end
//!     |
//!  lost | refused | torn | duplicates | order | offsets | foreign | reads | gaps | watermarks | books
//!     |
//!  report:  violations with who, where and which record; counts
//! ```
//! Invariants
//! - Time and memory are linear in the history: every promise is one pass, and what a pass looks up lies in hash maps
//!   or at an index. [`Report::steps`] counts.
//! - One fault is one kind of violation where that can be told; what follows from it is not told again.
//! - What cannot be known is no violation: records without an answer, and those before the log's start.
//!
//! Transforms of a history keep a record or take it out; what they do with each is known when it is sent
//! ([`history::Fate`]).
//!
//! Start at [`check`].

mod books;
mod duplicates;
mod foreign;
mod gaps;
pub mod history;
mod known;
mod lost;
mod offsets;
mod order;
mod reads;
mod refused;
mod torn;
mod watermarks;

use std::{collections::BTreeMap, fmt};

use protocol::Books;

use self::{
    history::{History, RecordId},
    known::Known,
};

/// Violations of a kind that are kept with their evidence; of more, only the number is.
const KEPT_PER_KIND: u64 = 10;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The history itself cannot be: an answer to nothing, a final log with a hole.
    Malformed,
    /// An acknowledged record is not there.
    Lost,
    /// A record that was refused for good is there.
    RefusedStored,
    /// Of records handed over as one batch, some are there and others are not.
    Torn,
    /// An acknowledged record is there twice.
    Duplicated,
    /// A record without an answer is there twice.
    UnknownStoredTwice,
    /// Two records of one producer lie in another order than they were sent, or one lies before what was there when it
    /// was sent.
    Reordered,
    /// Two answers, readers, or an answer and a reader disagree on what lies at an offset.
    InconsistentOffset,
    /// A record was answered twice.
    AnsweredTwice,
    /// A record that nobody sent, or that is damaged.
    Foreign,
    /// A record lies in a partition that it was not sent to.
    WrongPartition,
    /// A reader went back, or was shown a record twice.
    NonMonotonicRead,
    /// A reader stepped over a record.
    GapOverRecord,
    /// A reader was shown a record that is not there.
    Vanished,
    /// Somebody who asked after an acknowledgement was told of an end before it.
    WatermarkBehindAck,
    /// The end was lower than it had been.
    WatermarkFell,
    /// The start was lower than it had been.
    LogStartFell,
    /// The books do not say what became of the records.
    Books,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 18] = [
        Kind::Malformed,
        Kind::Lost,
        Kind::RefusedStored,
        Kind::Torn,
        Kind::Duplicated,
        Kind::UnknownStoredTwice,
        Kind::Reordered,
        Kind::InconsistentOffset,
        Kind::AnsweredTwice,
        Kind::Foreign,
        Kind::WrongPartition,
        Kind::NonMonotonicRead,
        Kind::GapOverRecord,
        Kind::Vanished,
        Kind::WatermarkBehindAck,
        Kind::WatermarkFell,
        Kind::LogStartFell,
        Kind::Books,
    ];

    /// As it is said to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed history",
            Kind::Lost => "lost",
            Kind::RefusedStored => "refused and stored",
            Kind::Torn => "torn batch",
            Kind::Duplicated => "duplicated",
            Kind::UnknownStoredTwice => "unknown and stored twice",
            Kind::Reordered => "reordered",
            Kind::InconsistentOffset => "inconsistent offset",
            Kind::AnsweredTwice => "answered twice",
            Kind::Foreign => "foreign record",
            Kind::WrongPartition => "wrong partition",
            Kind::NonMonotonicRead => "non-monotonic read",
            Kind::GapOverRecord => "gap over a record",
            Kind::Vanished => "shown and vanished",
            Kind::WatermarkBehindAck => "watermark behind an ack",
            Kind::WatermarkFell => "watermark fell",
            Kind::LogStartFell => "log start fell",
            Kind::Books => "books out of balance",
        }
    }
}

/// A promise that was not kept, and who saw it where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// Where, by name.
    pub partition: String,
    /// At which offset, where there is one.
    pub offset: Option<u64>,
    /// Which record, where it is one.
    pub record: Option<RecordId>,
    /// Index of the event that shows it, where it is one.
    pub event: Option<usize>,
    /// Who saw what.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.kind.name(), self.partition)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        if let Some(record) = self.record {
            write!(f, ", record {record}")?;
        }
        write!(f, ": {}", self.text)?;
        self.event.map_or(Ok(()), |event| write!(f, " (event {event})"))
    }
}

/// What a history shows.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The first violations of each kind.
    pub violations: Vec<Violation>,
    /// How many there are of each kind.
    pub found: BTreeMap<Kind, u64>,
    /// What was looked at.
    pub counts: Counts,
    /// The books of all acknowledged batches, by partition.
    pub books: Vec<Books>,
    /// Steps of all loops: the work it took.
    pub steps: u64,
}

impl Report {
    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

/// How much of everything a history has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records sent.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Of these, refused for good.
    pub refused: u64,
    /// Of these, without a definite answer.
    pub unknown: u64,
    /// Of the last, those that are there.
    pub unknown_stored: u64,
    /// Records shown to readers.
    pub read: u64,
    /// Records in the final logs.
    pub stored: u64,
    /// Ends and starts of partitions that were asked for.
    pub asked: u64,
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut found = Findings { history, report: Report::default() };
    let known = Known::of(history, &mut found);
    lost::check(&known, &mut found);
    refused::check(&known, &mut found);
    torn::check(&known, &mut found);
    duplicates::check(&known, &mut found);
    order::check(&known, &mut found);
    offsets::check(&known, &mut found);
    foreign::check(&known, &mut found);
    reads::check(&known, &mut found);
    gaps::check(&known, &mut found);
    watermarks::check(&known, &mut found);
    books::check(&known, &mut found);
    found.report.counts = known.counts();
    found.report
}

/// Where a violation shows.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    partition: u32,
    offset: Option<u64>,
    record: Option<RecordId>,
    event: Option<usize>,
}

impl Evidence {
    fn at(partition: u32, offset: u64) -> Evidence {
        Evidence { partition, offset: Some(offset), ..Evidence::default() }
    }

    fn of(self, record: RecordId) -> Evidence {
        Evidence { record: Some(record), ..self }
    }

    fn event(self, event: usize) -> Evidence {
        Evidence { event: Some(event), ..self }
    }
}

/// The report while it is made.
struct Findings<'a> {
    history: &'a History,
    report: Report,
}

impl Findings<'_> {
    fn add(&mut self, kind: Kind, evidence: Evidence, text: impl FnOnce() -> String) {
        let count = self.report.found.entry(kind).or_default();
        *count += 1;
        if *count > KEPT_PER_KIND {
            return;
        }
        let Evidence { partition, offset, record, event } = evidence;
        let partition = self.history.partition_name(partition);
        self.report.violations.push(Violation { kind, partition, offset, record, event, text: text() });
    }

    /// Something was looked at.
    fn step(&mut self) {
        self.report.steps += 1;
    }
}
