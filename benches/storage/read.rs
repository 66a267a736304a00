//! `read`: a partition from its first record to its last, in fetches of 1 MiB: from the disk, and from the page cache.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use protocol::{Offset, PartitionId, Retention};
use storage::{Store, StoreOptions};

use crate::{
    Bench,
    figure::{
        Target::{self, AtLeast},
        median,
    },
    load::{Load, Shape, pair, timed},
    process::bytes_read_from_disk,
};

/// What a consumer asks for at a time.
const FETCH_BYTES: usize = 1 << 20;

/// Partitions that are read of the interleaved ones.
const INTERLEAVED_READ: u32 = 16;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    bench.in_new_dir(one_partition)?;
    bench.in_new_dir(interleaved)
}

fn one_partition(bench: &mut Bench, dir: &Path) -> Result<()> {
    let (store_dir, raw_path) = (dir.join("store"), dir.join("raw"));
    let bytes = bench.full_or_quick(1 << 30, 256 << 20);
    let payload = fill(&store_dir, Shape::split(1 << 20, 1), bytes)?;
    write_raw(&raw_path, payload)?;
    let all = PartitionId(0)..PartitionId(1);
    let mut cold = Vec::new();
    for turn in 0..bench.full_or_quick(5, 2) {
        // Opened anew each time: nothing is left in the store's own memory.
        let store = Store::open(&store_dir, StoreOptions::default())?;
        evict(&files_in(&store_dir)?)?;
        evict(std::slice::from_ref(&raw_path))?;
        let before = bytes_read_from_disk()?;
        cold.push(pair(turn, || read_raw(&raw_path), || read_partitions(&store, all.clone(), payload))?);
        let from_disk = bytes_read_from_disk()? - before;
        ensure!(from_disk > payload * 19 / 10, "the page cache still held {} bytes", 2 * payload - from_disk);
    }
    let rate = |seconds: f64| payload as f64 / 1e6 / seconds;
    let ratio = median(cold.iter().map(|(raw, store)| raw / store));
    let raw = rate(median(cold.iter().map(|(raw, _)| *raw)));
    let detail = format!("{:.0} MB/s of {raw:.0}", rate(median(cold.iter().map(|(_, store)| *store))));
    bench.report.figure("one partition, cold", ratio, "of raw", AtLeast(0.6), &detail);

    let store = Store::open(&store_dir, StoreOptions::default())?;
    let mut warm = Vec::new();
    for turn in 0..=bench.full_or_quick(7, 2) {
        warm.push(pair(turn, || read_raw(&raw_path), || read_partitions(&store, all.clone(), payload))?);
    }
    warm.remove(0);
    let gigabytes = rate(median(warm.iter().map(|(_, store)| *store))) / 1e3;
    let raw = rate(median(warm.iter().map(|(raw, _)| *raw))) / 1e3;
    let detail = format!("raw {raw:.2}");
    bench.report.figure("one partition, from the page cache", gigabytes, "GB/s", AtLeast(2.0), &detail);
    Ok(())
}

fn interleaved(bench: &mut Bench, dir: &Path) -> Result<()> {
    let bytes = bench.full_or_quick(1 << 30, 256 << 20);
    let payload = fill(dir, Shape::split(1 << 20, 64), bytes)? / 64;
    let store = Store::open(dir, StoreOptions::default())?;
    // Once unmeasured: all of it comes into the page cache.
    read_partitions(&store, PartitionId(0)..PartitionId(64), 64 * payload)?;
    let one = |id| timed(|| read_partitions(&store, PartitionId(id)..PartitionId(id + 1), payload));
    let taken = (0..INTERLEAVED_READ).map(one).collect::<Result<Vec<f64>>>()?;
    let rate = payload as f64 / 1e6 / median(taken);
    bench.report.figure("one of 64 interleaved, from the page cache", rate, "MB/s", AtLeast(200.0), "");
    let all = timed(|| read_partitions(&store, PartitionId(0)..PartitionId(64), 64 * payload))?;
    let rate = 64.0 * payload as f64 / 1e6 / all;
    bench.report.figure("64 interleaved one after the other, likewise", rate, "MB/s", Target::None, "");
    Ok(())
}

/// A store with so much in it, closed; how much.
fn fill(dir: &Path, shape: Shape, bytes: u64) -> Result<u64> {
    let mut load = Load::new(shape);
    let store = load.open(dir, Retention::FOREVER)?;
    load.fill(&store, bytes)?;
    store.close()?;
    Ok(load.commits_in(bytes) as u64 * load.commit_bytes())
}

/// Reads partitions from end to end, one after the other, and checks that it was all there.
fn read_partitions(store: &Store, ids: std::ops::Range<PartitionId>, payload: u64) -> Result<()> {
    let mut bytes = 0;
    for id in (ids.start.0..ids.end.0).map(PartitionId) {
        let mut from = Offset::ZERO;
        loop {
            let outcome = store.read(id, from, FETCH_BYTES)?;
            if outcome.next_offset == from {
                break;
            }
            bytes += outcome.batches.iter().map(|run| run.len() as u64).sum::<u64>();
            from = outcome.next_offset;
        }
    }
    ensure!(bytes == payload, "{bytes} bytes were read of {payload}");
    Ok(())
}

fn write_raw(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create_new(path)?;
    let block: Vec<u8> = (0..1_u32 << 20).map(|number| (number * 7 / 3) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        std::io::Write::write_all(&mut file, &block[..now as usize])?;
        left -= now;
    }
    Ok(file.sync_all()?)
}

fn read_raw(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; FETCH_BYTES];
    while file.read(&mut block)? > 0 {}
    Ok(())
}

pub(crate) fn files_in(store_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(store_dir.join("segments"))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

/// Has the system forget what it keeps of some files in memory.
#[cfg(target_os = "linux")]
pub(crate) fn evict(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let file = File::open(path)?;
        // What is not on disk yet is not forgotten.
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn evict(_: &[PathBuf]) -> Result<()> {
    anyhow::bail!("only on Linux a file can be read cold")
}
