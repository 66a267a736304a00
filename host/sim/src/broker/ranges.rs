//! Sets of offsets, as ranges.
//!
//! Start at [`Ranges`].

use std::{collections::BTreeMap, ops::Range};

/// Disjoint ranges that do not touch, by their begin.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `begin..end`.
    pub(super) fn add(&mut self, mut begin: u64, mut end: u64) {
        if begin >= end {
            return;
        }
        let touching: Vec<(u64, u64)> =
            self.0.range(..=end).rev().take_while(|(_, to)| **to >= begin).map(|(from, to)| (*from, *to)).collect();
        for (from, to) in touching {
            self.0.remove(&from);
            begin = begin.min(from);
            end = end.max(to);
        }
        self.0.insert(begin, end);
    }

    /// The parts of `begin..end` that are in it, in order.
    pub(super) fn within(&self, begin: u64, end: u64) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = self
            .0
            .range(..end)
            .rev()
            .take_while(|(_, to)| **to > begin)
            .map(|(from, to)| (*from).max(begin)..(*to).min(end))
            .collect();
        parts.reverse();
        parts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn ranges_are_a_set_of_numbers() {
        let mut rng = Rng::new(7);
        for _ in 0..200 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..12 {
                let begin = rng.within(0..=40);
                let end = begin + rng.within(0..=9);
                ranges.add(begin, end);
                set.extend(begin..end);
                let (from, to) = (rng.within(0..=25), rng.within(25..=50));
                let within: Vec<u64> = ranges.within(from, to).into_iter().flatten().collect();
                assert_eq!(within, set.range(from..to).copied().collect::<Vec<_>>());
            }
        }
    }
}
