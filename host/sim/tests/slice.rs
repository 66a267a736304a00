//! A few seeds, and the disks that lie: the promises can be broken, and it is noticed.

use sim::{
    disk::{CutModel, Lie},
    run::{RunOptions, run_seed},
    shrink::shrink,
    tally::Tally,
};

fn cuts() -> Vec<CutModel> {
    CutModel::EVERY.into_iter().filter(|model| *model != CutModel::Kill).collect()
}

/// Within a few seeds some promise is seen broken on a disk that lies.
fn is_found_out(lie: Lie) {
    let run = RunOptions { cuts: 20, lie, models: cuts(), faults: false, ..RunOptions::default() };
    let found_out = (1..=5).any(|seed| run_seed(seed, &run, &mut Tally::default()).is_err());
    assert!(found_out, "{lie:?} was not found out");
}

#[test]
fn promises_are_kept_on_a_few_seeds() {
    let mut tally = Tally::default();
    for seed in 1..=4 {
        let result = run_seed(seed, &RunOptions { cuts: 10, ..RunOptions::default() }, &mut tally);
        result.unwrap_or_else(|failure| panic!("seed {seed}: {} ({:?})", failure.violation, failure.cuts));
    }
    assert!(tally.cuts() > 40, "{} cuts", tally.cuts());
}

#[test]
fn a_disk_that_syncs_nothing_is_found_out() {
    is_found_out(Lie::Syncs);
}

#[test]
fn a_disk_that_forgets_names_is_found_out() {
    is_found_out(Lie::DirSyncs);
}

#[test]
fn a_failure_is_shrunk_to_one_cut_that_fails_again() {
    let run = RunOptions { cuts: 10, lie: Lie::Syncs, models: cuts(), steps_max: Some(8), ..RunOptions::default() };
    let failure = |seed, run: &RunOptions| run_seed(seed, run, &mut Tally::default()).err();
    let (seed, found) = (1..=10).find_map(|seed| Some((seed, failure(seed, &run)?))).unwrap();
    let (smaller, shrunk) = shrink(seed, &run, found);
    assert!(smaller.cut.is_some() && smaller.steps_max < Some(8), "{smaller:?}");
    assert_eq!(failure(seed, &smaller).unwrap().violation, shrunk.violation);
}
