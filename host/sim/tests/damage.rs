//! Damaged files: bits of a small store here and there, and some of everything else, every outcome accounted for.

use std::sync::Arc;

use sim::damage::{Flips, Kind, Outcome, Patient, Table, by_chance, flips};

fn assert_kept(table: &Table) {
    let broken: Vec<String> =
        table.failures.iter().take(3).map(|failure| format!("{} after {}", failure.violation, failure.harm)).collect();
    assert!(broken.is_empty(), "{} broken promises: {broken:#?}", table.failed);
    let counted: u64 = Outcome::EVERY.into_iter().map(|outcome| table.count(outcome)).sum();
    assert_eq!(counted, table.total());
}

#[test]
fn a_flipped_bit_is_detected_where_it_matters_and_harms_what_lies_there() {
    let bytes = Patient::small(1).unwrap().bytes();
    let stride = 4_001;
    let table = flips(Flips { first: 7, stride, seed: Some(1) }, 0, 1, &mut |_| true).unwrap();
    assert_kept(&table);
    assert_eq!(table.total() as usize, (bytes - 7).div_ceil(stride));
    for outcome in [Outcome::Dead, Outcome::Named, Outcome::ReadsRefused, Outcome::OpenRefused] {
        assert!(table.count(outcome) > 0, "{outcome:?}: {table}");
    }
}

#[test]
fn whatever_becomes_of_pages_and_files_is_detected_and_contained() {
    let (small, stranger) = (Arc::new(Patient::small(1).unwrap()), Patient::small(2).unwrap());
    let table = by_chance(1, &small, &stranger).unwrap();
    assert_kept(&table);
    assert!(table.total() >= Kind::EVERY.len() as u64, "{table}");
}
