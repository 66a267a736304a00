//! Cuts of a journal: what is left is opened and compared, and some of it goes on and is cut again.
//!
//! Start at [`cut_all`].

use std::{path::Path, sync::Arc};

use storage::{RestorePoint, restore};

use super::{
    BACKUP_DIR, DIR, Failure, RESTORED_DIR, RunOptions,
    lives::{Lives, Recording},
    notes::{note_cut, note_files, note_found},
    simulate,
};
use crate::{
    disk::{CutModel, Damage, Durable, Node, Op, SimDisk, Tree},
    history::Expected,
    invariants::{self, Violation},
    model::Model,
    observed::Observed,
    rng::Rng,
    session::{Ended, Session, Span, on_disk},
    tally::Tally,
    workload::Workload,
};

/// A third cut is the last.
const DEPTH_MAX: usize = 3;

/// Of a hundred cuts, after how many the store goes on with work.
const GOES_ON_PERCENT: u64 = 10;

/// Of a hundred others, how often the opening is cut.
const OPENING_PERCENT: u64 = 20;

/// Of a hundred cuts, after how many the state's file is lost or damaged besides.
const STATE_LOST_PERCENT: u64 = 4;

/// Of a hundred cuts behind a backup, after how many it is restored.
const RESTORED_PERCENT: u64 = 15;

/// Which cuts of a journal.
pub(super) struct Cuts {
    /// What decides each, by its number.
    pub(super) seed: u64,
    pub(super) count: usize,
    /// The only one, if it is to be one.
    pub(super) only: Option<usize>,
    /// Cuts before, and this one.
    pub(super) depth: usize,
}

/// One of them.
struct Planned {
    position: usize,
    number: usize,
    rng: Rng,
}

impl Cuts {
    fn plan(&self, recording: &Recording) -> Vec<Planned> {
        let numbers = (0..self.count).filter(|number| self.only.is_none_or(|only| only == *number));
        let mut planned: Vec<Planned> = numbers
            .map(|number| {
                let mut rng = Rng::new(self.seed ^ (number as u64) << 32).fork();
                Planned { position: position(&recording.journal, &recording.lives.ended.spans, &mut rng), number, rng }
            })
            .collect();
        planned.sort_by_key(|planned| planned.position);
        planned
    }
}

/// Cuts a journal at many places.
pub(super) fn cut_all(
    recording: &Arc<Recording>,
    cuts: &Cuts,
    run: &RunOptions,
    tally: &mut Tally,
) -> Result<(), Box<Failure>> {
    let mut durable = recording.begun_with.clone();
    let mut at = 0;
    for Planned { position, number, rng } in cuts.plan(recording) {
        recording.journal[at..position].iter().for_each(|op| durable.step(op));
        at = position;
        cut_at(recording, position, &durable, cuts.depth, rng, run, tally).map_err(|mut failure| {
            failure.cut = Some(number);
            failure.journals.insert(0, recording.lives.told(&recording.journal[..position]));
            failure
        })?;
    }
    Ok(())
}

/// Somewhere, more often where something is going on.
fn position(journal: &[Op], spans: &[Span], rng: &mut Rng) -> usize {
    match rng.below(5) {
        0 if !spans.is_empty() => {
            let Span { begun_at, ended_at, .. } = spans[rng.below(spans.len())];
            rng.within(begun_at as u64..=ended_at as u64) as usize
        }
        1 => {
            // Around names: there are few of them among the writes.
            let from = rng.below(journal.len() + 1);
            let is_name = |op: &Op| !matches!(op, Op::Write { .. } | Op::SetLen { .. } | Op::Sync { .. });
            let found = journal[from..].iter().position(is_name);
            (from + found.unwrap_or(0) + rng.below(2)).min(journal.len())
        }
        2 => {
            // Where most names are at stake: just before they are made durable.
            let from = rng.below(journal.len() + 1);
            let found = journal[from..].iter().position(|op| matches!(op, Op::SyncDir { .. }));
            found.map_or(journal.len(), |found| from + found)
        }
        _ => rng.below(journal.len() + 1),
    }
}

/// What a cut left, and how it came about.
struct Left {
    disk: SimDisk,
    tree: Tree,
    damage: Damage,
    state_lost: bool,
    text: String,
}

fn leave(durable: &Durable, model: CutModel, rng: &mut Rng) -> Left {
    let Some(cut) = model.cut(rng) else {
        // A program that is killed loses nothing, but what it left is not durable either.
        let tree = durable.seen();
        let disk = SimDisk::after_kill(tree.clone(), durable.clone(), rng.number());
        return Left { disk, tree, damage: Damage::default(), state_lost: false, text: "killed".into() };
    };
    let (mut tree, damage) = durable.crash(cut, rng);
    let state_lost = rng.percent(STATE_LOST_PERCENT) && lose_state(&mut tree, rng);
    let text = format!("{cut:?}{}", if state_lost { ", and the state lost or damaged" } else { "" });
    Left { disk: SimDisk::new(tree.clone(), rng.number()), tree, damage, state_lost, text }
}

/// Takes the state's file away, or changes a byte of it; whether there was one.
fn lose_state(tree: &mut Tree, rng: &mut Rng) -> bool {
    let Some(entries) = tree.dirs.get_mut(Path::new(DIR)) else { return false };
    let Some(file) = entries.get("state.redb").copied().and_then(Node::file) else { return false };
    let blocks = tree.files.get_mut(&file).expect("a name is of a file that is there");
    if rng.percent(40) || blocks.is_empty() {
        entries.remove("state.redb");
        return true;
    }
    let at = rng.below(blocks.len().min(64 << 10) as usize) as u64;
    let mut byte = [0];
    blocks.read(at, &mut byte);
    blocks.write(at, &[byte[0] ^ 1 << rng.below(8)]);
    true
}

/// Cuts a journal once, and what comes of that again.
fn cut_at(
    recording: &Arc<Recording>,
    position: usize,
    durable: &Durable,
    depth: usize,
    mut rng: Rng,
    run: &RunOptions,
    tally: &mut Tally,
) -> Result<(), Box<Failure>> {
    let model = rng.pick(&run.models);
    let Left { disk, tree, damage, state_lost, text } = leave(durable, model, &mut rng);
    let text = format!("cut {depth}, {}, at {position} of {}: {text}", model.name(), recording.journal.len());
    tally.cut(model);
    note_cut(&recording.lives, position, durable, damage, depth, tally);
    tally.note_if("killed", model == CutModel::Kill);
    tally.note_if("the state's file was lost or damaged", state_lost);
    note_files(&tree, tally);
    let schedule = rng.number();
    let after = After { recording: recording.clone(), position, disk, state_lost, run: run.clone(), rng: rng.fork() };
    let result = simulate(schedule, move || after.check()).and_then(|(again, happened)| {
        tally.add(&happened);
        let Some((again, count)) = again.filter(|_| depth < DEPTH_MAX && run.again) else { return Ok(()) };
        let cuts = Cuts { seed: rng.number(), count, only: None, depth: depth + 1 };
        cut_all(&Arc::new(again), &cuts, run, tally)
    });
    result.map_err(|mut failure| {
        failure.cuts.insert(0, text);
        failure.disk.get_or_insert(tree);
        failure
    })
}

/// A store after a cut.
struct After {
    recording: Arc<Recording>,
    position: usize,
    disk: SimDisk,
    state_lost: bool,
    run: RunOptions,
    rng: Rng,
}

/// What is to be cut again, and how often.
type Again = Option<(Recording, usize)>;

impl After {
    /// Opens what is left, compares it, and goes on with some of it.
    fn check(mut self) -> Result<(Again, Tally), Box<Failure>> {
        let mut tally = Tally::default();
        let mut expected = self.recording.lives.expected_at(self.position);
        expected.state_lost |= self.state_lost;
        let workload = &self.recording.workload;
        let store = invariants::opens(Path::new(DIR), on_disk(&self.disk, &workload.sizes.options))?;
        let opened_at = self.disk.position();
        let stats = store.stats();
        tally.note_if("the state was behind", stats.applied_sequence < stats.commit_sequence);
        let observed = Observed::of(&store, &mut self.rng)?;
        let model = invariants::check(&expected, &observed)?;
        tally.digest(opened_at);
        note_found(&expected, &model, &mut tally);
        self.check_backup(&mut tally)?;
        if self.rng.percent(GOES_ON_PERCENT) {
            return self.go_on(store, opened_at, expected, model, tally);
        }
        if self.rng.percent(25) {
            invariants::closes(store)?;
        } else {
            // Nobody asks what it would do to the disk from here on, only that it ends.
            self.disk.unplug();
            drop(store);
            invariants::no_panics()?;
        }
        if !self.rng.percent(OPENING_PERCENT) {
            return Ok((None, tally));
        }
        let next_number = self.recording.lives.ended.next_number;
        let ended = Ended { eras: Vec::new(), spans: Vec::new(), backups: Vec::new(), next_number };
        Ok((Some((self.recorded(Lives { before: Some(expected), ended }, opened_at), 1)), tally))
    }

    /// Restores a backup that was whole before the cut, some of the time, and compares what comes of it.
    fn check_backup(&mut self, tally: &mut Tally) -> Result<(), Violation> {
        let candidates = self.recording.lives.backups_at(self.position);
        if candidates.is_empty() || !self.rng.percent(RESTORED_PERCENT) {
            return Ok(());
        }
        let restorable = |what: String| Violation::new("restorable", what);
        let options = on_disk(&self.disk, &self.recording.workload.sizes.options);
        // What was restored after a cut before this one is still there.
        let to = format!("{RESTORED_DIR}-{}", self.rng.number());
        let restored =
            restore(Path::new(BACKUP_DIR), Path::new(&to), RestorePoint::Latest, options.clone(), &mut |_| true)
                .map_err(|error| restorable(format!("a backup that was whole cannot be restored: {error}")))?;
        let store = invariants::opens(restored.dir(), options)?;
        let observed = Observed::of(&store, &mut self.rng)?;
        let checked = candidates.iter().map(|backup| invariants::check(&backup.expected, &observed));
        let mut broken: Vec<Violation> = Vec::new();
        for result in checked {
            match result {
                Ok(_) => {
                    tally.note("a backup was restored after a cut");
                    return invariants::closes(store);
                }
                Err(violation) => broken.push(violation),
            }
        }
        Err(restorable(format!("what was restored is not what the backup should have: {}", broken[0])))
    }

    fn go_on(
        mut self,
        store: storage::Store,
        opened_at: usize,
        expected: Expected,
        model: Model,
        mut tally: Tally,
    ) -> Result<(Again, Tally), Box<Failure>> {
        let Workload { sizes, .. } = &self.recording.workload;
        let next_number = self.recording.lives.ended.next_number;
        let mut session = Session::resume(self.disk.clone(), Path::new(DIR), &sizes.options, store, model, next_number);
        session.era.opened_at = opened_at;
        expected.commits.iter().for_each(|(submitted, _)| session.remember(&submitted.written));
        let short = self.recording.workload.short(&mut self.rng, &self.run);
        short.run(&mut session, &mut tally)?;
        session.reopen(&mut self.rng, &mut tally)?;
        let mut ended = session.end()?;
        ended.spans.push(Span { what: "opening", begun_at: 0, ended_at: opened_at });
        let until = self.disk.position();
        Ok((Some((self.recorded(Lives { before: Some(expected), ended }, until), 3)), tally))
    }

    fn recorded(&self, lives: Lives, until: usize) -> Recording {
        let (begun_with, journal) = self.disk.history_until(until);
        Recording { lives, begun_with, journal, workload: self.recording.workload.clone() }
    }
}
