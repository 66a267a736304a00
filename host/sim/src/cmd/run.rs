//! `weir-sim run`: seeds until one breaks a promise, or time is up.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    time::Duration,
};

use clap::Args;
use sim::{
    clock::now,
    disk::Tree,
    run::{Failure, RunOptions, run_seed},
    schedule,
    tally::Tally,
};

/// A seed that takes longer hangs.
const SEED_DURATION_MAX: Duration = Duration::from_secs(120);

/// A run of so many seeds gets into every corner.
const SEEDS_OF_A_LONG_RUN: u64 = 300;

/// Which seeds, and how.
#[derive(Args)]
pub(crate) struct Run {
    /// First and last seed, as in `1..1000`
    #[arg(long, default_value = "1..1000000")]
    seeds: String,
    /// Stops after this time
    #[arg(long)]
    seconds: Option<u64>,
    /// Goes on after a violation, so many times
    #[arg(long, default_value_t = 0)]
    keep_going: usize,
    /// Writes what led to each violation into a directory of this one
    #[arg(long)]
    save: Option<PathBuf>,
    #[command(flatten)]
    without: Without,
}

/// What is left out of a run, so that the rest shows.
#[derive(Args, Clone, Copy)]
pub(crate) struct Without {
    /// Kills no program
    #[arg(long)]
    no_kills: bool,
    /// Lets no call to the disk fail
    #[arg(long)]
    no_faults: bool,
}

impl Without {
    pub(crate) fn options(self) -> RunOptions {
        let Without { no_kills, no_faults } = self;
        RunOptions { kills: !no_kills, faults: !no_faults, ..RunOptions::default() }
    }
}

impl Run {
    pub(crate) fn run(self) -> ExitCode {
        let Run { seeds, seconds, mut keep_going, save, without } = self;
        let (at_most, options) = (seconds.map(Duration::from_secs), without.options());
        let Some((first, last)) = seeds.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        else {
            eprintln!("`{seeds}` is not a range of seeds; write `1..1000`");
            return ExitCode::FAILURE;
        };
        let begun = now();
        let mut total = Tally::default();
        let mut failures = 0;
        let mut told = 0;
        let mut done = 0;
        for seed in first..=last {
            if at_most.is_some_and(|at_most| begun.elapsed() > at_most) {
                break;
            }
            let failure = run_watched(seed, options, &mut total);
            done += 1;
            let seconds = begun.elapsed().as_secs();
            if seconds >= told + 5 {
                told = seconds;
                eprintln!("seed {seed}: {} cuts in {seconds} s", total.cuts);
            }
            if let Some(failure) = failure {
                print_failure(seed, &failure, save.as_deref());
                failures += 1;
                if keep_going == 0 {
                    return ExitCode::FAILURE;
                }
                keep_going -= 1;
            }
        }
        println!("{done} seeds, {} cuts in {:.1} s, {failures} failures", total.cuts, begun.elapsed().as_secs_f64());
        for (what, count) in total.counts() {
            println!("{count:>8}  {what}");
        }
        let never = total.never();
        // A short run gets into few corners, and one with something left out not into all.
        if done >= SEEDS_OF_A_LONG_RUN && options.kills && options.faults && !never.is_empty() {
            eprintln!("these never happened: {never:?}");
            return ExitCode::FAILURE;
        }
        if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a seed on a thread of its own, so that one that hangs is noticed.
pub(crate) fn run_watched(seed: u64, options: RunOptions, total: &mut Tally) -> Option<Box<Failure>> {
    let (sender, result) = mpsc::channel();
    std::thread::spawn(move || {
        let scheduled = schedule::run(seed, move || {
            let mut tally = Tally::default();
            let failure = run_seed(seed, options, &mut tally).err();
            (tally, failure)
        });
        let _ = sender.send(scheduled.unwrap_or_else(|stuck| (Tally::default(), Some(Failure::from(stuck).into()))));
    });
    match result.recv_timeout(SEED_DURATION_MAX) {
        Ok((tally, failure)) => {
            total.add(&tally);
            failure
        }
        Err(_) => {
            eprintln!("seed {seed} hangs, or panicked");
            std::process::exit(2);
        }
    }
}

pub(crate) fn print_failure(seed: u64, failure: &Failure, save: Option<&Path>) {
    println!("VIOLATION in seed {seed}: {}", failure.violation);
    failure.cuts.iter().for_each(|cut| println!("  {cut}"));
    println!("  again: weir-sim replay --seed {seed}");
    let Some(dir) = save.map(|dir| dir.join(seed.to_string())) else { return };
    match save_failure(failure, &dir) {
        Ok(()) => println!("  files and journals: {}", dir.display()),
        Err(error) => eprintln!("failed to write to `{}`: {error}", dir.display()),
    }
}

fn save_failure(failure: &Failure, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for (number, journal) in failure.journals.iter().enumerate() {
        std::fs::write(to.join(format!("journal-{}", number + 1)), journal.join("\n"))?;
    }
    failure.disk.as_ref().map_or(Ok(()), |tree| save_tree(tree, to))
}

fn save_tree(tree: &Tree, to: &Path) -> std::io::Result<()> {
    for (dir, entries) in &tree.dirs {
        let dir = to.join(dir.strip_prefix("/").unwrap_or(dir));
        std::fs::create_dir_all(&dir)?;
        for (name, node) in entries {
            let Some(blocks) = node.file().and_then(|file| tree.files.get(&file)) else { continue };
            let mut bytes = vec![0; blocks.len() as usize];
            blocks.read(0, &mut bytes);
            std::fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}
