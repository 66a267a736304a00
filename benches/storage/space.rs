//! `space`: the disk that the files take, over what retention keeps, once as much is deleted as is written.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::Result;
use protocol::Retention;

use crate::{
    Bench,
    figure::Target::AtMost,
    load::{Load, Shape},
};

/// Written between two rounds of retention.
const STEP_BYTES: u64 = 128 << 20;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    for (partitions, plural) in [(1, ""), (64, "s")] {
        let retained: u64 = bench.full_or_quick(4 << 30, 1 << 30);
        let worst = bench.in_new_dir(|_, dir| steady_state(dir, partitions, retained))?;
        let name = format!("{} MiB retained, {partitions} partition{plural}", retained >> 20);
        let detail = format!("{:.0} MiB of files at most", worst / 1048576.0);
        bench.report.figure(&name, worst / retained as f64, "files/retained", AtMost(1.25), &detail);
    }
    Ok(())
}

/// The most the files took after a round of retention, once it deletes.
fn steady_state(dir: &Path, partitions: u32, retained: u64) -> Result<f64> {
    let mut load = Load::new(Shape::split(1 << 20, partitions));
    let retention = Retention { bytes: Some(retained / u64::from(partitions)), ..Retention::FOREVER };
    let store = load.open(dir, retention)?;
    load.fill(&store, retained)?;
    let mut worst: u64 = 0;
    let mut removed = 0;
    for step in 0.. {
        load.fill(&store, STEP_BYTES)?;
        removed += store.run_retention(0)?.bytes_removed;
        if removed > 0 {
            worst = worst.max(disk_bytes(dir)?);
        }
        // Half as much again, so that what is seen has come round.
        if step * STEP_BYTES > retained / 2 {
            break;
        }
    }
    anyhow::ensure!(removed > 0, "retention deleted nothing");
    Ok(worst as f64)
}

/// What all files under a directory take of the disk.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
