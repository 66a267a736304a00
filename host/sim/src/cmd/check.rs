//! `weir-sim check`: judges a history that was kept.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use sim::checker::{self, Report, history::History};

/// Which history.
#[derive(Args)]
pub(crate) struct Check {
    /// A file of JSON lines
    file: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> ExitCode {
        match judge(&self.file) {
            Ok(report) => {
                print(&report);
                if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn judge(file: &PathBuf) -> anyhow::Result<Report> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the history `{}`", file.display()))?;
    let history = History::from_lines(text.lines()).with_context(|| format!("`{}` is no history", file.display()))?;
    Ok(checker::check(&history))
}

fn print(report: &Report) {
    println!("{:?}", report.counts);
    for violation in &report.violations {
        println!("{violation}");
    }
    for (kind, count) in &report.found {
        println!("{count:>8}  {}", kind.name());
    }
    if report.is_clean() {
        println!("nothing is broken");
    }
}
