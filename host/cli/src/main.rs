//! `weir`, the one binary: the broker (`serve`), the commands that use one, and `demo`, which is both.
//!
//! Owns the command line: what is asked ([`cmd`]), where answers go ([`output`]), how it ends ([`exit`]). Never holds
//! anything a program would want without a terminal: that is `client` and `server`.
//!
//! Start at [`cmd::Command`].

mod batch_file;
mod builtin;
mod child;
mod clock;
mod cmd;
mod compiler;
mod connect;
mod exit;
mod human;
mod lines;
mod output;
mod place;
mod prober;
mod trial;
mod value;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::{cmd::Context, exit::Report, output::Output};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An edge streaming broker: records in over QUIC, through WASM plugins, stored before they are acknowledged.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100, propagate_version = true, after_long_help = exit::TABLE)]
#[command(after_help = "Start with `weir demo`. `weir COMMAND --help` has examples; `weir --help` lists exit codes.")]
struct Cli {
    #[command(flatten)]
    common: connect::Common,
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let json = cli.common.json;
    let context = Context { common: cli.common, out: Output::new(json) };
    match cmd::run(cli.command, context) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => end(&error, json),
    }
}

/// Tells of an error as its reader wants it, and turns it into the exit code.
fn end(error: &anyhow::Error, json: bool) -> ExitCode {
    let Some(report) = Report::of(error) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{}", if json { report.to_json() } else { report.to_text() });
    ExitCode::from(report.exit as u8)
}

/// Logs of the broker and the client: warnings, or what `WEIR_LOG` asks for (`WEIR_LOG=debug`, `WEIR_LOG=server=trace`).
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}
