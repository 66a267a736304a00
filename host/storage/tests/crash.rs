//! `kill -9` of a real process in the middle of its commits: everything acknowledged is there, once and in order.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use common::*;
use protocol::{Offset, PartitionId};
use storage::{Commit, StateTable, Store, StoreOptions};

const DIR_VARIABLE: &str = "WEIR_STORAGE_TEST_DIR";
const PARTITIONS: u32 = 3;

fn options() -> StoreOptions {
    StoreOptions { overlay_bytes_max: 64 << 10, ..small() }
}

/// Batch sizes differ, so that some commits are one row and others several parts.
fn bytes_of(offset: u64) -> usize {
    [20, 3_000, 90_000, 400][(offset % 4) as usize]
}

/// Not a test: what the child process runs, until it is killed. Prints each acknowledged offset.
#[test]
fn child_process() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let store = Store::open(Path::new(&dir), options()).unwrap();
    if store.partition(P).is_none() {
        for id in 0..PARTITIONS {
            store.commit(create(PartitionId(id), FOREVER)).unwrap();
        }
    }
    let mut out = std::io::stdout();
    let (sender, answers) = std::sync::mpsc::channel();
    for id in 0..PARTITIONS {
        let from = store.partition(PartitionId(id)).unwrap().high_watermark.0;
        writeln!(out, "open {id} {from}").unwrap();
    }
    let mut next: Vec<u64> =
        (0..PARTITIONS).map(|id| store.partition(PartitionId(id)).unwrap().high_watermark.0).collect();
    for round in 0_usize.. {
        let id = round % PARTITIONS as usize;
        let offset = next[id];
        next[id] += 1;
        let commit = Commit {
            appends: vec![append(PartitionId(id as u32), offset, 1, bytes_of(offset), offset as i64)],
            state: vec![set(StateTable::Producers, &id.to_string(), &offset.to_string())],
            ..Commit::default()
        };
        let sender = sender.clone();
        store.submit(commit, Box::new(move |result| sender.send((id, offset, result)).unwrap()));
        // A few in flight, so that groups form.
        if round >= 4 {
            let (id, offset, result) = answers.recv().unwrap();
            result.unwrap();
            writeln!(out, "acked {id} {offset}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// Starts the child, kills it after some acknowledgements, and returns the last acknowledged offset per partition.
fn run_and_kill(dir: &Path, acks: usize) -> Vec<Option<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acked = vec![None; PARTITIONS as usize];
    let mut seen = 0;
    // Lines that arrive after the kill were acknowledged too.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let fields: Vec<&str> = line.split(' ').collect();
        if let ["acked", id, offset] = fields[..] {
            acked[id.parse::<usize>().unwrap()] = Some(offset.parse().unwrap());
            seen += 1;
        }
        if seen == acks {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    acked
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = vec![None; PARTITIONS as usize];
    for round in 0..6 {
        for (before, now) in acked.iter_mut().zip(run_and_kill(dir.path(), 15 + 7 * round)) {
            assert!(now > *before, "the child carried on");
            *before = now;
        }
        let store = Store::open(dir.path(), options()).unwrap();
        for id in 0..PARTITIONS {
            let place = store.partition(PartitionId(id)).unwrap();
            let last = acked[id as usize].unwrap();
            assert!(place.high_watermark > Offset(last), "partition {id} lost offset {last}");
            let batches = read_all(&store, PartitionId(id), 0, 100_000);
            assert_eq!(batches.len() as u64, place.high_watermark.0);
            for (offset, batch) in (0..).zip(&batches) {
                assert_eq!(batch.bytes(), &common::batch(offset, 1, bytes_of(offset), offset as i64));
            }
            let state = store.state_get(StateTable::Producers, id.to_string().as_bytes()).unwrap().unwrap();
            assert_eq!(state, (place.high_watermark.0 - 1).to_string(), "state and log are of the same commit");
        }
        // Leaving it open and unclosed now and then would be a kill as well; closing it alternates both starts.
        drop(store);
    }
}
