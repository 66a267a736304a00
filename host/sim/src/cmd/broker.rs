//! `weir-sim broker`: the whole broker in simulation, many seeds, or one of them twice.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use sim::{
    broker::{Report, RunOptions, counts::Counts, run_seed},
    clock::now,
};

/// A run of so many seeds gets into every corner.
const SEEDS_OF_A_LONG_RUN: u64 = 1_000;

/// Which seeds, and how.
#[derive(Args)]
pub(crate) struct Broker {
    /// First and last seed, as in `1..1000`
    #[arg(long, default_value = "1..1000000", conflicts_with = "seed")]
    seeds: String,
    /// One seed, twice: both traces must be the same
    #[arg(long)]
    seed: Option<u64>,
    /// Stops after this time
    #[arg(long)]
    seconds: Option<u64>,
    /// Seeds at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Goes on after a violation, so many times
    #[arg(long, default_value_t = 0)]
    keep_going: usize,
    /// Prints what was counted as JSON
    #[arg(long)]
    json: bool,
    /// Prints what happened, with `--seed`
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// What the threads of a run share.
struct Progress {
    next: AtomicU64,
    failures_left: AtomicU64,
    total: Mutex<Counts>,
}

impl Broker {
    pub(crate) fn run(self) -> ExitCode {
        match self.seed {
            Some(seed) => replay(seed, self.trace),
            None => self.run_many(),
        }
    }

    fn run_many(&self) -> ExitCode {
        let Some((first, last)) = parse(&self.seeds) else {
            eprintln!("`{}` is not a range of seeds; write `1..1000`", self.seeds);
            return ExitCode::FAILURE;
        };
        let begun = now();
        let at_most = self.seconds.map(Duration::from_secs);
        let failures_left = AtomicU64::new(self.keep_going as u64 + 1);
        let progress = Progress { next: AtomicU64::new(first), failures_left, total: Mutex::default() };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    let is_time_up = || at_most.is_some_and(|at_most| begun.elapsed() > at_most);
                    while !is_time_up() && progress.failures_left.load(Ordering::Relaxed) > 0 {
                        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
                        if seed > last {
                            return;
                        }
                        progress.take(&run_seed(seed, RunOptions::default()));
                    }
                });
            }
        });
        let failures = self.keep_going as u64 + 1 - progress.failures_left.into_inner();
        let total = progress.total.into_inner().expect("no thread panicked");
        self.print(&total, failures, begun.elapsed());
        let never = total.never();
        // A short run gets into few corners.
        if total.seeds >= SEEDS_OF_A_LONG_RUN && !never.is_empty() {
            eprintln!("these never happened: {never:?}");
            return ExitCode::FAILURE;
        }
        if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn print(&self, total: &Counts, failures: u64, took: Duration) {
        let Counts { seeds, lines, requests, crashes, faults, simulated_ms, .. } = total;
        if self.json {
            let counts: Vec<String> = total.each().map(|(what, count)| format!("\"{what}\":{count}")).collect();
            println!(
                "{{\"seeds\":{seeds},\"failures\":{failures},\"lines\":{lines},\"requests\":{requests},\"crashes\":{crashes},\
                 \"faults\":{faults},\"simulated_ms\":{simulated_ms},\"seconds\":{:.1},\"counts\":{{{}}}}}",
                took.as_secs_f64(),
                counts.join(",")
            );
            return;
        }
        println!(
            "{seeds} seeds in {:.1} s: {requests} requests, {crashes} crashes, {faults} faults, {lines} steps, {} s simulated; {failures} failures",
            took.as_secs_f64(),
            simulated_ms / 1_000
        );
        for (what, count) in total.each() {
            println!("{count:>10}  {what}");
        }
    }
}

impl Progress {
    fn take(&self, report: &Report) {
        let mut total = self.total.lock().expect("no thread panicked");
        total.add(&report.counts);
        if let Some(violation) = &report.violation {
            println!("VIOLATION in seed {}: {violation}", report.seed);
            println!("  again: weir-sim broker --seed {} --trace", report.seed);
            let _ = self.failures_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        }
        if total.seeds.is_multiple_of(100) {
            eprintln!("{} seeds, {} crashes, {} requests", total.seeds, total.crashes, total.requests);
        }
    }
}

fn parse(seeds: &str) -> Option<(u64, u64)> {
    let (first, last) = seeds.split_once("..")?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn replay(seed: u64, prints: bool) -> ExitCode {
    let run = || run_seed(seed, RunOptions { keeps_trace: true, ..RunOptions::default() });
    let (first, second) = (run(), run());
    if prints {
        first.trace.iter().for_each(|line| println!("{line}"));
    }
    let Report { hash, violation, .. } = &first;
    println!("seed {seed}: {} lines, hash {hash:016x}", first.trace.len());
    let differs = first.trace.iter().zip(&second.trace).position(|(first, second)| first != second);
    if *hash != second.hash {
        let at = differs.unwrap_or_else(|| first.trace.len().min(second.trace.len()));
        let line = |report: &Report| report.trace.get(at).cloned().unwrap_or_else(|| "the end".to_owned());
        println!("the second run differs from line {} on:\n  {}\n  {}", at + 1, line(&first), line(&second));
        return ExitCode::FAILURE;
    }
    match violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATION in seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}
