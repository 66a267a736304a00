//! `weir-sim`: parses the command line, runs a command, and ends.
//!
//! Start at [`Command`].

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A sixth of the time of a cut is this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Power cuts and disk faults on the real store, in memory")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cuts the power of many seeds
    Run(cmd::run::Run),
    /// Cuts the power of one seed again, as it was
    Replay(cmd::replay::Replay),
    /// Judges a history of what clients of a broker saw
    Check(cmd::check::Check),
    /// Damages the files of stores, bit by bit and file by file
    Damage(cmd::damage::Damage),
    /// Lets every call to the disk fail, one after the other
    Faults(cmd::faults::FaultsCommand),
    /// Lets a whole broker live and die with its clients
    #[cfg(feature = "broker")]
    Broker(cmd::broker::Broker),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        Command::Check(check) => check.run(),
        Command::Damage(damage) => damage.run(),
        Command::Faults(faults) => faults.run(),
        #[cfg(feature = "broker")]
        Command::Broker(broker) => broker.run(),
    }
}
