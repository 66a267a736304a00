//! What simulations found once, told in a few lines each, so that it stays found whatever becomes of the workloads.

use std::path::Path;

use bytes::Bytes;
use sim::{
    disk::{Cut, Durable, Loss, Op, SimDisk, Tree},
    session::on_disk,
};
use storage::{Commit, FileSystem, StateChange, StateTable, Store, StoreOptions};

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
