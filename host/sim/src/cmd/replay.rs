//! `weir-sim replay`: one seed, as it was.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sim::{run::run_seed, tally::Tally};

use super::report::{Shape, save_failure};

/// Which seed, and how.
#[derive(Args)]
pub(crate) struct Replay {
    /// Which
    #[arg(long)]
    seed: u64,
    /// Writes what led to the violation into a directory of this one
    #[arg(long)]
    save: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

impl Replay {
    pub(crate) fn run(self) -> ExitCode {
        let Replay { seed, save, shape } = self;
        let mut tally = Tally::default();
        let Err(failure) = run_seed(seed, &shape.options(), &mut tally) else {
            println!("seed {seed} kept every promise in {} cuts", tally.cuts());
            return ExitCode::SUCCESS;
        };
        println!("VIOLATION in seed {seed}: {}", failure.violation);
        failure.cuts.iter().for_each(|cut| println!("  {cut}"));
        save_failure(seed, &failure, save.as_deref());
        ExitCode::FAILURE
    }
}
