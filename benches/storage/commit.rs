//! `commit`: durable commits against a plain file, appended to and synced after the same groups.

use std::{
    sync::{Barrier, mpsc},
    thread,
};

use anyhow::Result;
use protocol::{PartitionId, Retention};
use storage::{Commit, Store};

use crate::{
    Bench,
    figure::{
        Target::{self, AtLeast},
        median,
    },
    load::{Load, RawFile, Shape, commit_all, joined, pair},
};

/// What one turn of a pair writes.
const TURN_BYTES: u64 = 64 << 20;

/// Programs that produce one record at a time, and rounds of theirs in one turn.
const PRODUCERS: u32 = 64;
const ROUNDS: usize = 50;

/// What many pairs took: seconds of the plain file, seconds of the store.
struct Pairs {
    taken: Vec<(f64, f64)>,
    /// What was done in one turn of either: bytes, records.
    amount: f64,
}

impl Pairs {
    fn ratio(&self) -> f64 {
        median(self.taken.iter().map(|(raw, store)| raw / store))
    }

    fn rates(&self) -> (f64, f64) {
        let rate = |seconds: f64| self.amount / seconds;
        let raw = rate(median(self.taken.iter().map(|(raw, _)| *raw)));
        (raw, rate(median(self.taken.iter().map(|(_, store)| *store))))
    }
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    groups(bench, "1 MiB groups, 1 partition", Shape::split(1 << 20, 1), AtLeast(0.55))?;
    groups(bench, "1 MiB groups, 64 partitions", Shape::split(1 << 20, 64), AtLeast(0.55))?;
    groups(bench, "4 MiB groups, 1 partition", Shape::split(4 << 20, 1), AtLeast(0.7))?;
    groups(bench, "256 KiB groups, 1 partition", Shape::split(256 << 10, 1), Target::None)?;
    groups(bench, "64 KiB groups, 1 partition", Shape::split(64 << 10, 1), AtLeast(0.45))?;
    producers(bench)
}

fn groups(bench: &mut Bench, name: &str, shape: Shape, target: Target) -> Result<()> {
    bench.in_new_dir(|bench, dir| {
        let mut load = Load::new(shape);
        let mut raw = RawFile::create(&dir.join("raw"))?;
        let store = load.open(&dir.join("store"), Retention::FOREVER)?;
        // Many small groups take longer than few large ones.
        let bytes = if load.commit_bytes() < 1 << 20 { TURN_BYTES / 4 } else { TURN_BYTES };
        let count = load.commits_in(bytes);
        let mut taken = Vec::new();
        // One pair to warm up: first growth of the files, first touch of the memory.
        for turn in 0..=bench.full_or_quick(15, 3) {
            let commits = load.commits(count);
            let groups: Vec<Vec<u8>> = commits.chunks(1).map(joined).collect();
            taken.push(pair(turn, || raw.append_all(&groups), || commit_all(&store, commits))?);
        }
        taken.remove(0);
        let pairs = Pairs { taken, amount: count as f64 * load.commit_bytes() as f64 / 1e6 };
        let (raw, store) = pairs.rates();
        // A disk that is slow just now hides what the store costs: a ratio near 1 then says little.
        let raw_sync = load.commit_bytes() as f64 / raw;
        let detail = format!("{store:.0} MB/s of {raw:.0}; raw takes {raw_sync:.0} us a group");
        bench.report.figure(name, pairs.ratio(), "of raw", target, &detail);
        Ok(())
    })
}

/// Producers that send a record of 100 bytes each and wait for its acknowledgement; raw writes one round of them in one
/// call, and syncs.
fn producers(bench: &mut Bench) -> Result<()> {
    bench.in_new_dir(|bench, dir| {
        let mut load = Load::new(Shape::trickle(PRODUCERS));
        let mut raw = RawFile::create(&dir.join("raw"))?;
        let store = load.open(&dir.join("store"), Retention::FOREVER)?;
        let transactions = || store.stats().commits;
        let (mut at_once, mut on_threads) = (Vec::new(), Vec::new());
        let (mut transactions_at_once, mut transactions_on_threads) = (0, 0);
        for turn in 0..=bench.full_or_quick(15, 3) {
            let rounds = producer_rounds(&mut load);
            let groups: Vec<Vec<u8>> = rounds.iter().map(|round| joined(round)).collect();
            let before = transactions();
            at_once.push(pair(turn, || raw.append_all(&groups), || submit_at_once(&store, rounds))?);
            transactions_at_once += transactions() - before;

            let rounds = producer_rounds(&mut load);
            let before = transactions();
            let lanes = lanes(rounds);
            on_threads.push(pair(turn, || raw.append_all(&groups), || commit_on_threads(&store, lanes))?);
            transactions_on_threads += transactions() - before;
        }
        let rounds = (at_once.len() * ROUNDS) as f64;
        at_once.remove(0);
        on_threads.remove(0);
        let names = ["64 producers x 100 B, submitted at once", "64 producers x 100 B, a thread each"];
        let targets = [AtLeast(0.6), Target::None];
        let transactions = [transactions_at_once, transactions_on_threads];
        for (at, taken) in [at_once, on_threads].into_iter().enumerate() {
            let pairs = Pairs { taken, amount: f64::from(PRODUCERS) * ROUNDS as f64 };
            let (raw, store) = pairs.rates();
            let per_round = transactions[at] as f64 / rounds;
            let raw_sync = f64::from(PRODUCERS) / raw * 1e6;
            let detail = format!(
                "{store:.0} records/s of {raw:.0}; raw takes {raw_sync:.0} us a round, the store {per_round:.2} transactions"
            );
            bench.report.figure(names[at], pairs.ratio(), "of raw", targets[at], &detail);
        }
        Ok(())
    })
}

/// Rounds of one commit from each producer, each to its own partition.
fn producer_rounds(load: &mut Load) -> Vec<Vec<Commit>> {
    let commit = |append| Commit { appends: vec![append], ..Commit::default() };
    (0..ROUNDS).map(|_| (0..PRODUCERS).map(|id| commit(load.append(id))).collect()).collect()
}

/// The same commits, by producer.
fn lanes(rounds: Vec<Vec<Commit>>) -> Vec<Vec<Commit>> {
    let mut lanes: Vec<Vec<Commit>> = (0..PRODUCERS).map(|_| Vec::new()).collect();
    for commit in rounds.into_iter().flatten() {
        let PartitionId(id) = commit.appends[0].partition;
        lanes[id as usize].push(commit);
    }
    lanes
}

/// All producers of a round submit, and all are answered, before the next.
fn submit_at_once(store: &Store, rounds: Vec<Vec<Commit>>) -> Result<()> {
    let (sender, answers) = mpsc::channel();
    for round in rounds {
        for commit in round {
            let sender = sender.clone();
            store.submit(commit, Box::new(move |result| drop(sender.send(result))));
        }
        for _ in 0..PRODUCERS {
            answers.recv()??;
        }
    }
    Ok(())
}

/// A thread for each producer, which commits again as soon as it is answered. Waking 64 threads is part of the time.
fn commit_on_threads(store: &Store, lanes: Vec<Vec<Commit>>) -> Result<()> {
    let start = Barrier::new(lanes.len());
    let produce = |lane: Vec<Commit>| -> Result<()> {
        start.wait();
        for commit in lane {
            store.commit(commit)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(|| produce(lane))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a producer does not panic"))
    })
}
