//! Durable commits against the disk: the same groups of record batches, appended to a plain file with fdatasync, and
//! committed to a store, by turns in one run.
//!
//! `cargo bench -p benches --bench commit [-- DIRECTORY [CASE]]`; the directory (default: the system's temporary one)
//! decides which disk is measured, and a part of a case's name which cases.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{BatchBuilder, Compression, Offset, PartitionId, Record, Retention};
use storage::{Append, Commit, PartitionChange, Store, StoreOptions};

/// Commits that wait while one is written, so that the committer never idles.
const IN_FLIGHT: usize = 4;

/// Turns of each, of which the median counts.
const ROUNDS: usize = 7;

struct Case {
    name: &'static str,
    group_bytes: usize,
    partitions: u32,
    groups: usize,
}

const CASES: [Case; 6] = [
    Case { name: "1 MiB groups, 1 partition", group_bytes: 1 << 20, partitions: 1, groups: 64 },
    Case { name: "1 MiB groups, 64 partitions", group_bytes: 1 << 20, partitions: 64, groups: 64 },
    Case { name: "4 MiB groups, 1 partition", group_bytes: 4 << 20, partitions: 1, groups: 24 },
    Case { name: "64 KiB groups, 1 partition", group_bytes: 64 << 10, partitions: 1, groups: 400 },
    Case { name: "256 KiB groups, 64 partitions", group_bytes: 256 << 10, partitions: 64, groups: 200 },
    Case { name: "64 partitions x 100 B", group_bytes: 64 * 170, partitions: 64, groups: 400 },
];

fn main() -> anyhow::Result<()> {
    // Cargo's own arguments begin with dashes.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let dir = match arguments.next() {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    println!("{:32} {:>10} {:>10} {:>7} {:>16}", "", "raw MB/s", "store MB/s", "ratio", "written/payload");
    let wanted = arguments.next().unwrap_or_default();
    for (number, case) in CASES.iter().enumerate().filter(|(_, case)| case.name.contains(&wanted)) {
        run_case(case, &dir.path().join(number.to_string()))?;
    }
    Ok(())
}

fn run_case(case: &Case, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut raw = File::create_new(dir.join("raw"))?;
    let options = StoreOptions { group_bytes_max: case.group_bytes, ..StoreOptions::default() };
    let store = Store::open(&dir.join("store"), options)?;
    let retention = Retention::FOREVER;
    let created = (0..case.partitions).map(|id| PartitionChange::Create { id: PartitionId(id), retention });
    store.commit(Commit { partitions: created.collect(), ..Commit::default() })?;
    let mut batches = Batches::new(case);
    // Both once, unmeasured: first growth of the files, first touch of the memory.
    let groups = batches.round(case);
    raw_round(&mut raw, &groups)?;
    store_round(&store, groups)?;
    let (mut raw_times, mut store_times) = (Vec::new(), Vec::new());
    let before = store.stats();
    for _ in 0..ROUNDS {
        let groups = batches.round(case);
        raw_times.push(raw_round(&mut raw, &groups)?);
        store_times.push(store_round(&store, groups)?);
    }
    let after = store.stats();
    let payload = (after.bytes_appended - before.bytes_appended) as f64;
    let rate = |times: &mut Vec<Duration>| {
        times.sort();
        payload / ROUNDS as f64 / times[ROUNDS / 2].as_secs_f64() / 1e6
    };
    let (raw_rate, store_rate) = (rate(&mut raw_times), rate(&mut store_times));
    println!(
        "{:32} {:>10.0} {:>10.0} {:>7.2} {:>16.2}",
        case.name,
        raw_rate,
        store_rate,
        store_rate / raw_rate,
        (after.bytes_written - before.bytes_written) as f64 / payload
    );
    drop(store);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn raw_round(file: &mut File, groups: &[Commit]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for group in groups {
        for append in &group.appends {
            file.write_all(append.batches.as_deref().unwrap_or_default())?;
        }
        file.sync_data()?;
    }
    Ok(start.elapsed())
}

fn store_round(store: &Store, groups: Vec<Commit>) -> anyhow::Result<Duration> {
    let (sender, answers) = mpsc::channel();
    let start = Instant::now();
    let mut in_flight = 0;
    for group in groups {
        if in_flight == IN_FLIGHT {
            answers.recv()??;
            in_flight -= 1;
        }
        let sender = sender.clone();
        store.submit(group, Box::new(move |result| drop(sender.send(result))));
        in_flight += 1;
    }
    for _ in 0..in_flight {
        answers.recv()??;
    }
    Ok(start.elapsed())
}

/// Makes groups of batches whose offsets go on from round to round.
struct Batches {
    template: Vec<u8>,
    count: u64,
    next: Vec<u64>,
}

impl Batches {
    fn new(case: &Case) -> Batches {
        let bytes = case.group_bytes / case.partitions as usize;
        let mut builder = BatchBuilder::new(Compression::None);
        // Records of about 100 B, as many as the batch should hold.
        while builder.is_empty() || builder.section_bytes() + 61 + 110 <= bytes {
            let value: Vec<u8> = (0..100).map(|byte| (byte * 7 + builder.record_count()) as u8).collect();
            builder.append(&Record::unkeyed(value, 0)).expect("the batch is below its limits");
        }
        let count = u64::from(builder.record_count());
        let batch = builder.finish(Offset::ZERO).expect("the batch is below its limits");
        Batches { template: batch.bytes().to_vec(), count, next: vec![0; case.partitions as usize] }
    }

    fn round(&mut self, case: &Case) -> Vec<Commit> {
        (0..case.groups).map(|_| self.group()).collect()
    }

    fn group(&mut self) -> Commit {
        let mut commit = Commit::default();
        for (id, next) in (0..).zip(&mut self.next) {
            let mut batch = self.template.clone();
            batch[..8].copy_from_slice(&next.to_be_bytes());
            commit.appends.push(Append {
                partition: PartitionId(id),
                cover_start: Offset(*next),
                cover_end: Offset(*next + self.count),
                batches: Some(Bytes::from(batch)),
                max_timestamp_ms: 0,
            });
            *next += self.count;
        }
        commit
    }
}
