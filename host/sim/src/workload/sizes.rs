//! Sizes of a store and of what is put into it, as a seed says: small ones, under which everything happens early.
//!
//! Start at [`Sizes::of`].

use storage::{Budget, StoreOptions};

use crate::rng::Rng;

/// How large everything is.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Those of the store.
    pub options: StoreOptions,
    /// The disk's, if it is a small one.
    pub disk_bytes: Option<u64>,
    /// Things to do.
    pub steps: usize,
    /// Commits without an answer, at most.
    pub in_flight_max: usize,
    /// Bytes of batches, about.
    pub bytes_left: usize,
    /// Bytes of a large batch.
    pub batch_bytes_max: u64,
    /// Topics at a time, at most.
    pub topics_max: usize,
}

impl Sizes {
    /// Those of a seed.
    pub fn of(rng: &mut Rng) -> Sizes {
        match rng.below(20) {
            0..14 => Sizes::small(rng),
            14..16 => Sizes::budgeted(rng),
            16..18 => {
                Sizes { disk_bytes: Some(rng.within(1_500_000..=4_000_000)), ..Sizes::budgeted(rng) }.unbudgeted()
            }
            _ => Sizes::large(rng),
        }
    }

    /// Some KiB, so that a cut costs little.
    fn small(rng: &mut Rng) -> Sizes {
        Sizes {
            options: StoreOptions {
                segment_bytes_max: rng.pick(&[64 << 10, 128 << 10, 1 << 20]),
                segment_entries_max: rng.pick(&[8, 20, 100]),
                group_bytes_max: rng.pick(&[4 << 10, 64 << 10, 1 << 20]),
                tail_bytes_max: rng.pick(&[0, 0, 16 << 10, 1 << 20]),
                preallocate_bytes: rng.pick(&[0, 16 << 10, 64 << 10]),
                cache_bytes: 256 << 10,
                overlay_bytes_max: rng.pick(&[1 << 10, 16 << 10, 16 << 20]),
                compaction_bytes: rng.pick(&[240, 4 << 10]),
                budget: Budget::default(),
                reserve_bytes: rng.pick(&[0, 32 << 10]),
                ..StoreOptions::default()
            },
            disk_bytes: None,
            steps: rng.within(12..=40) as usize,
            in_flight_max: rng.pick(&[1, 3, 8, 20]),
            bytes_left: rng.pick(&[20_000, 60_000, 150_000]),
            batch_bytes_max: rng.pick(&[500, 5_000, 30_000]),
            topics_max: rng.pick(&[1, 2, 4]),
        }
    }

    /// So that large batches take parts of every class.
    fn large(rng: &mut Rng) -> Sizes {
        let small = Sizes::small(rng);
        Sizes {
            options: StoreOptions {
                segment_bytes_max: rng.pick(&[512 << 10, 2 << 20]),
                group_bytes_max: rng.pick(&[64 << 10, 4 << 20]),
                preallocate_bytes: rng.pick(&[0, 64 << 10, 1 << 20]),
                reserve_bytes: rng.pick(&[0, 1 << 20]),
                ..small.options
            },
            bytes_left: rng.pick(&[1_500_000, 4_000_000]),
            batch_bytes_max: rng.pick(&[100_000, 1_500_000]),
            ..small
        }
    }

    /// So that the budget is used up.
    fn budgeted(rng: &mut Rng) -> Sizes {
        let small = Sizes::small(rng);
        Sizes {
            options: StoreOptions {
                budget: Budget::Bytes(rng.within(1_200_000..=3_000_000)),
                segment_bytes_max: 1 << 20,
                group_bytes_max: 64 << 10,
                reserve_bytes: rng.pick(&[0, 128 << 10]),
                ..small.options
            },
            steps: rng.within(20..=60) as usize,
            bytes_left: 6_000_000,
            batch_bytes_max: rng.pick(&[100_000, 300_000]),
            ..small
        }
    }

    fn unbudgeted(mut self) -> Sizes {
        self.options.budget = Budget::SharePercent(100);
        self
    }
}
