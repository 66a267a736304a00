//! Makes a failing seed smaller: fewer steps, a single cut, no faults, as long as the same promise is broken.
//!
//! Start at [`shrink`].

use crate::{
    run::{Failure, RunOptions, run_seed},
    tally::Tally,
};

/// How many runs it takes at most.
const TRIALS_MAX: usize = 200;

/// The smallest run of a seed that still breaks the promise, and its failure.
#[must_use]
pub fn shrink(seed: u64, run: &RunOptions, failure: Box<Failure>) -> (RunOptions, Box<Failure>) {
    let mut shrinking = Shrinking { seed, run: run.clone(), failure, trials_left: TRIALS_MAX };
    shrinking.try_run(|run| run.again = false);
    shrinking.try_run(|run| run.faults = false);
    shrinking.fewer_steps();
    shrinking.without_steps();
    let cut = shrinking.failure.cut;
    shrinking.try_run(|run| run.cut = cut);
    (shrinking.run, shrinking.failure)
}

struct Shrinking {
    seed: u64,
    run: RunOptions,
    failure: Box<Failure>,
    trials_left: usize,
}

impl Shrinking {
    /// Keeps a change if the promise is still broken.
    fn try_run(&mut self, change: impl FnOnce(&mut RunOptions)) -> bool {
        let mut run = self.run.clone();
        change(&mut run);
        if self.trials_left == 0 || run == self.run {
            return false;
        }
        self.trials_left -= 1;
        match run_seed(self.seed, &run, &mut Tally::default()) {
            Err(failure) if failure.violation.promise == self.failure.violation.promise => {
                (self.run, self.failure) = (run, failure);
                true
            }
            _ => false,
        }
    }

    /// Halves the steps as long as it can, then takes them off one by one.
    fn fewer_steps(&mut self) {
        let mut steps = self.run.steps_max.unwrap_or(64);
        while steps > 1 && self.try_run(|run| run.steps_max = Some(steps / 2)) {
            steps /= 2;
        }
        for fewer in (steps / 2..steps).rev() {
            if !self.try_run(|run| run.steps_max = Some(fewer)) {
                break;
            }
        }
    }

    fn without_steps(&mut self) {
        for step in (0..self.run.steps_max.unwrap_or(0)).rev() {
            self.try_run(|run| run.skip.push(step));
        }
    }
}
