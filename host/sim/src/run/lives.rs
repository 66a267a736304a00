//! What is known of a journal: the lives of the store that wrote it.
//!
//! Start at [`Recording`].

use crate::{
    disk::{Durable, Op},
    history::{Backup, Era, Expected},
    model::Model,
    session::Ended,
    workload::Workload,
};

/// Something that was done once, to be cut as often as one likes.
pub(super) struct Recording {
    pub(super) lives: Lives,
    pub(super) begun_with: Durable,
    pub(super) journal: Vec<Op>,
    pub(super) workload: Workload,
}

/// What is known of a journal.
pub(super) struct Lives {
    /// What may be there before the first of the lives began; nothing at all if there was nothing.
    pub(super) before: Option<Expected>,
    pub(super) ended: Ended,
}

impl Lives {
    pub(super) fn expected_at(&self, position: usize) -> Expected {
        match self.ended.eras.iter().rev().find(|era| era.opened_at <= position) {
            Some(era) => era.expected_at(position),
            None => match &self.before {
                Some(before) => before.clone(),
                None => Era::new(0, Model::default()).expected_at(position),
            },
        }
    }

    /// A journal with what was asked and answered, for people.
    pub(super) fn told(&self, journal: &[Op]) -> Vec<String> {
        let mut lines: Vec<(usize, String)> = journal.iter().map(Op::text).enumerate().collect();
        for span in &self.ended.spans {
            lines.push((span.begun_at, format!("-- begin {}", span.what)));
            lines.push((span.ended_at, format!("-- end {}", span.what)));
        }
        for era in &self.ended.eras {
            lines.push((era.opened_at, format!("-- open, at commit {:?}", era.base.marker())));
            for submitted in &era.commits {
                let number = submitted.number;
                lines.push((submitted.at, format!("-- submit {number}")));
                let answer = submitted.answer.iter();
                lines.extend(answer.map(|(at, answer)| (*at, format!("-- answer {number}: {answer:?}"))));
            }
        }
        // What is noted at a position happened before the call at that position.
        lines.sort_by_key(|(at, line)| (*at, !line.starts_with("--")));
        lines.retain(|(at, _)| *at <= journal.len());
        lines.into_iter().map(|(at, line)| format!("{at:>6} {line}")).collect()
    }

    pub(super) fn is_open_at(&self, position: usize) -> bool {
        self.ended.eras.first().is_some_and(|era| era.opened_at <= position)
    }

    /// The backups of which one is there after a cut: the last that was whole before it, and any begun since. None where no
    /// backup was whole.
    pub(super) fn backups_at(&self, position: usize) -> &[Backup] {
        let begun = self.ended.backups.partition_point(|backup| backup.begun_at < position);
        let is_whole = |backup: &Backup| backup.done && backup.ended_at <= position;
        let whole = self.ended.backups[..begun].iter().rposition(is_whole);
        whole.map_or(&[], |whole| &self.ended.backups[whole..begun])
    }

    /// Whether something went on at a position.
    pub(super) fn is_during(&self, what: &str, position: usize) -> bool {
        let mut spans = self.ended.spans.iter();
        spans.any(|span| span.what == what && span.begun_at < position && position < span.ended_at)
    }
}
