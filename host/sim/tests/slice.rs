//! A few seeds, and the disks that lie: the promises can be broken, and it is noticed.

use sim::{
    disk::Lie,
    run::{RunOptions, run_seed},
    tally::Tally,
};

#[test]
fn every_promise_is_kept_on_a_few_seeds() {
    let mut tally = Tally::default();
    for seed in 1..=8 {
        let result = run_seed(seed, RunOptions { cuts: 6, ..RunOptions::default() }, &mut tally);
        result.unwrap_or_else(|failure| panic!("seed {seed}: {} ({:?})", failure.violation, failure.cuts));
    }
    assert!(tally.cuts > 40, "{} cuts", tally.cuts);
}

/// How many seeds it takes until a lie is found out.
fn seeds_until_found_out(lie: Lie) -> (u64, &'static str) {
    for seed in 1..=5 {
        if let Err(failure) = run_seed(seed, RunOptions { lie, ..RunOptions::default() }, &mut Tally::default()) {
            return (seed, failure.violation.promise);
        }
    }
    panic!("{lie:?} was not found out");
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let (seeds, promise) = seeds_until_found_out(Lie::Syncs);
    assert!(seeds <= 2 && ["acked", "serves"].contains(&promise), "{promise} after {seeds}");
}

#[test]
fn a_disk_that_forgets_names_is_found_out() {
    let (seeds, promise) = seeds_until_found_out(Lie::DirSyncs);
    assert!(seeds <= 2 && ["acked", "serves"].contains(&promise), "{promise} after {seeds}");
}
