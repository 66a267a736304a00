//! `weir-sim damage`: every bit of a small store, and everything else that can become of files.

use std::{process::ExitCode, sync::Arc, thread, time::Duration};

use clap::Args;
use sim::{
    clock::now,
    damage::{Failure, Flips, Outcome, Patient, Table, by_chance, flips},
    invariants::Violation,
};

/// What is damaged, and how often.
#[derive(Args)]
pub(crate) struct Damage {
    /// Flips a bit in every byte of the small store, instead of every 97th
    #[arg(long)]
    every_byte: bool,
    /// Flips each bit of those bytes, instead of one
    #[arg(long)]
    every_bit: bool,
    /// Chooses the bit of each byte
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First and last seed of the damage by chance, as in `1..100`; `0..0` for none
    #[arg(long, default_value = "1..20")]
    seeds: String,
    /// Stops after this time
    #[arg(long)]
    seconds: Option<u64>,
    /// Threads that share the work
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints one line of JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl Damage {
    pub(crate) fn run(self) -> ExitCode {
        let Some((first, last)) =
            self.seeds.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        else {
            eprintln!("`{}` is not a range of seeds; write `1..100`", self.seeds);
            return ExitCode::FAILURE;
        };
        let begun = now();
        match self.work(first, last) {
            Ok(table) => self.tell(&table, begun.elapsed()),
            Err(violation) => {
                eprintln!("{violation}");
                ExitCode::FAILURE
            }
        }
    }

    /// Shares all cases among the threads.
    fn work(&self, first: u64, last: u64) -> Result<Table, Violation> {
        let jobs = self.jobs.max(1);
        let mut total = Table::default();
        let tables = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..jobs).map(|job| scope.spawn(move || self.share(first, last, job, jobs))).collect();
            let join =
                |worker: thread::ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|_| std::process::exit(2));
            workers.into_iter().map(join).collect::<Vec<_>>()
        });
        tables.into_iter().try_for_each(|table| table.map(|table| total.add(table)))?;
        Ok(total)
    }

    fn share(&self, first: u64, last: u64, job: usize, jobs: usize) -> Result<Table, Violation> {
        let begun = now();
        let in_time = || self.seconds.is_none_or(|seconds| begun.elapsed() < Duration::from_secs(seconds));
        let (mut told, mut cases) = (0, 0);
        let mut go_on = |table: &Table| {
            cases += 1;
            let seconds = begun.elapsed().as_secs();
            if job == 0 && seconds >= told + 10 {
                told = seconds;
                eprintln!("{} cases in {seconds} s, {} broken promises", cases * jobs, table.failed);
            }
            in_time()
        };
        let chosen = Flips {
            first: 0,
            stride: if self.every_byte { 1 } else { 97 },
            seed: (!self.every_bit).then_some(self.seed),
        };
        let mut table = flips(chosen, job, jobs, &mut go_on)?;
        if last == 0 {
            return Ok(table);
        }
        let (small, stranger) = (Arc::new(Patient::small(1)?), Patient::small(2)?);
        for seed in (first..=last).skip(job).step_by(jobs) {
            if !go_on(&table) {
                break;
            }
            table.add(by_chance(seed, &small, &stranger)?);
        }
        Ok(table)
    }

    fn tell(&self, table: &Table, took: Duration) -> ExitCode {
        if self.json {
            println!("{}", json(table, took));
        } else {
            println!("{table}");
            println!("{:.1} s, {:.2} ms a case", took.as_secs_f64(), per_case_ms(table, took));
        }
        for Failure { harm, violation } in &table.failures {
            eprintln!("VIOLATION: {violation}\n  after {harm}");
        }
        if table.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn per_case_ms(table: &Table, took: Duration) -> f64 {
    took.as_secs_f64() * 1e3 / table.total().max(1) as f64
}

fn json(table: &Table, took: Duration) -> String {
    let outcome = |outcome: Outcome| format!("\"{}\":{}", outcome.name(), table.count(outcome));
    let outcomes: Vec<String> = Outcome::EVERY.into_iter().map(outcome).collect();
    format!(
        "{{\"cases\":{},\"failed\":{},\"scrubbed\":{},\"with_loss\":{},\"seconds\":{:.1},\"outcomes\":{{{}}}}}",
        table.total(),
        table.failed,
        table.scrubbed,
        table.with_loss,
        took.as_secs_f64(),
        outcomes.join(",")
    )
}
