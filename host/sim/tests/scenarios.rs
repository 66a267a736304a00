//! What simulations found once, told in a few lines each, so that it stays found whatever becomes of the workloads.

use std::path::Path;

use bytes::Bytes;
use sim::{
    disk::{Cut, Durable, FaultKind, Faults, Loss, Op, SimDisk, Tree},
    schedule,
    session::on_disk,
};
use storage::{Commit, FileSystem, RestorePoint, StateChange, StateTable, Store, StoreOptions, restore};

const DIR: &str = "/disk/data";

fn open(disk: &SimDisk) -> Store {
    Store::open(Path::new(DIR), on_disk(disk, &StoreOptions::default())).unwrap()
}

fn row(key: &'static str) -> Commit {
    let change =
        StateChange { table: StateTable::Positions, key: key.into(), value: Some(Bytes::from_static(b"there")) };
    Commit { state: vec![change], ..Commit::default() }
}

/// What is durable after some calls, and what may be.
fn after(begun_with: Durable, journal: &[Op]) -> Durable {
    let mut durable = begun_with;
    journal.iter().for_each(|op| durable.step(op));
    durable
}

/// A disk that lost all it could.
fn cut(durable: &Durable) -> SimDisk {
    let (tree, _) = durable.crash(Cut { bytes: Some(Loss::All), names: Loss::All }, &mut sim::rng::Rng::new(1));
    SimDisk::new(tree, 1)
}

#[test]
fn directories_that_a_killed_process_made_do_not_go_with_the_power() {
    let disk = SimDisk::new(Tree::empty(), 1);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let (begun_with, journal) = disk.history();
    let made = journal.iter().take_while(|op| matches!(op, Op::MakeDir { .. })).count();
    assert_eq!(made, 2, "the directory and the one above it");
    let killed = after(begun_with, &journal[..made]);
    let disk = SimDisk::after_kill(killed.seen(), killed, 1);
    let store = open(&disk);
    store.commit(row("first")).unwrap();
    let (begun_with, journal) = disk.history();
    let store_after = open(&cut(&after(begun_with, &journal)));
    assert!(store_after.state_get(StateTable::Positions, b"first").unwrap().is_some());
    store.close().unwrap();
}

/// A commit of which the write fails that comes after so many, a backup, a cut, and a restore.
fn back_up_behind_a_failed_write(after_writes: u64) {
    let disk = SimDisk::new(Tree::empty(), 1);
    let store = open(&disk);
    store.commit(row("first")).unwrap();
    let kind = FaultKind::ShortWrite;
    disk.set_faults(Some(Faults { kind, after: after_writes, count: 1, evict: false }));
    let _ = store.commit(row("second"));
    disk.set_faults(None);
    let backup = Path::new("/disk/backup");
    while store.backup(backup, None, &mut |_| Ok(()), &mut |_| true).is_err() {
        // The store goes on in a new segment as soon as it can.
        schedule::sleep(std::time::Duration::from_secs(1));
    }
    let (begun_with, journal) = disk.history();
    let left = cut(&after(begun_with, &journal));
    let options = on_disk(&left, &StoreOptions::default());
    let restored = restore(backup, Path::new("/disk/restored"), RestorePoint::Latest, options.clone(), &mut |_| true);
    let restored = restored.unwrap_or_else(|error| panic!("behind write {after_writes}: {error}"));
    let store = Store::open(restored.dir(), options).unwrap();
    assert!(store.state_get(StateTable::Positions, b"first").unwrap().is_some());
}

#[test]
fn a_backup_has_nothing_of_a_segment_that_goes_with_the_power() {
    for after_writes in 0..6 {
        schedule::run(after_writes, move || back_up_behind_a_failed_write(after_writes)).unwrap();
    }
}
