//! One seed: a workload, then power cuts all over its journal, and in the journals of the reopenings.
//!
//! Start at [`run_seed`].

use std::path::Path;

use storage::{Store, StoreOptions};

use crate::{
    disk::{Cut, Damage, Durable, FaultKind, Lie, Loss, Op, SimDisk, Tree},
    history::{Answer, Era, Expected, Fate, Submitted},
    invariants::{self, Violation},
    model::Model,
    observed::Observed,
    rng::Rng,
    schedule::Stuck,
    session::{Session, Span, on_disk},
    tally::Tally,
    threads,
    workload::Workload,
};

/// Where the store lies. Neither directory is there before.
const DIR: &str = "/disk/data";

impl From<Stuck> for Failure {
    fn from(stuck: Stuck) -> Self {
        Violation::new("serves", stuck.to_string()).into()
    }
}

/// How a run is done.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Power cuts of the first journal.
    pub cuts: usize,
    /// What the disk lies about.
    pub lie: Lie,
    /// Whether programs are killed, besides the cuts.
    pub kills: bool,
    /// Whether calls to the disk fail.
    pub faults: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { cuts: 12, lie: Lie::None, kills: true, faults: true }
    }
}

/// A promise that was not kept, and how it came to that.
#[derive(Debug)]
pub struct Failure {
    /// Which, and how.
    pub violation: Violation,
    /// Where it was cut, and how, the last cut at the end.
    pub cuts: Vec<String>,
    /// The last disk that the store was opened on, if it was cut.
    pub disk: Option<Tree>,
    /// What was done before each cut, a line each.
    pub journals: Vec<Vec<String>>,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Failure { violation, cuts: Vec::new(), disk: None, journals: Vec::new() }
    }
}

/// Runs a seed; what happened in it.
///
/// # Errors
/// The first promise that was not kept.
pub fn run_seed(seed: u64, run: RunOptions, tally: &mut Tally) -> Result<(), Box<Failure>> {
    threads::listen();
    threads::take_panic();
    let mut rng = Rng::new(seed);
    let workload = Workload::long(&mut rng, run);
    let disk = SimDisk::new(Tree::empty(), rng.number()).lying(run.lie);
    let mut session = Session::begin(disk.clone(), Path::new(DIR), &workload.options).map_err(Failure::from)?;
    let mut work_rng = rng.fork();
    workload.clone().run(&mut session, &mut work_rng, tally).map_err(Failure::from)?;
    let next_number = session.next_number;
    let (eras, spans) = session.end().map_err(Failure::from)?;
    note_run(&disk, &eras, tally);
    let lives = Lives { before: None, eras, spans, next_number };
    let (begun_with, journal) = disk.history();
    cut_all(&lives, &begun_with, &journal, &workload, run.cuts, 1, &mut rng, tally)
}

/// What is known of a journal.
struct Lives<'a> {
    /// What may be there before the first of the lives began; nothing at all if there was nothing.
    before: Option<&'a Expected>,
    eras: Vec<Era>,
    spans: Vec<Span>,
    next_number: u64,
}

impl Lives<'_> {
    fn expected_at(&self, position: usize) -> Expected {
        match self.eras.iter().rev().find(|era| era.opened_at <= position) {
            Some(era) => era.expected_at(position),
            None => match self.before {
                Some(before) => before.clone(),
                None => Era::new(0, Model::default()).expected_at(position),
            },
        }
    }

    /// A journal with what was asked and answered, for people.
    fn told(&self, journal: &[Op]) -> Vec<String> {
        let mut lines: Vec<(usize, String)> = journal.iter().map(Op::text).enumerate().collect();
        for span in &self.spans {
            lines.push((span.begun_at, format!("-- begin {}", span.what)));
            lines.push((span.ended_at, format!("-- end {}", span.what)));
        }
        for era in &self.eras {
            lines.push((era.opened_at, format!("-- open, at commit {:?}", era.base.marker())));
            for Submitted { number, at, answer, .. } in &era.commits {
                lines.push((*at, format!("-- submit {number}")));
                lines.extend(answer.iter().map(|(at, answer)| (*at, format!("-- answer {number}: {answer:?}"))));
            }
        }
        // What is noted at a position happened before the call at that position.
        lines.sort_by_key(|(at, line)| (*at, !line.starts_with("--")));
        lines.retain(|(at, _)| *at <= journal.len());
        lines.into_iter().map(|(at, line)| format!("{at:>6} {line}")).collect()
    }

    fn is_open_at(&self, position: usize) -> bool {
        self.eras.first().is_some_and(|era| era.opened_at <= position)
    }
}

fn note_run(disk: &SimDisk, eras: &[Era], tally: &mut Tally) {
    let answers: Vec<_> = eras.iter().flat_map(|era| &era.commits).filter_map(|commit| commit.answer.clone()).collect();
    tally.note_if("a commit failed", answers.iter().any(|(_, answer)| *answer == Answer::Failed));
    tally.note_if("a commit was refused", answers.iter().any(|(_, answer)| matches!(answer, Answer::Refused(_))));
    let sequences: Vec<_> = answers
        .iter()
        .filter_map(|(_, answer)| match answer {
            Answer::Acked { sequence } => Some(*sequence),
            _ => None,
        })
        .collect();
    tally.note_if("commits shared a transaction", sequences.windows(2).any(|pair| pair[0] == pair[1]));
    let (_, journal) = disk.history();
    let is_segment = |name: &str| name.ends_with(".redb") && name != "state.redb";
    let left = |op: &&Op| matches!(op, Op::Rename { to, .. } if is_segment(to));
    tally.note_if("a segment was left for another", journal.iter().filter(left).count() > 1);
    let removed = |op: &Op| matches!(op, Op::Remove { name, .. } if is_segment(name));
    tally.note_if("a segment was unlinked", journal.iter().any(removed));
    tally.note_if("a failed sync", journal.iter().any(|op| matches!(op, Op::SyncFailed { .. })));
    for (kind, what) in [(FaultKind::Io, "an i/o error"), (FaultKind::Full, "a full disk")] {
        tally.note_if(what, disk.faults_of(kind) > 0);
    }
}

/// Cuts a journal at many places.
#[expect(clippy::too_many_arguments, reason = "each is one thing")]
fn cut_all(
    lives: &Lives<'_>,
    begun_with: &Durable,
    journal: &[Op],
    workload: &Workload,
    cuts: usize,
    depth: usize,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Box<Failure>> {
    let mut positions: Vec<usize> = (0..cuts).map(|_| position(journal, &lives.spans, rng)).collect();
    positions.sort_unstable();
    let mut durable = begun_with.clone();
    let mut at = 0;
    tally.digest(journal.len());
    for position in positions {
        journal[at..position].iter().for_each(|op| durable.step(op));
        at = position;
        // A program that is killed loses nothing, but what it left is not durable either.
        let (disk, tree, text) = if rng.percent(20) && workload.run.kills {
            let tree = durable.seen();
            note_cut(lives, position, &durable, Damage::default(), depth, tally);
            tally.note("killed");
            let disk = SimDisk::after_kill(tree.clone(), durable.clone(), rng.number());
            (disk, tree, format!("kill {depth} at {position} of {}", journal.len()))
        } else {
            let cut = cut(rng);
            let (tree, damage) = durable.crash(cut, rng);
            note_cut(lives, position, &durable, damage, depth, tally);
            let disk = SimDisk::new(tree.clone(), rng.number());
            (disk, tree, format!("cut {depth} at {position} of {}, {cut:?}", journal.len()))
        };
        note_files(&tree, tally);
        let result = check_cut(lives, position, disk, workload, depth, rng, tally);
        result.map_err(|mut failure| {
            failure.cuts.insert(0, text);
            failure.journals.insert(0, lives.told(&journal[..position]));
            if failure.disk.is_none() {
                failure.disk = Some(tree);
            }
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

fn cut(rng: &mut Rng) -> Cut {
    let bytes = if rng.percent(30) { None } else { Some(rng.pick(&Loss::EVERY)) };
    Cut { bytes, names: rng.pick(&[Loss::All, Loss::None, Loss::Suffix, Loss::Writes]) }
}

fn note_cut(lives: &Lives<'_>, position: usize, durable: &Durable, damage: Damage, depth: usize, tally: &mut Tally) {
    tally.cuts += 1;
    tally.note_if("cut with nothing at stake", durable.at_stake() == 0);
    tally.note_if("writes were lost", damage.writes_lost > 0);
    tally.note_if("names were lost", damage.names_lost > 0);
    let inside = |what| {
        let mut spans = lives.spans.iter();
        spans.any(|span| span.what == what && span.begun_at < position && position < span.ended_at)
    };
    tally.note_if("cut while cleaning", inside("cleaning"));
    tally.note_if("cut while retaining", inside("retention"));
    tally.note_if("cut while closing or opening", inside("reopening") || inside("closing"));
    tally.note_if("a second cut while opening", depth == 2 && !lives.is_open_at(position));
    tally.note_if("a second cut after opening", depth == 2 && lives.is_open_at(position));
    tally.note_if("a third cut", depth == 3);
}

/// Opens what is left, compares it, goes on with it, and cuts that.
fn check_cut(
    lives: &Lives<'_>,
    position: usize,
    disk: SimDisk,
    workload: &Workload,
    depth: usize,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Box<Failure>> {
    let expected = lives.expected_at(position);
    let dir = Path::new(DIR);
    let options = &workload.options;
    let (store, opened_at) = open(&disk, dir, options).map_err(Failure::from)?;
    let stats = store.stats();
    tally.note_if("the state was behind", stats.applied_sequence < stats.commit_sequence);
    let observed = Observed::of(&store, rng).map_err(Failure::from)?;
    let model = invariants::check(&expected, &observed).map_err(Failure::from)?;
    note_found(&expected, &model, tally);
    let mut session = Session::resume(disk.clone(), dir, options, store, model, lives.next_number);
    session.era.opened_at = opened_at;
    workload.short(rng).run(&mut session, rng, tally).map_err(Failure::from)?;
    session.reopen(rng, tally).map_err(Failure::from)?;
    let next_number = session.next_number;
    let (eras, spans) = session.end().map_err(Failure::from)?;
    if depth == 3 || !rng.percent(50) {
        return Ok(());
    }
    let (begun_with, journal) = disk.history();
    let mut again = Lives { before: Some(&expected), eras, spans, next_number };
    again.spans.push(Span { what: "opening", begun_at: 0, ended_at: opened_at });
    cut_all(&again, &begun_with, &journal, workload, 3, depth + 1, rng, tally)
}

fn open(disk: &SimDisk, dir: &Path, options: &StoreOptions) -> Result<(Store, usize), Violation> {
    let store = invariants::opens(dir, on_disk(disk, options))?;
    Ok((store, disk.position()))
}

fn note_files(tree: &Tree, tally: &mut Tally) {
    let Some(segments) = tree.dirs.get(&Path::new(DIR).join("segments")) else { return };
    let mut left: Vec<&str> = segments.keys().filter_map(|name| name.strip_suffix(".redb")).collect();
    left.pop();
    tally
        .note_if("an index file was missing", left.iter().any(|stem| !segments.contains_key(&format!("{stem}.index"))));
}

fn note_found(expected: &Expected, model: &Model, tally: &mut Tally) {
    let last = model.marker();
    let of =
        |fate| expected.commits.iter().filter(move |(_, is)| *is == fate).map(|(submitted, _)| Some(submitted.number));
    tally.note_if("a commit in flight survived", of(Fate::OnItsWay).any(|number| number <= last));
    tally.note_if("a commit in flight was lost", of(Fate::OnItsWay).any(|number| number > last));
    tally.note_if("a failed commit survived", of(Fate::Failed).any(|number| number == last));
    tally.note_if("a failed commit was dropped", of(Fate::Failed).any(|number| number != last));
    tally.note_if("a partition had been deleted", model.next_id as usize > model.partitions.len());
    tally.note_if("a log start had moved", model.partitions.values().any(|log| log.log_start > 0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule;

    fn digest(seed: u64) -> Tally {
        let options = RunOptions { cuts: 3, ..RunOptions::default() };
        schedule::run(seed, move || {
            let mut tally = Tally::default();
            run_seed(seed, options, &mut tally).map_err(|failure| failure.violation).unwrap();
            tally
        })
        .unwrap()
    }

    #[test]
    fn a_seed_is_the_same_whenever_it_runs() {
        for seed in 1..=4 {
            assert_eq!(digest(seed), digest(seed), "seed {seed}");
        }
    }
}
