//! `weir-sim run`: power cuts of many seeds, until one breaks a promise, or time is up.
//!
//! Owns the jobs: threads that take one seed after the other. A seed is the same on whichever it runs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use sim::{
    clock::now,
    run::{Failure, RunOptions, run_seed},
    tally::Tally,
};

use super::{
    progress::Progress,
    report::{Shape, print_failure},
};

/// A seed that takes longer hangs.
const SEED_DURATION_MAX: Duration = Duration::from_secs(120);

/// A run of so many cuts gets into every corner.
const CUTS_OF_A_LONG_RUN: u64 = 100_000;

/// Which seeds, and how.
#[derive(Args)]
pub(crate) struct Run {
    /// How many seeds, from 1 on, or the first and the last, as in `501..1000`
    #[arg(long, default_value = "1..1000000000", value_parser = seeds)]
    seeds: (u64, u64),
    /// How many seeds at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Stops after this time
    #[arg(long)]
    seconds: Option<u64>,
    /// Stops after so many cuts, and demands of them that they got into every corner
    #[arg(long, conflicts_with = "seconds")]
    cuts: Option<u64>,
    /// Goes on after a violation, so many times
    #[arg(long, default_value_t = 0)]
    keep_going: usize,
    /// Writes what led to each violation into a directory of this one
    #[arg(long)]
    save: Option<PathBuf>,
    /// Prints the counts as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: Shape,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let range = match text.split_once("..") {
        Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
        None => text.parse().ok().map(|count| (1, count)),
    };
    range.filter(|(first, last)| first <= last).ok_or_else(|| format!("`{text}` is neither `1000` nor `501..1000`"))
}

/// What a job says.
struct Done {
    seed: u64,
    tally: Tally,
    failure: Option<Box<Failure>>,
}

/// What all of them came to.
#[derive(Default)]
struct Outcome {
    seeds: u64,
    total: Tally,
    failures: usize,
}

/// The closing table.
#[derive(Serialize)]
struct Summary {
    seeds: u64,
    cuts: u64,
    seconds: f64,
    failures: usize,
    cuts_by_model: BTreeMap<&'static str, u64>,
    sometimes: BTreeMap<&'static str, u64>,
    never: Vec<&'static str>,
}

impl Run {
    pub(crate) fn run(self) -> ExitCode {
        let begun = now();
        let options = self.shape.options();
        let (sender, done) = mpsc::channel();
        let next = Arc::new(AtomicU64::new(self.seeds.0));
        for _ in 0..self.jobs {
            spawn_job(self.seeds.1, next.clone(), options.clone(), sender.clone());
        }
        drop(sender);
        let Some(outcome) = self.gather(begun, &options, &done) else { return ExitCode::from(2) };
        let summary = summary(&outcome, begun);
        self.print(&summary);
        // A short run gets into few corners, and one with something left out not into all.
        let is_long = outcome.total.cuts() >= CUTS_OF_A_LONG_RUN && options == RunOptions::default();
        if is_long && !summary.never.is_empty() {
            eprintln!("these never happened: {:?}", summary.never);
            return ExitCode::FAILURE;
        }
        if outcome.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Takes what the jobs say until it is enough; `None` when one of them hangs.
    fn gather(&self, begun: Instant, options: &RunOptions, done: &mpsc::Receiver<Done>) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        let mut progress = Progress::new(self.seeds.1 - self.seeds.0 + 1, self.cuts, self.seconds);
        loop {
            let Done { seed, tally, failure } = match done.recv_timeout(SEED_DURATION_MAX) {
                Ok(done) => done,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Some(outcome),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!("no seed has ended in {} s", SEED_DURATION_MAX.as_secs());
                    return None;
                }
            };
            outcome.seeds += 1;
            outcome.total.add(&tally);
            progress.tell(outcome.seeds, outcome.total.cuts(), begun.elapsed());
            if let Some(failure) = failure {
                progress.pause();
                print_failure(seed, options, failure, self.save.as_deref());
                outcome.failures += 1;
            }
            let time_is_up = self.seconds.is_some_and(|seconds| begun.elapsed().as_secs() >= seconds);
            let is_enough = self.cuts.is_some_and(|cuts| outcome.total.cuts() >= cuts);
            if time_is_up || is_enough || outcome.failures > self.keep_going {
                return Some(outcome);
            }
        }
    }

    fn print(&self, summary: &Summary) {
        if self.json {
            println!("{}", serde_json::to_string(summary).expect("numbers and names are JSON"));
            return;
        }
        let Summary { seeds, cuts, seconds, failures, .. } = summary;
        let per_second = *cuts as f64 / seconds;
        println!("{seeds} seeds, {cuts} cuts in {seconds:.1} s ({per_second:.0} a second), {failures} failures");
        for (name, count) in summary.cuts_by_model.iter().chain(&summary.sometimes) {
            println!("{count:>10}  {name}");
        }
    }
}

fn summary(outcome: &Outcome, begun: Instant) -> Summary {
    let Outcome { seeds, total, failures } = outcome;
    Summary {
        seeds: *seeds,
        cuts: total.cuts(),
        seconds: begun.elapsed().as_secs_f64(),
        failures: *failures,
        cuts_by_model: total.cuts_by.iter().map(|(model, count)| (model.name(), *count)).collect(),
        sometimes: total.counts().collect(),
        never: total.never(),
    }
}

/// Runs seeds until there are none left, or nobody listens. The name has panics noted instead of printed.
fn spawn_job(last: u64, next: Arc<AtomicU64>, options: RunOptions, done: mpsc::Sender<Done>) {
    let job = move || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let mut tally = Tally::default();
            let failure = match seed > last {
                true => return,
                false => run_seed(seed, &options, &mut tally).err(),
            };
            if done.send(Done { seed, tally, failure }).is_err() {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("weir-sim-job".into()).spawn(job);
    spawned.expect("the host has room for a few threads");
}
