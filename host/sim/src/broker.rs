//! The whole broker in simulation: producers, readers and an operator at a real broker on a disk in memory, under a seeded
//! schedule with its own time, while the disk fails, the program is killed and the power is cut.
//!
//! Owns a run: the broker's lives one after the other, what breaks when, and the proof at the end that everything heals.
//! The door is not in it: clients call the core as the door's sessions do, over connections that stall, lose, double,
//! delay and break.
//!
//! ```text
//! seed -> plan -> producers, readers, operator -> broker -> store -> SimDisk
//!                        |  what was asked, answered, shown            |  every call
//!                        v                                             v
//!                     ledger (the oracle)                           trace
//!
//!         kill, cut: the disk as it is, or as a cut left it -> the next life
//! ```
//!
//! Invariants
//! - The same seed gives the same trace, byte for byte; its hash says so.
//! - Nothing that a life answers after it was killed is heard.
//!
//! `cargo run -p weir-sim --profile sim -- broker --seeds 1..100000 --seconds 600 --jobs 2` runs many;
//! `weir-sim broker --seed N --trace` runs one, twice, and shows what happened.
//!
//! Start at [`run_seed`].

mod catalog;
pub mod counts;
mod explain;
mod guests;
mod ledger;
mod life;
mod link;
mod making;
mod operator;
mod plan;
mod producer;
mod ranges;
mod reader;
mod run;
mod trace;
mod window;
mod world;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use self::{counts::Counts, run::Run, world::World};
use crate::{
    disk::{Lie, SimDisk, Tree},
    invariants::Violation,
    rng::Rng,
    schedule, threads,
};

/// How a run is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Whether the trace is kept, and not only its hash.
    pub keeps_trace: bool,
    /// What the disk lies about.
    pub lie: Lie,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// Hash of its trace.
    pub hash: u64,
    /// The trace, if it was asked for.
    pub trace: Vec<String>,
    /// What happened in it.
    pub counts: Counts,
    /// The first promise that was not kept.
    pub violation: Option<Violation>,
}

/// Runs a seed.
#[must_use]
pub fn run_seed(seed: u64, options: RunOptions) -> Report {
    threads::listen();
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(Tree::empty(), rng.number()).lying(options.lie);
    let world = World::new(disk, options.keeps_trace);
    let run = Run::new(rng.clone(), world.clone(), options.lie);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| schedule::run(rng.number(), move || run.run())));
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(stuck)) => world.fail(Violation::new("everybody is answered", stuck.to_string())),
        Err(_) => world.fail(Violation::new("nothing panics", "the simulation panicked")),
    }
    report(seed, &world)
}

fn report(seed: u64, world: &Arc<World>) -> Report {
    let (hash, lines, trace) = world.take_trace();
    let mut counts = world.counts(|counts| counts.clone());
    (counts.seeds, counts.lines) = (1, lines);
    Report { seed, hash, trace, counts, violation: world.violation() }
}
