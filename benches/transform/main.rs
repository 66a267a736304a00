//! The figures of the plugin engine, each against its target: programs that anyone can run.
//!
//! ```text
//! cargo bench-transform [ROW]... [--json] [--quick]
//! ```
//! which is short for `cargo bench --package benches --no-default-features --features transform --bench transform --`.
//! Rows are `records`, `batches`, `idle` and `neighbours`; all of them when none is named.
//!
//! What goes through a guest is told beside the same work done by native code: the same checks of the records, the same
//! decision, the same framing of what is left. A turn of the one, a turn of the other, and so on in one run, in CPU
//! time of the thread, and the median over the pairs: what else the machine does falls on both. `--quick` takes fewer
//! turns: to see that it works, not to judge by.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod batches;
mod engine;
#[path = "../figure.rs"]
mod figure;
mod guests;
mod idle;
mod native;
mod neighbours;
mod process;
mod records;
mod timing;

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::{figure::Report, process::Role};

/// The one of the product: it is part of what a batch costs, and of what stays resident.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: transform [records|batches|idle|neighbours]... [--json] [--quick]";

/// What a row needs to be measured.
struct Bench {
    quick: bool,
    report: Report,
}

impl Bench {
    /// One of two amounts of turns.
    fn full_or_quick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Row = (&'static str, fn(&mut Bench) -> Result<()>);

const ROWS: [Row; 4] =
    [("records", records::run), ("batches", batches::run), ("idle", idle::run), ("neighbours", neighbours::run)];

struct Arguments {
    rows: Vec<Row>,
    json: bool,
    quick: bool,
}

impl Arguments {
    /// `None` when nothing is to be measured: `cargo test` runs benches too, without `--bench`.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Arguments>> {
        let mut parsed = Arguments { rows: Vec::new(), json: false, quick: false };
        let mut by_cargo_bench = false;
        for argument in arguments {
            match argument.to_str().unwrap_or_default() {
                "--bench" => by_cargo_bench = true,
                "--json" => parsed.json = true,
                "--quick" => parsed.quick = true,
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
    let Some(Arguments { rows, json, quick }) = Arguments::parse(std::env::args_os().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let mut bench = Bench { quick, report: Report::new(json) };
    for (name, run) in rows {
        bench.report.begin_row(name);
        run(&mut bench).with_context(|| format!("failed to measure `{name}`"))?;
    }
    bench.report.end();
    Ok(())
}
