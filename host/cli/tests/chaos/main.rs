//! A real broker under load while everything that can happen to a process happens to it: `kill -9`, also while it starts
//! and while it ends, SIGSTOP for less and for more than a connection's patience, SIGTERM, and a full disk. Then one
//! question: is there one log that explains all that the clients were told?
//!
//! ```text
//! WEIR_CHAOS_SECONDS=3600 WEIR_CHAOS_SEED=7 cargo test -p weir-cli --test chaos -- --nocapture
//! ```
//! runs as long as that, a round of a minute after the other. A history in which something is broken is kept, and its path
//! printed; `cargo run -p weir-sim -- check FILE` judges it again. The seed decides what happens, not when exactly:
//! processes take turns as they like.

mod clock;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod payload;
mod process;
mod producers;
mod readers;
mod settle;
mod storm;
mod world;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use client::Identity;
use common::Place;
use sim::{
    checker::{self, Counts, Report, history::History},
    rng::Rng,
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    disk::{BUDGET, Disk},
    process::Launcher,
    storm::{Blows, IDLE, Storm, create_hog},
    world::World,
};

/// Seconds of storm in a run that nobody said more of; as long as it takes until everything happened once.
const SECONDS: u64 = 12;

/// The longest storm of one broker: its history stays in memory.
const ROUND_SECONDS: u64 = 60;

const PRODUCERS: usize = 4;
const READERS: usize = 3;

#[test]
fn one_log_explains_all_that_clients_were_told() {
    let seconds = number_of("WEIR_CHAOS_SECONDS").unwrap_or(SECONDS);
    let first_seed = number_of("WEIR_CHAOS_SEED").unwrap_or(1);
    let until = clock::now() + Duration::from_secs(seconds);
    let (mut blows, mut counts) = (Blows::default(), Counts::default());
    for seed in first_seed.. {
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            break;
        }
        let round = Round { seed, storm: left.min(Duration::from_secs(ROUND_SECONDS)) };
        round.run(&mut blows, &mut counts).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        eprintln!("seed {seed}: so far {blows:?}, {counts:?}");
    }
    for (what, count) in [
        ("kills", blows.kills),
        ("stops", blows.stops),
        ("terminations", blows.terminations),
        ("full disks", blows.full_disks),
        ("records acknowledged", counts.acked),
        ("records read", counts.read),
        ("ends asked for", counts.asked),
    ] {
        assert!(count > 0, "no {what}: {blows:?}, {counts:?}");
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One broker's storm, on a disk of its own.
struct Round {
    seed: u64,
    storm: Duration,
}

impl Round {
    fn run(&self, blows: &mut Blows, counts: &mut Counts) -> anyhow::Result<()> {
        let place = Place::new();
        let mut rng = Rng::new(self.seed);
        // Now and then a full disk is the budget's matter.
        let disk = Disk::new(&place, std::env::var_os("WEIR_CHAOS_NO_MOUNT").is_none() && !self.seed.is_multiple_of(4));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let config = place.file("weir.toml", config(&disk));
        let mut launcher = Launcher { place: &place, data_dir: disk.data_dir(&place), config, address: None };

        let broker = launcher.start()?;
        let address = launcher.address.context("a broker that serves has one")?;
        let identity = Identity::load(launcher.data_dir.join("identity/admin.pem"))?;
        let world = Arc::new(World::new(address, identity));
        runtime.block_on(async {
            world.set_up().await?;
            create_hog(&world.connect_patiently().await?).await
        })?;
        let clients = start_clients(&runtime, &world, &mut rng);
        let mut storm =
            Storm { world: Arc::clone(&world), runtime: &runtime, launcher, disk: &disk, rng, blows: Blows::default() };
        let until: Instant = clock::now() + self.storm;
        let outcome = storm.blow(broker, until).and_then(|broker| {
            disk.free();
            world.stop();
            settle::join(&runtime, clients)?;
            // What was acknowledged does not live in memory.
            broker.kill()?;
            let broker = storm.launcher.start()?;
            settle::read_all(&runtime, &world)?;
            let status = broker.terminate()?;
            ensure!(status.success(), "asked to end, the broker ended with {status}");
            storm.verify()
        });
        blows.add(&storm.blows);
        let log = std::fs::read_to_string(storm.launcher.log_path()).unwrap_or_default();
        let history = world.history();
        let told = outcome.and_then(|()| self.judge(&world, &history, &log, counts));
        told.with_context(|| format!("kept: {}", self.keep(&history, &log)))
    }

    fn judge(&self, world: &World, history: &History, log: &str, counts: &mut Counts) -> anyhow::Result<()> {
        let report = checker::check(history);
        add(counts, &report.counts);
        ensure!(report.is_clean(), "{}", told(&report));
        let troubles = world.take_troubles();
        ensure!(troubles.is_empty(), "{} troubles, the first one: {}", troubles.len(), troubles[0]);
        ensure!(!log.contains("panicked"), "a thread of the broker panicked");
        Ok(())
    }

    /// Writes down what led here; where.
    fn keep(&self, history: &History, log: &str) -> String {
        let at = |extension: &str| -> PathBuf {
            std::env::temp_dir().join(format!("weir-chaos-{}-{}.{extension}", self.seed, std::process::id()))
        };
        let lines: Vec<String> = history.lines().collect();
        let (history, log_file) = (at("jsonl"), at("log"));
        match std::fs::write(&history, lines.join("\n")).and_then(|()| std::fs::write(&log_file, log)) {
            Ok(()) => format!("`{}` and the broker's log beside it", history.display()),
            Err(error) => format!("nothing, for `{}` cannot be written: {error}", history.display()),
        }
    }
}

/// Small segments and short patience, so that everything happens often.
fn config(disk: &Disk) -> String {
    let idle = IDLE.as_millis();
    let budget = if matches!(disk, Disk::Shared) { format!("budget = '{BUDGET}'\n") } else { String::new() };
    format!(
        "drain_ms_max = 5000\n[transport]\nidle_ms_max = {idle}\n[storage]\n{budget}segment_bytes_max = 16777216\n\
         retention_interval_ms = 300\nscrub_rate = '32MiB'\n"
    )
}

fn start_clients(runtime: &Runtime, world: &Arc<World>, rng: &mut Rng) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..PRODUCERS {
        clients.spawn_on(producers::run(Arc::clone(world), rng.fork()), runtime.handle());
    }
    for _ in 0..READERS {
        clients.spawn_on(readers::read(Arc::clone(world), rng.fork()), runtime.handle());
    }
    clients.spawn_on(readers::ask(Arc::clone(world), rng.fork()), runtime.handle());
    clients
}

fn add(total: &mut Counts, counts: &Counts) {
    total.sent += counts.sent;
    total.acked += counts.acked;
    total.refused += counts.refused;
    total.unknown += counts.unknown;
    total.unknown_stored += counts.unknown_stored;
    total.read += counts.read;
    total.stored += counts.stored;
    total.asked += counts.asked;
}

/// The violations, a few of each kind.
fn told(report: &Report) -> String {
    let lines: Vec<String> = report.violations.iter().take(20).map(ToString::to_string).collect();
    format!("{:?}\n{}", report.found, lines.join("\n"))
}
