//! `memory`: what an idle process keeps in memory, with much stored in many partitions.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use protocol::Retention;

use crate::{
    Bench,
    figure::Target::{self, AtMost},
    load::{Load, Shape},
    process::{Role, resident_bytes},
};

const PARTITIONS: u32 = 1_000;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let bytes: u64 = bench.full_or_quick(8 << 30, 1 << 30);
    bench.in_new_dir(|bench, dir| {
        let stored = format!("{} MiB stored, 1,000 partitions", bytes >> 20);
        let loaded = resident_when_idle(dir, bytes)?;
        bench.report.figure(&format!("{stored}, after load"), loaded, "MiB", AtMost(80.0), "");
        let opened = resident_when_idle(dir, 0)?;
        bench.report.figure(&format!("{stored}, after start"), opened, "MiB", Target::None, "");
        Ok(())
    })
}

/// In a process of its own, whose memory has seen nothing else.
fn resident_when_idle(dir: &Path, bytes: u64) -> Result<f64> {
    let mut process = Role::LoadAndIdle { dir: dir.to_owned(), bytes }.start(false)?;
    let mut said = String::new();
    if let Some(output) = process.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    process.wait()?;
    let resident: u64 = said.trim().parse().context("the process that loads failed")?;
    Ok(resident as f64 / 1048576.0)
}

/// The process that is measured: writes, waits, and says what it keeps.
pub(crate) fn load_and_idle(dir: &Path, bytes: u64) -> Result<()> {
    let mut load = Load::new(Shape::split(1 << 20, PARTITIONS));
    let store = load.open(dir, Retention::FOREVER)?;
    if bytes > 0 {
        load.fill(&store, bytes)?;
    }
    // Idle but for what a broker does now and then, which also lets the allocator give back what it kept.
    for _ in 0..3 {
        store.run_retention(0)?;
        store.clean(0, &mut |_| true)?;
        thread::sleep(Duration::from_secs(1));
    }
    println!("{}", resident_bytes()?);
    Ok(store.close()?)
}
