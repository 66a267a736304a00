//! What of a run is counted: for each of the tally's words, how it is known to have happened.
//!
//! Start at [`note_cut`].

use std::path::Path;

use super::{DIR, lives::Lives};
use crate::{
    disk::{Damage, Durable, FaultKind, Op, SimDisk, Tree},
    history::{Answer, Era, Expected, Fate},
    model::Model,
    tally::Tally,
};

/// Of a workload.
pub(super) fn note_run(disk: &SimDisk, eras: &[Era], tally: &mut Tally) {
    let commits = eras.iter().flat_map(|era| &era.commits);
    let answers: Vec<&Answer> = commits.filter_map(|commit| commit.answer.as_ref()).map(|(_, answer)| answer).collect();
    tally.note_if("a commit failed", answers.contains(&&Answer::Failed));
    tally.note_if("a commit was refused", answers.iter().any(|answer| matches!(answer, Answer::Refused(_))));
    let sequences = answers.iter().filter_map(|answer| match answer {
        Answer::Acked { sequence } => Some(*sequence),
        _ => None,
    });
    let sequences: Vec<u64> = sequences.collect();
    tally.note_if("commits shared a transaction", sequences.windows(2).any(|pair| pair[0] == pair[1]));
    let (_, journal) = disk.history();
    note_journal(&journal, tally);
    for (kind, what) in [(FaultKind::Io, "an i/o error"), (FaultKind::Full, "a full disk")] {
        tally.note_if(what, disk.faults_of(kind) > 0);
    }
}

fn note_journal(journal: &[Op], tally: &mut Tally) {
    let is_segment = |name: &str| name.ends_with(".redb") && name != "state.redb";
    let left = |op: &&Op| matches!(op, Op::Rename { to, .. } if is_segment(to));
    tally.note_if("a segment was left for another", journal.iter().filter(left).count() > 1);
    let removed = |op: &Op| matches!(op, Op::Remove { name, .. } if is_segment(name));
    tally.note_if("a segment was unlinked", journal.iter().any(removed));
    tally.note_if("a failed sync", journal.iter().any(|op| matches!(op, Op::SyncFailed { .. })));
    tally.note_if("a file grew", journal.iter().any(|op| matches!(op, Op::SetLen { .. })));
}

/// Of a cut.
pub(super) fn note_cut(
    lives: &Lives,
    position: usize,
    durable: &Durable,
    damage: Damage,
    depth: usize,
    tally: &mut Tally,
) {
    tally.note_if("cut with nothing at stake", durable.at_stake() == 0);
    tally.note_if("writes were lost", damage.writes_lost > 0);
    tally.note_if("names were lost", damage.names_lost > 0);
    tally.note_if("cut while cleaning", lives.is_during("cleaning", position));
    tally.note_if("cut while retaining", lives.is_during("retention", position));
    tally.note_if("cut while making a backup", lives.is_during("backup", position));
    tally.note_if("cut while rolling", lives.is_during("rolling", position));
    let moves = lives.is_during("reopening", position) || lives.is_during("closing", position);
    tally.note_if("cut while closing or opening", moves);
    tally.note_if("a second cut while opening", depth == 2 && !lives.is_open_at(position));
    tally.note_if("a second cut after opening", depth == 2 && lives.is_open_at(position));
    tally.note_if("a third cut", depth == 3);
}

/// Of what a cut left.
pub(super) fn note_files(tree: &Tree, tally: &mut Tally) {
    let Some(segments) = tree.dirs.get(&Path::new(DIR).join("segments")) else { return };
    let mut left: Vec<&str> = segments.keys().filter_map(|name| name.strip_suffix(".redb")).collect();
    left.pop();
    let lacks_index = |stem: &&str| !segments.contains_key(&format!("{stem}.index"));
    tally.note_if("an index file was missing", left.iter().any(lacks_index));
}

/// Of what was there after it.
pub(super) fn note_found(expected: &Expected, model: &Model, tally: &mut Tally) {
    let last = model.marker();
    let of = |fate| {
        let commits = expected.commits.iter().filter(move |(_, is)| *is == fate);
        commits.map(|(submitted, _)| Some(submitted.number))
    };
    tally.note_if("a commit in flight survived", of(Fate::OnItsWay).any(|number| number <= last));
    tally.note_if("a commit in flight was lost", of(Fate::OnItsWay).any(|number| number > last));
    tally.note_if("a failed commit survived", of(Fate::Failed).any(|number| number == last));
    tally.note_if("a failed commit was dropped", of(Fate::Failed).any(|number| number != last));
    tally.note_if("a reader had been given batches", !expected.read.is_empty());
    tally.note_if("a partition had been deleted", model.next_id as usize > model.partitions.len());
    tally.note_if("a log start had moved", model.partitions.values().any(|log| log.log_start > 0));
}
