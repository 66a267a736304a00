//! The checker says nothing of histories in which nothing is broken, and names what is broken in others, in time that
//! grows with their length.

mod edit;
mod model;
mod plantings;
mod spoil;

use std::collections::BTreeSet;

use sim::{
    checker::{self, Kind, history::History},
    rng::Rng,
};

use crate::{edit::Plant, plantings::ALL};

/// Histories into which each fault is planted.
const PLANTED_EACH: usize = 10;

/// Seeds that are tried for that.
const SEEDS_EACH: u64 = 2_000;

#[test]
fn nothing_is_said_of_histories_in_which_nothing_is_broken() {
    for seed in 0..3_000 {
        let run = model::run(seed, 20 + seed as usize % 200);
        let report = checker::check(&run.history);
        assert!(report.is_clean(), "seed {seed}: {}", report.violations[0]);
    }
}

#[test]
fn the_model_gets_into_every_corner() {
    let mut total = checker::Counts::default();
    for seed in 0..100 {
        let counts = checker::check(&model::run(seed, 200).history).counts;
        total.acked += counts.acked;
        total.refused += counts.refused;
        total.unknown += counts.unknown;
        total.unknown_stored += counts.unknown_stored;
        total.read += counts.read;
        total.asked += counts.asked;
    }
    let checker::Counts { acked, refused, unknown, unknown_stored, read, asked, .. } = total;
    for (what, count) in [
        ("acked", acked),
        ("refused", refused),
        ("unknown and stored", unknown_stored),
        ("unknown and not stored", unknown - unknown_stored),
        ("read", read),
        ("asked", asked),
    ] {
        assert!(count > 500, "{count} {what}");
    }
}

#[test]
fn every_planted_fault_is_found_and_nothing_else() {
    assert!(ALL.len() >= 50);
    for planting in ALL {
        let mut planted = 0;
        for seed in 0..SEEDS_EACH {
            let run = model::run(seed, 60 + seed as usize % 200);
            let mut plant = Plant { run, rng: Rng::new(seed) };
            if (planting.plant)(&mut plant).is_none() {
                continue;
            }
            let report = checker::check(&plant.run.history);
            let found: BTreeSet<Kind> = report.found.keys().copied().collect();
            let expected: BTreeSet<Kind> = planting.found.iter().copied().collect();
            let told: Vec<String> = report.violations.iter().take(5).map(ToString::to_string).collect();
            assert!(found == expected, "{} (seed {seed}): found {found:?}\n{}", planting.name, told.join("\n"));
            planted += 1;
            if planted == PLANTED_EACH {
                break;
            }
        }
        assert!(planted >= 3, "{}: {planted} histories have a place for it", planting.name);
    }
}

#[test]
fn every_kind_is_planted() {
    let planted: BTreeSet<Kind> = ALL.iter().flat_map(|planting| planting.found).copied().collect();
    let missing: Vec<&Kind> = Kind::ALL.iter().filter(|kind| !planted.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_violation_names_who_and_where() {
    let mut plant = Plant { run: model::run(3, 200), rng: Rng::new(3) };
    let lost = ALL.iter().find(|planting| planting.name == "an acked record is gone").unwrap();
    (lost.plant)(&mut plant).unwrap();
    let report = checker::check(&plant.run.history);
    let [violation] = &report.violations[..] else { panic!("{} violations", report.violations.len()) };
    assert!(violation.offset.is_some() && violation.record.is_some(), "{violation}");
    let text = violation.to_string();
    assert!(text.starts_with("lost: `") && text.contains("acknowledged"), "{text}");
}

/// How much a history holds: what any checker has to look at.
fn mentions(history: &History) -> u64 {
    let size = |line: &String| line.len() as u64;
    history.lines().map(|line| size(&line)).sum::<u64>() / 16
}

#[test]
fn the_work_grows_with_the_history() {
    let work = |steps| {
        let run = model::run(7, steps);
        (checker::check(&run.history).steps, mentions(&run.history))
    };
    let (steps, size) = work(1_000);
    for (longer, factor) in [(4_000, 4), (16_000, 16), (64_000, 64)] {
        let (more_steps, more_size) = work(longer);
        // Per thing that is mentioned, the same few steps, however long it is.
        let (before, after) = (steps as f64 / size as f64, more_steps as f64 / more_size as f64);
        assert!(after < before * 1.3, "{before:.2} steps each become {after:.2} in {factor} times the history");
    }
}

#[test]
fn the_work_grows_with_the_history_also_where_all_of_it_is_broken() {
    let work = |steps| {
        let mut history = model::run(7, steps).history;
        let mut plant = Plant { run: model::Run { history, batches: Vec::new() }, rng: Rng::new(1) };
        for partition in 0..4 {
            plant.in_final(partition, |records| records.clear());
        }
        history = plant.run.history;
        let report = checker::check(&history);
        assert!(!report.is_clean() && report.violations.len() < 200);
        report.steps as f64 / mentions(&history) as f64
    };
    let (short, long) = (work(1_000), work(32_000));
    assert!(long < short * 1.3, "{short:.2} steps each become {long:.2}");
}

#[test]
fn a_history_is_kept_as_lines_and_read_back() {
    let history = model::run(11, 300).history;
    let lines: Vec<String> = history.lines().collect();
    assert_eq!(History::from_lines(lines.iter().map(String::as_str)).unwrap(), history);
    let mut spoilt = lines;
    spoilt[4] = "{\"at_us\":1}".to_owned();
    let error = History::from_lines(spoilt.iter().map(String::as_str)).unwrap_err();
    assert_eq!(error.to_string(), "line 5 is no part of a history");
}
