//! `weir-sim replay`: one seed, as often as it takes.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sim::tally::Tally;

use super::run::{Without, print_failure, run_watched};

/// Which seed, and how.
#[derive(Args)]
pub(crate) struct Replay {
    /// Which
    #[arg(long)]
    seed: u64,
    /// How often
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// Writes what led to the violation into a directory of this one
    #[arg(long)]
    save: Option<PathBuf>,
    #[command(flatten)]
    without: Without,
}

impl Replay {
    pub(crate) fn run(self) -> ExitCode {
        let Replay { seed, times, save, without } = self;
        let mut tally = Tally::default();
        for _ in 0..times {
            let Some(failure) = run_watched(seed, without.options(), &mut tally) else { continue };
            print_failure(seed, &failure, save.as_deref());
            return ExitCode::FAILURE;
        }
        println!("seed {seed} kept every promise, {times} times");
        ExitCode::SUCCESS
    }
}
