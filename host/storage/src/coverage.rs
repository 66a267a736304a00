//! Admits commits to a group: each append must begin exactly where its partition ends, in the group's own view.
//!
//! Decides, and touches nothing: the view of a group is what is committed and, on top of it, what was admitted before.
//! A commit is admitted whole or not at all.
//!
//! Start at [`Admission`].

use protocol::{Offset, PartitionId};

use crate::{
    Append, Commit, CommitError, PartitionChange, batches,
    ids::IdMap,
    partitions::{Partition, Partitions},
};

/// The largest single commit: room for a batch of `BATCH_BYTES_MAX` with everything it was multiplied to, while one
/// transaction still fits in memory a few times.
pub(crate) const COMMIT_BYTES_MAX: usize = 64 << 20;

/// The view of a group that is being gathered.
pub(crate) struct Admission<'a> {
    committed: &'a Partitions,
    /// Next offsets of the partitions that the group changes; `None`: deleted.
    changed: IdMap<Option<u64>>,
    next_id: PartitionId,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(committed: &'a Partitions) -> Self {
        Admission { committed, changed: IdMap::default(), next_id: committed.next_id() }
    }

    /// Adds a commit to the view, or says why it cannot be.
    pub(crate) fn admit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        check_size(commit)?;
        let mut trial = Trial { view: self, changed: IdMap::default(), next_id: self.next_id };
        trial.run(commit)?;
        let Trial { changed, next_id, .. } = trial;
        // Mostly a group is one large commit, or many small ones.
        if self.changed.is_empty() {
            self.changed = changed;
        } else {
            self.changed.extend(changed);
        }
        self.next_id = next_id;
        Ok(())
    }

    fn next_offset(&self, id: PartitionId) -> Option<u64> {
        let of = |partition: &Partition| partition.with(|state| state.next_offset);
        self.changed.get(&id).copied().unwrap_or_else(|| self.committed.get(id).map(|partition| of(&partition)))
    }
}

/// Bytes a commit brings, state rows included.
pub(crate) fn commit_bytes(commit: &Commit) -> usize {
    let batches = commit.appends.iter().filter_map(|append| append.batches.as_ref()).map(bytes::Bytes::len);
    let rows = commit.state.iter().map(|row| row.key.len() + row.value.as_ref().map_or(0, bytes::Bytes::len));
    batches.sum::<usize>() + rows.sum::<usize>()
}

fn check_size(commit: &Commit) -> Result<(), CommitError> {
    let bytes = commit_bytes(commit);
    if bytes <= COMMIT_BYTES_MAX { Ok(()) } else { Err(CommitError::TooLarge { bytes, limit: COMMIT_BYTES_MAX }) }
}

/// One commit, tried on top of the view.
struct Trial<'v, 'a> {
    view: &'v Admission<'a>,
    changed: IdMap<Option<u64>>,
    next_id: PartitionId,
}

impl Trial<'_, '_> {
    fn run(&mut self, commit: &Commit) -> Result<(), CommitError> {
        for change in &commit.partitions {
            if let PartitionChange::Create { id, .. } = *change {
                self.create(id)?;
            }
        }
        for append in &commit.appends {
            self.append(append)?;
        }
        commit.partitions.iter().try_for_each(|change| self.change(change))
    }

    fn next_offset(&self, id: PartitionId) -> Result<u64, CommitError> {
        let next = self.changed.get(&id).copied().unwrap_or_else(|| self.view.next_offset(id));
        next.ok_or(CommitError::UnknownPartition { partition: id })
    }

    fn create(&mut self, id: PartitionId) -> Result<(), CommitError> {
        if id < self.next_id || id.0 == u32::MAX {
            return Err(CommitError::PartitionIdUsed { partition: id, next: self.next_id });
        }
        self.next_id = PartitionId(id.0 + 1);
        self.changed.insert(id, Some(0));
        Ok(())
    }

    fn append(&mut self, append: &Append) -> Result<(), CommitError> {
        let next_offset = self.next_offset(append.partition)?;
        if append.cover_start.0 != next_offset {
            return Err(CommitError::Hole {
                partition: append.partition,
                cover_start: append.cover_start,
                next_offset: Offset(next_offset),
            });
        }
        check_append(append).map_err(|why| CommitError::Malformed {
            partition: append.partition,
            cover_start: append.cover_start,
            why,
        })?;
        self.changed.insert(append.partition, Some(append.cover_end.0));
        Ok(())
    }

    fn change(&mut self, change: &PartitionChange) -> Result<(), CommitError> {
        match *change {
            PartitionChange::Create { .. } => {}
            PartitionChange::SetRetention { id, .. } => {
                self.next_offset(id)?;
            }
            PartitionChange::Delete { id } => {
                self.next_offset(id)?;
                self.changed.insert(id, None);
            }
            PartitionChange::SetLogStart { id, offset } => {
                let next_offset = Offset(self.next_offset(id)?);
                if offset > next_offset {
                    return Err(CommitError::LogStartBeyondEnd { partition: id, offset, next_offset });
                }
            }
        }
        Ok(())
    }
}

/// Whether the batches lie, ascending, inside the coverage they claim.
pub(crate) fn check_append(append: &Append) -> Result<(), &'static str> {
    if append.cover_end <= append.cover_start || append.cover_end > Offset::MAX {
        return Err("its coverage is empty, or ends before it begins");
    }
    let mut next = append.cover_start.0;
    let run = append.batches.as_deref().unwrap_or_default();
    if append.batches.is_some() && run.is_empty() {
        return Err("it has batches of no bytes");
    }
    for span in batches::walk(run) {
        let span = span?;
        if span.base_offset < next {
            return Err("its batches overlap, or begin before the coverage");
        }
        next = span.next_offset;
    }
    if next > append.cover_end.0 { Err("its batches reach beyond the coverage") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use protocol::Retention;

    use super::*;
    use crate::batches::tests::batch;

    const P: PartitionId = PartitionId(4);

    fn create(id: PartitionId) -> Commit {
        let change = PartitionChange::Create { id, retention: Retention::default() };
        Commit { partitions: vec![change], ..Commit::default() }
    }

    fn append(start: u64, end: u64, batches: Option<Vec<u8>>) -> Commit {
        let append = Append {
            partition: P,
            cover_start: Offset(start),
            cover_end: Offset(end),
            batches: batches.map(Into::into),
            max_timestamp_ms: 0,
        };
        Commit { appends: vec![append], ..Commit::default() }
    }

    fn change(change: PartitionChange) -> Commit {
        Commit { partitions: vec![change], ..Commit::default() }
    }

    #[test]
    fn appends_continue_what_was_admitted_before() {
        let committed = Partitions::default();
        let mut admission = Admission::new(&committed);
        assert!(matches!(admission.admit(&append(0, 5, None)), Err(CommitError::UnknownPartition { .. })));
        admission.admit(&create(P)).unwrap();
        admission.admit(&append(0, 5, Some(batch(0, 5, 0, 80)))).unwrap();
        assert!(matches!(admission.admit(&append(0, 5, None)), Err(CommitError::Hole { .. })));
        assert!(matches!(admission.admit(&append(6, 9, None)), Err(CommitError::Hole { .. })));
        admission.admit(&append(5, 9, None)).unwrap();
        let beyond = change(PartitionChange::SetLogStart { id: P, offset: Offset(10) });
        assert!(matches!(admission.admit(&beyond), Err(CommitError::LogStartBeyondEnd { .. })));
        admission.admit(&change(PartitionChange::Delete { id: P })).unwrap();
        assert!(matches!(admission.admit(&append(9, 10, None)), Err(CommitError::UnknownPartition { .. })));
        assert!(matches!(admission.admit(&create(P)), Err(CommitError::PartitionIdUsed { .. })));
    }

    #[test]
    fn a_refused_commit_leaves_no_trace() {
        let committed = Partitions::default();
        let mut admission = Admission::new(&committed);
        let mut commit = create(P);
        commit.appends = append(7, 8, None).appends;
        assert!(admission.admit(&commit).is_err());
        admission.admit(&create(P)).unwrap();
    }

    #[test]
    fn batches_stay_inside_their_coverage() {
        let committed = Partitions::default();
        let mut admission = Admission::new(&committed);
        admission.admit(&create(P)).unwrap();
        let two = [batch(0, 5, 0, 80), batch(4, 5, 0, 80)].concat();
        for bad in [
            append(0, 0, None),
            append(0, 4, Some(batch(0, 5, 0, 80))),
            append(0, 9, Some(two)),
            append(0, 9, Some(vec![])),
            append(0, 9, Some(batch(0, 5, 0, 80)[..70].to_vec())),
        ] {
            assert!(matches!(admission.admit(&bad), Err(CommitError::Malformed { .. })));
        }
    }
}
