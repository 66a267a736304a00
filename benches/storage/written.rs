//! `written`: bytes that go to the disk for each byte of record batches, state apart.
//!
//! Counted by the system, for all threads of the store but the one that applies the state: so rolling and sealing are in
//! it where enough is written for them.

use std::{thread, time::Duration};

use anyhow::Result;
use protocol::Retention;

use crate::{
    Bench,
    figure::Target::{self, AtMost},
    load::{Load, Shape},
    process::bytes_written_except,
};

/// The thread that applies the state.
const STATE_THREAD: &str = "weir-projector";

/// How much is written of what.
struct Written {
    bytes: f64,
    payload: f64,
    commits: f64,
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let sizes = [(1 << 20, "1 MiB", 1.05), (256 << 10, "256 KiB", 1.15), (64 << 10, "64 KiB", 1.6)];
    for (group_bytes, size, most) in sizes {
        for (partitions, plural) in [(1, ""), (64, "s")] {
            // More than a segment, so that it is left and sealed.
            let bytes = bench.full_or_quick(512 << 20, 32 << 20);
            let written = write(bench, Shape::split(group_bytes, partitions), bytes)?;
            let name = format!("{size} groups, {partitions} partition{plural}");
            tell(bench, &name, &written, AtMost(most));
        }
    }
    let commits = bench.full_or_quick(4_000, 400);
    let trickle = Shape::trickle(64);
    let written = write(bench, trickle, commits * Load::new(trickle).commit_bytes())?;
    tell(bench, "64 partitions, one 100 B record each", &written, AtMost(5.0));

    let alone = Shape::trickle(1);
    let written = write(bench, alone, commits * Load::new(alone).commit_bytes())?;
    let per_commit = written.bytes / written.commits / 1024.0;
    bench.report.figure("one 100 B record", per_commit, "KiB/commit", AtMost(36.0), "");
    Ok(())
}

fn tell(bench: &mut Bench, name: &str, written: &Written, target: Target) {
    let Written { bytes, payload, commits } = written;
    let detail = format!("{:.1} KiB a commit", bytes / commits / 1024.0);
    bench.report.figure(name, bytes / payload, "written/payload", target, &detail);
}

fn write(bench: &mut Bench, shape: Shape, bytes: u64) -> Result<Written> {
    bench.in_new_dir(|_, dir| {
        let mut load = Load::new(shape);
        let store = load.open(dir, Retention::FOREVER)?;
        let before = bytes_written_except(STATE_THREAD)?;
        load.fill(&store, bytes)?;
        let after = settled(|| bytes_written_except(STATE_THREAD))?;
        let commits = load.commits_in(bytes);
        let payload = (commits as u64 * load.commit_bytes()) as f64;
        Ok(Written { bytes: (after - before) as f64, payload, commits: commits as f64 })
    })
}

/// The value once it stays: what was left is sealed.
fn settled(value: impl Fn() -> Result<u64>) -> Result<u64> {
    let mut last = value()?;
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = value()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}
