//! `scale`: whether much data, or many partitions, make a commit slower.

use std::path::Path;

use anyhow::Result;
use protocol::Retention;
use storage::Store;

use crate::{
    Bench,
    figure::{
        Target::{self, AtLeast},
        median,
    },
    load::{Load, Shape, commit_all, pair},
};

/// What one turn of a pair writes.
const TURN_BYTES: u64 = 32 << 20;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    bench.in_new_dir(much_data)?;
    let many = Shape::split(1 << 20, 1_000);
    bench.in_new_dir(|bench, dir| {
        let name = "1,000 partitions over 1, 1 MiB groups";
        many_partitions(bench, dir, name, many, Shape::split(1 << 20, 1), AtLeast(0.7))
    })?;
    bench.in_new_dir(|bench, dir| {
        let name = "1,000 partitions over 1, the same batches";
        let few = Shape { partitions: 1, batches: 1_000, ..many };
        many_partitions(bench, dir, name, many, few, Target::None)
    })
}

fn much_data(bench: &mut Bench, dir: &Path) -> Result<()> {
    let bytes: u64 = bench.full_or_quick(8 << 30, 1 << 30);
    let mut small = Side::open(&dir.join("small"), Shape::split(1 << 20, 1))?;
    let mut large = Side::open(&dir.join("large"), Shape::split(1 << 20, 1))?;
    small.load.fill(&small.store, 64 << 20)?;
    large.load.fill(&large.store, bytes)?;
    let name = format!("{} MiB stored over 64 MiB", bytes >> 20);
    compare(bench, &name, &mut large, &mut small, AtLeast(0.9))
}

fn many_partitions(bench: &mut Bench, dir: &Path, name: &str, many: Shape, one: Shape, target: Target) -> Result<()> {
    let mut many = Side::open(&dir.join("many"), many)?;
    let mut one = Side::open(&dir.join("one"), one)?;
    compare(bench, name, &mut many, &mut one, target)
}

/// A store, and what is written to it.
struct Side {
    load: Load,
    store: Store,
}

impl Side {
    fn open(dir: &Path, shape: Shape) -> Result<Side> {
        let mut load = Load::new(shape);
        let store = load.open(dir, Retention::FOREVER)?;
        Ok(Side { load, store })
    }
}

/// The throughput of `subject` over that of `baseline`, turn by turn.
fn compare(bench: &mut Bench, name: &str, subject: &mut Side, baseline: &mut Side, target: Target) -> Result<()> {
    let mut rates = Vec::new();
    for turn in 0..=bench.full_or_quick(15, 3) {
        let of_subject = subject.load.commits(subject.load.commits_in(TURN_BYTES));
        let of_baseline = baseline.load.commits(baseline.load.commits_in(TURN_BYTES));
        let bytes = |side: &Side, commits: usize| (commits as u64 * side.load.commit_bytes()) as f64 / 1e6;
        let amounts = (bytes(subject, of_subject.len()), bytes(baseline, of_baseline.len()));
        let taken = pair(turn, || commit_all(&subject.store, of_subject), || commit_all(&baseline.store, of_baseline))?;
        rates.push((amounts.0 / taken.0, amounts.1 / taken.1));
    }
    rates.remove(0);
    let ratio = median(rates.iter().map(|(subject, baseline)| subject / baseline));
    let (subject, baseline) = (median(rates.iter().map(|rate| rate.0)), median(rates.iter().map(|rate| rate.1)));
    let detail = format!("{subject:.0} MB/s over {baseline:.0}");
    bench.report.figure(name, ratio, "times", target, &detail);
    Ok(())
}
