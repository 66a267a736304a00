//! Seeds that found something once, each with the options that showed it: none of them may find it again.
//!
//! A line of `host/sim/seeds.txt` is a seed, the cut, and behind a `#` what it was. A change of the workloads gives every seed
//! another meaning: what is found is kept as a test of the store, too, where it can be told in a few lines.

use sim::{
    run::{RunOptions, run_seed},
    tally::Tally,
};

#[test]
fn seeds_that_found_something_find_it_no_more() {
    for line in include_str!("../seeds.txt").lines() {
        let (words, found) = line.split_once('#').unwrap_or((line, ""));
        let mut numbers = words.split_whitespace().map(|word| word.parse().expect("a line begins with numbers"));
        let Some(seed) = numbers.next() else { continue };
        let run = RunOptions { cut: numbers.next().map(|cut| cut as usize), ..RunOptions::default() };
        let result = run_seed(seed, &run, &mut Tally::default());
        result.unwrap_or_else(|failure| panic!("seed {seed}, which found{found}: {}", failure.violation));
    }
}
