//! What was asked of a store and what it answered, with positions in the disk's journal.
//!
//! Owns the question what may be there after a cut ([`Era::expected_at`]); `invariants` has the promises about it.
//!
//! Start at [`Era`].

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::PartitionId;
use storage::{Commit, CommitError};

use crate::model::{Model, Written};

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is durable. Commits of one group share the sequence.
    Acked {
        /// Its place.
        sequence: u64,
    },
    /// Nobody knows, until the store is opened again or takes a later one.
    Failed,
    /// Nothing of it was written.
    Refused(String),
    /// Nothing of it was written, for want of room.
    Full(String),
}

impl Answer {
    /// What a store said.
    #[must_use]
    pub fn of(result: Result<storage::CommitReceipt, CommitError>) -> Answer {
        match result {
            Ok(receipt) => Answer::Acked { sequence: receipt.sequence },
            Err(CommitError::Failed { .. }) => Answer::Failed,
            Err(CommitError::Full { why }) => Answer::Full(why),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// A commit that was handed to a store.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Which; also in its marker row.
    pub number: u64,
    /// The commit.
    pub commit: Commit,
    /// The batches of its appends, in their order.
    pub written: Vec<Written>,
    /// The journal's position just before.
    pub at: usize,
    /// The answer, and the journal's position just after.
    pub answer: Option<(usize, Answer)>,
}

/// What a reader was shown of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The journal's position just after.
    pub at: usize,
    /// Which partition.
    pub id: PartitionId,
    /// Its log start.
    pub log_start: u64,
    /// Its high watermark.
    pub high_watermark: u64,
}

/// A batch that a reader was given.
#[derive(Debug, Clone)]
pub struct Read {
    /// The journal's position just after.
    pub at: usize,
    /// From which partition.
    pub id: PartitionId,
    /// Its first offset.
    pub start: u64,
    /// All of it.
    pub bytes: Bytes,
}

/// A round of retention: it moves log starts by commits of its own.
#[derive(Debug, Clone)]
pub struct Round {
    /// The journal's position before it.
    pub begun_at: usize,
    /// Log starts after it; `None` when it did not go well, so that nobody knows how far they may have moved.
    pub log_starts: Option<BTreeMap<PartitionId, u64>>,
}

/// A backup that was made beside the commits.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The journal's position before it.
    pub begun_at: usize,
    /// And after.
    pub ended_at: usize,
    /// Whether it was said to be whole.
    pub done: bool,
    /// What may be in it.
    pub expected: Arc<Expected>,
}

/// One life of a store, from an opening on.
#[derive(Debug, Clone)]
pub struct Era {
    /// The journal's position at which the store was open, and all of `base` shown.
    pub opened_at: usize,
    /// What was there then.
    pub base: Model,
    /// What was submitted since, in order.
    pub commits: Vec<Arc<Submitted>>,
    /// Where partitions stood since, to readers.
    pub shown: Vec<Shown>,
    /// What readers were given since.
    pub read: Vec<Read>,
    /// Rounds of retention since.
    pub rounds: Vec<Round>,
}

/// What is known of a commit at a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged before.
    Acked,
    /// It was on its way, and would have been acknowledged.
    OnItsWay,
    /// It had failed, or was about to.
    Failed,
}

/// What may be there after a cut.
#[derive(Debug, Clone)]
pub struct Expected {
    /// What is there in any case.
    pub base: Model,
    /// What may be there, in order, and what must.
    pub commits: Vec<(Arc<Submitted>, Fate)>,
    /// Where partitions stood before the cut, to readers.
    pub shown: BTreeMap<PartitionId, Shown>,
    /// What readers were given before the cut.
    pub read: Vec<Read>,
    /// How far each round of retention may have moved log starts.
    pub rounds: Vec<Round>,
    /// The state was lost with its file, and made anew from what segments there are.
    pub state_lost: bool,
}

impl Round {
    /// How far it may have moved a log start. Of a partition that was deleted meanwhile nobody knows.
    #[must_use]
    pub fn log_start_max(&self, id: PartitionId) -> u64 {
        self.log_starts.as_ref().and_then(|log_starts| log_starts.get(&id)).copied().unwrap_or(u64::MAX)
    }
}

impl Era {
    /// A life that begins with this.
    #[must_use]
    pub fn new(opened_at: usize, base: Model) -> Era {
        Era { opened_at, base, commits: Vec::new(), shown: Vec::new(), read: Vec::new(), rounds: Vec::new() }
    }

    /// What may be there after a cut at a position of the journal.
    #[must_use]
    pub fn expected_at(&self, cut: usize) -> Expected {
        self.expected_between(cut, cut)
    }

    /// What may be in something that was made between two positions: all that was answered before, and none of what came
    /// after.
    #[must_use]
    pub fn expected_between(&self, begun_at: usize, cut: usize) -> Expected {
        let submitted = self.commits.iter().filter(|submitted| submitted.at < cut);
        let fate = |submitted: &Submitted| match &submitted.answer {
            Some((at, Answer::Acked { .. })) if *at <= begun_at => Some(Fate::Acked),
            Some((_, Answer::Acked { .. })) => Some(Fate::OnItsWay),
            Some((_, Answer::Failed)) => Some(Fate::Failed),
            Some((_, Answer::Refused(_) | Answer::Full(_))) => None,
            None => unreachable!("every commit is answered before a history is looked at"),
        };
        let commits = submitted.filter_map(|submitted| Some((submitted.clone(), fate(submitted)?))).collect();
        let mut shown = BTreeMap::<PartitionId, Shown>::new();
        for now in self.shown.iter().filter(|shown| shown.at <= begun_at) {
            let before = shown.entry(now.id).or_insert(*now);
            before.log_start = before.log_start.max(now.log_start);
            before.high_watermark = before.high_watermark.max(now.high_watermark);
        }
        let read = self.read.iter().filter(|read| read.at <= begun_at).cloned().collect();
        let rounds = self.rounds.iter().filter(|round| round.begun_at < cut).cloned().collect();
        Expected { base: self.base.clone(), commits, shown, read, rounds, state_lost: false }
    }
}
