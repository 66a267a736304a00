//! One seed: a workload, then power cuts all over its journal, and in the journals of the reopenings.
//!
//! Owns how a seed becomes cuts. The workload is one simulation, and so is each cut with what is done after it: each has
//! chances of its own, so that any of them can be run alone, and is the same then.
//!
//! Start at [`run_seed`].

mod cuts;
mod lives;
mod notes;
mod options;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

pub use self::options::RunOptions;
use self::{
    cuts::{Cuts, cut_all},
    lives::{Lives, Recording},
    notes::note_run,
};
use crate::{
    disk::{SimDisk, Tree},
    invariants::Violation,
    rng::Rng,
    schedule,
    session::Session,
    tally::Tally,
    threads,
    workload::Workload,
};

/// Where the store lies. Neither directory is there before.
const DIR: &str = "/disk/data";

/// Where its backup lies.
pub(crate) const BACKUP_DIR: &str = "/disk/backup";

/// Where a backup is restored to.
const RESTORED_DIR: &str = "/disk/restored";

/// A promise that was not kept, and how it came to that.
#[derive(Debug)]
pub struct Failure {
    /// Which, and how.
    pub violation: Violation,
    /// Which of the seed's cuts led to it; `None` where the workload itself did.
    pub cut: Option<usize>,
    /// Where it was cut, and how, the last cut at the end.
    pub cuts: Vec<String>,
    /// The last disk that the store was opened on, if it was cut.
    pub disk: Option<Tree>,
    /// What was done before each cut, a line each.
    pub journals: Vec<Vec<String>>,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Failure { violation, cut: None, cuts: Vec::new(), disk: None, journals: Vec::new() }
    }
}

impl From<Violation> for Box<Failure> {
    fn from(violation: Violation) -> Self {
        Box::new(violation.into())
    }
}

/// Runs a seed; what happened in it.
///
/// # Errors
/// The first promise that was not kept.
pub fn run_seed(seed: u64, run: &RunOptions, tally: &mut Tally) -> Result<(), Box<Failure>> {
    threads::listen();
    let mut rng = Rng::new(seed);
    let (schedule, cuts) = (rng.number(), rng.number());
    let recorded = {
        let run = run.clone();
        simulate(schedule, move || record(&mut rng, &run))?
    };
    let (recording, happened) = recorded;
    tally.add(&happened);
    cut_all(&Arc::new(recording), &Cuts { seed: cuts, count: run.cuts, only: run.cut, depth: 1 }, run, tally)
}

/// Runs a program by a schedule; being stuck is a failure like others, and so is a panic.
fn simulate<R: Send + 'static>(
    seed: u64,
    program: impl FnOnce() -> Result<R, Box<Failure>> + Send + 'static,
) -> Result<R, Box<Failure>> {
    let ended = panic::catch_unwind(AssertUnwindSafe(|| schedule::run(seed, program)));
    match ended {
        Ok(Ok(result)) => result,
        Ok(Err(stuck)) => Err(Violation::new("serves", stuck.to_string()).into()),
        Err(panic) => Err(Violation::new("serves", format!("a panic: {}", panic_text(&*panic))).into()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// Does what the seed asks for, on a disk that notes it.
fn record(rng: &mut Rng, run: &RunOptions) -> Result<(Recording, Tally), Box<Failure>> {
    let mut tally = Tally::default();
    let workload = Workload::long(rng, run);
    let mut disk = SimDisk::new(Tree::empty(), rng.number()).lying(run.lie);
    if let Some(bytes) = workload.sizes.disk_bytes {
        disk = disk.sized(bytes);
    }
    let mut session = Session::begin(disk.clone(), Path::new(DIR), &workload.sizes.options)?;
    workload.clone().run(&mut session, &mut tally)?;
    let ended = session.end()?;
    note_run(&disk, &ended.eras, &mut tally);
    let (begun_with, journal) = disk.history();
    tally.digest(journal.len());
    let lives = Lives { before: None, ended };
    Ok((Recording { lives, begun_with, journal, workload }, tally))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(seed: u64) -> Tally {
        let mut tally = Tally::default();
        let run = RunOptions { cuts: 5, ..RunOptions::default() };
        run_seed(seed, &run, &mut tally).map_err(|failure| failure.violation).unwrap();
        tally
    }

    #[test]
    fn a_seed_is_the_same_whenever_it_runs() {
        for seed in 1..=2 {
            assert_eq!(tally(seed), tally(seed), "seed {seed}");
        }
    }
}
