//! `restart`: a process is killed in the middle of a commit, and its store opened: how long, and how much is read for it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use protocol::Retention;
use storage::{Store, StoreOptions};

use crate::{
    Bench,
    figure::{Target::AtMost, median},
    load::{Load, Shape, commit_all},
    process::{Role, bytes_read_from_disk},
    read::{evict, files_in},
};

/// Written since the store was opened when the process is killed: the active segment is nearly full.
const AHEAD_BYTES: u64 = 192 << 20;

/// The disk for which the time is computed from what is read. Bytes a second.
const DISK_RATE: f64 = 200e6;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let small: u64 = bench.full_or_quick(1 << 30, 256 << 20);
    let large: u64 = bench.full_or_quick(8 << 30, 1 << 30);
    bench.in_new_dir(|bench, dir| {
        let (small_dir, large_dir) = (dir.join("small"), dir.join("large"));
        let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
        for turn in 0..bench.full_or_quick(3, 1) {
            let wait = Duration::from_millis(10 + 17 * turn);
            of_small.push(kill_and_open(&small_dir, small, wait)?);
            of_large.push(kill_and_open(&large_dir, large, wait)?);
        }
        for (bytes, dir, opened) in [(small, &small_dir, &of_small), (large, &large_dir, &of_large)] {
            tell(bench, bytes, opened);
            tell_cold(bench, kill_and_open_cold(dir, bytes)?);
        }
        let ratio = median(of_large.iter().copied()) / median(of_small.iter().copied());
        bench.report.figure("the larger over the smaller", ratio, "times", AtMost(1.5), "");
        Ok(())
    })
}

fn tell(bench: &mut Bench, bytes: u64, seconds: &[f64]) {
    let name = format!("open after a kill, {} MiB stored", bytes >> 20);
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    bench.report.figure(&name, median(seconds.iter().copied()), "s", AtMost(1.0), &format!("slowest {slowest:.2}"));
}

fn tell_cold(bench: &mut Bench, bytes: f64) {
    let detail = format!("{:.0} MiB at {:.0} MB/s", bytes / 1048576.0, DISK_RATE / 1e6);
    bench.report.figure("  cold: what comes from a slow disk", bytes / DISK_RATE, "s", AtMost(2.0), &detail);
}

/// How long the store takes to open, in seconds; its files are in memory.
fn kill_and_open(dir: &Path, bytes: u64, wait: Duration) -> Result<f64> {
    write_and_kill(dir, bytes, wait)?;
    let start = Instant::now();
    let store = Store::open(dir, StoreOptions::default())?;
    let seconds = start.elapsed().as_secs_f64();
    store.close()?;
    Ok(seconds)
}

/// Bytes that come from the disk while the store opens, when nothing of it is in memory.
fn kill_and_open_cold(dir: &Path, bytes: u64) -> Result<f64> {
    write_and_kill(dir, bytes, Duration::from_millis(40))?;
    let mut files = files_in(dir)?;
    files.push(dir.join("state.redb"));
    evict(&files)?;
    let before = bytes_read_from_disk()?;
    let store = Store::open(dir, StoreOptions::default())?;
    let bytes_read = bytes_read_from_disk()? - before;
    store.close()?;
    Ok(bytes_read as f64)
}

fn write_and_kill(dir: &Path, bytes: u64, wait: Duration) -> Result<()> {
    let mut writer = Role::WriteUntilKilled { dir: dir.to_owned(), bytes }.start(false)?;
    let mut said = String::new();
    if let Some(output) = writer.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    thread::sleep(wait);
    // SIGKILL.
    writer.kill()?;
    writer.wait()?;
    ensure!(said.trim() == "writing", "the process that writes failed");
    Ok(())
}

/// The process that is killed: brings a store up to some size, fills most of a segment, says so, and goes on.
pub(crate) fn write_until_killed(dir: &Path, bytes: u64) -> Result<()> {
    let mut load = Load::new(Shape::split(1 << 20, 64));
    let store = load.open(dir, Retention::FOREVER)?;
    let stored: u64 = store.partitions().iter().map(|(_, place)| place.bytes).sum();
    if stored < bytes {
        load.fill(&store, bytes - stored)?;
    }
    store.roll()?;
    load.fill(&store, AHEAD_BYTES)?;
    println!("writing");
    commit_all(&store, std::iter::repeat_with(|| load.commit()))
}
