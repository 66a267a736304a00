//! A few seeds, and the disks that lie: the promises can be broken, and it is noticed.

use sim::{
    disk::Lie,
    run::{RunOptions, run_seed},
    tally::Tally,
};

/// Within a few seeds some promise is seen broken on a disk that lies.
fn is_found_out(lie: Lie) {
    let run = RunOptions { lie, kills: false, faults: false, ..RunOptions::default() };
    let found_out = (1..=5).any(|seed| run_seed(seed, run, &mut Tally::default()).is_err());
    assert!(found_out, "{lie:?} was not found out");
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
        is_found_out(lie);
    }
}
