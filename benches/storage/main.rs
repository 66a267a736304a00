//! The store's figures, each against its target: programs that anyone can run.
//!
//! ```text
//! cargo bench-storage [ROW]... [--dir DIR] [--json] [--quick]
//! ```
//! which is short for `cargo bench --package benches --no-default-features --bench storage --`. Rows are `commit`,
//! `written`, `read`, `restart`, `scale`, `space` and `memory`; all of them when none is named. `DIR` decides which disk
//! is measured; up to 12 GiB of it are used, and given back at the end, however that comes.
//!
//! Speeds are told as ratios: a turn of the baseline, a turn of the store, and so on in one run, and the median over
//! the pairs. What else the machine does falls on both. `--quick` does less of everything, with less data: to see that
//! it works, not to judge by.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod commit;
mod data_dir;
#[path = "../figure.rs"]
mod figure;
mod load;
mod memory;
mod process;
mod read;
mod restart;
mod scale;
mod space;
mod written;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{data_dir::DataDir, figure::Report, process::Role};

/// The one of the product: it is part of what a commit costs, and of what stays resident.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: storage [commit|written|read|restart|scale|space|memory]... [--dir DIR] [--json] [--quick]";

/// Disk that the largest row takes.
const DISK_BYTES: u64 = 12 << 30;
const DISK_BYTES_QUICK: u64 = 3 << 30;

/// What a row needs to be measured.
struct Bench {
    /// Empty; a row removes what it made.
    dir: PathBuf,
    quick: bool,
    report: Report,
}

impl Bench {
    /// One of two amounts: of data, or of turns.
    fn full_or_quick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A directory for one measurement, gone when `measure` returns.
    fn in_new_dir<R>(&mut self, measure: impl FnOnce(&mut Bench, &Path) -> Result<R>) -> Result<R> {
        let dir = tempfile::tempdir_in(&self.dir)?;
        measure(self, dir.path())
    }
}

type Row = (&'static str, fn(&mut Bench) -> Result<()>);

const ROWS: [Row; 7] = [
    ("commit", commit::run),
    ("written", written::run),
    ("read", read::run),
    ("restart", restart::run),
    ("scale", scale::run),
    ("space", space::run),
    ("memory", memory::run),
];

struct Arguments {
    rows: Vec<Row>,
    dir: PathBuf,
    json: bool,
    quick: bool,
}

impl Arguments {
    /// `None` when nothing is to be measured: `cargo test` runs benches too, without `--bench`.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Arguments>> {
        let mut parsed =
            Arguments { rows: Vec::new(), dir: env!("CARGO_TARGET_TMPDIR").into(), json: false, quick: false };
        let mut by_cargo_bench = false;
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str().unwrap_or_default() {
                "--bench" => by_cargo_bench = true,
                "--json" => parsed.json = true,
                "--quick" => parsed.quick = true,
                "--dir" => parsed.dir = arguments.next().context(USAGE)?.into(),
                name => {
                    let row = ROWS.iter().find(|(row, _)| *row == name);
                    parsed.rows.push(*row.with_context(|| format!("there is no row {argument:?}; {USAGE}"))?);
                }
            }
        }
        if parsed.rows.is_empty() && by_cargo_bench {
            parsed.rows = ROWS.to_vec();
        }
        Ok((!parsed.rows.is_empty()).then_some(parsed))
    }
}

fn main() -> Result<()> {
    if let Some(role) = Role::of_this_process()? {
        return role.play();
    }
    let Some(Arguments { rows, dir, json, quick }) = Arguments::parse(std::env::args_os().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    check_free(&dir, if quick { DISK_BYTES_QUICK } else { DISK_BYTES })?;
    let data_dir = DataDir::new_in(&dir)?;
    let mut bench = Bench { dir: data_dir.path().to_owned(), quick, report: Report::new(json) };
    for (name, run) in rows {
        bench.report.begin_row(name);
        run(&mut bench).with_context(|| format!("failed to measure `{name}`"))?;
    }
    bench.report.end();
    Ok(())
}

fn check_free(dir: &Path, wanted: u64) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let system = rustix::fs::statvfs(dir)?;
    let free = system.f_bavail * system.f_frsize;
    if free < wanted {
        let (free, wanted) = (free >> 30, wanted >> 30);
        bail!("`{}` has {free} GiB free, and {wanted} GiB are needed; choose another with `--dir`", dir.display());
    }
    Ok(())
}
