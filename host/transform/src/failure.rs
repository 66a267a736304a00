//! Which record is to blame when a call fails: decides what to run again, and in what pieces.
//!
//! Owns the search and its budget, as a value without I/O. A guest's `weir_cursor` is a hint where to cut and never
//! believed: a record is blamed only when the guest fails on it alone. So a slow batch, or memory that leaks from
//! record to record, blames nobody; and the record that is to blame takes no other with it.
//!
//! ```text
//! with a cursor at 3    [0 1 2 3 4 5 6]  fails
//!                       [0 1 2] passes   [3] fails: blamed   [4 5 6] passes        each record runs at most twice
//! without               halves, in order, until one record is left
//! ```
//! Start at [`Search::next`].

use std::{ops::Range, time::Duration};

use protocol::TransformLimits;

/// The search through one batch at one stage.
#[derive(Debug)]
pub(crate) struct Search {
    /// All of it, until it was run.
    whole: Option<Range<u32>>,
    /// Pieces still to run, the next one last. They are in order and do not overlap.
    todo: Vec<Range<u32>>,
    /// Records blamed so far.
    blamed: u32,
    may_blame: u32,
    /// CPU time of calls since the first fault.
    spent: Duration,
    may_spend: Duration,
    has_faulted: bool,
    /// A record the cursor named, which is run alone to see.
    hinted: Option<u32>,
    /// A hint was wrong: no more of them are taken.
    hints_wrong: bool,
}

/// What a fault leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Smaller pieces were put in the queue.
    Smaller,
    /// This record is to blame.
    Blame(u32),
    /// The budget is used up: these records fail without being looked at singly. The search is over.
    GiveUp(Vec<Range<u32>>),
}

impl Search {
    /// Begins with all `count` records in one piece.
    pub(crate) fn new(count: u32, limits: &TransformLimits) -> Search {
        Search {
            whole: (count > 0).then_some(0..count),
            // Most batches pass in one piece.
            todo: Vec::new(),
            blamed: 0,
            may_blame: limits.failures,
            spent: Duration::ZERO,
            may_spend: Duration::from_millis(limits.failure_ms.into()),
            has_faulted: false,
            hinted: None,
            hints_wrong: false,
        }
    }

    /// The next piece to run; its result is told by [`Search::passed`] or [`Search::failed`].
    pub(crate) fn next(&mut self) -> Option<Range<u32>> {
        self.whole.take().or_else(|| self.todo.pop())
    }

    /// Whether something failed, so that the CPU time of calls counts.
    pub(crate) const fn has_faulted(&self) -> bool {
        self.has_faulted
    }

    /// Whether the guest is still believed to name the record it has in hand.
    pub(crate) const fn believes_hints(&self) -> bool {
        !self.hints_wrong
    }

    /// Counts the CPU time of a call.
    pub(crate) fn spend(&mut self, cpu: Duration) {
        self.spent = self.spent.saturating_add(cpu);
    }

    /// A piece passed.
    pub(crate) fn passed(&mut self, piece: &Range<u32>) {
        if piece.len() == 1 && self.hinted == Some(piece.start) {
            self.hints_wrong = true;
        }
    }

    /// A piece failed, with this index of it in the guest's hand.
    pub(crate) fn failed(&mut self, piece: Range<u32>, cursor: Option<u32>) -> Next {
        self.has_faulted = true;
        if self.blamed >= self.may_blame || self.spent >= self.may_spend {
            return self.give_up(piece);
        }
        if piece.len() == 1 {
            self.blamed += 1;
            return Next::Blame(piece.start);
        }
        let hint = cursor.filter(|_| !self.hints_wrong).and_then(|index| piece.start.checked_add(index));
        match hint.filter(|record| piece.contains(record)) {
            Some(record) => {
                self.hinted = Some(record);
                self.put([piece.start..record, record..record + 1, record + 1..piece.end]);
            }
            None => {
                let middle = piece.start + (piece.end - piece.start) / 2;
                self.put([piece.start..middle, middle..piece.end]);
            }
        }
        Next::Smaller
    }

    /// Nothing more can be run: this piece and everything behind it fails.
    pub(crate) fn give_up(&mut self, piece: Range<u32>) -> Next {
        let mut rest = std::mem::take(&mut self.todo);
        rest.push(piece);
        rest.reverse();
        Next::GiveUp(rest)
    }

    fn put<const N: usize>(&mut self, pieces: [Range<u32>; N]) {
        self.todo.extend(pieces.into_iter().rev().filter(|piece| !piece.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a search against a guest that fails on `bad` records and names `cursor(piece, first bad)`.
    fn blamed(
        count: u32,
        bad: &[u32],
        cursor: impl Fn(&Range<u32>, u32) -> Option<u32>,
    ) -> (Vec<u32>, Vec<u32>, usize) {
        let mut search = Search::new(count, &TransformLimits::default());
        let (mut blamed, mut passed, mut calls) = (Vec::new(), Vec::new(), 0);
        while let Some(piece) = search.next() {
            calls += 1;
            match bad.iter().find(|record| piece.contains(record)) {
                None => {
                    search.passed(&piece);
                    passed.extend(piece);
                }
                Some(&record) => match search.failed(piece.clone(), cursor(&piece, record)) {
                    Next::Smaller => {}
                    Next::Blame(record) => blamed.push(record),
                    Next::GiveUp(rest) => blamed.extend(rest.into_iter().flatten()),
                },
            }
        }
        (blamed, passed, calls)
    }

    #[test]
    fn an_honest_cursor_finds_the_record_in_four_calls() {
        let (found, passed, calls) = blamed(1_000, &[500], |piece, bad| Some(bad - piece.start));
        assert_eq!((found, passed.len(), calls), (vec![500], 999, 4));
    }

    #[test]
    fn a_lying_cursor_is_ignored_after_its_first_lie() {
        let (found, passed, calls) = blamed(1_000, &[500], |_, _| Some(0));
        assert_eq!((found, passed.len()), (vec![500], 999));
        assert!(calls < 30, "{calls} calls");
    }

    #[test]
    fn past_the_budget_the_rest_fails_together() {
        let all: Vec<u32> = (0..1_000).collect();
        let (found, passed, calls) = blamed(1_000, &all, |piece, bad| Some(bad - piece.start));
        assert_eq!((found, passed.len()), (all, 0));
        assert!(calls <= 2 * TransformLimits::default().failures as usize + 2, "{calls} calls");
    }

    #[test]
    fn time_is_part_of_the_budget() {
        let mut search = Search::new(8, &TransformLimits { failure_ms: 160, ..TransformLimits::default() });
        let piece = search.next().unwrap();
        search.spend(Duration::from_millis(160));
        assert_eq!(search.failed(piece, None), Next::GiveUp(std::iter::once(0..8).collect()));
        assert_eq!(search.next(), None);
    }

    proptest! {
        #[test]
        fn every_record_is_decided_once_in_order_and_only_the_bad_ones_are_blamed(
            count in 1_u32..300,
            bad in proptest::collection::btree_set(0_u32..300, 0..8),
            lie in proptest::option::of(0_u32..400),
        ) {
            let bad: Vec<u32> = bad.into_iter().filter(|record| *record < count).collect();
            let (found, passed, _) = blamed(count, &bad, |piece, first| lie.or(Some(first - piece.start)));
            prop_assert_eq!(&found, &bad);
            let expected: Vec<u32> = (0..count).filter(|record| !bad.contains(record)).collect();
            prop_assert_eq!(passed, expected);
        }
    }
}
