//! A few seeds, and the disks that lie: the promises can be broken, and it is noticed.

use sim::{
    disk::Lie,
    run::{RunOptions, run_seed},
    tally::Tally,
};

/// How many seeds it takes until a lie is found out.
fn seeds_until_found_out(lie: Lie) -> (u64, &'static str) {
    for seed in 1..=5 {
        let run = RunOptions { lie, kills: false, faults: false, ..RunOptions::default() };
        if let Err(failure) = run_seed(seed, run, &mut Tally::default()) {
            return (seed, failure.violation.promise);
        }
    }
    panic!("{lie:?} was not found out");
}

/// One test, because panics of the store's threads are told to whoever asks next.
#[test]
#[ignore = "twenty seconds; `cargo test -p weir-sim -- --ignored`"]
fn promises_are_kept_on_a_few_seeds_and_a_disk_that_lies_is_found_out() {
    let mut tally = Tally::default();
    for seed in 1..=4 {
        let result = run_seed(seed, RunOptions { cuts: 5, ..RunOptions::default() }, &mut tally);
        result.unwrap_or_else(|failure| panic!("seed {seed}: {} ({:?})", failure.violation, failure.cuts));
    }
    assert!(tally.cuts > 20, "{} cuts", tally.cuts);
    for lie in [Lie::Syncs, Lie::DirSyncs] {
        let (seeds, promise) = seeds_until_found_out(lie);
        assert!(seeds <= 2 && ["acked", "serves"].contains(&promise), "{lie:?}: {promise} after {seeds} seeds");
    }
}
