//! A short slice of the broker's simulation: promises are kept, a seed's runs are the same, and a disk that lies is found
//! out.

#![cfg(feature = "broker")]

use sim::{
    broker::{Report, RunOptions, run_seed},
    disk::Lie,
};

#[track_caller]
fn keeps_its_promises(report: &Report) {
    let Report { seed, violation, .. } = report;
    assert!(violation.is_none(), "seed {seed}: {}", violation.as_ref().unwrap());
}

#[test]
fn promises_are_kept_and_the_same_seed_gives_the_same_trace() {
    for seed in 1..=8 {
        let run = || run_seed(seed, RunOptions { keeps_trace: true, ..RunOptions::default() });
        let (first, second) = (run(), run());
        keeps_its_promises(&first);
        let differs = first.trace.iter().zip(&second.trace).position(|(first, second)| first != second);
        if let Some(at) = differs {
            panic!("seed {seed} differs from line {at} on:\n{}\n{}", first.trace[at], second.trace[at]);
        }
        assert_eq!((first.hash, first.trace.len()), (second.hash, second.trace.len()), "seed {seed}");
        assert!(first.trace.len() > 100, "seed {seed} has {} lines", first.trace.len());
    }
}

/// Within a few seeds some promise is seen broken on a disk that lies.
#[test]
fn a_disk_that_lies_is_found_out() {
    let options = RunOptions { lie: Lie::Syncs, ..RunOptions::default() };
    let found_out = (1..=6).any(|seed| run_seed(seed, options).violation.is_some());
    assert!(found_out, "syncs that do nothing were not found out");
}
