//! `weir-sim faults`: every call to the disk fails once, in every way.

use std::{collections::BTreeMap, process::ExitCode, sync::Mutex, thread, time::Duration};

use clap::Args;
use sim::{
    clock::now,
    faults::{Fault, Lasting, Row, Scenario, every_call},
};

/// Which calls fail, and how.
#[derive(Args)]
pub(crate) struct FaultsCommand {
    /// Only calls that fail so: `sync`, `sync-evicted`, `sync-dir`, `eio`, `enospc`, `short-read`, `short-write`, `open`,
    /// `create`, `rename`, `unlink`, `list`
    #[arg(long)]
    kind: Option<String>,
    /// Only this scenario
    #[arg(long)]
    scenario: Option<String>,
    /// First and last seed of the threads' order and the power cuts, as in `1..4`
    #[arg(long, default_value = "1..1")]
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

/// One row of the table.
type Key = (Scenario, &'static str);

impl FaultsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let Some((first, last)) =
            self.seeds.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        else {
            eprintln!("`{}` is not a range of seeds; write `1..4`", self.seeds);
            return ExitCode::FAILURE;
        };
        let work = self.work(first, last);
        if work.is_empty() {
            eprintln!("there is no such scenario, or no such kind; see `weir-sim faults --help`");
            return ExitCode::FAILURE;
        }
        let begun = now();
        let in_time = || self.seconds.is_none_or(|seconds| begun.elapsed() < Duration::from_secs(seconds));
        let (queue, table) = (Mutex::new(work), Mutex::new(BTreeMap::<Key, Row>::new()));
        let next = || queue.lock().ok()?.pop();
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while let Some((scenario, fault, lasting, seed)) = next().filter(|_| in_time()) {
                        let row = every_call(scenario, fault, lasting, seed, &mut || in_time());
                        let mut table = table.lock().expect("nobody panics with it");
                        add(table.entry((scenario, fault.name())).or_default(), row);
                    }
                });
            }
        });
        let table = table.into_inner().expect("nobody panics with it");
        self.tell(&table, begun.elapsed(), in_time())
    }

    /// What is to be done, the last first.
    fn work(&self, first: u64, last: u64) -> Vec<(Scenario, Fault, Lasting, u64)> {
        let mut work = Vec::new();
        for seed in first..=last {
            for lasting in Lasting::EVERY {
                for scenario in Scenario::EVERY {
                    let faults = Fault::EVERY
                        .into_iter()
                        .filter(|fault| self.kind.as_deref().is_none_or(|kind| kind == fault.name()));
                    work.extend(faults.map(|fault| (scenario, fault, lasting, seed)));
                }
            }
        }
        work.retain(|(scenario, ..)| self.scenario.as_deref().is_none_or(|name| name == scenario.to_string()));
        work.reverse();
        work
    }

    fn tell(&self, table: &BTreeMap<Key, Row>, took: Duration, complete: bool) -> ExitCode {
        let sum = |of: fn(&Row) -> u64| table.values().map(of).sum::<u64>();
        let (runs, calls, refusals) = (sum(|row| row.runs), sum(|row| row.calls_failed), sum(|row| row.refusals));
        let failures = sum(|row| row.failures.len() as u64);
        if self.json {
            println!(
                "{{\"runs\":{runs},\"calls_failed\":{calls},\"refusals\":{refusals},\"failures\":{failures},\"seconds\":{:.1}}}",
                took.as_secs_f64()
            );
        } else {
            print_table(table);
            println!(
                "{runs} runs, each with a power cut, in which {calls} calls failed and {refusals} things were refused, in {:.1} s: {failures} broken promises",
                took.as_secs_f64()
            );
        }
        for (case, violation) in table.values().flat_map(|row| &row.failures).take(20) {
            eprintln!("VIOLATION: {violation}\n  at {case}");
        }
        let missed = missed(table);
        if complete && !missed.is_empty() {
            eprintln!("these were never hit, and should be: {missed:?}");
        }
        if failures == 0 && (missed.is_empty() || !complete) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn add(total: &mut Row, row: Row) {
    total.runs += row.runs;
    total.calls_failed += row.calls_failed;
    total.refusals += row.refusals;
    total.failures.extend(row.failures);
}

fn print_table(table: &BTreeMap<Key, Row>) {
    print!("{:<10}", "");
    Fault::EVERY.iter().for_each(|fault| print!(" {:>12}", fault.name()));
    println!();
    for scenario in Scenario::EVERY {
        print!("{scenario:<10}");
        for fault in Fault::EVERY {
            let cell = table.get(&(scenario, fault.name())).map_or(String::new(), |row| match row.failures.len() {
                0 => row.runs.to_string(),
                failures => format!("{} ({failures}!)", row.runs),
            });
            print!(" {cell:>12}");
        }
        println!();
    }
}

/// Kinds of calls that a scenario makes, none of which failed.
fn missed(table: &BTreeMap<Key, Row>) -> Vec<String> {
    let never = |((scenario, name), row): (&Key, &Row)| {
        let fault = Fault::EVERY.into_iter().find(|fault| fault.name() == *name)?;
        (row.runs == 0 && scenario.has_calls(fault.kind)).then(|| format!("{scenario}: {name}"))
    };
    table.iter().filter_map(never).collect()
}
